"""A session: what a user types to call an API for many callers that share its quota.

The way of a call: the route names the quota; the limiter grants a permit; the permit goes down
with the request, as its innermost middleware, which signs, sends and settles it; the answer is
judged, and the caller gets it, an error, or another try. Waits and retries stay outside of
aiohttp, whose timers would count them.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Coroutine, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any, Self

import aiohttp
from aiohttp.client import DEFAULT_TIMEOUT
from yarl import URL

from aiotwhelp import answers, checks, events
from aiotwhelp.apis import Api, X, api_at
from aiotwhelp.auth import Auth, Bearer, ClientCredentials, OAuth1, discreet, visible
from aiotwhelp.calls import (
    MAX_BODY,
    NO_TIMEOUT,
    Call,
    Settings,
    Targets,
    check_middlewares,
    check_options,
    check_raise_for_status,
    has_credential,
    respond,
    take_timeout,
)
from aiotwhelp.coalesce import Coalescer
from aiotwhelp.dialects import AUTO, DIALECTS
from aiotwhelp.headers import X_DIALECT, Dialect
from aiotwhelp.limiter import Limiter
from aiotwhelp.middleware import Caller, refuse_in_the_clear
from aiotwhelp.pool import Pool
from aiotwhelp.queues import Priority
from aiotwhelp.retries import Retries
from aiotwhelp.routes import expand
from aiotwhelp.views import Quota

#: Calls in flight may finish for so many seconds after `Session.close`.
GRACE = 5.0


class RequestContext(Coroutine[Any, Any, aiohttp.ClientResponse]):
    """A call that has not begun: await it for the response, or use ``async with``."""

    __slots__ = ("_call", "_coroutine")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._coroutine = call.run(respond)

    def send(self, value: Any) -> Any:
        """Resume; part of being a coroutine."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise inside; part of being a coroutine."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """Give up; part of being a coroutine."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, None, aiohttp.ClientResponse]:
        return self._coroutine.__await__()

    # Neither is a coroutine of its own: both are part of every call.

    def __aenter__(self) -> Coroutine[Any, Any, aiohttp.ClientResponse]:
        self._call.is_entered = True
        return self._coroutine

    def __aexit__(self, *error: Any) -> Coroutine[Any, Any, None]:
        return self._call.left().__aexit__(*error)


class Session:
    """Calls an API for many callers that share its quota.

    ``api`` is an `Api` such as `aiotwhelp.X`, or the URL of a server. Further arguments:

    - ``auth``: `OAuth1`, `Bearer`, `ClientCredentials` or `OAuth2User`; goes to the API's own
      origins only, and over https unless the host is loopback.
    - ``limiter``: a `Limiter` to share with other sessions; by default one of its own.
    - ``retries``: how often a failed call is tried again; it may be refused for its rate twice as
      often, and waits as it is told meanwhile.
    - ``max_wait``: seconds a call may spend waiting for quota, all attempts together; None waits
      as long as it takes.
    - ``total_timeout``: seconds for the whole call. aiohttp's ``timeout`` is for each attempt.
    - ``priority``: `Priority.INTERACTIVE`, ``NORMAL`` or ``BATCH``.
    - ``coalesce``: whether equal `fetch` calls in flight are one request.
    - ``concurrency``: how many calls may be in flight at once; never more than the connector has
      connections.
    - ``middlewares``: aiohttp client middlewares, called in this order, before ours.
    - ``on_event``: is called with each `aiotwhelp.events.Event`.
    - ``dialect``: how the API's answers announce limits: a `Dialect`, or the name of one that is
      known, such as ``"github"``; by default the `Api`'s own, and ``"auto"`` for a URL.

    Everything else goes to ``aiohttp.ClientSession``; cookies are not kept unless a
    ``cookie_jar`` is passed. Use it with ``async with``, in one event loop. Safe to cancel
    at any moment: a call that was cancelled gives its token back, or to the next caller.
    """

    def __init__(
        self,
        api: Api | str | URL,
        *,
        auth: Auth | None = None,
        limiter: Limiter | None = None,
        retries: int = 4,
        max_wait: float | None = None,
        total_timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        coalesce: bool = False,
        concurrency: int = 100,
        middlewares: Sequence[aiohttp.ClientMiddlewareType] = (),
        on_event: events.Handler | None = None,
        dialect: Dialect | str | None = None,
        **client_session: Any,
    ) -> None:
        checks.known(client_session, _OPTIONS, _ELSEWHERE)
        checks.instance("api", api, (Api, str, URL), "an Api such as aiotwhelp.X, or a URL")
        if limiter is not None:
            checks.instance("limiter", limiter, Limiter, "a Limiter, or None for one of its own")
        if on_event is not None:
            checks.listener("on_event", on_event)
        check_options(client_session)
        if auth is not None and has_credential(client_session):
            del client_session  # for a traceback that is printed with its locals
            raise ValueError("pass auth= or an Authorization header, not both")
        self.api = _api(api, dialect)
        raise_for_status = check_raise_for_status(client_session.pop("raise_for_status", False))
        if client_session.get("timeout") in (None, NO_TIMEOUT):
            client_session["timeout"] = DEFAULT_TIMEOUT
        timeout = take_timeout(client_session)
        pool = Pool(limiter, concurrency, client_session)
        caller = Caller.of(self.api, auth, pool.limiter)
        self._settings = Settings(
            caller=caller,
            targets=Targets(caller),
            pool=pool,
            retries=Retries(retries),
            timeout=timeout,
            max_wait=checks.seconds("max_wait", max_wait),
            total_timeout=checks.seconds("total_timeout", total_timeout),
            priority=checks.member("priority", priority, Priority),
            coalesce=checks.flag("coalesce", coalesce),
            middlewares=check_middlewares(middlewares),
            raise_for_status=raise_for_status,
        )
        self._coalescer: Coalescer[answers.Json] = Coalescer()
        self._owns_pool = True
        self.limiter.adopt(caller.host, self.api.rates)
        self._note_auth(auth)
        self._on_event = on_event
        if on_event is not None:
            self.limiter.listen(on_event)

    def __repr__(self) -> str:
        try:
            state = " closed" if self.closed else ""
        except AttributeError:
            return "<Session in the making>"  # printed with the traceback of its own constructor
        return f"<Session {self.api.name} at {self.api.base_url}{state}>"

    @classmethod
    @discreet
    def from_env(cls, environ: Mapping[str, str] | None = None, **options: Any) -> Self:
        """Make a session from environment variables; ``options`` are those of the class.

        - ``AIOTWHELP_BASE_URL``: where the API is, if not at its own address.
        - ``AIOTWHELP_CONSUMER_KEY``, ``AIOTWHELP_CONSUMER_SECRET``,
          ``AIOTWHELP_ACCESS_TOKEN``, ``AIOTWHELP_ACCESS_TOKEN_SECRET``: OAuth 1.0a, for a user.
        - ``AIOTWHELP_BEARER_TOKEN``: a ready token of the app.
        - the consumer key and secret alone: the app fetches its token itself.

        Raises ValueError that names what is missing or wrong.
        """
        environ = os.environ if environ is None else environ
        checks.instance("environ", environ, Mapping, "a mapping such as os.environ")
        for name in ("api", "auth"):
            if name in options:
                raise TypeError(
                    f"from_env takes {name} from the environment: to pass one, use Session()"
                )
        return cls(_api_from(environ), auth=_auth_from(environ), **options)

    # Calls -------------------------------------------------------------------------------------

    def request(self, method: str, path: str | URL, **options: Any) -> RequestContext:
        """Make a call; await it, or use ``async with``, as with aiohttp.

        ``path`` is below the API's base URL, or a whole URL; ``path_params`` fill its ``{id}``
        templates. ``max_wait``, ``total_timeout``, ``priority``, ``retries``, ``cost`` and
        ``middlewares`` (in addition to the session's) are for this call; everything else is
        aiohttp's, and an ``aiohttp.ClientResponse`` comes back.

        Raises `QuotaTimeoutError`, `RateLimitError`, `UsageCapError`, `EndpointRetiredError`,
        `AuthError` (no token could be had), `BodyNotReplayableError`, `SessionClosedError`,
        TimeoutError, and aiohttp's own errors. Other statuses are the caller's to look at.
        """
        return RequestContext(Call(self._settings, method, path, options))

    def get(self, path: str | URL, **options: Any) -> RequestContext:
        """Make a GET request; see `request`."""
        return RequestContext(Call(self._settings, "GET", path, options))

    def post(self, path: str | URL, **options: Any) -> RequestContext:
        """Make a POST request; see `request`."""
        return self.request("POST", path, **options)

    def put(self, path: str | URL, **options: Any) -> RequestContext:
        """Make a PUT request; see `request`."""
        return self.request("PUT", path, **options)

    def patch(self, path: str | URL, **options: Any) -> RequestContext:
        """Make a PATCH request; see `request`."""
        return self.request("PATCH", path, **options)

    def delete(self, path: str | URL, **options: Any) -> RequestContext:
        """Make a DELETE request; see `request`."""
        return self.request("DELETE", path, **options)

    async def fetch(
        self,
        path: str | URL,
        *,
        method: str = "GET",
        coalesce: bool | None = None,
        max_body: int = MAX_BODY,
        **options: Any,
    ) -> Any:
        """Return the decoded JSON of an answer, None for an empty body; retried as a whole.

        A body that breaks off is fetched again; one of more than ``max_body`` decompressed bytes
        raises `BodyError`. With ``coalesce`` equal GETs in flight are one request, and each
        caller gets a copy of its own. Raises what `request` raises, and `ApiError` for every
        status from 400 on or below 200.
        """
        call = Call(self._settings, method, path, options)
        if max_body is not MAX_BODY:
            call.max_body = checks.whole("max_body", max_body, of=" of bytes")
        if coalesce is not None:
            checks.flag("coalesce", coalesce)
        if self._settings.coalesce if coalesce is None else coalesce:
            key = self._coalescing_key(method, path, options, max_body)
            if key is not None:
                return (await self._coalescer.join(key, partial(call.run, Call.read_json))).copy()
        return (await call.run(Call.read_json)).value

    def quota(
        self,
        path: str | URL,
        *,
        method: str = "GET",
        path_params: Mapping[str, object] | None = None,
    ) -> Quota:
        """Return what is left for a path, or a template, as far as is known; never None.

        Before the first answer only the published limit is known, for display.
        """
        checks.method(method)
        written = str(path)
        if path_params is not None:
            path = expand(written, path_params)
        key = self._settings.caller.key(method, self.api.url(path), written)
        return replace(self.limiter.quota(key), published=self._published(method, path))

    def as_user(self, identity: str, *, auth: Auth | None = None) -> Self:
        """Return a session for a user: same pool, same limiter, a quota of its own.

        ``identity`` is the user's name for quotas, such as ``u:42``; it stays when tokens
        change. Without ``auth`` the credential of this session is used. Closing it leaves the
        pool open; closing this session closes both.
        """
        if not checks.instance("identity", identity, str, "a name for the user, such as 'u:42'"):
            raise ValueError("as_user needs a name for the user, such as 'u:42'")
        own = self._settings.caller.auth if auth is None else auth
        user = copy.copy(self)
        caller = Caller.of(self.api, own, self.limiter, identity)
        user._settings = replace(self._settings, caller=caller, targets=Targets(caller))
        user._coalescer = Coalescer()
        user._owns_pool = False
        user._note_auth(own)
        return user

    @property
    def limiter(self) -> Limiter:
        """The limiter, which other sessions may share."""
        return self._settings.pool.limiter

    @property
    def closed(self) -> bool:
        """Whether the session was closed."""
        return self._settings.pool.is_closed

    # Life --------------------------------------------------------------------------------------

    async def close(self, *, grace: float | None = GRACE) -> None:
        """Wake all waiters with `SessionClosedError`; let calls in flight finish for a while.

        ``grace`` is in seconds; with None they take as long as they do. Cancelling this cuts the
        calls in flight; closing again is safe, and brings to an end what is left. A session from
        `as_user` has nothing of its own to close.
        """
        grace = checks.seconds("grace", grace)
        if not self._owns_pool:
            return
        try:
            await self._settings.pool.close(grace)
        finally:
            if self._on_event is not None:
                self.limiter.unlisten(self._on_event)
                self._on_event = None

    async def __aenter__(self) -> Self:
        self._settings.pool.connect()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    # Below -------------------------------------------------------------------------------------

    def _note_auth(self, auth: Auth | None) -> None:
        if auth is not None:
            self._settings.pool.auths.add(auth)

    def _published(self, method: str, path: str | URL) -> int | None:
        endpoint = self.api.endpoint(method, path)
        if endpoint is None:
            return None
        auth = self._settings.caller.auth
        return endpoint.app_limit if auth and auth.context == "app" else endpoint.user_limit

    def _coalescing_key(
        self, method: str, path: str | URL, options: Mapping[str, Any], max_body: int
    ) -> tuple[Any, ...] | None:
        """Equal for calls that are one: never across credentials or differing options."""
        if method.upper() not in ("GET", "HEAD"):
            return None
        named = {**options, "max_body": max_body}
        for name, value in named.items():
            if isinstance(value, Mapping):
                named[name] = tuple((str(key), repr(each)) for key, each in value.items())
        try:
            key = (method.upper(), str(path), *sorted(named.items()))
            hash(key)
        except TypeError:
            return None
        return key


def _api(api: Api | str | URL, dialect: Dialect | str | None) -> Api:
    """Return what is known of an API; of an address alone, the paths that X has published."""
    known = checks.choice("dialect", dialect, DIALECTS) if isinstance(dialect, str) else dialect
    if known is not None:
        checks.instance("dialect", known, Dialect, "a Dialect, or the name of one")
    if isinstance(api, Api):
        return api if known is None else replace(api, dialect=known)
    if known not in (None, AUTO, X_DIALECT):
        return replace(api_at(api), dialect=known or AUTO)
    there = X.at(api)
    return replace(there, name=URL(there.base_url).raw_host or there.name, dialect=known or AUTO)


def _api_from(environ: Mapping[str, str]) -> Api:
    base = environ.get("AIOTWHELP_BASE_URL")
    if not base:
        return X
    try:
        api = X.at(base)
        refuse_in_the_clear(api)
    except ValueError as error:
        raise ValueError(f"AIOTWHELP_BASE_URL: {error}") from None
    return api


_APP = ("AIOTWHELP_CONSUMER_KEY", "AIOTWHELP_CONSUMER_SECRET")
_USER = (*_APP, "AIOTWHELP_ACCESS_TOKEN", "AIOTWHELP_ACCESS_TOKEN_SECRET")
_BEARER = "AIOTWHELP_BEARER_TOKEN"


def _auth_from(environ: Mapping[str, str]) -> Auth:
    if _are_set(environ, *_USER):
        return OAuth1(*_values(environ, *_USER))
    if any(environ.get(name) for name in _USER[2:]):
        raise ValueError(f"OAuth 1.0a needs all of {', '.join(_USER[:3])} and {_USER[3]}")
    if _are_set(environ, _BEARER):
        return Bearer(*_values(environ, _BEARER))
    if _are_set(environ, *_APP):
        return ClientCredentials(*_values(environ, *_APP))
    raise ValueError(
        f"no credentials in the environment: set {_BEARER}, or "
        f"{' and '.join(_APP)}, with {' and '.join(_USER[2:])} for a user"
    )


def _are_set(environ: Mapping[str, str], *names: str) -> bool:
    return all(environ.get(name) for name in names)


def _values(environ: Mapping[str, str], *names: str) -> Iterator[str]:
    """Return what variables are set to; an error names the one that makes no sense."""
    return (visible(name, environ[name]) for name in names)


_OPTIONS = {*signature(Session).parameters, *signature(aiohttp.ClientSession).parameters}

_ELSEWHERE = {
    name: f"it is the limiter's: limiter=Limiter({name}=...)"
    for name in signature(Limiter).parameters
}
