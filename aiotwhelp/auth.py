"""Credentials, as what becomes the Authorization header of a call.

Here alone OAuth is spoken, through oauthlib. Nothing is sent from here: token requests go through
the ``Send`` that the caller hands in. Instants are POSIX seconds of the *server's* clock, always
an argument (``now``).

No credential shows in a repr, an exception or a log line, and none can be copied or pickled.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import hashlib
import hmac
import json
import math
import os
import random
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, ClassVar, Literal, NoReturn, ParamSpec, Protocol, TypeVar
from urllib.parse import parse_qsl, quote, unquote, unquote_plus, urlencode, urlsplit

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from oauthlib import oauth1
from oauthlib.oauth1.rfc5849 import parameters, signature, utils
from yarl import URL

from aiotwhelp import checks, values
from aiotwhelp.errors import SHORTEST_SECRET, AiotwhelpError, AuthError, SessionClosedError

#: Seconds before its end at which a token is replaced, so that none ends on the way.
EARLY = 30.0

#: A token that another process has renewed is used if it ends in more seconds than these: where
#: tokens live for less than `EARLY`, all would renew it one after the other otherwise.
_LATE = 5.0

#: A token that was just replaced after a 401 is not replaced again within so many seconds: the
#: refusal has another cause, and asking for tokens too often is refused as well (code 99).
RENEWAL_PAUSE = 60.0

#: A token endpoint that fails is asked again after 1, 2, 4 ... seconds, at most this.
LONGEST_PAUSE = 60.0

#: Tokens are asked for no more often than that, whatever lifetimes the server names.
_SHORTEST_USE = 1.0

#: Longer answers are no token. The sender should not read further than that either.
ANSWER_LIMIT = 64 * 1024

#: A header field longer than 8190 bytes is refused by aiohttp and by many other servers.
_TOKEN_LIMIT = 8000

#: The longest form of an HTTP-date, "Wednesday, 31-Dec-2031 23:59:59 GMT", has a few less.
_LONGEST_DATE = 40

#: A Retry-After in seconds; some servers write decimals.
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?", re.ASCII)

#: Lifetimes beyond 300 years are a server's slip, and would not add up.
_LIFETIME_LIMIT = 1e10

#: What a token endpoint may say (RFC 6749, 5.2). Only these words are ever quoted: other text of
#: such an answer may hold what was sent.
_OAUTH2_ERRORS = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)

#: So many error codes are quoted.
_MOST_CODES = 16

_PATH = "a path such as '/oauth2/token', or a URL"

_FORM = "application/x-www-form-urlencoded"

P = ParamSpec("P")
T = TypeVar("T")

#: Marks in reprs are digests under a key of this process: they tell credentials apart in one log
#: and say nothing outside it.
_MARK_KEY = secrets.token_bytes(16)


def discreet(make: Callable[P, T]) -> Callable[P, T]:
    """Have no error lead to the frames below, whose locals are the secrets that were passed."""

    @wraps(make)
    def made(*args: P.args, **named: P.kwargs) -> T:
        try:
            return make(*args, **named)
        except (TypeError, ValueError) as error:
            del args, named
            raise error.with_traceback(None)  # noqa: B904 - the same, without its frames

    return made


class Secretive:
    """Something that holds secrets: it is neither copied nor pickled."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds secrets and cannot be copied or pickled")


@dataclass(frozen=True, slots=True, repr=False)
class TokenAnswer:
    """The answer of a token endpoint: final status, headers, bounded body, the URL asked."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    def __repr__(self) -> str:
        return f"<TokenAnswer {self.status}, {len(self.body)} bytes>"


class Send(Protocol):
    """How a credential reaches its token endpoint.

    ``url`` is a path below the API's base URL, such as ``/oauth2/token``, or a whole URL; whoever
    sends sees to it that it is the API's own origin. The request bypasses the quota and all
    middlewares, follows no redirect, has a timeout of its own, and reads at most
    ``ANSWER_LIMIT`` + 1 bytes of the answer. Failures of the connection are raised as they are.
    """

    async def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str], data: bytes
    ) -> TokenAnswer:
        """Send one request and return its answer, whatever its status."""
        ...


class Auth(ABC, Secretive):
    """What a session needs of a credential.

    The way of a call: ``if not auth.ready(now): await auth.prepare(send, now)``, then, after every
    wait, ``authorize(…)`` for each attempt on the wire; when that was refused with 401 or 403,
    ``rejected(…)`` tells whether to go round once more.
    """

    __slots__ = ("__weakref__",)

    #: Whose quota a call spends.
    context: ClassVar[Literal["user", "app"]]

    #: What ``authorize`` returns for every call, where that is one and the same.
    fixed: str | None = None

    @property
    @abstractmethod
    def app(self) -> str:
        """What names the app, the same for all its users. Material for a keyed digest only."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """What names the owner of the quota; it stays when tokens rotate.

        Material for a keyed digest: it may hold a secret, and is never to be printed.
        """

    def needs_body(self, method: str, content_type: str | None) -> bool:
        """Whether ``authorize`` must be given the body of such a request."""
        return False

    def ready(self, now: float) -> bool:
        """Whether ``authorize`` can be called at once, without ``prepare``."""
        return True

    async def prepare(self, send: Send, now: float) -> None:
        """Obtain or renew the token, unless one is ready.

        Callers at the same time share one request, and one error. Cancelling is safe: the request
        goes on for the others, and for the next caller, since a rotated refresh token must not be
        lost half-way.

        Raises AuthError: its ``status`` is the token endpoint's answer, or 0 where none came or the
        fault lies on this side (no refresh token, a failing store); ``retry_after`` is set where
        the failure may pass. While the endpoint fails it is asked at growing intervals, and who
        comes meanwhile gets its last error. SessionClosedError: closed meanwhile.
        """

    @abstractmethod
    def authorize(
        self,
        method: str,
        url: str | URL,
        *,
        now: float,
        content_type: str | None = None,
        body: bytes = b"",
        host: str | None = None,
    ) -> str:
        """Return the value of the Authorization header for one attempt on the wire.

        ``content_type`` and ``host`` are the request's header values, ``body`` the bytes that are
        sent; a body that is no form is not looked at. ``now`` becomes the timestamp, in whole
        seconds. RuntimeError if there is no token yet.
        """

    def rejected(self, authorization: str, status: int, codes: Collection[int], now: float) -> bool:
        """Take in that an attempt with this Authorization value was refused.

        ``codes`` are the error codes of the body, if it had any. True when another try, after
        ``prepare``, makes sense; callers that were refused with one old token cause one renewal.
        """
        return False

    async def close(self) -> None:
        """Wait for a token request under way, so that what it brings is still saved.

        Cancelling this cancels the request, and leaves no task. The credential stays usable.
        """

    def __repr__(self) -> str:
        try:
            mark = _mark(self.identity)
        except AttributeError:
            mark = "in the making"  # printed with the traceback of its own constructor
        return f"<{type(self).__name__} {mark}>"


class OAuth1(Auth):
    """OAuth 1.0a with HMAC-SHA1: the calls of one user (RFC 5849).

    ValueError if a part is empty or has other than visible ASCII characters, such as the line
    break at the end of a file.
    """

    __slots__ = ("_signer",)

    context = "user"

    @discreet
    def __init__(
        self, consumer_key: str, consumer_secret: str, access_token: str, access_token_secret: str
    ) -> None:
        self._signer = _Signer(
            visible("consumer_key", consumer_key),
            visible("consumer_secret", consumer_secret),
            visible("access_token", access_token),
            visible("access_token_secret", access_token_secret),
        )

    @property
    def app(self) -> str:
        """The consumer key."""
        return str(self._signer.client_key)

    @property
    def identity(self) -> str:
        """The consumer key and the access token, which X keeps until the user revokes it."""
        return f"{self.app}\n{self._signer.resource_owner_key}"

    def needs_body(self, method: str, content_type: str | None) -> bool:
        """Only forms are signed (RFC 5849, 3.4.1.3.1), and none that GET or HEAD carries."""
        return (
            content_type is not None
            and _media_type(content_type) == _FORM
            and method.upper() not in {"GET", "HEAD"}
        )

    def authorize(
        self,
        method: str,
        url: str | URL,
        *,
        now: float,
        content_type: str | None = None,
        body: bytes = b"",
        host: str | None = None,
    ) -> str:
        """Sign the request, with a nonce of its own."""
        is_form = body and self.needs_body(method, content_type)
        return self._signer.authorization(
            method,
            str(URL(url) if isinstance(url, str) else url).partition("#")[0],
            timestamp=str(int(now)),
            host=host,
            form=body.decode("utf-8", "replace") if is_form else "",
        )


class Bearer(Auth):
    """A ready bearer token of an app, used verbatim, percent signs included (RFC 6750).

    ValueError if it is empty or has other than visible ASCII characters.
    """

    __slots__ = ("_token", "fixed")

    context = "app"

    @discreet
    def __init__(self, token: str) -> None:
        self._token = visible("token", token)
        # What a subclass does is not known.
        self.fixed = f"Bearer {token}" if type(self) is Bearer else None

    @property
    def app(self) -> str:
        """The token: nothing else is known of the app."""
        return self._token

    @property
    def identity(self) -> str:
        """The token."""
        return self._token

    def authorize(
        self,
        method: str,
        url: str | URL,
        *,
        now: float,
        content_type: str | None = None,
        body: bytes = b"",
        host: str | None = None,
    ) -> str:
        """Return the token; no argument matters."""
        return f"Bearer {self._token}"


@dataclass(frozen=True, slots=True, repr=False)
class Token(Secretive):
    """An OAuth 2.0 token, as a TokenStore keeps it, field by field.

    ``access_token`` is None where only a refresh token is known yet, ``refresh_token`` where there
    is none; ``expires_at`` is POSIX seconds, or None where the server named no end. ValueError for
    a token that is empty, very long or not visible ASCII.
    """

    access_token: str | None
    refresh_token: str | None = None
    expires_at: float | None = None

    def __post_init__(self) -> None:
        if self.access_token is not None:
            visible("access_token", self.access_token)
        if self.refresh_token is not None:
            visible("refresh_token", self.refresh_token)
        if self.expires_at is not None:
            is_number = isinstance(self.expires_at, (int, float))
            if not is_number or not abs(self.expires_at) < math.inf:
                raise ValueError("expires_at must be POSIX seconds, or None")

    def __repr__(self) -> str:
        end = "" if self.expires_at is None else f" expires_at={self.expires_at:.0f}"
        return f"<Token{end}{' refreshable' if self.refresh_token else ''}>"


Token.__init__ = discreet(Token.__init__)  # type: ignore[method-assign] # a dataclass wrote it


class TokenStore(Protocol):
    """Where the rotating tokens of one user are kept.

    What the store holds wins over the token an OAuth2User was made with: that one is only the
    start. After a new login, save the new token here.
    """

    async def load(self) -> Token | None:
        """Return the token saved last, or None."""

    async def save(self, token: Token) -> None:
        """Keep the token for good: once this returns, the one before it may be useless."""

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Hold off all others, other processes too, while a token is loaded, renewed and saved."""
        ...


class MemoryStore(Secretive):
    """A token kept in memory: gone when the process ends."""

    __slots__ = ("_lock", "_token")

    def __init__(self, token: Token | None = None) -> None:
        if token is not None:
            checks.instance("token", token, Token, "a Token, or None")
        self._token = token
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<MemoryStore {self._token or 'empty'}>"

    async def load(self) -> Token | None:
        """Return the token saved last, or the first one."""
        return self._token

    async def save(self, token: Token) -> None:
        """Keep the token."""
        self._token = token

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Hold off all others in this event loop."""
        return self._lock


class _Renewed(Auth):
    """A bearer token that is obtained from a token endpoint, and again when it ends."""

    __slots__ = (
        "_flight",
        "_good_until",
        "_pace",
        "_refused",
        "_refused_at",
        "_token",
        "_token_path",
    )

    def __init__(self, token_path: str) -> None:
        self._token_path = checks.instance("token_path", token_path, str, _PATH)
        self._pace = _Pace(token_path)
        self._token: Token | None = None
        self._good_until = -math.inf
        self._refused: str | None = None
        self._refused_at = -math.inf
        self._flight = _Flight()

    def ready(self, now: float) -> bool:
        """Whether there is a token that neither ends soon nor was refused."""
        return self._token is not None and now < self._good_until

    async def prepare(self, send: Send, now: float) -> None:
        """Obtain or renew the token, unless one is ready: one request for all (see Auth)."""
        if not self.ready(now):
            await self._flight.join(lambda: self._renew(send, now))

    def authorize(
        self,
        method: str,
        url: str | URL,
        *,
        now: float,
        content_type: str | None = None,
        body: bytes = b"",
        host: str | None = None,
    ) -> str:
        """Return the token; no argument matters. RuntimeError if there is none yet."""
        if self._token is None:
            raise RuntimeError("there is no token yet: await prepare() first")
        return _bearer(self._token)

    def rejected(self, authorization: str, status: int, codes: Collection[int], now: float) -> bool:
        """Forget a refused token, if it is still the one in use; True if another can be had.

        A token that is refused within ``RENEWAL_PAUSE`` of such a renewal is not renewed again.
        """
        # Code 89 is "invalid or expired token"; v2 answers a 401 without codes.
        if status != 401 or (codes and 89 not in codes):
            return False
        if self._token is None or authorization != _bearer(self._token):
            return True  # another caller was refused before, and has had it replaced
        if self._good_until == -math.inf:
            return True  # another caller was refused just now
        if not self._renewable(self._token) or 0 <= now - self._refused_at < RENEWAL_PAUSE:
            return False
        self._refused, self._refused_at = self._token.access_token, now
        self._good_until = -math.inf
        return True

    async def close(self) -> None:
        """Wait for a token request under way; cancelling this cancels it (see Auth)."""
        await self._flight.close()

    @abstractmethod
    def _renewable(self, token: Token) -> bool: ...

    @abstractmethod
    async def _renew(self, send: Send, now: float) -> None: ...

    def _adopt(self, token: Token, now: float) -> None:
        self._token = token
        self._good_until = _renew_at(token, now) if self._renewable(token) else math.inf


class ClientCredentials(_Renewed):
    """The bearer token of an app, fetched with its key and secret (RFC 6749, 4.4).

    One request serves all callers, however many. The token is fetched again when it ends, and
    after a 401 that calls it invalid. ``token_path`` and ``invalidate_path`` are the endpoints,
    below the API's base URL. ValueError if a part is empty or not visible ASCII.
    """

    __slots__ = ("_basic", "_body", "_consumer_key", "_invalidate_path")

    context = "app"

    @discreet
    def __init__(
        self,
        consumer_key: str,
        consumer_secret: str,
        *,
        token_path: str = "/oauth2/token",  # noqa: S107 - a path, no password
        invalidate_path: str = "/oauth2/invalidate_token",
    ) -> None:
        super().__init__(token_path)
        self._consumer_key = visible("consumer_key", consumer_key)
        self._basic = _basic(consumer_key, visible("consumer_secret", consumer_secret))
        self._invalidate_path = checks.instance("invalidate_path", invalidate_path, str, _PATH)
        # Takes 10 ms to load: not in an event loop, and not for other credentials.
        from oauthlib.oauth2 import BackendApplicationClient

        self._body = str(BackendApplicationClient(consumer_key).prepare_request_body()).encode()

    @property
    def app(self) -> str:
        """The consumer key, as for the OAuth1 users of the same app."""
        return self._consumer_key

    @property
    def identity(self) -> str:
        """The consumer key."""
        return self._consumer_key

    async def invalidate(self, send: Send) -> None:
        """Have the API make the token in use worthless; nothing is sent if there is none.

        The next ``prepare`` fetches a new one. AuthError if the API refuses. If this is cancelled,
        the token may or may not be invalid; should it be, the next call renews it.
        """
        token = self._token
        if token is None:
            return
        answer = await send(
            "POST",
            self._invalidate_path,
            headers=_form_headers(self._basic),
            # X's tokens come percent-encoded and go back as they are: "%" is not encoded again.
            data=b"access_token=" + quote(token.access_token or "", safe="%").encode(),
        )
        if not 200 <= answer.status < 300:
            raise _refusal(answer, "the token was not invalidated")
        if self._token is token:
            self._token = None

    def _renewable(self, token: Token) -> bool:
        return True

    async def _renew(self, send: Send, now: float) -> None:
        token = await self._pace.ask(None, now, lambda: self._fetched(send, now))
        self._adopt(token, now)

    async def _fetched(self, send: Send, now: float) -> Token:
        answer = await send(
            "POST",
            self._token_path,
            headers=_form_headers(self._basic),
            data=self._body,
        )
        if answer.status in {400, 401, 403}:
            raise _refusal(
                answer,
                "no bearer token: the consumer key and secret were not accepted,"
                " or a token was asked for too often",
            )
        return _token_in(answer, now)


class OAuth2User(_Renewed):
    """OAuth 2.0 tokens of one user, renewed with a refresh token (RFC 6749, 6; PKCE clients too).

    A public client has no ``client_secret``. The token is renewed ``EARLY`` seconds before
    ``expires_at`` and after a 401; without a refresh token it is used for as long as it works.
    Refresh tokens rotate: a new one is saved in the store before it is used, and the store is held
    exclusively meanwhile.

    ``identity`` is any name that stays the same for this user, such as the user's id: it keeps the
    user's quota apart, and the same from process to process. Without it the quota belongs to this
    object alone. ``token_path`` is the token endpoint below the API's base URL. ValueError if a
    part is empty or not visible ASCII, or if there is neither a token nor a store.
    """

    __slots__ = (
        "_basic",
        "_client",
        "_client_id",
        "_dead",
        "_first",
        "_identity",
        "_shared",
        "_store",
        "_unsaved",
    )

    context = "user"

    @discreet
    def __init__(
        self,
        client_id: str,
        *,
        client_secret: str | None = None,
        access_token: str | None = None,
        refresh_token: str | None = None,
        expires_at: float | None = None,
        store: TokenStore | None = None,
        identity: str | None = None,
        token_path: str = "/2/oauth2/token",  # noqa: S107 - a path, no password
    ) -> None:
        super().__init__(token_path)
        if store is None and access_token is None and refresh_token is None:
            raise ValueError("give an access_token, a refresh_token or a store")
        if store is not None:
            checks.methods("store", store, ("load", "save", "exclusive"), "a TokenStore, or None")
        self._client_id = visible("client_id", client_id)
        from oauthlib.oauth2 import WebApplicationClient  # see ClientCredentials

        self._client = WebApplicationClient(client_id)
        self._basic = (
            None
            if client_secret is None
            else _basic(client_id, visible("client_secret", client_secret))
        )
        if identity is not None:
            checks.instance("identity", identity, str, "a name that the user keeps, or None")
        self._identity = identity or secrets.token_hex(16)
        self._first = Token(access_token, refresh_token, expires_at)
        #: Whether others may have renewed the token: then the store is asked before the first use.
        self._shared = store is not None
        self._store: TokenStore = store or MemoryStore(self._first)
        #: A renewed token that the store has not taken yet. The one before it is spent.
        self._unsaved: Token | None = None
        #: A refresh token that was refused for good.
        self._dead: str | None = None
        if not self._shared and access_token is not None:
            self._adopt(self._first, -math.inf)

    @property
    def app(self) -> str:
        """The client id."""
        return self._client_id

    @property
    def identity(self) -> str:
        """The client id, and the identity given or a random one."""
        return f"{self._client_id}\n{self._identity}"

    def _renewable(self, token: Token) -> bool:
        return self._shared or token.refresh_token is not None

    async def _renew(self, send: Send, now: float) -> None:
        async with AsyncExitStack() as stack:
            with self._store_failure("locked"):
                await stack.enter_async_context(self._store.exclusive())
            self._adopt(await self._next(send, now), now)

    async def _next(self, send: Send, now: float) -> Token:
        """Return the token to use from now on: one that the store has, or holds from now on."""
        if self._unsaved is None:
            with self._store_failure("read"):
                # Of a store that has lost its data, what was used last may still be good.
                held = await self._store.load() or self._token or self._first
            if self._usable(held, now):
                return held  # renewed by another process
            self._unsaved = await self._refreshed(held, send, now)
        # A token that could not be saved is kept for the next attempt: its forerunner is spent.
        with self._store_failure("written"):
            await self._store.save(self._unsaved)
        token, self._unsaved = self._unsaved, None
        return token

    def _usable(self, token: Token, now: float) -> bool:
        if token.access_token is None or token.access_token == self._refused:
            return False
        is_known = self._token is not None and token.access_token == self._token.access_token
        return token.expires_at is None or now < token.expires_at - (EARLY if is_known else _LATE)

    async def _refreshed(self, held: Token, send: Send, now: float) -> Token:
        if held.refresh_token is None:
            raise self._fault("the token ended and there is no refresh token: log in again")
        if held.refresh_token == self._dead:
            raise self._fault(_LOG_IN)
        token = await self._pace.ask(held, now, lambda: self._asked(held, send, now))
        # A server that does not rotate names no new one (RFC 6749, 6).
        return Token(
            token.access_token, token.refresh_token or held.refresh_token, token.expires_at
        )

    async def _asked(self, held: Token, send: Send, now: float) -> Token:
        answer = await send(
            "POST",
            self._token_path,
            headers=_form_headers(self._basic),
            data=self._refresh_body(held),
        )
        if answer.status in {400, 401, 403}:
            raise self._refresh_refused(answer, held)
        return _token_in(answer, now)

    def _refresh_body(self, held: Token) -> bytes:
        # prepare_refresh_token_request would refuse http, on loopback too.
        body = self._client.prepare_refresh_body(
            refresh_token=held.refresh_token,
            client_id=self._client_id,
            include_client_id=self._basic is None,
        )
        return str(body).encode()

    def _refresh_refused(self, answer: TokenAnswer, held: Token) -> AuthError:
        error = _oauth2_error(answer)
        if error == "invalid_grant":
            self._dead = held.refresh_token
        if error in {"invalid_grant", "invalid_request"}:
            return _refusal(answer, _LOG_IN)
        return _refusal(answer, "the token was not renewed: check client_id and client_secret")

    def _fault(self, text: str) -> AuthError:
        """Build an error of this side: nothing was asked."""
        return AuthError(text, request_info=_request_info(self._token_path))

    @contextmanager
    def _store_failure(self, what: str) -> Iterator[None]:
        """Turn what a store raises into ours: an OSError would make aiohttp send again."""
        try:
            yield
        except AiotwhelpError as error:
            raise self._fault(f"the token store could not be {what}: {error}") from error
        except Exception as error:
            raise self._fault(f"the token store could not be {what}") from error


_LOG_IN = "the refresh token is not valid any more: log in again, and save the new token"


def secrets_in(authorization: str, form: bytes = b"") -> list[str]:
    """Return the parts of an Authorization value, and a form, that a server might echo.

    Longest first.
    """
    value = authorization.partition(" ")[2]
    parts = re.findall(r'oauth_(?:token|signature)="([^"]+)"', value)
    if authorization.startswith("Basic "):
        with suppress(ValueError):
            parts += base64.b64decode(value).decode().partition(":")[::2]
    parts += [value for _, value in parse_qsl(form.decode())]
    found = {authorization, value, *parts, *map(unquote, parts)}
    return sorted((each for each in found if len(each) >= SHORTEST_SECRET), key=len, reverse=True)


class _Signer(Secretive, oauth1.Client):
    """oauthlib's client, with what no request changes worked out once.

    Its own ``sign`` takes 116 to 160 µs, in which it percent-encodes 53 texts and formats five
    DEBUG lines that hold the token. What is made here is what it would make, as the tests compare,
    and what a query or a base URL means is oauthlib's to say wherever there could be a doubt. Where
    a parameter is named as the protocol's own are, it signs by itself.
    """

    def __init__(self, key: str, secret: str, token: str, token_secret: str) -> None:
        super().__init__(key, secret, token, token_secret)
        escape = utils.escape
        fixed = {
            "oauth_version": "1.0",
            "oauth_signature_method": oauth1.SIGNATURE_HMAC_SHA1,
            "oauth_consumer_key": key,
            "oauth_token": token,
        }
        signed = parameters.prepare_headers(list(fixed.items()))  # type: ignore[no-untyped-call]
        #: RFC 5849, 3.5.1: what stands between the timestamp and the signature.
        self._fixed = signed["Authorization"].removeprefix("OAuth ")
        #: 3.4.1.3.2: in the order of their names the nonce and the timestamp come between these.
        self._before_nonce = escape(f"oauth_consumer_key={escape(key)}&oauth_nonce=")
        self._before_timestamp = escape("&oauth_signature_method=HMAC-SHA1&oauth_timestamp=")
        self._after_timestamp = escape(f"&oauth_token={escape(token)}&oauth_version=1.0")
        #: 3.4.2.
        hmac_key = f"{escape(secret)}&{escape(token_secret)}".encode()
        #: Copied for each signature, which takes a third of the time that a new one takes.
        self._keyed = hmac.new(hmac_key, digestmod="sha1")

    def __repr__(self) -> str:
        return "<_Signer>"

    def authorization(
        self, method: str, uri: str, *, timestamp: str, host: str | None, form: str
    ) -> str:
        """Return the header's value for a request (RFC 5849, 3.5.1).

        The path is signed as it is sent, query and form are signed decoded: how they are encoded
        does not matter.
        """
        base, _, query = uri.partition("?")
        before = after = ""
        if query or form:
            pairs = _encoded(query)
            if form:
                pairs += _encoded(form)
            pairs.sort()
            if any(name.startswith("oauth_") for name, _ in pairs):
                return self._by_oauthlib(method, base, query, form, timestamp, host)
            before = _joined([f"{name}={value}&" for name, value in pairs if name < "oauth_"])
            after = _joined([f"&{name}={value}" for name, value in pairs if name > "oauth_"])
        nonce = _nonce(timestamp)
        base_string = (
            f"{_encoded_name(method.upper())}&{_encoded_base(base, host)}&{before}"
            f"{self._before_nonce}{nonce}{self._before_timestamp}{timestamp}"
            f"{self._after_timestamp}{after}"
        )
        signed = _hmac_sha1(self._keyed, base_string)
        signed = signed.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
        return (
            f'OAuth oauth_nonce="{nonce}", oauth_timestamp="{timestamp}", {self._fixed}, '
            f'oauth_signature="{signed}"'
        )

    def _by_oauthlib(
        self, method: str, base: str, query: str, form: str, timestamp: str, host: str | None
    ) -> str:
        # It insists on a canonical form, and of a list of pairs would drop repeated names.
        form = urlencode(parse_qsl(form, keep_blank_values=True))
        headers = {"Host": host} if host else {}
        if form:
            headers["Content-Type"] = _FORM
        self.timestamp = timestamp
        _, signed, _ = self.sign(
            f"{base}?{URL('?' + query).raw_query_string}",
            method,  # type: ignore[arg-type] # the stubs list some methods; HTTP has more
            form or None,
            headers,
        )
        return str(signed["Authorization"])

    def get_oauth_signature(self, request: Any) -> str:
        """Return the signature of a request (RFC 5849, 3.4), without a line in any log."""
        params = signature.collect_parameters(
            uri_query=urlsplit(request.uri).query, body=request.decoded_body
        )
        base_string = signature.signature_base_string(
            request.http_method,
            signature.base_string_uri(request.uri, request.headers.get("Host")),
            signature.normalize_parameters(params + request.oauth_params),
        )
        return _hmac_sha1(self._keyed, base_string)


#: What is in few paths, and read by oauthlib in a way of its own: a semicolon may end one.
_UNUSUAL = re.compile(r"[^\w.~!$&'()*+,/:=@%-]", re.ASCII)

#: What is percent-encoded in a signature (RFC 5849, 3.6), and how.
_RESERVED = re.compile(r"[^\w.~-]", re.ASCII)
_CODES = {chr(code): f"%{code:02X}" for code in range(128)}


def _code(found: re.Match[str]) -> str:
    return _CODES[found[0]]


def _escaped(text: str) -> str:
    """Percent-encode a text, as ``utils.escape`` does in several times the time."""
    return _RESERVED.sub(_code, text) if text.isascii() else utils.escape(text)


def _encoded(query: str) -> list[tuple[str, str]]:
    """Return the parameters of a query or a form, read as servers do, encoded to be signed."""
    pairs = [each.partition("=") for each in query.split("&") if each]
    return [(_encoded_name(name), _escaped(unquote_plus(value))) for name, _, value in pairs]


#: An API has some hundred names; their values are without number.
@lru_cache(maxsize=256)
def _encoded_name(name: str) -> str:
    return _escaped(unquote_plus(name))


def _joined(pairs: list[str]) -> str:
    """Return encoded parameters as they stand in the base string: encoded once more."""
    text = "".join(pairs)
    return text.replace("%", "%25").replace("=", "%3D").replace("&", "%26")


@lru_cache(maxsize=256)
def _encoded_base(base: str, host: str | None) -> str:
    """Return a URL without its query as it stands in the base string (RFC 5849, 3.4.1.2)."""
    scheme, _, rest = base.partition("://")
    authority, slash, path = rest.partition("/")
    if not slash or _UNUSUAL.search(path):
        return str(utils.escape(signature.base_string_uri(base, host)))
    return _encoded_origin(f"{scheme}://{authority}/", host) + _escaped(path)


@lru_cache(maxsize=256)
def _encoded_origin(root: str, host: str | None) -> str:
    return utils.escape(signature.base_string_uri(root, host))


def _hmac_sha1(keyed: hmac.HMAC, text: str) -> str:
    one = keyed.copy()
    one.update(text.encode())
    return base64.b64encode(one.digest()).decode()


#: A nonce is to be unique, and need not be a secret (RFC 5849, 3.3): no system call for each.
_chance = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_chance.seed)


def _nonce(timestamp: str) -> str:
    """Return a nonce of the form that oauthlib's have."""
    return f"{_chance.getrandbits(64)}{timestamp}"


#: Those who wait, in the order in which they came: they wake in it, too.
_Waiters = dict[asyncio.Future[None], None]


class _Pace:
    """Asks a token endpoint at growing intervals while it fails, however many want a token."""

    __slots__ = ("_failure", "_failures", "_quiet_until", "_url", "_with")

    def __init__(self, url: str) -> None:
        self._url = url
        self._with: Token | None = None
        self._failure: AuthError | None = None
        self._failures = 0
        self._quiet_until = -math.inf

    async def ask(
        self, held: Token | None, now: float, ask: Callable[[], Awaitable[Token]]
    ) -> Token:
        """Return the token that an asking brings; raises the last error if it is too early to ask.

        It is never too early with another token in hand, such as one of a new login.
        """
        if held == self._with and self._is_early(now):
            raise self._last_failure(now)
        self._with = held
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            token = await ask()
        except AuthError as error:
            is_busy = error.status >= 500 or error.status == 429
            may_pass = is_busy or error.retry_after is not None
            self._note(error, now + clock() - began, may_pass=may_pass)
            raise
        except (aiohttp.ClientError, OSError) as problem:
            # Raised as it is, it would pass for a failure of the call, which aiohttp sends again.
            text = f"no token: the token endpoint was not reached ({type(problem).__name__})"
            unreached = AuthError(text, request_info=_request_info(self._url))
            self._note(unreached, now + clock() - began, may_pass=True)
            raise unreached from problem
        self._failure, self._failures = None, 0
        return token

    def _note(self, error: AuthError, now: float, *, may_pass: bool) -> None:
        pause = min(LONGEST_PAUSE, 2.0 ** min(self._failures, 10))
        if may_pass:
            error.retry_after = pause
        self._failures += 1
        self._quiet_until = now + pause
        self._failure = copy.copy(error)  # without its traceback

    def _is_early(self, now: float) -> bool:
        # Far more than any pause: the server's clock was set back.
        return self._failure is not None and 0 < self._quiet_until - now < 2 * LONGEST_PAUSE

    def _last_failure(self, now: float) -> AuthError:
        """Return a copy of what failed last, for one caller to raise."""
        assert self._failure is not None  # noqa: S101 - it is early, for the type checker
        error = copy.copy(self._failure)
        if error.retry_after is not None:
            error.retry_after = self._quiet_until - now
        return error


class _Flight:
    """One piece of work for all who want it at the same time; it outlives those who leave."""

    __slots__ = ("_task", "_waiters")

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._waiters: _Waiters = {}

    async def join(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start the work or join it, and wait for its end; leaving early is O(1)."""
        task = self._under_way() or self._start(work())
        waiters, waiter = self._waiters, task.get_loop().create_future()
        waiters[waiter] = None
        try:
            await waiter
        finally:
            del waiters[waiter]
        if task.cancelled():
            raise SessionClosedError("closed while a token was being obtained")
        try:
            task.result()
        finally:
            del task  # an error's traceback leads here: it and the task would hold each other

    async def close(self) -> None:
        """Wait for the work; if that is cancelled, cancel the work and wait for its end."""
        task = self._under_way()
        if task is None:
            return
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait((task,))
            raise

    def _under_way(self) -> asyncio.Task[None] | None:
        task = self._task
        # A loop that was torn down never finished its task.
        return None if task is None or task.done() or task.get_loop().is_closed() else task

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        waiters: _Waiters = {}
        self._waiters = waiters
        task = self._task = asyncio.create_task(work)
        task.add_done_callback(lambda task: self._landed(task, waiters))
        return task

    def _landed(self, task: asyncio.Task[None], waiters: _Waiters) -> None:
        if self._task is task:
            self._task = None
        if not task.cancelled():
            task.exception()  # seen, even if nobody waits any more
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def visible(name: str, value: Any) -> str:
    """Return the value, if it can stand in a header; no error shows it."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{name} is empty")
    if len(value) > _TOKEN_LIMIT:
        raise ValueError(f"{name} is longer than {_TOKEN_LIMIT} characters")
    if value.lower().startswith("bearer "):
        raise ValueError(f"pass the {name} alone, without 'Bearer '")
    if not all("!" <= char <= "~" for char in value):
        raise ValueError(
            f"{name} has a space, a line break or another character that is no"
            " visible ASCII: is there a line break at its end?"
        )
    return value


def _mark(identity: str) -> str:
    material = identity.encode("utf-8", "backslashreplace")
    return hashlib.blake2b(material, key=_MARK_KEY, digest_size=4).hexdigest()


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _bearer(token: Token) -> str:
    return f"Bearer {token.access_token}"


def _basic(user: str, password: str) -> str:
    """Return Basic credentials of percent-encoded parts (RFC 6749, 2.3.1)."""
    pair = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _form_headers(authorization: str | None) -> dict[str, str]:
    headers = {"Content-Type": f"{_FORM};charset=UTF-8", "Accept": "application/json"}
    if authorization is not None:
        headers["Authorization"] = authorization
    return headers


def _renew_at(token: Token, now: float) -> float:
    """When to replace a token obtained now: early, but a short-lived one not at once."""
    if token.expires_at is None:
        return math.inf
    early = token.expires_at - min(EARLY, max(0.0, (token.expires_at - now) / 2))
    return max(early, now + _SHORTEST_USE)


def _token_in(answer: TokenAnswer, now: float) -> Token:
    """Return the token of an answer; AuthError, without a word of the body, if it has none."""
    if not 200 <= answer.status < 300:
        raise _refusal(answer, "no token: the token endpoint failed")
    token = _parsed(answer.body, now)
    if isinstance(token, str):
        error = _auth_error(f"no token: the answer {token}", answer)
        if len(answer.body) > ANSWER_LIMIT or _json_object(answer.body) is None:
            error.retry_after = 0.0  # a page of something on the way, which may pass
        raise error
    return token


def _parsed(body: bytes, now: float) -> Token | str:
    """Return the token, or what is wrong: raising here would keep secrets in a traceback."""
    if len(body) > ANSWER_LIMIT:
        return f"is longer than {ANSWER_LIMIT} bytes"
    fields = _json_object(body)
    if fields is None:
        return "is no JSON object"
    if str(fields.get("token_type")).lower() != "bearer":
        return "names no bearer token"  # what another type means is not known (RFC 6749, 7.1)
    access, refresh = fields.get("access_token"), fields.get("refresh_token")
    if not _is_token(access):
        return "has no usable access_token"
    if refresh is not None and not _is_token(refresh):
        return "has no usable refresh_token"
    lifetime = _lifetime(fields.get("expires_in"))
    return Token(access, refresh, None if lifetime is None else now + lifetime)


def _is_token(value: object) -> bool:
    try:
        visible("token", value)
    except (TypeError, ValueError):
        return False
    return True


def _lifetime(value: object) -> float | None:
    """Return positive seconds; None, no known end, for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < _LIFETIME_LIMIT else None


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _oauth2_error(answer: TokenAnswer) -> str | None:
    fields = _json_object(answer.body[:ANSWER_LIMIT]) or {}
    error = fields.get("error")
    return error if isinstance(error, str) and error in _OAUTH2_ERRORS else None


def _codes(answer: TokenAnswer) -> tuple[int, ...]:
    """Return the v1.1 error codes of the body."""
    errors = (_json_object(answer.body[:ANSWER_LIMIT]) or {}).get("errors")
    if not isinstance(errors, list):
        return ()
    found = [error.get("code") for error in errors[:_MOST_CODES] if isinstance(error, dict)]
    return tuple(code for code in found if type(code) is int and 0 <= code < 10_000)


def _refusal(answer: TokenAnswer, text: str) -> AuthError:
    said = [f"code {code}" for code in _codes(answer)]
    said += filter(None, [_oauth2_error(answer)])
    return _auth_error(f"{text} ({', '.join(said)})" if said else text, answer)


def _auth_error(text: str, answer: TokenAnswer) -> AuthError:
    """Build an error that keeps nothing of the body, and of the headers only the dates."""
    told = [(name, answer.headers.get(name, "")) for name in ("Date", "Retry-After")]
    return AuthError(
        text,
        request_info=_request_info(answer.url),
        status=answer.status,
        headers={name: value for name, value in told if _is_time(value)},
        codes=_codes(answer),
    )


def _is_time(text: str) -> bool:
    """Whether a header tells an instant or a number of seconds, and nothing that it was told."""
    return bool(_SECONDS.fullmatch(text)) or (
        len(text) <= _LONGEST_DATE and values.http_date(text) is not None
    )


def _request_info(url: str) -> aiohttp.RequestInfo:
    where = URL(url).with_query(None).with_fragment(None)
    return aiohttp.RequestInfo(where, "POST", CIMultiDictProxy(CIMultiDict()), where)
