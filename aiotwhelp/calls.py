"""One call, from attempt to attempt: its wait, its way through the wire, its end."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any, TypeVar

import aiohttp
from aiohttp import hdrs
from yarl import URL

from aiotwhelp import answers, checks, events
from aiotwhelp.auth import secrets_in
from aiotwhelp.bodies import Body
from aiotwhelp.errors import (
    AiotwhelpError,
    ApiError,
    BodyNotReplayableError,
    SessionClosedError,
    hide,
    hide_request,
)
from aiotwhelp.judge import Judge
from aiotwhelp.limiter import Permit
from aiotwhelp.middleware import Caller, Pass, PermitNeeded
from aiotwhelp.pool import Pool
from aiotwhelp.queues import Priority
from aiotwhelp.retries import Failure, Retries
from aiotwhelp.routes import expand, is_template

logger = logging.getLogger("aiotwhelp")

T = TypeVar("T")

#: What makes of an answer what the caller wants; it raises for an answer that is an error.
Finish = Callable[["Call", aiohttp.ClientResponse], Awaitable[T]]

#: aiohttp's own default.
_MAX_REDIRECTS = 10


#: The API's code, with a 400, for a call without a usable credential.
NO_CREDENTIAL = 215

#: Options of one call: ours, and everything that aiohttp takes.
OPTIONS = frozenset(
    {"path_params", "max_wait", "total_timeout", "priority", "retries", "cost", "middlewares"}
).union(signature(aiohttp.ClientSession._request).parameters) - {  # noqa: SLF001
    "self",
    "method",
    "str_or_url",
}

_ELSEWHERE = {
    "coalesce": "it is an option of fetch, or of the session",
    "max_body": "it is an option of fetch",
}

#: What is passed as ``middlewares``, for errors.
MIDDLEWARES = "aiohttp's client middlewares, async def (request, handler)"


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
        if path_params is not None or is_template(str(path)):
            path = expand(str(path), path_params)
        return URL(self.caller.api.url(path))


class Call:
    """One call, with everything that is kept from attempt to attempt."""

    __slots__ = (
        "_body",
        "_caller",
        "_client_options",
        "_cost",
        "_deadline",
        "_has_left",
        "_history",
        "_is_queued",
        "_judge",
        "_key",
        "_max_wait",
        "_method",
        "_middlewares",
        "_pass",
        "_pool",
        "_priority",
        "_raise_for_status",
        "_retries",
        "_ticket",
        "_total",
        "_url",
        "_waited",
    )

    def __init__(
        self, settings: Settings, method: str, path: str | URL, options: Mapping[str, Any]
    ) -> None:
        checks.known(options, OPTIONS, _ELSEWHERE)
        own = dict(options)
        self._caller = settings.caller
        self._pool = settings.pool
        self._method = checks.instance("method", method, str, "a word such as 'GET'").upper()
        self._url = settings.url(path, own.pop("path_params", None))
        self._max_wait = _given("max_wait", own, settings.max_wait)
        self._total = _given("total_timeout", own, settings.total_timeout)
        priority = own.pop("priority", settings.priority)
        self._priority = checks.member("priority", priority, Priority)
        retries = own.pop("retries", settings.retries.retries)
        self._retries = settings.retries.with_retries(retries)
        self._cost = self._caller.cost(self._method, self._url, own.pop("cost", None))
        added = checks.functions("middlewares", own.pop("middlewares", None) or (), MIDDLEWARES)
        self._middlewares = (*settings.middlewares, *added)
        self._raise_for_status = own.pop("raise_for_status", None)
        if self._caller.auth is not None and has_credential(own):
            raise ValueError(
                "the session has a credential: no Authorization header and no auth= for one call "
                "(for another user's call there is as_user)"
            )
        self._body = Body(own.pop("data", None))
        self._key = self._caller.key(self._method, self._url)
        self._client_options = own
        self._ticket: int | None = None
        self._deadline: float | None = None
        self._waited = 0.0
        self._has_left = False
        self._is_queued = False
        #: Answers that sent the call elsewhere, up to the hop that it goes on at.
        self._history: tuple[aiohttp.ClientResponse, ...] = ()
        self._judge: Judge | None = None
        self._pass: Pass | None = None

    async def run(self, finish: Finish[T]) -> T:
        """Make attempts until one is done, within the total timeout."""
        attempt = partial(self._attempt, finish)
        if self._total is not None:
            self._deadline = asyncio.get_running_loop().time() + self._total
        limit = asyncio.timeout_at(self._deadline)
        self._pool.begin(limit)
        try:
            async with limit:
                return await self._retries.run(
                    attempt, pause=self._pause, time_left=self._time_left
                )
        except TimeoutError as error:
            if not limit.expired():
                raise
            if limit.when() != self._deadline:
                raise SessionClosedError("the session was closed during a call") from error
            raise self._out_of_time() from error
        except AiotwhelpError as error:
            if self._pass is not None:
                hide(error, secrets_in(self._pass.authorization))
            raise
        finally:
            self._pool.end(limit)
            self._body.close()
            # It holds the task, which may hold an error, whose traceback leads here.
            del limit

    # One attempt -------------------------------------------------------------------------------

    async def _attempt(self, finish: Finish[T]) -> T:
        """Go to the gate, and through it, as often as the server sends the call back there."""
        while True:
            response = await self._send()
            if response is None:
                continue
            if self._history:
                # aiohttp knows of the hops since the last wait only.
                response._history = self._history + response._history  # noqa: SLF001
            try:
                if response.status >= 400 and await self._goes_back(response, finish):
                    continue
                return await finish(self, response)
            except Failure:
                raise  # it frees the response itself
            except Exception as error:
                response.close()
                self._judged().of_failure(self._method, error)
                raise
            except BaseException:
                response.close()
                raise

    async def _goes_back(self, response: aiohttp.ClientResponse, finish: Finish[T]) -> bool:
        """Have an error judged: True sends the call back to the gate; else it is the answer."""
        assert self._pass is not None  # noqa: S101 - a response has passed, for the type checker
        otherwise = partial(_finished, self, response, finish)
        cause = await self._judged().of_answer(
            response, self._pass, self._method, self._url, otherwise
        )
        if cause is not None:
            self._rewind(cause)
        return cause is not None

    def _judged(self) -> Judge:
        """Return the judge of this call: most calls need none."""
        if self._judge is None:
            self._judge = Judge(self._caller, self._pool, self._retries.refusals)
        return self._judge

    async def _send(self) -> aiohttp.ClientResponse | None:
        """Wait for a permit and send once; None if a hop inside must wait for its own."""
        permit = await self._permit()
        self._pass = one = Pass(
            self._pool.limiter,
            self._caller,
            permit,
            cost=self._cost,
            priority=self._priority,
            has_left=self._has_left,
            budget=self._retries.budget,
        )
        try:
            return await self._pool.client.request(
                self._method,
                self._url,
                data=self._body.data(),
                raise_for_status=False,
                middlewares=(*self._middlewares, one),
                **self._client_options,
            )
        except PermitNeeded as hop:
            if one.broken is not None:
                # A resend of aiohttp's own: it becomes one of ours, which are counted.
                self._judged().of_failure(self._method, one.broken)
                raise one.broken from one.broken.__cause__
            self._has_left = one.has_left
            self._history += tuple(one.history)
            self._follow(hop, one.sends)
            return None
        except Exception as error:
            hide_request(error)
            if one.hides_a_cancellation(error):
                raise asyncio.CancelledError from error
            self._judged().of_failure(self._method, error, never_left=one.sends == 0)
            raise
        except BaseException:
            if one.answer is not None:
                # A middleware of the user's was cut off with the answer in its hands.
                one.answer.close()
            raise
        finally:
            one.broken = None  # its traceback leads here: they would hold each other
            if one.unanswered:
                self._judged().note_unanswered()
            if not permit.is_settled:
                # It never reached the wire: a bad URL, or a middleware that answered itself.
                permit.unsent()

    async def _permit(self) -> Permit:
        """Wait for a permit, within what is left of ``max_wait`` and the total timeout."""
        limiter = self._pool.limiter
        _ = self._pool.client  # raises if it is closed, and bounds the room
        if self._ticket is None:
            # From the start, so that a call that is sent back goes before all who came later.
            self._ticket = limiter.ticket()
        self._is_queued = True
        permit = await limiter.acquire(
            self._key,
            cost=self._cost,
            priority=self._priority,
            max_wait=self._patience(),
            dialect=self._caller.api.dialect,
            ticket=self._ticket,
            room=self._pool.room,
            owner=self._pool,
        )
        self._is_queued = False
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

    def _out_of_time(self) -> TimeoutError:
        """Say what the call was at when its total timeout came; asyncio's own error says nothing.

        In the queue that timer may ring before the limiter's own for the same instant.
        """
        total = self._total or 0.0
        if self._is_queued:
            return self._pool.limiter.timed_out(self._key, total)
        return TimeoutError(f"{self._key} had no answer within its total_timeout of {total:g} s")

    async def _pause(self, delay: float, failure: Failure, attempt: int) -> None:
        """Sleep between two attempts, holding nothing."""
        if failure.free is not None:
            await failure.free()
        self._rewind(failure.error)
        limiter = self._pool.limiter
        logger.debug("%s again in %.1f s: %s", self._key, delay, failure.reason)
        if limiter.is_heard:
            limiter.tell(
                events.Retrying(str(self._key), self._key.identity, attempt, failure.reason, delay)
            )
        await self._pool.pause(delay)

    def _follow(self, hop: PermitNeeded, sends: int) -> None:
        """Go on at a redirect hop."""
        self._count_redirects(hop, sends)
        options = self._client_options
        _drop(options, "params")  # they are in the URL by now, or were for another
        if hop.url.origin() != self._url.origin():
            # What aiohttp leaves behind on the way to another origin.
            _drop(options, "auth", "cookies")
            _drop_headers(options, "Authorization", "Cookie", "Proxy-Authorization")
        if hop.method != self._method:
            # 303, or a redirected POST: the body stays behind (RFC 9110, 15.4).
            self._body.close()
            self._body = Body(None)
            _drop(options, "json")
            _drop_headers(options, "Content-Type", "Content-Length")
        self._method, self._url = hop.method, hop.url
        self._key = self._caller.key(hop.method, hop.url)
        self._rewind(hop)

    def _count_redirects(self, hop: PermitNeeded, redirects: int) -> None:
        """Leave as many redirects as aiohttp would; its 0 is no bound."""
        allowed = self._client_options.get("max_redirects", _MAX_REDIRECTS)
        if allowed:
            if redirects >= allowed:
                raise aiohttp.TooManyRedirects(hop.request_info, self._history)
            self._client_options["max_redirects"] = allowed - redirects

    def _rewind(self, cause: Exception) -> None:
        """See to it that the body can be sent once more."""
        was_sent = self._pass is not None and self._pass.sends > 0
        if was_sent and not self._body.can_be_sent_again:
            raise BodyNotReplayableError(
                f"{self._key} should go again, but its body is used up: "
                "pass bytes, JSON, or a file that can seek"
            ) from cause

    # Finishing ---------------------------------------------------------------------------------

    async def raise_for_status(self, response: aiohttp.ClientResponse) -> None:
        """Do what aiohttp does for ``raise_for_status``, without a credential in the error."""
        wanted: Any = self._raise_for_status
        if wanted is None:
            wanted = self._pool.raise_for_status
        if wanted is not True and wanted:
            await wanted(response)
        elif wanted and response.status >= 400:
            raise await self._error(response)

    async def read_json(self, response: aiohttp.ClientResponse, most: int) -> answers.Json:
        """Return a body of at most so many bytes that is JSON; raises for an error's answer."""
        if response.status >= 400:
            raise await self._error(response)
        body = await answers.read_within(response, most)
        if body is None:
            raise answers.body_error(response, f"the body is larger than {most} bytes")
        try:
            return answers.Json(response, body, answers.decode(body))
        except (ValueError, RecursionError) as problem:
            message = "the body is not JSON"
            if answers.is_delimited(response) or self._method not in self._caller.api.idempotent:
                raise answers.body_error(response, message, body) from problem
            error = answers.body_error(response, message, body)
            raise Failure("a body that broke off", error=error) from problem

    async def _error(self, response: aiohttp.ClientResponse) -> ApiError:
        """Read an answer that is an error, and say where a credential was wanted and not given."""
        error = answers.as_error(response, await answers.read_error(response))
        is_signed = hdrs.AUTHORIZATION in response.request_info.headers
        is_unknown = response.status == 401 or NO_CREDENTIAL in error.codes
        if is_unknown and self._caller.auth is None and not is_signed:
            error.message += "; no credential was given: pass auth= to the session"
        return error


async def _finished(call: Call, response: aiohttp.ClientResponse, finish: Finish[T]) -> T:
    """Finish with an answer that no attempt has mended."""
    try:
        return await finish(call, response)
    except BaseException:
        response.close()
        raise


def _given(name: str, options: dict[str, Any], default: float | None) -> float | None:
    value = options.pop(name, _UNSET)
    return default if value is _UNSET else checks.seconds(name, value)


def has_credential(options: Mapping[str, Any]) -> bool:
    """Tell whether aiohttp's options bring a credential of their own."""
    return options.get("auth") is not None or any(
        str(name).lower() == "authorization" for name, _ in _pairs(options.get("headers"))
    )


def _drop(options: dict[str, Any], *names: str) -> None:
    for name in names:
        options.pop(name, None)


def _drop_headers(options: dict[str, Any], *names: str) -> None:
    unwanted = {name.lower() for name in names}
    pairs = _pairs(options.get("headers"))
    options["headers"] = [(name, each) for name, each in pairs if str(name).lower() not in unwanted]


def _pairs(headers: Any) -> list[tuple[Any, Any]]:
    return list(headers.items() if isinstance(headers, Mapping) else headers or ())
