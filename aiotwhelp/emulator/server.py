"""The server on the loopback interface, and what a test asks of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import fields
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import hdrs, web

from . import checks
from .accounts import Accounts, App, Grant, User
from .answers import Answer, answer
from .catalogue import DAY, QUARTER, Catalogue, LimitOverride
from .clock import ServerClock, http_date
from .dialects import DIALECTS
from .endpoints import Endpoints, Incoming
from .faults import Dice, Failure, Faults
from .gate import Gate
from .journal import BODY_KEPT, Journal, Request, Tally
from .judge import Judge, Reply, Verdict
from .kinds import KINDS
from .tokens import TokenEndpoints
from .windows import Book, WindowReport

#: Seconds that requests in flight get to finish when the server stops.
_GRACE = 0.05

#: Bytes of the largest request body that is read; the API takes media in parts of 5 MB.
_BODY_LIMIT = 64 * 2**20


class Emulator:
    """A local server that behaves as the X API does towards its callers.

    ::

        async with Emulator(window=5, limits={"help/privacy": 15}) as api:
            ...  # api.url, api.token, api.user.consumer_key, api.faults.latency = 0.1

    Instants and lengths are in seconds. Keyword arguments:

    - ``window``, ``day``: lengths of the 15-minute and of the 24-hour windows, to shorten them.
    - ``limits``: limits by endpoint. A name is ``"help/privacy"``, ``"/1.1/help/privacy.json"``,
      ``"/2/users/{id}/tweets"``, with the method before it where that matters
      (``"POST /2/tweets"``). A value is a number for users and apps alike, a pair
      ``(user, app)``, or a mapping with any of ``user``, ``app``, ``user_24h``, ``app_24h``,
      ``per_second``; None means that no such limit exists.
    - ``limit``: one number for every endpoint's window; ``limits`` has the last word.
    - ``dialect``: whose headers and refusals it speaks: "x", "x-ads", "ietf-03", "ietf-06",
      "ietf-07", "ietf-10" (also "ietf-10-token", with names that are not quoted, and
      "ietf-10-pk"), "github", "gitlab", "reddit", "discord", "openai", "groq", "azure",
      "anthropic", "mastodon" (and "mastodon-offset", with +00:00 for Z), "gotosocial",
      "bluesky", "plain" (delta seconds), "milliseconds", "retry-after" or "none". Endpoints,
      credentials and other errors stay X's. A dialect of one window tells of the closest.
    - ``kind``: of all windows: "fixed", from the first call to the reset; "sliding", the calls of
      the last ``window`` seconds, resetting when the oldest leaves; "token-bucket", refilled
      evenly, resetting when it is full; "leaky" (GCRA), the same, but when it is spent resetting
      as one more call is there. ``whole_seconds`` is for fixed ones.
    - ``refusal_status``: 403, 429 or 503 instead of the dialect's own (GitHub: 403, else 429).
    - ``tokens``: for dialects that count tokens beside requests, the limit of each kind, or a
      mapping from kind ("tokens"; Anthropic: also "input-tokens", "output-tokens") to limit;
      None is no such limit. A call takes what its query says, or a header with ``x-`` before
      the name: ``tokens=1200``; without, 1.
    - ``buckets``: endpoints by name, as in ``limits``, to the bucket whose windows they share
      with others of it; GitHub and Discord announce its name. The lowest limit counts.
    - ``anonymous``: whether a call without credentials is let in, as the first app's.
    - ``seed``: of every key, token and fault; equal seeds make equal servers.
    - ``host``, ``port``: where to listen; port 0 takes a free one.
    - ``skew``: seconds by which the server's clock is ahead; see also ``clock``.
    - ``users``: how many users of the first app exist from the start.
    - ``followers``, ``tweets``: how many ids and posts the paged endpoints have.
    - ``token_lifetime``: seconds that an OAuth 2.0 access token of a user lasts.
    - ``retired``: answer endpoints that the API has retired with 410, as it would today.
    - ``keep``: how many requests and past windows are kept to be looked at.
    - every switch of `Faults`, to start with.

    ``ValueError`` for a value out of range, ``TypeError`` for an option that does not exist.

    Attributes: ``clock`` (``clock.skew``, ``clock.step(seconds)``), ``faults``, ``users``,
    ``app``.

    Everything happens in the running event loop, with timers of that loop alone; it starts no
    thread and no task that outlives ``close()``.
    """

    def __init__(
        self,
        *,
        window: float = QUARTER,
        day: float = DAY,
        limits: Mapping[str, LimitOverride] | None = None,
        limit: int | None = None,
        dialect: str = "x",
        kind: str = "fixed",
        refusal_status: int | None = None,
        tokens: int | Mapping[str, int | None] | None = 150_000,
        buckets: Mapping[str, str] | None = None,
        anonymous: bool = False,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
        skew: float = 0.0,
        users: int = 1,
        followers: int = 12_000,
        tweets: int = 250,
        token_lifetime: float = 7200.0,
        retired: bool = False,
        keep: int = 10_000,
        **faults: Any,
    ) -> None:
        checks.known(faults, [each.name for each in fields(Faults)])
        checks.seconds("window", window, positive=True)
        checks.seconds("day", day, positive=True)
        checks.seconds("token_lifetime", token_lifetime, positive=True)
        checks.whole("port", port, most=65_535)
        checks.whole("users", users, least=1)
        for name, number in (("followers", followers), ("tweets", tweets), ("keep", keep)):
            checks.whole(name, number)
        checks.choice("dialect", dialect, DIALECTS)
        checks.choice("kind", kind, KINDS)
        checks.choice("refusal_status", refusal_status, (None, 403, 429, 503))
        units = DIALECTS[dialect].units
        checks.tokens("tokens", tokens, units)
        self.clock = ServerClock(skew)
        self.faults = Faults(**faults)
        if self.faults.whole_seconds and kind != "fixed":
            raise ValueError(f"whole_seconds is for fixed windows, not for kind={kind!r}")
        self._listen = (host, port)
        self._dice = Dice(seed)
        self._journal = Journal(keep)
        self._catalogue = Catalogue(limits, limit)
        if buckets is not None:
            self._catalogue.bundle(buckets)
        self._accounts = Accounts(seed)
        self._gate = Gate(
            self.clock,
            self.faults,
            window=window,
            day=day,
            book=Book(keep, KINDS[kind]),
            dialect=DIALECTS[dialect],
            tokens=tokens if isinstance(tokens, Mapping) else dict.fromkeys(units, tokens),
            refusal_status=refusal_status,
        )
        self._tokens = TokenEndpoints(self._accounts, self.clock, token_lifetime)
        self._judge = Judge(
            catalogue=self._catalogue,
            accounts=self._accounts,
            clock=self.clock,
            faults=self.faults,
            gate=self._gate,
            endpoints=Endpoints(followers=followers, tweets=tweets, status=self._status),
            tokens=self._tokens,
            dice=self._dice,
            retired=retired,
            anonymous=anonymous,
        )
        self.app = self.add_app()
        self.users = [self.add_user() for _ in range(users)]
        self._runner: web.AppRunner | None = None
        self._port: int | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        where = self.url if self._port else "stopped"
        return f"<Emulator {where}, {self._journal.received} requests, {self.refused} refused>"

    async def start(self) -> None:
        """Listen; ``RuntimeError`` if it does already, ``OSError`` if the port is taken."""
        if self._runner is not None:
            raise RuntimeError("the emulator is running already")
        self.clock.start()
        application = web.Application(client_max_size=_BODY_LIMIT)
        application.router.add_route("*", "/{path:.*}", self._handle)
        application.on_response_prepare.append(self._date)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=_GRACE)
        await runner.setup()
        try:
            await web.TCPSite(runner, *self._listen).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        self._port = runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening, and break off what is in flight after a moment; may be called twice."""
        runner, self._runner, self._port = self._runner, None, None
        if runner is not None:
            await runner.cleanup()

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        if self._port is None:
            raise RuntimeError("the emulator has an address only while it runs")
        return f"http://{self._listen[0]}:{self._port}"

    @property
    def token(self) -> str:
        """The app's bearer token; a new one once it was invalidated."""
        return self.bearer(self.app)

    @property
    def user(self) -> User:
        """The first user."""
        return self.users[0]

    @property
    def env(self) -> dict[str, str]:
        """What a client needs to know, as environment variables."""
        return {
            "AIOTWHELP_BASE_URL": self.url,
            "AIOTWHELP_BEARER_TOKEN": self.token,
            "AIOTWHELP_CONSUMER_KEY": self.user.consumer_key,
            "AIOTWHELP_CONSUMER_SECRET": self.user.consumer_secret,
            "AIOTWHELP_ACCESS_TOKEN": self.user.access_token,
            "AIOTWHELP_ACCESS_TOKEN_SECRET": self.user.access_token_secret,
        }

    def add_app(self, name: str | None = None) -> App:
        """Register another app."""
        return self._accounts.add_app(name)

    def add_user(self, username: str | None = None, *, app: App | None = None) -> User:
        """Register another user, of the first app unless another one is given."""
        return self._accounts.add_user(app or self.app, username)

    def bearer(self, app: App) -> str:
        """Return an app's bearer token, the one that POST /oauth2/token gives."""
        return self._accounts.bearer_of(app)

    def grant(self, user: User | None = None, *, expires_in: float | None = None) -> Grant:
        """Issue an OAuth 2.0 user token for API v2, as if the user had just agreed.

        It lasts ``expires_in`` seconds, else ``token_lifetime``. Its refresh token is good for
        one POST /2/oauth2/token. ``RuntimeError`` while the emulator does not run.
        """
        lifetime = self._tokens.lifetime if expires_in is None else expires_in
        checks.seconds("expires_in", lifetime)
        return self._accounts.grant(user or self.user, lifetime, self.clock.steady())

    def revoke(self, token: str) -> bool:
        """End a token of any kind at once; tell whether there was one."""
        return self._accounts.revoke(token)

    def set_limit(self, name: str, value: LimitOverride) -> None:
        """Change an endpoint's limits while it runs, written as in ``limits``."""
        self._catalogue.override(name, value)

    def spend(
        self,
        name: str,
        number: int = 1,
        *,
        caller: User | App | None = None,
        unit: str = "requests",
    ) -> None:
        """Take calls from an endpoint's windows as another consumer of the same quota would.

        ``caller`` is whose quota it is: the first user's unless given. ``unit`` is a kind of
        tokens where the dialect counts them.
        """
        checks.whole("number", number)
        checks.choice("unit", unit, self._gate.units)
        identity = self._accounts.identity(caller or self.user)
        for endpoint in self._catalogue.named(name):
            self._gate.spend(endpoint, identity, number, unit)

    def end_windows(self) -> None:
        """End every window now, whatever resets were announced."""
        self._gate.book.forget()

    def reply(
        self,
        method: str,
        path: str,
        *,
        status: int = 200,
        json: Any = None,
        body: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        times: int | None = None,
        counted: bool = True,
    ) -> Reply:
        """Give a canned answer to the requests for a path, ``times`` times or from now on.

        ``method`` may be ``"*"``; ``path`` is one on the wire, with ``{id}`` placeholders if
        need be, or an endpoint's short name such as ``"help/privacy"``. Answers with ``times``
        are given in the order they were arranged; when they are used up, the newest lasting one
        is. Of ``json`` and ``body`` give one.

        On an endpoint that the emulator knows, callers must still sign and are still counted,
        and the answer gets the window's headers unless it names them itself; with
        ``counted=False`` the answer is given to anyone just as it stands. On every other path
        it always is.
        """
        checks.status("status", status)
        if headers is not None:
            checks.mapping("headers", headers, '{"Location": "/2/users"}')
        if times is not None:
            checks.whole("times", times, least=1)
        if json is not None and body is not None:
            raise ValueError("an answer has json= or body=, not both")
        if body is not None:
            raw = body.encode() if isinstance(body, str) else body
            made = Answer(status, raw, headers or {})
        else:
            made = answer(json, status, headers) if json is not None else _empty(status, headers)
        reply = Reply(method.upper(), self._wire_path(path), made, times, counted)
        self._judge.script.replies.append(reply)
        return reply

    def fail_next(
        self,
        n: int = 1,
        *,
        status: int = 503,
        drop: Literal["before", "after"] | None = None,
        counted: bool = True,
        path: str | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
    ) -> None:
        """Make the next ``n`` requests fail, those for ``path`` if one is given.

        Either with ``status`` and the page of an edge (or ``json``), or, with ``drop``, by
        closing the connection before the request is counted or after it was carried out.
        A failing status is never carried out, but counted unless ``counted=False``; requests
        that are refused anyway, for their credentials or for the limit, do not use one up.
        """
        checks.whole("n", n, least=1)
        checks.status("status", status)
        checks.choice("drop", drop, ("before", "after", None))
        if headers is not None:
            checks.mapping("headers", headers, '{"Retry-After": "3"}')
        wire_path = None if path is None else self._wire_path(path)
        self._judge.script.failures.append(
            Failure(n, status, drop, counted, wire_path, headers or {}, json)
        )

    def clear(self) -> None:
        """Forget canned answers, coming failures, the journal and its counts; windows stay."""
        self._judge.script.replies.clear()
        self._judge.script.failures.clear()
        self._journal.clear()
        self._gate.book.most_refused = 0

    @property
    def requests(self) -> list[Request]:
        """The last requests in the order they were judged; at most ``keep``."""
        return list(self._journal.entries)

    @property
    def refused(self) -> int:
        """How many requests were answered with 429, or with the dialect's status for it."""
        return self._journal.refused

    @property
    def tally(self) -> Tally:
        """Exact counts of all requests."""
        return self._journal.tally(self._gate.book.most_refused)

    @property
    def windows(self) -> list[WindowReport]:
        """The past windows, at most ``keep``, and then the current ones."""
        return self._gate.book.reports()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        incoming = Incoming(
            method=request.method,
            path=request.path,
            target=request.raw_path,
            host=request.host,
            headers=request.headers,
            body=await request.read(),
        )
        await self._travel()
        verdict = self._judge.judge(incoming)
        self._note(incoming, verdict)
        await self._travel()
        return await _sent(request, verdict)

    async def _travel(self) -> None:
        delay = self._dice.delay(self.faults.latency, self.faults.jitter)
        if delay > 0:
            await asyncio.sleep(delay)

    def _note(self, incoming: Incoming, verdict: Verdict) -> None:
        entry = Request(
            number=self._journal.received + 1,
            at=self.clock.now(),
            method=incoming.method,
            path=incoming.path,
            query=incoming.query,
            headers=incoming.headers,
            body=incoming.body[:BODY_KEPT],
            template=verdict.template,
            identity=verdict.identity,
            status=verdict.answer.status if verdict.answer else None,
            remaining=verdict.remaining,
            counted=verdict.counted,
            fault=verdict.fault,
            refused=verdict.refused
            or (verdict.answer is not None and verdict.answer.status == 429),
        )
        self._journal.add(entry, self.clock.steady())

    async def _date(self, request: web.Request, response: web.StreamResponse) -> None:
        # aiohttp has just written the machine's date, which is another clock than ours.
        if self.faults.date == "off":
            del response.headers[hdrs.DATE]
        elif self.faults.date == "garbled":
            response.headers[hdrs.DATE] = "some day"
        else:
            response.headers[hdrs.DATE] = http_date(self.clock.now() + self.faults.edge_skew)

    def _status(self, identity: Any, families: set[str]) -> Mapping[str, Any]:
        return self._gate.status(self._catalogue, identity, families)

    def _wire_path(self, path: str) -> str:
        if not isinstance(path, str):
            raise TypeError(f"path is one such as '/2/users/me', not {path!r}")
        return path if path.startswith("/") else self._catalogue.named(path)[0].path


async def _sent(request: web.Request, verdict: Verdict) -> web.StreamResponse:
    if verdict.answer is None:
        return _hung_up(request, web.Response())
    response = web.Response(
        status=verdict.answer.status, body=verdict.answer.body, headers=verdict.all_headers
    )
    return await _cut(request, response) if verdict.truncated else response


async def _cut(request: web.Request, response: web.Response) -> web.StreamResponse:
    """Promise a whole body and send half of it."""
    whole = response.body
    half = web.StreamResponse(status=response.status, headers=response.headers)
    half.content_length = len(whole) if isinstance(whole, bytes) else 0
    await half.prepare(request)
    await half.write(whole[: half.content_length // 2] if isinstance(whole, bytes) else b"")
    return _hung_up(request, half)


def _hung_up(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Close the connection; aiohttp finds out when it wants to write the rest."""
    if request.transport is not None:
        request.transport.close()
    return response


def _empty(status: int, headers: Mapping[str, str] | None) -> Answer:
    return Answer(status, b"", headers or {})
