"""The aiohttp client middleware: one pass per attempt on the wire.

A pass takes a permit, signs, sends, and settles the permit with what came back, before any body
is read. It is the innermost middleware, since redirect hops and the resends that aiohttp makes by
itself are calls to the server like any other.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp import hdrs
from yarl import URL

from aiotwhelp import checks
from aiotwhelp.apis import Api, is_local
from aiotwhelp.auth import Auth, Send, TokenAnswer
from aiotwhelp.errors import hide_request, redacted
from aiotwhelp.headers import Reading
from aiotwhelp.limiter import Limiter, Permit, as_cost
from aiotwhelp.queues import Priority
from aiotwhelp.retries import RetryBudget
from aiotwhelp.routes import generic_template
from aiotwhelp.views import QuotaKey

#: A token endpoint's answer is some 200 bytes; see `aiotwhelp.auth.Send`.
_TOKEN_ANSWER = 64 * 1024 + 1
_TOKEN_TIMEOUT = aiohttp.ClientTimeout(total=30.0)

#: What aiohttp does not take off by itself, or puts on anew, where a redirect leads elsewhere.
_KEYS = (hdrs.AUTHORIZATION, "X-Api-Key")

#: What aiohttp follows.
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

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
        return "its caller gave up"
    text = str(error) if isinstance(error, (aiohttp.ClientError, OSError)) else ""
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf calls to an API are made."""

    api: Api
    auth: Auth | None
    identity: str
    app: str
    origin: URL

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
        return cls(api, auth, identity, app, URL(api.base_url).origin())

    @property
    def host(self) -> str:
        """The API's host and port: quotas and clocks belong to it."""
        return self.origin.raw_authority

    def key(self, method: str, url: str | URL) -> QuotaKey:
        """Return the key of the quota that a call spends; other hosts have quotas of their own."""
        url = URL(url)
        if self.is_own(url):
            name, part = self.api.quota_name(method, url), self.api.partition(url)
            return QuotaKey(name, self.host, self.identity, self.app, part)
        return QuotaKey(f"{method} {generic_template(url.raw_path)}", url.raw_authority)

    def cost(self, method: str, url: str | URL, own: int | Mapping[str, int] | None = None) -> int:
        """Return what a call takes, by what its caller said, if anything, and what is known."""
        known = self.api.cost(method, url)
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
        self.request_info = redacted(request.request_info)


class Pass:
    """The way of one call through the wire: hold a permit, sign, send, settle.

    It never waits: a hop that finds no token asks the session to wait, outside of aiohttp's
    timer.
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
        "limiter",
        "permit",
        "priority",
        "reading",
        "sends",
        "unanswered",
        "url",
        "was_cut_off",
    )

    def __init__(
        self,
        limiter: Limiter,
        caller: Caller,
        permit: Permit,
        *,
        cost: int = 1,
        priority: Priority = Priority.NORMAL,
        has_left: bool = False,
        budget: RetryBudget | None = None,
    ) -> None:
        self.limiter = limiter
        self.caller = caller
        self.permit = permit
        #: What resends by aiohttp draw from, and what the last one drew.
        self.budget = budget
        self.drawn = 0
        self.cost = cost
        self.priority = priority
        #: Where the last request went.
        self.url: URL | None = None
        #: Whether a redirect led from or to a foreign origin. Nothing is signed from then on, or
        #: who sent the call away could have it come back, signed, to a path of his choice.
        self.has_left = has_left
        #: What the last request was signed with; empty if it went unsigned.
        self.authorization = ""
        #: Whether the limiter saw the last request: not where a redirect led elsewhere.
        self.is_gated = True
        #: What the last answer said of quota, if the limiter saw it.
        self.reading: Reading | None = None
        #: Requests that were written, or may have been; those of them that got no answer.
        self.sends = 0
        self.unanswered = 0
        #: What became of the last request, if it got no answer: aiohttp may send it once more.
        self.broken: Exception | None = None
        #: The last answer, which the middlewares before this one may still hold.
        self.answer: aiohttp.ClientResponse | None = None
        #: Answers that sent the call elsewhere, in their order.
        self.history: list[aiohttp.ClientResponse] = []
        #: Whether a cancellation cut off the last wait for an answer.
        self.was_cut_off = False

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Make one attempt, with the session's permit or one that is there at once."""
        self._note_hop(request.url)
        if self.answer is not None and self.answer.status in _REDIRECTS:
            self.history.append(self.answer)
            self.answer = None
        if self.has_left:
            for name in _KEYS:
                request.headers.popall(name, None)
        if not self.permit.is_settled:
            return await self.send(request, handler)
        self.is_gated = self.caller.is_own(request.url)
        if not self.is_gated:
            self.authorization = ""
            self.reading = None
            self.answer = await handler(request)
            return self.answer
        self.permit = self._permit_at_once(request)
        return await self.send(request, handler)

    def _permit_at_once(self, request: aiohttp.ClientRequest) -> Permit:
        """Take a permit for a hop or a resend; raises `PermitNeeded` if it must wait outside."""
        permit = self.limiter.try_acquire(
            self.caller.key(request.method, request.url),
            cost=self.cost,
            priority=self.priority,
            dialect=self.caller.api.dialect,
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

    def _note_hop(self, url: URL) -> None:
        """See where a redirect leads; raises for a way into this machine from outside."""
        before, self.url = self.url, url
        if before is None or url.origin() == before.origin():
            return
        if self.caller.is_own(url) and self.caller.is_own(before):
            return
        self.has_left = True
        if is_local(url.raw_host or "") and not is_local(before.raw_host or ""):
            raise aiohttp.InvalidUrlRedirectClientError(url, "a redirect from outside leads inside")

    async def send(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Sign and send; the permit is settled when this returns or raises."""
        permit = self.permit
        try:
            await self._sign(request)
        except BaseException as error:
            self.broken = error if isinstance(error, Exception) else None
            permit.unsent()
            raise
        earlier = request.response
        try:
            send = _send_sealed(request, handler) if self.authorization else handler(request)
            response = await send
        except BaseException as error:
            was_sent = request.response is not earlier
            self.was_cut_off = was_sent and isinstance(error, asyncio.CancelledError)
            if _never_left(error, was_sent):
                permit.unsent(failed=True, reason=_reason(error))
                raise
            self.broken = error if isinstance(error, Exception) else None
            if isinstance(error, (TypeError, ValueError)) and not was_sent:
                # aiohttp could not write it: a header that is no text, or has a line break.
                permit.unsent()
                raise
            # The server may have counted it, so the token stays spent.
            hide_request(error)
            self.sends += 1
            self.unanswered += 1
            permit.lost(reason=_reason(error))
            raise
        self.sends += 1
        self.broken = None
        self.answer = response
        if response.status < 500:
            self._give_back_drawn()
        self.reading = permit.observed(response.headers, status=response.status)
        return response

    def _give_back_drawn(self) -> None:
        if self.budget is not None and self.drawn:
            self.budget.refill(self.drawn)
            self.drawn = 0

    def hides_a_cancellation(self, error: Exception) -> bool:
        """Whether aiohttp's total timeout took a cancellation in the same tick for its own.

        While an answer is waited for it has two timers entered, and each takes one cancellation
        back: together also the one that somebody else asked for (aiohttp 3.14). A timer raises in
        a plain ``with``; other people's timeouts, in a middleware, are ``async with``.
        """
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        is_a_timers = trace is not None and trace.tb_frame.f_code.co_name == "__exit__"
        return self.was_cut_off and is_a_timers

    async def _sign(self, request: aiohttp.ClientRequest) -> None:
        """Sign now, after every wait: with a fresh nonce, by the server's clock."""
        caller = self.caller
        auth = caller.auth
        self.authorization = ""
        if auth is None or self.has_left or not caller.api.is_own(request.url):
            return
        _refuse_plain_proxy(request)
        if not auth.ready(self._now()):
            await auth.prepare(TokenSender(request.session, caller.api), self._now())
        content_type = request.headers.get(hdrs.CONTENT_TYPE)
        body = b""
        if auth.needs_body(request.method, content_type) and not isinstance(request.body, bytes):
            body = await request.body.as_bytes()
        self.authorization = auth.authorize(
            request.method,
            request.url,
            now=self._now(),
            content_type=content_type,
            body=body,
            host=request.headers.get(hdrs.HOST),
        )
        request.headers[hdrs.AUTHORIZATION] = self.authorization

    def _now(self) -> float:
        return self.limiter.server_time(self.caller.host)


def _refuse_plain_proxy(request: aiohttp.ClientRequest) -> None:
    """Http is for loopback hosts only, and with a proxy it leaves this machine."""
    if request.proxy is not None and request.url.scheme == "http":
        raise ValueError("credentials are not sent in the clear through a proxy: set NO_PROXY")


async def _send_sealed(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send a request that was signed here: nothing shows the credential afterwards."""
    handled = sys.exception()
    try:
        return await handler(request)
    except BaseException as error:
        _drop_tracebacks(error, handled)
        raise
    finally:
        # Responses and errors hold on to the request's headers.
        request.headers[hdrs.AUTHORIZATION] = "***"


def _drop_tracebacks(error: BaseException, handled: BaseException | None) -> None:
    """Forget where in aiohttp an error arose: locals of those frames are the bytes that were sent.

    What the caller was handling when it made the call is not touched.
    """
    left: list[BaseException | None] = [error]
    seen = {id(handled)}  # causes may lead in a circle
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        each.__traceback__ = None
        left += [each.__cause__, each.__context__]


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
    wait will not fit; use `Session` for calls that may wait longer. Nothing is retried here.
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
        self._priority = checks.member("priority", priority, Priority)
        self._max_wait = checks.seconds("max_wait", max_wait)

    def __repr__(self) -> str:
        names = ", ".join(caller.api.name for caller in self._callers)
        return f"<RateLimitMiddleware for {names}>"

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Wait for a permit, sign and send."""
        caller = self._caller(request.url)
        if caller is None:
            return await handler(request)
        permit = await self._limiter.acquire(
            caller.key(request.method, request.url),
            cost=caller.cost(request.method, request.url),
            priority=self._priority,
            max_wait=self._time_to_wait(request),
            dialect=caller.api.dialect,
        )
        one = Pass(self._limiter, caller, permit)
        try:
            response = await one.send(request, handler)
        finally:
            one.broken = None  # its traceback leads to `one`: they would hold each other
        is_refused = one.reading is not None and one.reading.refused
        if response.status in (401, 403) and caller.auth and one.authorization and not is_refused:
            # The next call renews the token; this one keeps its answer.
            now = self._limiter.server_time(caller.host)
            caller.auth.rejected(one.authorization, response.status, (), now)
        return response

    def _caller(self, url: URL) -> Caller | None:
        for caller in self._callers:
            if caller.is_own(url):
                return caller
        return None

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
        form, seal = aiohttp.BytesPayload(data), _Seal(headers)
        del data, headers  # an error's traceback may be printed with the locals of this frame
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

    __slots__ = ("_headers",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        _refuse_plain_proxy(request)
        request.headers.popall(hdrs.AUTHORIZATION, None)  # of a netrc file
        request.headers.update(self._headers)
        return await _send_sealed(request, handler)
