"""A call that is struck at each of its suspensions in turn, and in every way, leaves nothing.

A scene sets up what a call meets, and returns the call. It is played undisturbed first, which
tells its suspensions, and then once more for each of them and each moment of it: the call is
cancelled, or out of time, or its session is closed. Whatever strikes, it is felt at once, the
others are served, the next call works, and no task, future, timer, connection or permit is left.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import gc
import io
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
)
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakSet

import aiohttp
import aiohttp.connector
import pytest
from aiohttp import web

from aiotwhelp import (
    Api,
    Auth,
    Bearer,
    ClientCredentials,
    Limiter,
    MemoryStore,
    OAuth2User,
    RateLimitMiddleware,
    Session,
    SessionClosedError,
    Token,
    X,
    testing,
)
from aiotwhelp.emulator import Emulator
from aiotwhelp.session import GRACE
from tests.simulation import headers
from tests.stack import LANGUAGES, PRIVACY, assert_at_rest, assert_nothing_is_left, serving, ticks

T = TypeVar("T")

ME = "/2/users/me"
UPLOAD = "/upload"

#: Seconds of the emulator's windows, and calls in each of them.
WINDOW = 5
LIMITS = {"help/privacy": 4, "help/languages": 2}

#: Virtual seconds in which whoever is left must be served: some windows and lost probes.
SOON = 60

#: So many are woken in several slices.
A_CROWD = 300

#: More than the client takes in before anyone reads it.
A_LARGE_BODY = b'"' + b"x" * 1_000_000 + b'"'


# The harness ------------------------------------------------------------------------------------


class Moment(enum.Enum):
    """When, in a suspension, the blow falls."""

    AT_ONCE = "as it suspends"
    MIDWAY = "in the middle of the wait"
    AT_ITS_END = "when what was awaited is done, and the task has not woken yet"


@dataclass(frozen=True)
class Blow:
    moment: Moment
    #: Seconds that the suspension lasts when nothing strikes.
    lasting: float


class Course(list[tuple[float, float]]):
    """From when to when each of a call's suspensions lasted."""

    def blow(self, k: int, moment: Moment) -> dict[int, Blow]:
        began, ended = self[k - 1]
        return {k: Blow(moment, ended - began)}

    @property
    def ends(self) -> list[float]:
        return sorted({ended for _, ended in self if ended > self[0][0]})

    @property
    def instants(self) -> list[float]:
        """When a suspension is half over, and when it ends."""
        middles = {(began + ended) / 2 for began, ended in self if ended > began}
        return sorted({*middles, *self.ends})


class Struck:
    """Awaits some work, notes each time that it yields to the loop, and strikes at some of them."""

    def __init__(
        self, work: Awaitable[Any], blows: Mapping[int, Blow], strike: Callable[[], object]
    ) -> None:
        self.work = work
        self.course = Course()
        self._blows = blows
        self._strike = strike

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self.work.__await__()
        resume: Callable[[], Any] = functools.partial(next, steps)
        time = asyncio.get_running_loop().time
        while True:
            try:
                awaited = resume()
            except StopIteration as end:
                return end.value
            began = time()
            self.course.append((began, began))
            self._aim(awaited)
            try:
                yield awaited
            except BaseException as error:  # noqa: BLE001 - handed on
                resume = functools.partial(steps.throw, error)
            else:
                resume = functools.partial(next, steps)
            self.course[-1] = (began, time())

    def _aim(self, awaited: asyncio.Future[Any] | None) -> None:
        """Have the blow for this suspension fall; ``awaited`` is None for a bare yield."""
        k = len(self.course)
        blow = self._blows.get(k)
        if blow is None:
            return
        loop = asyncio.get_running_loop()

        def fall(_: object = None) -> None:
            assert len(self.course) == k, "it went on before the blow fell"
            self._strike()

        if blow.moment is Moment.AT_ONCE:
            fall()
        elif blow.moment is Moment.AT_ITS_END and awaited is not None:
            # Called before the task's own callback, which is added later and wakes it.
            awaited.add_done_callback(fall)
        elif blow.lasting:
            loop.call_later(blow.lasting / 2, fall)
        else:
            loop.call_soon(fall)


class WatchedLoop(testing.VirtualTimeLoop):
    """Remembers the futures it made, and the errors that nobody was there to take."""

    def __init__(self) -> None:
        super().__init__()
        self.futures: WeakSet[asyncio.Future[Any]] = WeakSet()
        self.complaints: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, complaint: self.complaints.append(complaint))

    def create_future(self) -> asyncio.Future[Any]:
        future = super().create_future()
        self.futures.add(future)
        return future

    def timers(self) -> set[str]:
        """Name what the timers call that are still to ring."""
        waiting = [each._callback for each in self._scheduled if not each.cancelled()]
        return {f"{each.__module__}.{each.__qualname__}" for each in waiting}

    def assert_forgotten(self) -> None:
        """Once it is closed, nobody keeps a future of it, and nobody was left with an error."""
        gc.collect()
        assert not [future for future in self.futures if not future.done()]
        assert not self.complaints


def running_loop() -> WatchedLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, WatchedLoop)
    return loop


# The stage --------------------------------------------------------------------------------------

#: Timers that are not ours: of kept connections on both sides, of what is on the wire, and of a
#: server's handlers that sleep, since they do not notice that their caller has gone.
OTHERS = {
    "aiohttp.helpers._weakref_handle",
    "aiohttp.web_protocol.RequestHandler._process_keepalive",
    "aiotwhelp.deadlines.Deadlines._ring",
    "aiotwhelp.testing.transports._Wire._deliver",
    "asyncio.futures._set_result_unless_cancelled",
}

#: Whose timers must be gone in the tick in which a call ends.
OURS = (
    *("aiotwhelp.limiter", "aiotwhelp.turns", "aiotwhelp.alarm", "aiotwhelp.patience"),
    *("aiotwhelp.pool", "asyncio.timeouts"),
)

Come = Callable[[], Coroutine[Any, Any, Any]]


class Stage:
    """An emulator, a session on it, and others who call at the same time as the call."""

    def __init__(self, api: Emulator, session: Session, exits: AsyncExitStack) -> None:
        self.api = api
        self.session = session
        self.exits = exits
        #: Options of the call that is struck.
        self.options: dict[str, Any] = {}
        self.others: list[asyncio.Task[Any]] = []
        self.afterwards: Come = self.use_a_window
        #: What must hold when all is over, and what must hold if nothing struck.
        self.holds: list[Callable[[], object]] = []
        self.shows: list[Callable[[], object]] = []
        #: A call that is lost in a window may cost one refusal in it.
        self.most_refused = 1
        #: The session that is closed, if the scene ends with that, and whether it is once more.
        self.closed: Session | None = None
        self.closes_again = True
        self._followers: list[Come] = []

    def call(self, path: str, **options: Any) -> Awaitable[Any]:
        """Return the call that is struck."""
        return self.session.fetch(path, **options, **self.options)

    def fetches(self, path: str, **options: Any) -> Come:
        return functools.partial(self.session.fetch, path, **options)

    async def preceded(self, *others: Come) -> None:
        """Have others come before the call."""
        self.others += [asyncio.create_task(come()) for come in others]
        await ticks(3)

    def followed(self, *others: Come) -> None:
        """Have others come right after the call."""
        self._followers += others

    def begin(self, call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(call)
        self.others += [asyncio.create_task(come()) for come in self._followers]
        return task

    def fails_for(self, seconds: float, fault: str, value: float) -> None:
        """Have a switch of the emulator set for a while."""

        async def mend() -> None:
            await asyncio.sleep(seconds)
            setattr(self.api.faults, fault, before)

        before = getattr(self.api.faults, fault)
        setattr(self.api.faults, fault, value)
        self._mending = asyncio.create_task(mend())

    async def spend(self) -> None:
        for _ in range(LIMITS["help/languages"]):
            await self.session.fetch(LANGUAGES)

    async def use_a_window(self) -> None:
        """Call at once, and then as often as a whole window allows."""
        await self.session.fetch(PRIVACY)
        await self.session.fetch(LANGUAGES)
        await asyncio.sleep(WINDOW + 1)
        async with asyncio.timeout(1):
            await asyncio.gather(*map(self.session.fetch, [PRIVACY] * LIMITS["help/privacy"]))

    async def assert_in_order(self) -> None:
        """The others are served, the next call works, and nothing of the call is left."""
        if self.closed is not None:
            await self._assert_closed(self.closed)
            return
        await ticks()
        if not self.others:
            self._assert_idle()
        async with asyncio.timeout(SOON):
            await asyncio.gather(*self.others)
            await self.afterwards()
        await self._assert_over(self.session)

    def _assert_idle(self) -> None:
        """Before any time has passed."""
        stats, pool = self.session.limiter.stats(), self.session._settings.pool
        assert (stats.in_flight, stats.waiting, pool.room.in_flight) == (0, 0, 0)
        assert (pool.active, len(pool._sleepers), len(pool.deadlines)) == (0, 0, 0)
        assert not [name for name in running_loop().timers() if name.startswith(OURS)]

    async def _assert_closed(self, session: Session) -> None:
        """Each of the others has an answer, or was told, at the latest when it closes again."""
        if self.closes_again:
            async with asyncio.timeout(GRACE + 1):
                await session.close()
        await ticks()
        outcomes = [each.exception() for each in self.others]
        assert {type(each) for each in outcomes} <= {SessionClosedError, type(None)}
        if session is not self.session:
            await self.afterwards()
        await self._assert_over(session)

    async def _assert_over(self, session: Session) -> None:
        assert all(holds() for holds in self.holds)
        assert all(window.refused <= self.most_refused for window in self.api.windows)
        await assert_at_rest(session)
        assert running_loop().timers() <= OTHERS


#: Making an API's routes takes as long as the rest of a play.
api_at: Callable[[str], Api] = functools.cache(X.at)


@asynccontextmanager
async def staged(
    auth: Callable[[Emulator], Auth] = lambda api: Bearer(api.token), **options: Any
) -> AsyncIterator[Stage]:
    loop = running_loop()
    loop.network.latency = 0.01
    async with Emulator(window=WINDOW, limits=LIMITS, latency=0.1) as api:
        async with AsyncExitStack() as exits:
            session = Session(api_at(api.url), auth=auth(api), **options)
            yield Stage(api, await exits.enter_async_context(session), exits)
        await asyncio.sleep(SOON)  # virtual: the server's side ends, too
        assert loop.network.connections == 0
    await assert_nothing_is_left()


@dataclass(frozen=True, eq=False)
class Scene:
    """What a call meets; ``set_up`` sees to it, and returns the call."""

    set_up: Callable[[Stage], Awaitable[Awaitable[Any]]]
    stage: Callable[[], AbstractAsyncContextManager[Stage]]
    #: The name of the coroutine of a task: its suspensions count, and the call is struck at them.
    inside: str | None = None
    #: Whether ``total_timeout`` bounds the whole call.
    is_bounded: bool = True


Scenes = dict[str, Scene]
CALLS: Scenes = {}
CLOSINGS: Scenes = {}


def scene(
    among: Scenes, inside: str | None = None, *, is_bounded: bool = True, **options: Any
) -> Callable[[Any], Any]:
    def put(set_up: Any) -> Any:
        stage = functools.partial(staged, **options)
        among[set_up.__name__] = Scene(set_up, stage, inside, is_bounded)
        return set_up

    return put


# The calls --------------------------------------------------------------------------------------


@scene(CALLS)
async def on_the_fast_path(on: Stage) -> Awaitable[Any]:
    await on.session.fetch(PRIVACY)
    return on.call(PRIVACY)


@scene(CALLS)
async def probing(on: Stage) -> Awaitable[Any]:
    return on.call(PRIVACY)


@scene(CALLS)
async def probing_for_others(on: Stage) -> Awaitable[Any]:
    on.followed(*[on.fetches(PRIVACY)] * 3)
    return on.call(PRIVACY)


@scene(CALLS)
async def waiting_for_anothers_probe(on: Stage) -> Awaitable[Any]:
    await on.preceded(on.fetches(PRIVACY))
    on.followed(on.fetches(PRIVACY))
    return on.call(PRIVACY)


@scene(CALLS)
async def queued(on: Stage) -> Awaitable[Any]:
    await on.spend()
    on.shows.append(lambda: running_loop().elapsed > WINDOW)
    return on.call(LANGUAGES)


@scene(CALLS)
async def queued_in_front(on: Stage) -> Awaitable[Any]:
    await on.spend()
    on.followed(*[on.fetches(LANGUAGES)] * 2)
    return on.call(LANGUAGES)


@scene(CALLS)
async def queued_in_the_middle(on: Stage) -> Awaitable[Any]:
    await on.spend()
    await on.preceded(on.fetches(LANGUAGES))
    on.followed(on.fetches(LANGUAGES))
    return on.call(LANGUAGES, max_wait=40)


@scene(CALLS, concurrency=1)
async def waiting_for_room(on: Stage) -> Awaitable[Any]:
    await on.session.fetch(PRIVACY)
    await on.preceded(on.fetches(PRIVACY))
    on.followed(on.fetches(PRIVACY))
    return on.call(PRIVACY)


@scene(CALLS)
async def refused(on: Stage) -> Awaitable[Any]:
    on.api.spend("help/privacy", 4, caller=on.api.app)
    on.most_refused = 2
    on.followed(*[on.fetches(PRIVACY)] * 2)
    on.shows.append(lambda: on.api.refused == 1)
    return on.call(PRIVACY)


@scene(CALLS)
async def refused_for_a_hidden_limit(on: Stage) -> Awaitable[Any]:
    await on.session.fetch(PRIVACY)
    on.api.reply("GET", "help/privacy", status=429, times=1)
    on.followed(on.fetches(PRIVACY))
    on.shows.append(lambda: on.api.refused == 1)
    return on.call(PRIVACY)


@scene(CALLS)
async def retrying(on: Stage) -> Awaitable[Any]:
    on.api.fail_next(2, status=503)
    on.shows.append(lambda: [each.status for each in on.api.requests[:3]] == [503, 503, 200])
    return on.call(PRIVACY)


@scene(CALLS)
async def retrying_after_a_large_answer(on: Stage) -> Awaitable[Any]:
    on.api.reply("GET", "help/privacy", status=503, body=A_LARGE_BODY, times=1)
    on.shows.append(lambda: [each.status for each in on.api.requests[:2]] == [503, 200])
    return on.call(PRIVACY)


@scene(CALLS)
async def retrying_after_a_lost_connection(on: Stage) -> Awaitable[Any]:
    on.api.fail_next(1, drop="after")
    on.followed(on.fetches(PRIVACY))
    on.shows.append(lambda: on.session.limiter.stats().lost == 1)
    return on.call(PRIVACY)


@scene(CALLS)
async def retrying_after_aiohttps_time_out(on: Stage) -> Awaitable[Any]:
    on.fails_for(0.5, "latency", 2.0)
    on.shows.append(lambda: on.session.limiter.stats().lost == 1)
    return on.call(PRIVACY, timeout=aiohttp.ClientTimeout(total=0.5))


@scene(CALLS)
async def retrying_after_an_answer_that_stalls(on: Stage) -> Awaitable[Any]:
    async def stall(request: web.Request) -> web.StreamResponse:
        if len(server.seen) > 1:
            return web.json_response({})
        response = web.StreamResponse(status=503, headers={"Content-Length": "100"})
        await response.prepare(request)
        await asyncio.sleep(20)
        return response

    server = await on.exits.enter_async_context(serving(stall))
    on.shows.append(lambda: len(server.seen) == 2)
    return on.call(f"{server.url}/stalls")


@scene(CALLS)
async def fetching_a_truncated_body_again(on: Stage) -> Awaitable[Any]:
    on.fails_for(0.2, "truncated", 1.0)
    on.shows.append(lambda: on.api.requests[0].fault == "truncated")
    return on.call(PRIVACY)


@scene(CALLS)
async def fetching_a_large_body(on: Stage) -> Awaitable[Any]:
    on.api.reply("GET", "help/privacy", body=A_LARGE_BODY)
    return on.call(PRIVACY)


def reading(on: Stage, *, whole: bool) -> Coroutine[Any, Any, Any]:
    async def call() -> Any:
        async with on.session.get(PRIVACY) as response:
            return await (response.read() if whole else asyncio.sleep(0.01))

    on.api.reply("GET", "help/privacy", body=A_LARGE_BODY)
    return call()


@scene(CALLS, is_bounded=False)
async def reading_the_body(on: Stage) -> Awaitable[Any]:
    return reading(on, whole=True)


@scene(CALLS, is_bounded=False)
async def leaving_the_body_unread(on: Stage) -> Awaitable[Any]:
    return reading(on, whole=False)


@scene(CALLS)
async def redirected(on: Stage) -> Awaitable[Any]:
    on.api.reply("GET", "/old", status=302, headers={"Location": PRIVACY})
    return on.call("/old")


@scene(CALLS)
async def redirected_into_a_wait(on: Stage) -> Awaitable[Any]:
    on.api.reply("GET", "/old", status=302, headers={"Location": LANGUAGES})
    await on.spend()
    on.followed(on.fetches(LANGUAGES))
    on.shows.append(lambda: running_loop().elapsed > WINDOW)
    return on.call("/old")


@scene(CALLS)
async def posting_a_stream(on: Stage) -> Awaitable[Any]:
    on.api.reply("POST", UPLOAD, json={})
    course: list[str] = []

    async def pieces() -> AsyncIterator[bytes]:
        course.append("begun")
        try:
            for _ in range(5):
                await asyncio.sleep(0.01)
                yield b"x" * 100_000
        finally:
            course.append("ended")

    on.holds.append(lambda: course in ([], ["begun", "ended"]))
    return on.call(UPLOAD, method="POST", data=pieces())


@scene(CALLS)
async def posting_a_file(on: Stage) -> Awaitable[Any]:
    on.api.reply("POST", UPLOAD, json={})
    file = on.exits.enter_context(io.BufferedReader(io.FileIO(__file__)))
    on.holds.append(lambda: file.closed)
    return on.call(UPLOAD, method="POST", data=file)


@scene(CALLS)
async def through_a_middleware_that_waits(on: Stage) -> Awaitable[Any]:
    async def wait(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        await asyncio.sleep(0.01)
        response = await handler(request)
        await asyncio.sleep(0.01)
        return response

    on.api.reply("GET", "help/privacy", body=A_LARGE_BODY)
    return on.call(PRIVACY, middlewares=[wait])


@scene(CALLS)
async def being_looked_at_before_it_is_read(on: Stage) -> Awaitable[Any]:
    async def look(response: aiohttp.ClientResponse) -> None:
        await asyncio.sleep(0.01)

    async def call() -> None:
        response = await on.session.get(PRIVACY, raise_for_status=look, **on.options)
        response.close()

    on.api.reply("GET", "help/privacy", body=A_LARGE_BODY)
    return call()


@scene(CALLS)
async def coalesced_with_others(on: Stage) -> Awaitable[Any]:
    await on.preceded(on.fetches(PRIVACY, coalesce=True))
    on.followed(on.fetches(PRIVACY, coalesce=True))
    return on.call(PRIVACY, coalesce=True)


@scene(CALLS, inside="Call.run")
async def coalesced(on: Stage) -> Awaitable[Any]:
    return on.call(PRIVACY, coalesce=True)


@scene(CALLS, inside="Call.run")
async def coalesced_and_first(on: Stage) -> Awaitable[Any]:
    on.followed(*[on.fetches(PRIVACY, coalesce=True)] * 2)
    return on.call(PRIVACY, coalesce=True)


# Tokens -----------------------------------------------------------------------------------------


class SlowStore(MemoryStore):
    """A store of a user's that takes its time."""

    __slots__ = ()

    async def load(self) -> Token | None:
        await asyncio.sleep(0.05)
        return await super().load()

    async def save(self, token: Token) -> None:
        await asyncio.sleep(0.05)
        await super().save(token)


def app_of(api: Emulator) -> ClientCredentials:
    return ClientCredentials(api.app.consumer_key, api.app.consumer_secret)


def user_of(api: Emulator) -> OAuth2User:
    grant = api.grant(expires_in=1)
    return OAuth2User(
        api.app.client_id,
        client_secret=api.app.client_secret,
        store=SlowStore(Token(grant.access_token, grant.refresh_token, 0.0)),
    )


def asks_for_tokens(on: Stage, times: int) -> None:
    """The others need no more requests for a token than anyone."""
    on.holds.append(lambda: sum(each.path.endswith("/token") for each in on.api.requests) <= times)


@scene(CALLS, auth=app_of)
async def fetching_a_first_token(on: Stage) -> Awaitable[Any]:
    on.followed(on.fetches(LANGUAGES))
    asks_for_tokens(on, 1)
    return on.call(PRIVACY)


@scene(CALLS, auth=app_of, inside="ClientCredentials._renew")
async def fetching_a_first_token_alone(on: Stage) -> Awaitable[Any]:
    asks_for_tokens(on, 1)
    return on.call(PRIVACY)


@scene(CALLS, auth=app_of)
async def fetching_a_token_anew(on: Stage) -> Awaitable[Any]:
    await on.session.fetch(PRIVACY)
    on.api.revoke(on.api.token)
    on.followed(on.fetches(LANGUAGES))
    asks_for_tokens(on, 2)
    return on.call(PRIVACY)


@scene(CALLS, auth=user_of)
async def refreshing_a_token(on: Stage) -> Awaitable[Any]:
    on.followed(on.fetches(ME), on.fetches("/2/tweets/1"))
    on.afterwards = on.fetches(ME)
    asks_for_tokens(on, 1)
    return on.call(ME)


@scene(CALLS, auth=user_of, inside="OAuth2User._renew")
async def refreshing_a_token_alone(on: Stage) -> Awaitable[Any]:
    on.afterwards = on.fetches(ME)
    asks_for_tokens(on, 1)
    return on.call(ME)


@scene(CALLS, auth=user_of)
async def refreshing_a_token_with_others(on: Stage) -> Awaitable[Any]:
    await on.preceded(on.fetches("/2/tweets/1"))
    on.followed(on.fetches(ME))
    on.afterwards = on.fetches(ME)
    asks_for_tokens(on, 1)
    return on.call(ME)


# Without our session ----------------------------------------------------------------------------


def own_session(on: Stage, auth: Auth) -> Callable[[str], Come]:
    """Open a plain session with the middleware; return what makes its calls."""
    limited = RateLimitMiddleware(on.session.limiter, apis={on.session.api: auth})
    own = aiohttp.ClientSession(on.api.url, middlewares=[limited])
    on.exits.push_async_callback(own.close)
    assert own.connector is not None
    held = own.connector._acquired
    on.holds.append(lambda: not held)

    async def get(path: str) -> None:
        async with own.get(path) as response:
            await response.read()
            assert response.status == 200

    return lambda path: functools.partial(get, path)


@scene(CALLS, is_bounded=False)
async def probing_by_the_middleware_alone(on: Stage) -> Awaitable[Any]:
    gets = own_session(on, Bearer(on.api.token))
    on.followed(gets(PRIVACY))
    on.afterwards = gets(PRIVACY)
    return gets(PRIVACY)()


@scene(CALLS, is_bounded=False)
async def queued_by_the_middleware_alone(on: Stage) -> Awaitable[Any]:
    gets = own_session(on, Bearer(on.api.token))
    await on.spend()
    on.followed(gets(LANGUAGES))
    on.afterwards = gets(LANGUAGES)
    return gets(LANGUAGES)()


@scene(CALLS, is_bounded=False)
async def fetching_a_token_by_the_middleware_alone(on: Stage) -> Awaitable[Any]:
    gets = own_session(on, app_of(on.api))
    on.followed(gets(LANGUAGES))
    on.afterwards = gets(PRIVACY)
    asks_for_tokens(on, 1)
    return gets(PRIVACY)()


@scene(CALLS, is_bounded=False)
async def holding_a_permit(on: Stage) -> Awaitable[Any]:
    async def hold() -> None:
        async with on.session.limiter.permit("another API") as permit:
            await asyncio.sleep(1)
            permit.observed(headers(3))

    await on.preceded(hold)
    on.followed(hold)
    on.afterwards = hold
    return hold()


# Closing ----------------------------------------------------------------------------------------


def closing(on: Stage, session: Session | None = None) -> Coroutine[Any, Any, None]:
    """Return the call that is struck: the end of a session."""
    on.closed = session or on.session
    return on.closed.close()


def another_session(on: Stage, limiter: Limiter | None = None) -> Session:
    return Session(on.session.api, auth=Bearer(on.api.token), limiter=limiter)


@scene(CLOSINGS)
async def an_idle_session(on: Stage) -> Awaitable[Any]:
    await on.session.fetch(PRIVACY)
    return closing(on)


@scene(CLOSINGS)
async def with_calls_in_flight_and_others_waiting(on: Stage) -> Awaitable[Any]:
    await on.session.fetch(PRIVACY)
    await on.preceded(*[on.fetches(PRIVACY)] * 5)
    return closing(on)


@scene(CLOSINGS)
async def with_a_crowd_waiting(on: Stage) -> Awaitable[Any]:
    await on.spend()
    await on.preceded(*[on.fetches(LANGUAGES)] * A_CROWD)
    return closing(on)


@scene(CLOSINGS)
async def with_a_call_that_outlasts_the_grace(on: Stage) -> Awaitable[Any]:
    on.api.faults.latency = 30
    await on.preceded(on.fetches(PRIVACY))
    return closing(on)


@scene(CLOSINGS)
async def with_a_call_between_two_attempts(on: Stage) -> Awaitable[Any]:
    on.api.fail_next(1, headers={"Retry-After": "4"})
    await on.preceded(on.fetches(PRIVACY))
    await asyncio.sleep(1)
    return closing(on)


@scene(CLOSINGS)
async def with_an_answer_that_is_read(on: Stage) -> Awaitable[Any]:
    async def read_slowly() -> None:
        async with on.session.get(PRIVACY) as response:
            await asyncio.sleep(1)
            # aiohttp's own error: the call was over long ago.
            with suppress(aiohttp.ClientError, RuntimeError):
                await response.read()

    on.api.reply("GET", "help/privacy", body=A_LARGE_BODY)
    await on.preceded(read_slowly)
    await asyncio.sleep(0.5)
    return closing(on)


@scene(CLOSINGS)
async def with_an_upload_under_way(on: Stage) -> Awaitable[Any]:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            await asyncio.sleep(0.1)
            yield b"x" * 1000

    on.api.reply("POST", UPLOAD, json={})
    await on.preceded(on.fetches(UPLOAD, method="POST", data=pieces()))
    await asyncio.sleep(0.5)
    return closing(on)


@scene(CLOSINGS, auth=user_of)
async def with_a_token_under_way(on: Stage) -> Awaitable[Any]:
    await on.preceded(on.fetches(ME))
    on.others.pop().cancel()
    return closing(on)


@scene(CLOSINGS)
async def one_of_two_sessions_on_a_limiter(on: Stage) -> Awaitable[Any]:
    await on.spend()
    unharmed = asyncio.create_task(on.session.fetch(LANGUAGES))
    session = another_session(on, on.session.limiter)
    await on.preceded(*[functools.partial(session.fetch, LANGUAGES)] * A_CROWD)

    async def afterwards() -> None:
        await unharmed

    on.afterwards = afterwards
    return closing(on, session)


def calling_in_a_block(on: Stage, crowd: int) -> Coroutine[Any, Any, None]:
    """Make a call in a block that closes its session, once."""

    async def block() -> None:
        async with another_session(on) as on.closed:
            come = functools.partial(on.closed.fetch, LANGUAGES)
            on.others += [asyncio.create_task(come()) for _ in range(crowd)]
            await on.closed.fetch(PRIVACY)

    on.closes_again = False
    return block()


@scene(CLOSINGS)
async def a_block_that_calls(on: Stage) -> Awaitable[Any]:
    return calling_in_a_block(on, crowd=0)


@scene(CLOSINGS)
async def a_block_that_leaves_a_crowd_waiting(on: Stage) -> Awaitable[Any]:
    return calling_in_a_block(on, crowd=A_CROWD)


# The plays --------------------------------------------------------------------------------------


@dataclass
class Play:
    """How a scene went, up to the end of its call."""

    on: Stage
    course: Course
    task: asyncio.Task[Any]

    @property
    def error(self) -> BaseException | None:
        return None if self.task.cancelled() else self.task.exception()


@asynccontextmanager
async def played(
    scene: Scene,
    blows: Mapping[int, Blow] | None = None,
    *,
    strike: Callable[[Stage], object] | None = None,
    within: AbstractAsyncContextManager[Any] | None = None,
    **options: Any,
) -> AsyncIterator[Play]:
    """Play a scene up to the end of its call, which is made ``within`` and has ``options``."""
    async with scene.stage() as on:
        on.options |= options
        work = await scene.set_up(on)

        async def call() -> Any:
            async with within or nullcontext():
                return await (work if scene.inside else struck)

        def fall() -> None:
            strike(on) if strike else task.cancel()

        struck = Struck(work, blows or {}, fall)
        if scene.inside:
            put_inside(scene.inside, struck)
        task = on.begin(call())
        await asyncio.wait([task])
        yield Play(on, struck.course, task)


def put_inside(name: str, struck: Struck) -> None:
    """Have the first task with a coroutine of that name watched, in place of the call."""

    async def watched(work: Coroutine[Any, Any, Any]) -> Any:
        struck.work = work
        return await struck

    def make(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        if work.__qualname__ == name:
            running_loop().set_task_factory(None)
            work = watched(work)
        return asyncio.Task(work, loop=loop, **options)

    running_loop().set_task_factory(make)


def run(play: Coroutine[Any, Any, T]) -> T:
    loop = WatchedLoop()
    with pytest.MonkeyPatch.context() as patch:
        # By the real clock, on a machine that stands still for a while, an idle connection would
        # be too old, and the call be later by another handshake.
        patch.setattr(aiohttp.connector, "monotonic", loop.time)
        result = testing.run(play, seed=7, debug=False, loop_factory=lambda: loop)
    loop.assert_forgotten()
    return result


@pytest.fixture(autouse=True, scope="module")
def _little_to_collect() -> Iterator[None]:
    """Leave out of each collection what was there before: 2 ms instead of 40."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@functools.cache
def course_of(scene: Scene) -> Course:
    """Play a scene without a blow, and return its suspensions: of each there is one at least."""

    async def play() -> Course:
        async with played(scene) as play:
            play.task.result()
            assert all(shows() for shows in play.on.shows)
            await play.on.assert_in_order()
        return play.course

    course = run(play())
    assert len(course) > 0
    return course


async def cancelled(scene: Scene, blows: Mapping[int, Blow]) -> Course:
    async with played(scene, blows) as play:
        assert play.task.cancelled(), play.error
        await play.on.assert_in_order()
    return play.course


every_call = pytest.mark.parametrize("scene", CALLS.values(), ids=CALLS)
bounded = {name: scene for name, scene in CALLS.items() if scene.is_bounded}
every_bounded_call = pytest.mark.parametrize("scene", bounded.values(), ids=bounded)
every_moment = pytest.mark.parametrize("moment", Moment, ids=lambda moment: moment.name.lower())


@every_moment
@every_call
def test_a_call_cancelled_at_any_suspension_leaves_nothing(
    scene: Scene, moment: Moment, record_property: Callable[[str, object], None]
) -> None:
    course = course_of(scene)
    record_property("suspensions", len(course))
    for k in range(1, len(course) + 1):
        met = run(cancelled(scene, course.blow(k, moment)))
        assert scene.inside or len(met) == k, "it did not end there and then"


async def out_of_time(scene: Scene, at: float, **how: Any) -> None:
    async with played(scene, **how) as play:
        assert asyncio.get_running_loop().time() <= at
        # Another failure may come before, with no time left to try again.
        assert isinstance(play.error, (TimeoutError, aiohttp.ClientError, type(None)))
        assert play.error or at == course_of(scene)[-1][1]
        assert not play.task.cancelling()
        await play.on.assert_in_order()


@every_call
def test_a_call_out_of_time_at_the_end_of_any_wait_leaves_nothing(scene: Scene) -> None:
    for at in course_of(scene).ends:
        run(out_of_time(scene, at, within=asyncio.timeout_at(at)))


@every_bounded_call
def test_a_total_timeout_at_any_instant_leaves_nothing(scene: Scene) -> None:
    course = course_of(scene)
    for at in course.instants:
        run(out_of_time(scene, at, total_timeout=at - course[0][0]))


@every_call
def test_a_call_out_of_time_between_any_grant_and_its_waking_leaves_nothing(scene: Scene) -> None:
    async def play(k: int) -> None:
        limit = asyncio.timeout(None)
        blow = course.blow(k, Moment.AT_ITS_END)
        async with played(scene, blow, strike=lambda _: limit._on_timeout(), within=limit) as play:
            assert isinstance(play.error, TimeoutError)
            assert not play.task.cancelling()
            await play.on.assert_in_order()

    course = course_of(scene)
    for k in range(1, len(course) + 1):
        run(play(k))


@every_bounded_call
def test_a_session_closed_at_any_suspension_of_a_call_leaves_nothing(scene: Scene) -> None:
    async def play(k: int) -> None:
        def close(on: Stage) -> None:
            on.others.append(asyncio.create_task(closing(on)))

        async with played(scene, course.blow(k, Moment.MIDWAY), strike=close) as play:
            assert isinstance(play.error, (SessionClosedError, type(None)))
            await play.on.assert_in_order()

    course = course_of(scene)
    for k in range(1, len(course) + 1):
        run(play(k))


@every_moment
@pytest.mark.parametrize("scene", CLOSINGS.values(), ids=CLOSINGS)
def test_closing_cancelled_at_any_suspension_once_or_twice_leaves_nothing(
    scene: Scene, moment: Moment, record_property: Callable[[str, object], None]
) -> None:
    course, cleanups = course_of(scene), 0
    for k in range(1, len(course) + 1):
        blow = course.blow(k, moment)
        met = run(cancelled(scene, blow))
        cleanups += len(met) - k
        for later in range(k + 1, len(met) + 1):
            run(cancelled(scene, blow | met.blow(later, moment)))
    record_property("suspensions", len(course))
    record_property("suspensions of handling a cancellation", cleanups)


# The harness itself -----------------------------------------------------------------------------


def test_each_yield_to_the_loop_is_a_suspension() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(1)
        await asyncio.gather(asyncio.sleep(1), asyncio.sleep(2))
        return "done"

    async def play() -> None:
        struck = Struck(work(), {}, lambda: None)
        assert await struck == "done"
        assert struck.course == [(1000, 1000), (1000, 1001), (1001, 1003)]
        assert struck.course.instants == [1000.5, 1001, 1002, 1003]

    run(play())


@pytest.mark.parametrize(
    ("moment", "at", "is_done"),
    [
        (Moment.AT_ONCE, 1000, False),
        (Moment.MIDWAY, 1001, False),
        (Moment.AT_ITS_END, 1002, True),
    ],
)
def test_a_blow_falls_at_its_moment(moment: Moment, at: float, is_done: bool) -> None:
    async def play() -> None:
        loop, seen = running_loop(), []
        awaited = loop.create_future()
        loop.call_later(2, awaited.set_result, None)

        async def work() -> None:
            await awaited
            seen.append("woken")

        def strike() -> None:
            seen.append((loop.time(), awaited.done()))

        await Struck(work(), {1: Blow(moment, 2)}, strike)
        assert seen == [(at, is_done), "woken"]

    run(play())


def test_a_call_that_never_suspends_is_noticed() -> None:
    async def call() -> None:
        """Return at once."""

    async def set_up(_: Stage) -> Awaitable[None]:
        return call()

    with pytest.raises(AssertionError):
        course_of(Scene(set_up, staged))


#: Kept by calls that are not as they should be.
KEEPSAKES: list[Any] = []


async def leave_a_task(on: Stage) -> None:
    KEEPSAKES.append(asyncio.create_task(asyncio.sleep(1000)))


async def leave_a_future(on: Stage) -> None:
    KEEPSAKES.append(running_loop().create_future())


async def leave_a_timer(on: Stage) -> None:
    running_loop().call_later(1000, leave_a_timer, on)


async def leave_a_permit(on: Stage) -> None:
    KEEPSAKES.append(on.session.limiter.try_acquire("another API"))


async def leave_a_connection(on: Stage) -> None:
    on.api.reply("GET", "/large", body=A_LARGE_BODY)
    KEEPSAKES.append(await on.session.get("/large"))


async def leave_an_error(on: Stage) -> None:
    running_loop().call_soon(KEEPSAKES.remove, on)


@pytest.mark.parametrize(
    "misdeed",
    [
        leave_a_task,
        leave_a_future,
        leave_a_timer,
        leave_a_permit,
        leave_a_connection,
        leave_an_error,
    ],
)
@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
def test_what_a_cancelled_call_leaves_is_noticed(
    misdeed: Callable[[Stage], Awaitable[None]],
) -> None:
    async def set_up(on: Stage) -> Awaitable[Any]:
        async def call() -> None:
            try:
                await on.session.fetch(PRIVACY)
            except asyncio.CancelledError:
                await misdeed(on)
                raise

        return call()

    scene = Scene(set_up, staged)
    blow = course_of(scene).blow(1, Moment.AT_ONCE)
    with pytest.raises(AssertionError):
        run(cancelled(scene, blow))
    KEEPSAKES.clear()
    gc.collect()


def test_a_call_that_swallows_its_cancellation_is_noticed() -> None:
    async def set_up(on: Stage) -> Awaitable[Any]:
        async def call() -> None:
            with suppress(asyncio.CancelledError):
                await on.session.fetch(PRIVACY)

        return call()

    scene = Scene(set_up, staged)
    blow = course_of(scene).blow(1, Moment.AT_ONCE)
    with pytest.raises(AssertionError):
        run(cancelled(scene, blow))
