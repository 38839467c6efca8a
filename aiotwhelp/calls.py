"""One call, from attempt to attempt: its wait, its way through the wire, its end."""

from __future__ import annotations

import asyncio
import logging
import math
from asyncio import current_task
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from threading import get_ident
from typing import Any, TypeVar

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractCookieJar
from yarl import URL

from aiotwhelp import answers, checks, events
from aiotwhelp.bodies import Body
from aiotwhelp.deadlines import OUT_OF_TIME
from aiotwhelp.errors import (
    ApiError,
    BodyNotReplayableError,
    SessionClosedError,
    forget_frames,
    hide,
    hide_request,
)
from aiotwhelp.judge import Judge
from aiotwhelp.middleware import (
    MOST_PATHS,
    Caller,
    Pass,
    PermitNeeded,
    RateLimitMiddleware,
    Target,
)
from aiotwhelp.permits import Permit
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

#: `Session.fetch` reads at most so many decompressed bytes, unless told otherwise.
MAX_BODY = 64 * 1024 * 1024

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

#: What aiohttp takes as it is, and stumbles over at the first call.
_OBJECTS = {
    "connector": (aiohttp.BaseConnector, "an aiohttp connector, or None for one of its own"),
    "cookie_jar": (AbstractCookieJar, "a cookie jar of aiohttp's, or None for none"),
}

#: What aiohttp takes for a timeout that is not passed.
NO_TIMEOUT = signature(aiohttp.ClientSession).parameters["timeout"].default


def check_options(options: dict[str, Any]) -> None:
    """Look at options of aiohttp's that it would stumble over when the call is under way."""
    for name in ("headers", "cookies"):
        if name in options:
            options[name] = checks.pairs(name, options[name])
    for name, (kind, meaning) in _OBJECTS.items():
        if options.get(name) is not None:
            checks.instance(name, options[name], kind, meaning)
    timeout = options.get("timeout", NO_TIMEOUT)
    if timeout is NO_TIMEOUT or isinstance(timeout, (aiohttp.ClientTimeout, type(None))):
        return
    if checks.plain(timeout) is None:
        meaning = "an aiohttp.ClientTimeout, or seconds for each attempt"
        raise TypeError(f"timeout is {meaning}, not {checks.described(timeout)}")
    total = checks.seconds("timeout", timeout)
    options["timeout"] = aiohttp.ClientTimeout(total=None if total == math.inf else total)


def take_timeout(options: dict[str, Any]) -> float:
    """Return how long an attempt may take in all, in seconds, and leave the rest to aiohttp."""
    # None is none for a call; of a session it is the default, as in aiohttp.
    timeout = options["timeout"] or aiohttp.ClientTimeout(total=None)
    options["timeout"] = aiohttp.ClientTimeout(
        total=None,
        connect=timeout.connect,
        sock_read=timeout.sock_read,
        sock_connect=timeout.sock_connect,
        ceil_threshold=timeout.ceil_threshold,
    )
    return timeout.total or math.inf  # aiohttp's 0 is no bound


def check_raise_for_status(wanted: Any) -> Any:
    """Return what is to become of answers that are errors."""
    if wanted is None or isinstance(wanted, bool):
        return wanted
    meaning = "True, False, or an async function of one response"
    return checks.function("raise_for_status", wanted, meaning)


def check_middlewares(
    middlewares: Iterable[aiohttp.ClientMiddlewareType],
) -> tuple[aiohttp.ClientMiddlewareType, ...]:
    """Return middlewares of a user; ours would wait for a permit that the call itself holds."""
    listed = checks.functions(
        "middlewares", middlewares, "aiohttp's client middlewares, async def (request, handler)"
    )
    if any(isinstance(each, RateLimitMiddleware) for each in listed):
        raise ValueError(
            "a session looks after its quotas itself: RateLimitMiddleware is for an "
            "aiohttp.ClientSession of your own"
        )
    return listed


class Targets(dict[tuple[str, "str | URL"], Target]):
    """Where a session's calls go, by method and path; what was worked out once is kept."""

    __slots__ = ("_caller",)

    def __init__(self, caller: Caller) -> None:
        super().__init__()
        self._caller = caller

    def __missing__(self, call: tuple[str, str | URL]) -> Target:
        if len(self) >= MOST_PATHS:
            del self[next(iter(self))]
        target = self[call] = self.find(*call)
        return target

    def find(
        self, method: str, path: str | URL, path_params: Mapping[str, object] | None = None
    ) -> Target:
        """Return the target of a path below the API's base, or of a whole URL."""
        method = checks.method(method).upper()
        written = None
        if path_params is not None or is_template(str(path)):
            written = str(path)
            path = expand(written, path_params)
        return self._caller.target(method, URL(self._caller.api.url(path)), written)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a session lays down for its calls, or a call for itself; see `aiotwhelp.Session`."""

    caller: Caller
    targets: Targets = field(repr=False)  # a path may hold anything
    pool: Pool
    retries: Retries
    #: Of an attempt, in seconds.
    timeout: float
    max_wait: float | None
    total_timeout: float | None
    priority: Priority
    coalesce: bool
    middlewares: tuple[aiohttp.ClientMiddlewareType, ...]
    raise_for_status: Any

    def of_call(self, options: dict[str, Any]) -> Settings:
        """Return them as one call has them, whose options lose what is told here."""
        own: dict[str, Any] = {}
        for name in ("max_wait", "total_timeout"):
            if name in options:
                own[name] = checks.seconds(name, options.pop(name))
        if options.get("timeout", NO_TIMEOUT) is not NO_TIMEOUT:
            own["timeout"] = take_timeout(options)
        if "priority" in options:
            own["priority"] = checks.member("priority", options.pop("priority"), Priority)
        if "retries" in options:
            own["retries"] = self.retries.with_retries(options.pop("retries"))
        added: Iterable[aiohttp.ClientMiddlewareType] = options.pop("middlewares", None) or ()
        if added:
            own["middlewares"] = (*self.middlewares, *check_middlewares(added))
        wanted = options.pop("raise_for_status", None)
        if wanted is not None:
            own["raise_for_status"] = check_raise_for_status(wanted)
        return replace(self, **own) if own else self


class Call:
    """One call, with everything that is kept from attempt to attempt."""

    __slots__ = (
        "_body",
        "_cancelling",
        "_cost",
        "_deadline",
        "_has_crossed",
        "_has_left",
        "_history",
        "_is_cut",
        "_is_late",
        "_is_queued",
        "_judge",
        "_method",
        "_options",
        "_pass",
        "_path",
        "_settings",
        "_target",
        "_task",
        "_ticket",
        "_waited",
        "entered",
        "is_entered",
        "max_body",
    )

    _target: Target
    _cost: int
    _ticket: int

    def __init__(
        self, settings: Settings, method: str, path: str | URL, options: dict[str, Any]
    ) -> None:
        """Note what is asked for; `run` looks at it."""
        self._settings = settings
        self._method = method
        self._path = path
        self._options = options
        self._body: Body | None = None
        self._deadline: float | None = None
        self._waited = 0.0
        self._has_left = False
        self._has_crossed = False
        self._is_queued = False
        #: Answers that sent the call elsewhere, up to the hop that it goes on at.
        self._history: tuple[aiohttp.ClientResponse, ...] = ()
        self._judge: Judge | None = None
        self._pass: Pass | None = None
        #: Whose call it is, and how often that was to be cancelled when the call began.
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._is_cut = False
        self._is_late = False
        #: `read_json` reads at most so many decompressed bytes.
        self.max_body = MAX_BODY
        #: Whether the answer is for the block of an ``async with``, and the answer.
        self.is_entered = False
        self.entered: Any = None

    async def run(self, finish: Finish[T]) -> T:
        """Make attempts until one is done, within the total timeout."""
        if self._deadline is None:
            self._prepare()
            if self._settings.total_timeout is not None:
                return await self._in_time(finish, self._settings.total_timeout)
        pool, retries = self._settings.pool, self._settings.retries
        pool.calls.add(self)
        try:
            try:
                result: T = await self._attempt(finish)
            except Failure as failure:
                first = failure
            else:
                if retries.budget.drawn:
                    retries.budget.refill()
                if self.is_entered:
                    # Closing the session waits for the end of the block, where the body is read.
                    self.entered, pool.reading = result, pool.reading + 1
                return result
            # Outside of the handler: our own Failure shall not hang on what is raised in the end.
            again = self._again(first, finish)
            del first  # the error that it holds may lead here
            return await again
        except (asyncio.CancelledError, Exception) as error:
            self._retell(error)
            raise
        finally:
            pool.calls.remove(self)
            if pool.is_closed or self._body is not None:
                self._clean_up()
            self._task = None

    def left(self) -> aiohttp.ClientResponse:
        """Note the end of the ``async with`` block; returns the answer it was about."""
        pool = self._settings.pool
        pool.reading -= 1
        if pool.is_closed:
            pool.left()
        response: aiohttp.ClientResponse = self.entered
        return response

    @property
    def raise_for_status(self) -> Any:
        """What was asked for."""
        return self._settings.raise_for_status

    def cut(self) -> None:
        """End it where it is, since the session was closed."""
        if self._task is not None and not self._is_cut:
            self._is_cut = True
            self._task.cancel()

    def expire(self) -> None:
        """End an attempt that takes longer than its timeout."""
        if self._task is not None:
            self._is_late = True
            self._task.cancel(OUT_OF_TIME)

    def _ran_out(self) -> bool:
        """Whether only its timeout has ended an attempt; its cancellation is taken back."""
        if not self._is_late or self._task is None:
            return False
        self._is_late = False
        return self._task.uncancel() <= self._cancelling

    def _retell(self, error: BaseException) -> None:
        """Leave the credential out of what an error of ours says.

        Raises what a cancellation means if nobody but the closing session wanted it.
        """
        if isinstance(error, Exception):
            if self._conceal(error):
                forget_frames(error)
            return
        task = self._task
        if self._is_cut and task is not None and task.cancelling() - 1 <= self._cancelling:
            raise SessionClosedError("the session was closed during a call") from error

    def _conceal(self, error: BaseException) -> bool:
        """Leave out the credential; True if a server has repeated it where frames may show it."""
        one = self._pass
        if one is None:
            return False
        words = one.secrets()
        return hide(error, words) or one.is_quoted(words)

    def _prepare(self) -> None:
        """Look at what was asked for."""
        # From the start, so that a call that is sent back goes before all who came later.
        pool = self._settings.pool
        tickets = pool.tickets
        self._ticket = tickets.last = tickets.last + 1
        home = pool.home
        self._task = task = current_task(home.open_in)
        if task is None or get_ident() != home.thread:
            pool.look_at_the_loop()
        if task is not None:
            self._cancelling = task.cancelling()
        if self._options:
            self._look_at_options(self._options)
        else:
            try:
                self._target = self._settings.targets[self._method, self._path]
            except TypeError:  # what cannot be looked up is no path
                self._target = self._settings.targets.find(self._method, self._path)
            self._cost = self._target.cost

    def _look_at_options(self, options: dict[str, Any]) -> None:
        checks.known(options, OPTIONS, _ELSEWHERE)
        check_options(options)
        settings = self._settings = self._settings.of_call(options)
        caller = settings.caller
        params, cost = options.pop("path_params", None), options.pop("cost", None)
        target = self._target = settings.targets.find(self._method, self._path, params)
        self._cost = target.cost
        if cost is not None:
            self._cost = caller.cost(target.method, target.url, cost, target.written)
        if caller.auth is not None and has_credential(options):
            raise ValueError(
                "the session has a credential: no Authorization header and no auth= for one call "
                "(for another user's call there is as_user)"
            )
        data = options.pop("data", None)
        if data is not None:
            self._body = Body(data)

    async def _in_time(self, finish: Finish[T], total: float) -> T:
        """Make attempts for so many seconds at most."""
        self._deadline = asyncio.get_running_loop().time() + total
        limit = asyncio.timeout_at(self._deadline)
        try:
            async with limit:
                return await self.run(finish)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._out_of_time(total) from error
        finally:
            # It holds the task, which may hold an error, whose traceback leads here.
            del limit

    async def _again(self, first: Failure, finish: Finish[T]) -> T:
        """Make further attempts, as the policy has it."""
        done = self._settings.retries.after(
            first, partial(self._attempt, finish), pause=self._pause, time_left=self._time_left
        )
        del first
        result: T = await done
        if self.is_entered:
            self.entered, self._settings.pool.reading = result, self._settings.pool.reading + 1
        return result

    def _clean_up(self) -> None:
        """Give back what few calls have: a body, or a cancellation by the closing session."""
        if self._body is not None:
            self._body.close()
        if self._is_cut and self._task is not None:
            self._task.uncancel()
        self._settings.pool.left()

    # One attempt -------------------------------------------------------------------------------

    async def _attempt(self, finish: Finish[Any]) -> Any:
        """Go to the gate, and through it, as often as the server sends the call back there."""
        while True:
            settings, cost = self._settings, self._cost
            # At one go: each of a named tuple's fields is a search of its own.
            method, url, key, _, own_url, written, dialect = self._target
            pool, caller, priority = settings.pool, settings.caller, settings.priority
            client, limiter = pool.client or pool.connect(), pool.limiter
            permit = (
                limiter.at_once(key, cost, priority, dialect, pool.room) or await self._permit()
            )
            budget = settings.retries.budget
            one = Pass(limiter, caller, permit, own_url, cost, priority, budget, written)
            self._pass = one
            if self._has_crossed:
                one.cross(has_left=self._has_left)
            deadlines = pool.deadlines
            due = deadlines[self] = permit.sent + settings.timeout
            if due < deadlines.rings:
                deadlines.set(due)
            try:
                # What `request` wraps for an ``async with``: the wrapper takes some 3 us.
                response = await client._request(  # noqa: SLF001
                    method,
                    url,
                    middlewares=(*settings.middlewares, one.go),
                    **(self._options if self._body is None else self._with_body(self._body)),
                )
            except BaseException as error:  # noqa: BLE001 - raised anew, but for a hop
                self._explain(error, one)
                continue
            finally:
                deadlines.pop(self, None)
                one.broken = None  # its traceback leads here: they would hold each other
                if one.reading is None or one.unanswered or self._is_late:
                    self._settle(one, permit)
            if self._history or response.connection is not None:
                self._hand_on(response, due)
            try:
                if response.status >= 400 and await self._goes_back(response, finish):
                    continue
                if finish is respond and not settings.raise_for_status:
                    return response
                return await finish(self, response)
            except BaseException as error:
                self._break_off(response, error)
                raise

    def _with_body(self, body: Body) -> dict[str, Any]:
        return self._options | {"data": body.data()}

    def _hand_on(self, response: aiohttp.ClientResponse, due: float) -> None:
        """Have an answer whose body is yet to come read by an instant, and know all hops to it."""
        self._settings.pool.deadlines.read_by(due, response)
        if self._history:
            # aiohttp knows of those since the last wait only.
            response._history = self._history + response._history  # noqa: SLF001

    def _settle(self, one: Pass, permit: Permit) -> None:
        """Note that an attempt had no answer, or never reached the wire, or ended late."""
        self._ran_out()
        if one.unanswered:
            self._judged().note_unanswered()
        if not permit.is_settled and not one.under_way:
            # A bad URL, or a middleware that answered itself.
            permit.unsent()

    def _break_off(self, response: aiohttp.ClientResponse, error: BaseException) -> None:
        """Let go of an answer that is of no use; raises what an error means."""
        if isinstance(error, Failure):
            return  # it frees the response itself
        response.close()
        if isinstance(error, Exception):
            self._conceal(error)
            self._judged().of_failure(self._target.method, error)

    def _wait_at(self, hop: PermitNeeded, one: Pass) -> None:
        """Go on at a hop inside of aiohttp that must wait for a permit."""
        if one.broken is not None:
            # A resend of aiohttp's own: it becomes one of ours, which are counted.
            self._judged().of_failure(self._method, one.broken)
            raise one.broken from one.broken.__cause__
        self._has_left = one.has_left
        self._history += one.history
        self._follow(hop, one.sends)

    def _explain(self, error: BaseException, one: Pass) -> None:
        """Raise what an error of aiohttp's means, or it; returns if the call goes on at a hop."""
        if one.answer is not None:
            # A middleware of the user's failed, or was cut off, with the answer in its hands.
            one.answer.close()
        if isinstance(error, PermitNeeded):
            self._wait_at(error, one)
            return
        if not isinstance(error, Exception):
            if isinstance(error, asyncio.CancelledError) and self._ran_out():
                late = TimeoutError(OUT_OF_TIME)
                self._judged().of_failure(self._target.method, late, never_left=one.sends == 0)
                raise late from error
            raise
        hide_request(error)
        self._conceal(error)
        self._judged().of_failure(self._target.method, error, never_left=one.sends == 0)
        raise

    async def _goes_back(self, response: aiohttp.ClientResponse, finish: Finish[T]) -> bool:
        """Have an error judged: True sends the call back to the gate; else it is the answer."""
        assert self._pass is not None  # noqa: S101 - a response has passed, for the type checker
        otherwise = partial(_finished, self, response, finish)
        target = self._target
        cause = await self._judged().of_answer(
            response, self._pass, target.method, target.url, otherwise
        )
        if cause is not None:
            self._rewind(cause)
        return cause is not None

    def _judged(self) -> Judge:
        """Return the judge of this call: most calls need none."""
        if self._judge is None:
            settings = self._settings
            self._judge = Judge(settings.caller, settings.pool, settings.retries.refusals)
        return self._judge

    async def _permit(self) -> Permit:
        """Wait for a permit, within what is left of ``max_wait`` and the total timeout."""
        settings = self._settings
        pool = settings.pool
        self._is_queued = True
        permit = await pool.limiter.acquire(
            self._target.key,
            cost=self._cost,
            priority=settings.priority,
            max_wait=self._patience(),
            dialect=self._target.dialect,
            ticket=self._ticket,
            room=pool.room,
            owner=pool,
        )
        self._is_queued = False
        self._waited += permit.waited
        return permit

    def _patience(self) -> float | None:
        """Return how long this attempt may wait for quota, in seconds."""
        longest = self._settings.max_wait
        left = math.inf if longest is None else longest - self._waited
        left = min(left, self._time_left())
        return None if left == math.inf else max(0.0, left)

    def _time_left(self) -> float:
        if self._deadline is None:
            return math.inf
        return self._deadline - asyncio.get_running_loop().time()

    def _out_of_time(self, total: float) -> TimeoutError:
        """Say what the call was at when its total timeout came; asyncio's own error says nothing.

        In the queue that timer may ring before the limiter's own for the same instant.
        """
        key = self._target.key
        if self._is_queued:
            return self._settings.pool.limiter.timed_out(key, total)
        return TimeoutError(f"{key} had no answer within its total_timeout of {total:g} s")

    async def _pause(self, delay: float, failure: Failure, attempt: int) -> None:
        """Sleep between two attempts, holding nothing."""
        if failure.free is not None:
            await failure.free()
        self._rewind(failure.error)
        pool, key = self._settings.pool, self._target.key
        logger.debug("%s again in %.1f s: %s", key, delay, failure.reason)
        if pool.limiter.is_heard:
            pool.limiter.tell(
                events.Retrying(str(key), key.identity, attempt, failure.reason, delay)
            )
        await pool.pause(delay)

    def _follow(self, hop: PermitNeeded, sends: int) -> None:
        """Go on at a redirect hop."""
        self._count_redirects(hop, sends)
        options, before = self._options, self._target
        _drop(options, "params")  # they are in the URL by now, or were for another
        if self._has_left or hop.url.origin() != before.url.origin():
            self._has_crossed = True
            # What aiohttp leaves behind on the way to another origin.
            _drop(options, "auth", "cookies")
            _drop_headers(options, "Authorization", "Cookie", "Proxy-Authorization")
        if hop.method != before.method or not hop.has_body:
            # 303, or a redirected POST: the body stays behind, as aiohttp has it.
            if self._body is not None:
                self._body.close()
                self._body = None
            _drop(options, "json")
            _drop_headers(options, "Content-Length")
        self._target = self._settings.caller.target(hop.method, hop.url, before.written)
        self._rewind(hop)

    def _count_redirects(self, hop: PermitNeeded, redirects: int) -> None:
        """Leave as many redirects as aiohttp would; its 0 is no bound."""
        allowed = self._options.get("max_redirects", _MAX_REDIRECTS)
        if allowed:
            if redirects >= allowed:
                raise aiohttp.TooManyRedirects(hop.request_info, self._history)
            self._options["max_redirects"] = allowed - redirects

    def _rewind(self, cause: Exception) -> None:
        """See to it that the body can be sent once more."""
        was_sent = self._pass is not None and self._pass.sends > 0
        if was_sent and self._body is not None and not self._body.can_be_sent_again:
            raise BodyNotReplayableError(
                f"{self._target.key} should go again, but its body is used up: "
                "pass bytes, JSON, or a file that can seek"
            ) from cause

    # Finishing ---------------------------------------------------------------------------------

    async def read_json(self, response: aiohttp.ClientResponse) -> answers.Json:
        """Return a body of at most ``max_body`` bytes that is JSON; raises for an error."""
        if not 200 <= response.status < 400:
            raise await self.error(response)
        body = await answers.read_within(response, self.max_body)
        if body is None:
            raise answers.body_error(response, f"the body is larger than {self.max_body} bytes")
        try:
            return answers.Json(response, body, answers.decode(body))
        except (ValueError, RecursionError) as problem:
            error = answers.no_json(response, body, problem)
        del body  # nor shall a traceback's locals show it
        is_whole = answers.is_delimited(response)
        try:
            if is_whole or self._target.method not in self._settings.caller.api.idempotent:
                raise error
            raise Failure("a body that broke off", error=error)
        finally:
            del error  # its traceback leads here

    async def error(self, response: aiohttp.ClientResponse) -> ApiError:
        """Read an answer that is an error, and say where a credential was wanted and not given."""
        error = answers.as_error(response, await answers.read_error(response))
        is_signed = hdrs.AUTHORIZATION in response.request_info.headers
        is_unknown = response.status == 401 or NO_CREDENTIAL in error.codes
        if is_unknown and self._settings.caller.auth is None and not is_signed:
            error.message += "; no credential was given: pass auth= to the session"
        return error


async def respond(call: Call, response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
    """Return the answer, or do what aiohttp does for ``raise_for_status``.

    No credential is in the error.
    """
    wanted = call.raise_for_status
    if wanted is not True and wanted:
        await wanted(response)
    elif wanted and response.status >= 400:
        raise await call.error(response)
    return response


async def _finished(call: Call, response: aiohttp.ClientResponse, finish: Finish[T]) -> T:
    """Finish with an answer that no attempt has mended."""
    try:
        return await finish(call, response)
    except BaseException:
        response.close()
        raise


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
