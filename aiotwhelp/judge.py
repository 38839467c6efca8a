"""What becomes of a call whose attempt failed, or whose answer is an error.

The call goes back to the gate, is worth another try, or has ended. A call that goes well never
needs a judge.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import Any

import aiohttp
from aiohttp import hdrs
from yarl import URL

from aiotwhelp import answers
from aiotwhelp.deadlines import OUT_OF_TIME
from aiotwhelp.errors import (
    AiotwhelpError,
    AuthError,
    EndpointRetiredError,
    RateLimitError,
    SessionClosedError,
)
from aiotwhelp.headers import Reading
from aiotwhelp.middleware import NEVER_LEFT, Caller, Pass
from aiotwhelp.pool import Pool
from aiotwhelp.retries import (
    CLOCK_IS_OFF,
    DONE_BEFORE,
    PASSING,
    REFUSALS,
    Failure,
    may_be_mended,
    may_be_repeated,
)

_QUERY = re.compile(r"\?[^\s'\"]+")

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})

#: Failures of a connection that another attempt may not meet.
_TRANSPORT = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)

#: What aiohttp may raise in a call when its session is closed.
_CUT_OFF = (*_TRANSPORT, OSError, AssertionError, RuntimeError)

#: 404 with one of these is about an endpoint that is gone: 34 is "that page does not exist".
#: Others (50, no such user; 144, no such status) are about what was asked for.
_GONE = frozenset({34, 251})


class Judge:
    """Judges the attempts of one call, and remembers what it has allowed already."""

    __slots__ = (
        "_caller",
        "_corrected_clock",
        "_may_be_done",
        "_most_refusals",
        "_pool",
        "_refusals",
        "_rejected",
    )

    def __init__(self, caller: Caller, pool: Pool, most_refusals: int) -> None:
        self._caller = caller
        self._pool = pool
        self._most_refusals = most_refusals
        self._refusals = 0
        self._rejected = False
        self._corrected_clock = False
        self._may_be_done = False

    def note_unanswered(self) -> None:
        """Note an attempt without an answer: it may have been carried out."""
        self._may_be_done = True

    def of_failure(self, method: str, error: Exception, *, never_left: bool = False) -> None:
        """Raise what an error means: that it may be mended, or that the session was closed.

        Returns if nothing says it better than the error itself.
        """
        if isinstance(error, AuthError) and error.retry_after is not None:
            after = max(error.retry_after, self._retry_after(error.headers) or 0.0)
            raise Failure("the token endpoint failed", error=error, after=after) from error
        if self._pool.is_closed and isinstance(error, SessionClosedError):
            # The limiter's own words, which a caller who made none cannot place.
            raise SessionClosedError("the session was closed during a call") from None
        if isinstance(error, AiotwhelpError):
            return
        if self._pool.is_closed and isinstance(error, _CUT_OFF):
            raise SessionClosedError("the session was closed during a call") from error
        if not isinstance(error, _TRANSPORT):
            return
        if type(error) is TimeoutError and not error.args:  # aiohttp's own text is empty
            error.args = (OUT_OF_TIME,)
        never_left = never_left or isinstance(error, NEVER_LEFT)
        if may_be_repeated(method, self._caller.api.idempotent, never_left=never_left):
            raise Failure(_reason(error), error=error) from error

    async def of_answer(
        self,
        response: aiohttp.ClientResponse,
        one: Pass,
        method: str,
        url: URL,
        otherwise: Callable[[], Awaitable[Any]],
    ) -> Exception | None:
        """Judge an answer from 400 on.

        Returns why the call goes back to the gate, the answer being let go; None if the answer is
        the caller's. Raises what ends the call, and `Failure` if another attempt may mend it;
        ``otherwise`` makes the result if none does.
        """
        status = response.status
        if one.is_gated and one.reading is not None:
            reading = await self._with_body(response, one, one.reading)
            if reading.refused:
                return await self._refused(response, reading)
        if status in (401, 403):
            return await self._unauthorized(response, method, one)
        if status == 402:
            raise answers.as_error(response, await answers.read_error(response))
        if status in (404, 410):
            await self._raise_if_retired(response, method, url)
        elif status in PASSING or status in REFUSALS:
            self._raise_if_passing(response, method, otherwise)
        return None

    async def _with_body(
        self, response: aiohttp.ClientResponse, one: Pass, said: Reading
    ) -> Reading:
        """Return what an answer says, by its body too where that may be what refuses the call."""
        status = response.status
        spoken = self._caller.api.dialect.spoken(said)
        dialect = next((each for each in spoken if each.refuses_by_words(status)), None)
        if dialect is None or said.refused or said.cached:
            return said
        body = await answers.read_error(response)
        reading = dialect.with_body(said, status, body.snippet)
        if reading.refused:
            one.permit.refused_after_all(reading, status)
        return reading

    async def _refused(self, response: aiohttp.ClientResponse, reading: Reading) -> RateLimitError:
        """Take in a refusal for the rate; raises if it outlasts the policy, or no wait helps."""
        body = await answers.read_error(response)
        response.release()
        if body.is_cap:
            raise answers.as_error(response, body)
        self._refusals += 1
        if self._refusals > self._most_refusals:
            raise self._rate_limit_error(response, reading, body)
        return self._rate_limit_error(response, reading, body)

    def _rate_limit_error(
        self, response: aiohttp.ClientResponse, said: Reading, body: answers.ErrorBody
    ) -> RateLimitError:
        window = min(said.windows, key=attrgetter("remaining"), default=None)
        limit, remaining = (window.limit, window.remaining) if window else (None, None)
        now = self._pool.limiter.server_time(self._caller.host)
        reset = window.reset if window else None
        if window and window.resets_in is not None:
            reset = now + window.resets_in
        waits = [] if said.retry_after is None else [said.retry_after]
        if said.pause:
            waits.append(said.pause)
        if window and reset is not None and not remaining:
            # With tokens left it is another limit, whose reset nobody told.
            waits.append(min(max(0.0, reset - now), window.kind.ceiling))
        return RateLimitError(
            answers.describe(response, body),
            limit=limit,
            remaining=remaining,
            resets_at=reset,
            retry_after=max(waits, default=None),
            **answers.evidence(response, body),
        )

    def _raise_if_passing(
        self,
        response: aiohttp.ClientResponse,
        method: str,
        otherwise: Callable[[], Awaitable[Any]],
    ) -> None:
        """Raise `Failure` for an answer that another attempt may mend."""
        after = self._retry_after(response.headers)
        if response.status != 503 or after is None:
            self._may_be_done = True
        if may_be_mended(method, self._caller.api.idempotent, response.status, after):
            raise Failure(
                f"status {response.status}",
                error=answers.as_error(response, answers.ErrorBody()),
                otherwise=otherwise,
                after=after,
                free=partial(answers.free, response),
            )

    async def _unauthorized(
        self, response: aiohttp.ClientResponse, method: str, one: Pass
    ) -> Exception | None:
        """Correct the clock or renew the token, once each; or find that a write had worked."""
        body = await answers.read_error(response)
        if self._may_be_done and method in _WRITES and DONE_BEFORE.intersection(body.codes):
            raise answers.already_done(response, body)
        auth = self._caller.auth
        if auth is None or not one.authorization:
            return None
        if CLOCK_IS_OFF in body.codes:
            # The answer's Date has corrected the clock by now.
            goes_back, self._corrected_clock = not self._corrected_clock, True
        else:
            now = self._pool.limiter.server_time(self._caller.host)
            renewable = auth.rejected(one.authorization, response.status, body.codes, now)
            goes_back = renewable and not self._rejected
            self._rejected = self._rejected or renewable
        if not goes_back:
            return None
        response.release()
        return answers.as_error(response, body)

    async def _raise_if_retired(
        self, response: aiohttp.ClientResponse, method: str, url: URL
    ) -> None:
        endpoint = self._caller.api.endpoint(method, url)
        if endpoint is None or endpoint.farewell is None or not self._caller.is_own(response.url):
            return
        body = await answers.read_error(response)
        if endpoint.retired or response.status == 410 or _GONE.issuperset(body.codes):
            raise EndpointRetiredError(endpoint.farewell, **answers.evidence(response, body))

    def _retry_after(self, headers: Mapping[str, str] | None) -> float | None:
        if not headers or hdrs.RETRY_AFTER not in headers:
            return None
        return self._caller.api.dialect.read(headers).retry_after


def _reason(error: Exception) -> str:
    """Say in one line what failed; without the queries of URLs, which may hold anything."""
    return f"{type(error).__name__}: {_QUERY.sub('?…', ' '.join(str(error).split()))}"
