"""One call, from attempt to attempt: its wait, its way through the wire, its judgement."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
from aiohttp import hdrs
from yarl import URL

from aiotwhelp import answers, events
from aiotwhelp.errors import (
    AuthError,
    BodyNotReplayableError,
    EndpointRetiredError,
    RateLimitError,
    SessionClosedError,
)
from aiotwhelp.limiter import Permit
from aiotwhelp.middleware import NEVER_LEFT, Caller, Pass, PermitNeeded
from aiotwhelp.pool import Pool
from aiotwhelp.queues import Priority
from aiotwhelp.retries import (
    CLOCK_IS_OFF,
    DONE_BEFORE,
    REFUSALS,
    Failure,
    Retries,
    may_be_mended,
    may_be_repeated,
)
from aiotwhelp.routes import expand

logger = logging.getLogger("aiotwhelp")

T = TypeVar("T")

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class _Unset:
    """The type of an option that was not given, where None means something."""


_UNSET = _Unset()


@dataclass(frozen=True, slots=True)
class Settings:
    """What a session lays down for its calls; see `aiotwhelp.Session`."""

    caller: Caller
    pool: Pool
    retries: Retries
    max_wait: float | None
    total_timeout: float | None
    priority: Priority
    coalesce: bool
    middlewares: tuple[aiohttp.ClientMiddlewareType, ...]

    def url(self, path: str | URL, path_params: Mapping[str, object] | None) -> URL:
        """Return the whole URL of a path, its templates filled."""
        if path_params is not None:
            path = expand(str(path), path_params)
        return URL(self.caller.api.url(path))


class Call:
    """One call, with everything that is kept from attempt to attempt."""

    __slots__ = (
        "_caller",
        "_client_options",
        "_corrected_clock",
        "_cost",
        "_data_start",
        "_deadline",
        "_key",
        "_max_wait",
        "_method",
        "_middlewares",
        "_pass",
        "_pool",
        "_priority",
        "_raise_for_status",
        "_refusals",
        "_rejected",
        "_retries",
        "_ticket",
        "_total",
        "_url",
        "_waited",
    )

    def __init__(
        self, settings: Settings, method: str, path: str | URL, options: Mapping[str, Any]
    ) -> None:
        own = dict(options)
        self._caller = settings.caller
        self._pool = settings.pool
        self._method = method.upper()
        self._url = settings.url(path, own.pop("path_params", None))
        self._max_wait = _given("max_wait", own, settings.max_wait)
        self._total = _given("total_timeout", own, settings.total_timeout)
        self._priority = Priority(own.pop("priority", settings.priority))
        retries = own.pop("retries", settings.retries.retries)
        self._retries = settings.retries.with_retries(retries)
        self._cost = own.pop("cost", 1)
        self._middlewares = (*settings.middlewares, *(own.pop("middlewares", None) or ()))
        self._raise_for_status = own.pop("raise_for_status", None)
        self._key = self._caller.key(self._method, self._url)
        self._client_options = own
        self._ticket: int | None = None
        self._deadline: float | None = None
        self._waited = 0.0
        self._refusals = 0
        self._rejected = False
        self._corrected_clock = False
        self._pass: Pass | None = None
        self._data_start = _position(own.get("data"))
        if self._caller.auth is not None and _has_authorization(own.get("headers")):
            raise ValueError("pass auth= to the session or an Authorization header, not both")

    async def run(self, finish: Callable[[Call, aiohttp.ClientResponse], Awaitable[T]]) -> T:
        """Make attempts until one is done, within the total timeout."""

        async def attempt() -> T:
            return await self._attempt(finish)

        async def everything() -> T:
            return await self._retries.run(attempt, pause=self._pause, time_left=self._time_left)

        pool = self._pool
        pool.begin()
        try:
            if self._total is None:
                return await everything()
            self._deadline = asyncio.get_running_loop().time() + self._total
            async with asyncio.timeout_at(self._deadline):
                return await everything()
        finally:
            pool.end()

    # One attempt -------------------------------------------------------------------------------

    async def _attempt(self, finish: Callable[[Call, aiohttp.ClientResponse], Awaitable[T]]) -> T:
        """Go to the gate, and through it, as often as the server sends the call back there."""
        while True:
            response = await self._send()
            if response is None:
                continue
            if response.status >= 400 and await self._is_sent_back(response):
                continue
            try:
                return await finish(self, response)
            except (
                aiohttp.ClientPayloadError,
                aiohttp.ClientConnectionError,
                TimeoutError,
            ) as error:
                response.close()
                raise self._failed(error, never_left=False) from error
            except BaseException:
                response.close()
                raise

    async def _send(self) -> aiohttp.ClientResponse | None:
        """Wait for a permit and send once; None if a hop inside must wait for its own."""
        permit = await self._permit()
        self._pass = one = Pass(self._pool.limiter, self._caller, permit)
        try:
            return await self._pool.client.request(
                self._method,
                self._url,
                raise_for_status=False,
                middlewares=(*self._middlewares, one),
                **self._client_options,
            )
        except PermitNeeded as hop:
            self._follow(hop)
            return None
        except AuthError as error:
            if error.status >= 500:
                raise Failure("the token endpoint failed", error=error) from error
            raise
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if self._pool.is_closed:
                raise SessionClosedError("the session was closed during a call") from error
            raise self._failed(error, never_left=one.sends == 0) from error
        finally:
            if not permit.is_settled:
                # It never reached the wire: a bad URL, or a middleware that answered itself.
                permit.unsent()

    async def _permit(self) -> Permit:
        """Wait for a permit, within what is left of ``max_wait`` and the total timeout."""
        limiter = self._pool.limiter
        _ = self._pool.client
        dialect = self._caller.api.dialect
        permit = None
        if self._ticket is None:
            permit = limiter.try_acquire(
                self._key,
                cost=self._cost,
                priority=self._priority,
                dialect=dialect,
                room=self._pool.room,
            )
            if permit is not None:
                return permit
            self._ticket = limiter.ticket()
        permit = await limiter.acquire(
            self._key,
            cost=self._cost,
            priority=self._priority,
            max_wait=self._patience(),
            dialect=dialect,
            ticket=self._ticket,
            room=self._pool.room,
            owner=self._pool,
        )
        self._waited += permit.waited
        return permit

    def _patience(self) -> float | None:
        """Return how long this attempt may wait for quota, in seconds."""
        left = math.inf if self._max_wait is None else self._max_wait - self._waited
        left = min(left, self._time_left())
        return None if left == math.inf else max(0.0, left)

    def _time_left(self) -> float:
        if self._deadline is None:
            return math.inf
        return self._deadline - asyncio.get_running_loop().time()

    async def _pause(self, delay: float, failure: Failure, attempt: int) -> None:
        """Sleep between two attempts, holding nothing."""
        if failure.free is not None:
            await failure.free()
        self._rewind()
        limiter = self._pool.limiter
        logger.debug("%s again in %.1f s: %s", self._key, delay, failure.reason)
        if limiter.is_heard:
            limiter.tell(
                events.Retrying(str(self._key), self._key.identity, attempt, failure.reason, delay)
            )
        await self._pool.pause(delay)
        if self._ticket is None:
            self._ticket = limiter.ticket()

    def _follow(self, hop: PermitNeeded) -> None:
        """Go on at a redirect hop, or at a resend of aiohttp's own."""
        options = self._client_options
        if hop.method != self._method:
            # 303, or a redirected POST: the body stays behind (RFC 9110, 15.4).
            for name in ("data", "json"):
                options.pop(name, None)
        if hop.url != self._url:
            options.pop("params", None)
            if hop.url.origin() != self._url.origin():
                options["headers"] = _without_credentials(options.get("headers"))
        self._method, self._url = hop.method, hop.url
        self._key = self._caller.key(hop.method, hop.url)
        self._rewind()

    def _rewind(self) -> None:
        """See to it that the body can be sent once more."""
        data = self._client_options.get("data")
        if data is None or isinstance(data, (bytes, bytearray, memoryview, str, aiohttp.FormData)):
            return
        if self._data_start is not None:
            if not getattr(data, "closed", False):
                data.seek(self._data_start)
                return
        elif self._pass is None or not self._pass.body_is_spent:
            return
        raise BodyNotReplayableError(
            f"{self._method} {self._url} should go again, but its body is used up: "
            "pass bytes, JSON, or a file that can seek and stays open"
        )

    # Judging -----------------------------------------------------------------------------------

    def _failed(self, error: BaseException, *, never_left: bool) -> BaseException:
        """Return what to raise for a failed connection: the error, or that it may be mended."""
        never_left = never_left or isinstance(error, NEVER_LEFT)
        if not isinstance(
            error, (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)
        ):
            return error
        if not may_be_repeated(self._method, self._caller.api.idempotent, never_left=never_left):
            return error
        return Failure(
            f"{type(error).__name__}: {error}",
            error=error,
            timed_out=isinstance(error, TimeoutError),
        )

    async def _is_sent_back(self, response: aiohttp.ClientResponse) -> bool:
        """Judge an error: True sends the call back to the gate; otherwise it is the answer."""
        status = response.status
        if status in REFUSALS:
            await self._refused(response)
            return True
        if status in (401, 403):
            return await self._is_authorized_anew(response)
        if status == 402:
            raise answers.as_error(response, await answers.read_error(response))
        if status in (404, 410):
            await self._raise_if_retired(response)
        elif may_be_mended(
            self._method, self._caller.api.idempotent, status, self._retry_after(response)
        ):
            raise Failure(
                f"status {status}",
                result=response,
                after=self._retry_after(response),
                free=lambda: answers.free(response),
            )
        return False

    async def _refused(self, response: aiohttp.ClientResponse) -> None:
        """Take in a refusal for the rate; raises if it outlasts the policy, or no wait helps."""
        body = await answers.read_error(response)
        response.release()
        if body.is_cap:
            raise answers.as_error(response, body)
        self._refusals += 1
        if self._refusals > self._retries.refusals:
            quota = self._pool.limiter.quota(self._key)
            raise RateLimitError(
                answers.describe(response, body),
                limit=quota.limit,
                remaining=quota.remaining,
                resets_at=quota.resets_at,
                retry_after=quota.resets_in,
                **answers.evidence(response, body),
            )
        if self._ticket is None:
            self._ticket = self._pool.limiter.ticket()
        self._rewind()

    async def _is_authorized_anew(self, response: aiohttp.ClientResponse) -> bool:
        """Correct the clock or renew the token, once each; or find that a write had worked."""
        body = await answers.read_error(response)
        auth = self._caller.auth
        one = self._pass
        if DONE_BEFORE.intersection(body.codes) and self._was_tried_before():
            error = answers.as_error(response, body)
            error.add_note(
                "An earlier attempt of this call got no answer, and it had worked: "
                "what was asked for is done."
            )
            raise error
        if auth is None or one is None or not one.authorization:
            return False
        if CLOCK_IS_OFF in body.codes:
            # The answer's Date has corrected the clock by now.
            sent_back, self._corrected_clock = not self._corrected_clock, True
        else:
            now = self._pool.limiter.server_time(self._caller.host)
            renewable = auth.rejected(one.authorization, response.status, body.codes, now)
            sent_back = renewable and not self._rejected
            self._rejected = self._rejected or renewable
        if sent_back:
            response.release()
            self._rewind()
        return sent_back

    def _was_tried_before(self) -> bool:
        return self._method in _WRITES and self._ticket is not None

    async def _raise_if_retired(self, response: aiohttp.ClientResponse) -> None:
        endpoint = self._caller.api.endpoint(self._method, self._url)
        if endpoint is None or endpoint.farewell is None:
            return
        body = await answers.read_error(response)
        raise EndpointRetiredError(endpoint.farewell, **answers.evidence(response, body))

    # Finishing ---------------------------------------------------------------------------------

    async def raise_for_status(self, response: aiohttp.ClientResponse) -> None:
        """Do what aiohttp does for ``raise_for_status``, without a credential in the error."""
        wanted = self._raise_for_status
        if wanted is None:
            wanted = self._pool.raise_for_status
        if callable(wanted):
            await wanted(response)
        elif wanted and response.status >= 400:
            raise answers.as_error(response, await answers.read_error(response))

    async def read_json(self, response: aiohttp.ClientResponse, most: int) -> bytes:
        """Return a body that is JSON, undecoded, so that each caller decodes a copy of its own."""
        if response.status >= 400:
            raise answers.as_error(response, await answers.read_error(response))
        body = await answers.read_within(response, most)
        if body is None:
            raise answers.body_error(response, f"the body is larger than {most} bytes")
        try:
            decode(body)
        except (ValueError, RecursionError) as error:
            raise self._undecodable(response, body) from error
        return body

    def _undecodable(self, response: aiohttp.ClientResponse, body: bytes) -> BaseException:
        error = answers.body_error(response, "the body is not JSON", body)
        is_delimited = hdrs.CONTENT_LENGTH in response.headers or (
            "chunked" in response.headers.get(hdrs.TRANSFER_ENCODING, "").lower()
        )
        if is_delimited or self._method not in self._caller.api.idempotent:
            return error
        return Failure("a body that broke off", error=error)

    def _retry_after(self, response: aiohttp.ClientResponse) -> float | None:
        if hdrs.RETRY_AFTER not in response.headers:
            return None
        return self._caller.api.dialect.read(response.headers).retry_after


def decode(body: bytes) -> Any:
    """Decode a JSON body; an empty one is None."""
    return json.loads(body) if body.strip() else None


def seconds(name: str, value: float | None) -> float | None:
    """Check an option that is a time span."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError(f"{name} is a number of seconds from 0 on, or None, not {value!r}")
    return float(value)


def _given(name: str, options: dict[str, Any], default: float | None) -> float | None:
    value = options.pop(name, _UNSET)
    return default if value is _UNSET else seconds(name, value)


def _position(data: object) -> int | None:
    """Return where a file stands, so that it can be sent again from there."""
    tell = getattr(data, "tell", None)
    if tell is None or not getattr(data, "seekable", lambda: False)():
        return None
    position = tell()
    return position if isinstance(position, int) else None


def _has_authorization(headers: Any) -> bool:
    return any(str(name).lower() == "authorization" for name in headers or ())


def _without_credentials(headers: Any) -> Any:
    """Leave out what aiohttp leaves out on the way to another origin."""
    if not headers:
        return headers
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    secret = {"authorization", "cookie", "proxy-authorization"}
    return [(name, value) for name, value in pairs if str(name).lower() not in secret]
