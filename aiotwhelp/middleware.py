"""The aiohttp client middleware: one pass per attempt on the wire.

A pass takes a permit, signs, sends, and settles the permit with what came back, before any body
is read. It is the innermost middleware, since redirect hops and the resends that aiohttp makes by
itself are calls to the server like any other.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import aiohttp
from aiohttp import hdrs
from yarl import URL

from aiotwhelp import checks
from aiotwhelp.apis import Api, is_local
from aiotwhelp.auth import Auth, Send, TokenAnswer, secrets_in
from aiotwhelp.costs import as_cost
from aiotwhelp.deadlines import OUT_OF_TIME
from aiotwhelp.errors import SessionClosedError, forget_frames, hide, hide_request, redacted
from aiotwhelp.headers import Dialect, Reading
from aiotwhelp.limiter import Limiter
from aiotwhelp.permits import Permit
from aiotwhelp.queues import Priority
from aiotwhelp.retries import RetryBudget
from aiotwhelp.routes import generic_template
from aiotwhelp.views import QuotaKey

#: A token endpoint's answer is some 200 bytes; see `aiotwhelp.auth.Send`.
_TOKEN_ANSWER = 64 * 1024 + 1
_TOKEN_TIMEOUT = aiohttp.ClientTimeout(total=30.0)

#: What aiohttp does not take off by itself, or puts on anew, where a redirect leads elsewhere, or
#: a call goes on after a wait there.
_KEYS_OF_AN_ORIGIN = (hdrs.AUTHORIZATION, hdrs.PROXY_AUTHORIZATION, hdrs.COOKIE)
_KEYS = (*_KEYS_OF_AN_ORIGIN, "X-Api-Key")

#: Takes the place of a credential that was sent: responses and errors hold on to the headers.
_SEALED = "***"

#: What aiohttp follows.
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

#: Seconds after which a session whose calls wait is looked at again: aiohttp tells nobody that one
#: was closed.
_LOOKS_AGAIN = 0.5

#: What is read of an answer that was no refusal, and told what the one before did.
NOTHING_NEW = Reading()

#: So many paths are kept with what they lead to; those of ids are without number.
MOST_PATHS = 256

#: Raised before anything of the request was written.
NEVER_LEFT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


def _never_left(error: BaseException, was_sent: bool) -> bool:
    """Whether nothing of a request was written; cancelled, it may still have been connecting."""
    return isinstance(error, NEVER_LEFT) or (
        isinstance(error, asyncio.CancelledError) and not was_sent
    )


def _reason(error: BaseException) -> str:
    """Say what went wrong with a request, for those who wait behind it."""
    if isinstance(error, asyncio.CancelledError):
        return OUT_OF_TIME if OUT_OF_TIME in error.args else "its caller gave up"
    text = str(error) if isinstance(error, (aiohttp.ClientError, OSError)) else ""
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


class Target(NamedTuple):
    """Where a call goes, and what it spends there."""

    method: str
    url: URL
    key: QuotaKey
    #: What is known of its cost.
    cost: int
    #: The URL, if a credential may go there.
    own_url: URL | None
    #: The template that the caller made the URL of, if any.
    written: str | None
    #: How its answers announce limits.
    dialect: Dialect


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf calls to an API are made."""

    api: Api
    auth: Auth | None
    identity: str
    app: str
    origin: URL
    #: The API's host and port: quotas and clocks belong to it.
    host: str

    @classmethod
    def of(
        cls, api: Api, auth: Auth | None, limiter: Limiter, identity: str | None = None
    ) -> Caller:
        """Make one; without an identity of its own, the credential's digest is it."""
        if auth is not None:
            checks.instance("auth", auth, Auth, "a credential such as Bearer(token), or None")
            refuse_in_the_clear(api)
        if identity is None:
            identity = limiter.digest(auth.identity) if auth is not None else ""
        app = limiter.digest(auth.app) if auth is not None else ""
        origin = URL(api.base_url).origin()
        return cls(api, auth, identity, app, origin, origin.raw_authority)

    def target(self, method: str, url: URL, written: str | None = None) -> Target:
        """Return all that is to be known of a call before it is made."""
        key, cost = self.key(method, url, written), self.cost(method, url, written=written)
        own_url = url if self.api.is_own(url) else None
        return Target(method, url, key, cost, own_url, written, self.api.dialect)

    def key(self, method: str, url: str | URL, written: str | None = None) -> QuotaKey:
        """Return the key of the quota that a call spends; other hosts have quotas of their own.

        ``written`` is the template that the caller made the URL of, if any.
        """
        url = URL(url)
        if self.is_own(url):
            name, part = self.api.quota_name(method, url, written), self.api.partition(url)
            return QuotaKey(name, self.host, self.identity, self.app, part)
        return QuotaKey(f"{method} {generic_template(url.raw_path)}", url.raw_authority)

    def cost(
        self,
        method: str,
        url: str | URL,
        own: int | Mapping[str, int] | None = None,
        written: str | None = None,
    ) -> int:
        """Return what a call takes, by what its caller said, if anything, and what is known."""
        known = self.api.cost(method, url, written)
        if own is None:
            return as_cost(known or 1)
        if not known:
            return as_cost(own)
        said = own if isinstance(own, Mapping) else {"requests": as_cost(own)}
        return as_cost({**known, **said})

    def is_own(self, url: URL) -> bool:
        """Whether a URL is the API's; whether credentials may go there is `Api.is_own`."""
        return self.api.is_own(url) or url.origin() == self.origin


def refuse_in_the_clear(api: Api) -> None:
    """Raise ValueError for an API whose address no credential may go to."""
    if not api.is_own(api.base_url):
        raise ValueError(f"credentials are not sent in the clear: {api.base_url} must be https")


class PermitNeeded(Exception):  # noqa: N818 - a signal that never leaves the session
    """A hop or a resend inside aiohttp needs a permit that is not there at once."""

    def __init__(self, request: aiohttp.ClientRequest) -> None:
        super().__init__("a redirect hop or resend waits for quota")
        self.method = request.method
        self.url = request.url
        self.has_body = bool(request.body)
        self.request_info = redacted(request.request_info)


class Pass:
    """The way of one call through the wire: hold a permit, sign, send, settle.

    It never waits: a hop that finds no token asks the session to wait, outside of aiohttp's
    timer. Each attempt makes one.
    """

    __slots__ = (
        "answer",
        "authorization",
        "broken",
        "budget",
        "caller",
        "cost",
        "drawn",
        "has_left",
        "history",
        "is_gated",
        "left_behind",
        "limiter",
        "own_url",
        "permit",
        "priority",
        "reading",
        "sends",
        "told",
        "unanswered",
        "under_way",
        "url",
        "written",
    )

    def __init__(
        self,
        limiter: Limiter,
        caller: Caller,
        permit: Permit,
        own_url: URL | None = None,
        cost: int = 1,
        priority: Priority = Priority.NORMAL,
        budget: RetryBudget | None = None,
        written: str | None = None,
    ) -> None:
        self.limiter = limiter
        self.caller = caller
        self.permit = permit
        #: Where our credential may surely go, without another look.
        self.own_url = own_url
        #: Of hops and resends; the latter draw from the budget.
        self.cost = cost
        self.priority = priority
        self.budget = budget
        #: The template that the caller made the first URL of, if any.
        self.written = written
        #: What the last resend by aiohttp drew from the budget.
        self.drawn = 0
        #: Where the last request went.
        self.url: URL | None = None
        #: Whether a redirect led from or to a foreign origin. Nothing is signed from then on, or
        #: who sent the call away could have it come back, signed, to a path of his choice.
        self.has_left = False
        #: Headers that a call, or its session, brought along, and that stay where it began.
        self.left_behind: tuple[str, ...] = ()
        #: What the last request was signed with; empty if it went unsigned.
        self.authorization = ""
        #: What an earlier one was signed with, before a redirect.
        self.told = ""
        #: Whether the limiter saw the last request: not where a redirect led elsewhere.
        self.is_gated = True
        #: What the last answer said of quota, if the limiter saw it.
        self.reading: Reading | None = None
        #: Requests that were written, or may have been; those of them that got no answer.
        self.sends = 0
        self.unanswered = 0
        #: Requests that are being sent, or wait for their answer: each settles its own permit.
        self.under_way = 0
        #: What became of the last request, if it got no answer: aiohttp may send it once more.
        self.broken: Exception | None = None
        #: The last answer, which the middlewares before this one may still hold.
        self.answer: aiohttp.ClientResponse | None = None
        #: Answers that sent the call elsewhere, in their order.
        self.history: tuple[aiohttp.ClientResponse, ...] = ()

    async def go(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Make one attempt, with the session's permit or one that is there at once.

        Sign and send; the permit is settled when this returns or raises.
        """
        if self.url is None:
            self.url = request.url
        elif not self._goes_on(request):
            return await self._send_elsewhere(request, handler)
        permit, auth = self.permit, self.caller.auth
        self.authorization = ""
        try:
            if self.left_behind:
                _take_off_keys(request, self.left_behind)
            if (auth is not None and not self.has_left) and (
                (request.url is self.own_url and request.proxy is None) or self._is_signed(request)
            ):
                # Now, after every wait: with a fresh nonce, by the server's clock.
                self.authorization = (
                    auth.fixed
                    or self._signature_at_once(request, auth)
                    or await self._signature(request, auth)
                )
                request.headers[hdrs.AUTHORIZATION] = self.authorization
        except BaseException as error:
            self.broken = error if isinstance(error, Exception) else None
            permit.unsent()
            raise
        earlier, handled = request.response, sys.exception()
        self.under_way += 1
        try:
            response = await handler(request)
        except BaseException as error:
            if self.authorization:
                _seal(request, error, handled)
            self.under_way -= 1
            self._failed(permit, error, was_sent=request.response is not earlier)
            raise
        self.under_way -= 1
        if self.authorization:
            request.headers[hdrs.AUTHORIZATION] = _SEALED
        self.sends += 1
        self.broken = None
        self.answer = response
        if self.drawn:
            self._give_back_drawn(response.status)
        is_known = response.status == 200 and permit.observed_again(response.headers) >= 0
        self.reading = NOTHING_NEW if is_known else _observed(permit, response)
        return response

    def cross(self, *, has_left: bool) -> None:
        """Go on at another origin than the call began at, and leave what was for that one."""
        self.left_behind = _KEYS_OF_AN_ORIGIN
        if has_left:
            self.leave()

    def leave(self) -> None:
        """Sign nothing from now on: see `has_left`."""
        self.has_left = True
        self.left_behind = _KEYS
        self.own_url = None

    def _goes_on(self, request: aiohttp.ClientRequest) -> bool:
        """Take a permit for a hop, or a resend; False if the limiter has no say where it leads."""
        self.told = self.authorization or self.told
        if self.url is not None and request.url is not self.url:
            self._note_hop(self.url, request.url)
        if self.answer is not None and self.answer.status in _REDIRECTS:
            self.history += (self.answer,)
            self.answer = None
        self.is_gated = self.caller.is_own(request.url)
        if self.is_gated:
            self.permit = self._permit_at_once(request)
        return self.is_gated

    async def _send_elsewhere(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Follow a redirect to where neither our credential nor our limiter has a say."""
        if self.left_behind:
            _take_off_keys(request, self.left_behind)
        self.authorization = ""
        self.reading = None
        self.answer = await handler(request)
        return self.answer

    def _permit_at_once(self, request: aiohttp.ClientRequest) -> Permit:
        """Take a permit for a hop or a resend; raises `PermitNeeded` if it must wait outside."""
        permit = self.limiter.try_acquire(
            self.caller.key(request.method, request.url, self.written),
            cost=self.cost,
            priority=self.priority,
            dialect=self.caller.api.dialect,
        )
        if permit is None and self.under_way:
            # It cannot wait outside, or the first would be sent anew each time.
            raise RuntimeError(
                "a middleware sends a call again while it is under way, and there is no quota for "
                "that: have it wait for the answer"
            )
        if permit is None:
            raise PermitNeeded(request)
        if self.broken is not None and self.budget is not None:
            # A resend is a retry, too: in an outage it must not double the load.
            self.drawn = self.budget.draw(timed_out=False)
            if not self.drawn:
                permit.unsent()
                raise PermitNeeded(request)
        return permit

    def _note_hop(self, before: URL, url: URL) -> None:
        """See where a redirect leads; raises for a way into this machine from outside."""
        self.url = url
        if url.origin() == before.origin():
            return
        if self.caller.is_own(url) and self.caller.is_own(before):
            return
        self.leave()
        if is_local(url.raw_host or "") and not is_local(before.raw_host or ""):
            raise aiohttp.InvalidUrlRedirectClientError(url, "a redirect from outside leads inside")

    def _failed(self, permit: Permit, error: BaseException, *, was_sent: bool) -> None:
        """Settle the permit of a request that got no answer."""
        hide(error, self.secrets())
        if _never_left(error, was_sent):
            permit.unsent(failed=True, reason=_reason(error))
            return
        self.broken = error if isinstance(error, Exception) else None
        if isinstance(error, (TypeError, ValueError)) and not was_sent:
            # aiohttp could not write it: a header that is no text, or has a line break.
            permit.unsent()
            return
        # The server may have counted it, so the token stays spent.
        hide_request(error)
        self.sends += 1
        self.unanswered += 1
        permit.lost(reason=_reason(error))

    def _give_back_drawn(self, status: int) -> None:
        if self.budget is not None and status < 500:
            self.budget.refill(self.drawn)
            self.drawn = 0

    def secrets(self) -> list[str]:
        """Return what a server was told of the credential, and may repeat."""
        return secrets_in(self.authorization or self.told)

    def is_quoted(self, words: Collection[str]) -> bool:
        """Whether an answer repeats one of these words where its repr shows it."""
        answers = self.history if self.answer is None else (*self.history, self.answer)
        return any(word in repr(each) for each in answers for word in words)

    def _is_signed(self, request: aiohttp.ClientRequest) -> bool:
        """Whether our credential may go where a request goes; raises if it would in the clear."""
        if request.url is not self.own_url and not self.caller.api.is_own(request.url):
            return False
        if request.proxy is not None:
            _refuse_plain_proxy(request)
        return True

    def _signature_at_once(self, request: aiohttp.ClientRequest, auth: Auth) -> str | None:
        """Sign, unless a token or the body must be waited for, which few calls need."""
        now, headers = self._now(), request.headers
        content_type = headers.get(hdrs.CONTENT_TYPE)
        if not auth.ready(now) or auth.needs_body(request.method, content_type):
            return None
        return auth.authorize(
            request.method,
            request.url,
            now=now,
            content_type=content_type,
            host=headers.get(hdrs.HOST),
        )

    async def _signature(self, request: aiohttp.ClientRequest, auth: Auth) -> str:
        now = self._now()
        if not auth.ready(now):
            await auth.prepare(TokenSender(request.session, self.caller.api), now)
            now = self._now()
        content_type = request.headers.get(hdrs.CONTENT_TYPE)
        body = b""
        if auth.needs_body(request.method, content_type) and not isinstance(request.body, bytes):
            body = await request.body.as_bytes()
            now = self._now()
        return auth.authorize(
            request.method,
            request.url,
            now=now,
            content_type=content_type,
            body=body,
            host=request.headers.get(hdrs.HOST),
        )

    def _now(self) -> float:
        return self.limiter.server_time(self.caller.host)


def _observed(permit: Permit, response: aiohttp.ClientResponse) -> Reading:
    """Settle with an answer; if that raises, neither is left to those who never get the answer."""
    try:
        return permit.observed(response.headers, status=response.status)
    except BaseException as error:
        # A place of a user's own in a dialect, say.
        response.close()
        if not permit.is_settled:
            permit.lost(reason=_reason(error))
        raise


def _refuse_plain_proxy(request: aiohttp.ClientRequest) -> None:
    """Http is for loopback hosts only, and with a proxy it leaves this machine."""
    if request.proxy is not None and request.url.scheme == "http":
        raise ValueError("credentials are not sent in the clear through a proxy: set NO_PROXY")


def _take_off_keys(request: aiohttp.ClientRequest, keys: tuple[str, ...]) -> None:
    """Leave what the call and its session brought along; a jar knows what is for which host."""
    for name in keys:
        request.headers.popall(name, None)
    request.update_cookies(request.session.cookie_jar.filter_cookies(request.url))


def _seal(
    request: aiohttp.ClientRequest,
    error: BaseException | None = None,
    handled: BaseException | None = None,
) -> None:
    """See to it that nothing shows the credential of a request that was sent, or broke.

    ``handled`` is what the caller was handling when it made the call.
    """
    if error is not None:
        forget_frames(error, handled)  # of aiohttp's, whose locals are the bytes that were sent
    request.headers[hdrs.AUTHORIZATION] = _SEALED


class _Way(NamedTuple):
    """On whose behalf a request goes, and what it spends."""

    caller: Caller
    key: QuotaKey
    cost: int
    #: Whether a credential may go there.
    is_own: bool


class _Ways(dict[tuple[str, str, str, str], _Way | None]):
    """What requests spend, by method, scheme, host and path; what was worked out once is kept.

    None is for those that no API is known for.
    """

    __slots__ = ("_callers",)

    def __init__(self, callers: Sequence[Caller]) -> None:
        super().__init__()
        self._callers = callers

    def __missing__(self, request: tuple[str, str, str, str]) -> _Way | None:
        if len(self) >= MOST_PATHS:
            del self[next(iter(self))]
        method, scheme, authority, path = request
        way = self[request] = self._find(method, URL(f"{scheme}://{authority}{path}", encoded=True))
        return way

    def _find(self, method: str, url: URL) -> _Way | None:
        for caller in self._callers:
            if caller.is_own(url):
                own = caller.api.is_own(url)
                return _Way(caller, caller.key(method, url), caller.cost(method, url), own)
        return None


class _Closings:
    """Has calls that wait for quota fail once their session is closed, of which nobody is told.

    While any waits one timer looks at their sessions.
    """

    __slots__ = ("_closings", "_limiter", "_timer", "_waiting")

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        #: How many calls of each session wait.
        self._waiting: dict[aiohttp.ClientSession, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        #: What takes the calls of sessions that were closed from the queue, in slices.
        self._closings: set[asyncio.Task[None]] = set()

    def enter(self, session: aiohttp.ClientSession) -> None:
        """Note a call that waits."""
        self._waiting[session] = self._waiting.get(session, 0) + 1
        if self._timer is None:
            self._look_later()

    def leave(self, session: aiohttp.ClientSession) -> None:
        """Note that one waits no longer."""
        self._waiting[session] -= 1
        if not self._waiting[session]:
            del self._waiting[session]
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_LOOKS_AGAIN, self._look)

    def _look(self) -> None:
        for session in self._waiting:
            if session.closed:
                closing = asyncio.get_running_loop().create_task(self._limiter.close(session))
                self._closings.add(closing)
                closing.add_done_callback(self._closings.discard)
        self._look_later()


class RateLimitMiddleware:
    """Shares quotas among the calls of a user's own ``aiohttp.ClientSession``.

    ``apis`` maps each `Api` to its credential, or to None for no credential; requests to other
    hosts pass untouched. Put it last, so that it sees what goes over the wire::

        limiter = Limiter()
        limited = RateLimitMiddleware(limiter, apis={X: auth})
        async with aiohttp.ClientSession(middlewares=[limited]) as session:
            ...

    A call waits for its permit inside aiohttp, where the session's total timeout runs: 300 s
    by default, less than a window of 900 s. It fails at once, with `QuotaTimeoutError`, when the
    wait will not fit; use `Session` for calls that may wait longer. Nothing is retried here. Calls
    whose session is closed while they wait get `SessionClosedError` within a second.
    """

    def __init__(
        self,
        limiter: Limiter,
        apis: Mapping[Api, Auth | None],
        *,
        priority: Priority = Priority.NORMAL,
        max_wait: float | None = None,
    ) -> None:
        self._callers: tuple[Caller, ...] = ()  # for a repr while one is refused
        self._limiter = checks.instance(
            "limiter", limiter, Limiter, "a Limiter (a session has one: session.limiter)"
        )
        checks.instance("apis", apis, Mapping, "a mapping such as {X: auth}")
        if not apis:
            raise ValueError(
                "apis is empty: name the APIs whose quotas are shared, as in {X: auth}"
            )
        for api in apis:
            checks.instance("each key of apis", api, Api, "an Api such as aiotwhelp.X")
        self._callers = tuple(Caller.of(api, auth, limiter) for api, auth in apis.items())
        for caller in self._callers:
            limiter.adopt(caller.host, caller.api.rates)
        self._ways = _Ways(self._callers)
        self._closings = _Closings(limiter)
        self._priority = checks.member("priority", priority, Priority)
        self._max_wait = checks.seconds("max_wait", max_wait)

    def __repr__(self) -> str:
        names = ", ".join(caller.api.name for caller in self._callers)
        return f"<RateLimitMiddleware for {names}>"

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Wait for a permit, sign and send."""
        url = request.url
        way = self._ways[request.method, url.scheme, url.raw_authority, url.raw_path]
        if way is None:
            return await handler(request)
        caller, key, cost, is_own = way
        dialect, priority = caller.api.dialect, self._priority
        permit = self._limiter.try_acquire(key, cost=cost, priority=priority, dialect=dialect)
        if permit is None:
            permit = await self._wait(request, key, cost, dialect)
        one = Pass(self._limiter, caller, permit, url if is_own else None)
        try:
            response = await one.go(request, handler)
        finally:
            one.broken = None  # its traceback leads to `one`: they would hold each other
        is_refused = one.reading is not None and one.reading.refused
        if response.status in (401, 403) and caller.auth and one.authorization and not is_refused:
            # The next call renews the token; this one keeps its answer.
            now = self._limiter.server_time(caller.host)
            caller.auth.rejected(one.authorization, response.status, (), now)
        return response

    async def _wait(
        self, request: aiohttp.ClientRequest, key: QuotaKey, cost: int, dialect: Dialect
    ) -> Permit:
        """Wait for a permit, for as long as the timeout allows and the session is open."""
        session, closed = request.session, "the session was closed while the call waited for quota"
        self._closings.enter(session)
        try:
            permit = await self._limiter.acquire(
                key,
                cost=cost,
                priority=self._priority,
                max_wait=self._time_to_wait(request),
                dialect=dialect,
                owner=session,
            )
        except SessionClosedError:
            if session.closed:
                raise SessionClosedError(closed) from None
            raise
        finally:
            self._closings.leave(session)
        if session.closed:
            # aiohttp might have it wait for ever, for one of the connections that it closed.
            permit.unsent()
            raise SessionClosedError(closed)
        return permit

    def _time_to_wait(self, request: aiohttp.ClientRequest) -> float | None:
        """Return what the timeout leaves: the call's if aiohttp tells it, else the session's."""
        timeout = getattr(request, "timeout", None) or request.session.timeout
        limits = [limit for limit in (self._max_wait, timeout.total) if limit is not None]
        return min(limits, default=None)


class TokenSender(Send):
    """Carries token requests past limiter and middlewares, to the API's own origins only."""

    __slots__ = ("_api", "_session")

    def __init__(self, session: aiohttp.ClientSession, api: Api) -> None:
        self._session = session
        self._api = api

    async def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str], data: bytes
    ) -> TokenAnswer:
        """Send one request; see `aiotwhelp.auth.Send`."""
        whole = self._api.url(url)
        if not self._api.is_own(whole):
            raise ValueError("a token request goes to the API's own origins only, over https")
        form, seal = aiohttp.BytesPayload(data), _Seal(headers, data)
        del data, headers  # an error's traceback may be printed with the locals of this frame
        try:
            return await self._ask(method, whole, form, seal)
        except (aiohttp.ClientError, OSError) as error:
            hide(error, seal.secrets())
            forget_frames(error)  # which show what came of the answer
            raise

    async def _ask(
        self, method: str, whole: str, form: aiohttp.BytesPayload, seal: _Seal
    ) -> TokenAnswer:
        async with self._session.request(
            method,
            whole,
            data=form,
            allow_redirects=False,
            raise_for_status=False,
            timeout=_TOKEN_TIMEOUT,
            middlewares=(seal,),
        ) as response:
            body = await response.content.read(_TOKEN_ANSWER)
            while len(body) < _TOKEN_ANSWER:
                more = await response.content.read(_TOKEN_ANSWER - len(body))
                if not more:
                    break
                body += more
            return TokenAnswer(response.status, response.headers, body, whole)


class _Seal:
    """Puts the headers on a token request where neither traces nor a netrc file can see them."""

    __slots__ = ("_data", "_headers")

    def __init__(self, headers: Mapping[str, str], data: bytes) -> None:
        self._headers = headers
        self._data = data

    def secrets(self) -> list[str]:
        """Return what a server is told, and may repeat."""
        return secrets_in(self._headers.get(hdrs.AUTHORIZATION, ""), self._data)

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        _refuse_plain_proxy(request)
        request.headers.popall(hdrs.AUTHORIZATION, None)  # of a netrc file
        request.headers.update(self._headers)
        handled = sys.exception()
        try:
            response = await handler(request)
        except BaseException as error:
            _seal(request, error, handled)
            raise
        _seal(request)
        return response
