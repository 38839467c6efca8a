"""What has gone is gone: no circles of references, and nothing kept of those who left."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from types import FrameType
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import web

from aiotwhelp import (
    Bearer,
    ClientCredentials,
    Limiter,
    OAuth1,
    OAuth2User,
    Permit,
    QuotaKey,
    QuotaTimeoutError,
    RateLimitMiddleware,
    Session,
    X,
    events,
)
from aiotwhelp.dialects import AUTO
from aiotwhelp.testing import VirtualTimeLoop
from tests.simulation import headers, in_virtual_time, opened, settle
from tests.stack import Handler, drop, in_a_crowd, quota_headers, scripted, serving

# Circles -------------------------------------------------------------------------------------


@contextmanager
def no_collector() -> Iterator[None]:
    """Leave what is made inside to reference counting; what was there before is not looked at."""
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


async def litter(call: Callable[[], Awaitable[object]], times: int = 20) -> Counter[str]:
    """What so many calls leave to the garbage collector: objects by their type."""
    for _ in range(3):
        await call()  # what is kept once and for all is kept by now
    with no_collector():
        for _ in range(times):
            await call()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            gc.collect()
            return Counter(f"{type(each).__module__}.{type(each).__name__}" for each in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()


Step = Callable[[web.Request], web.StreamResponse]


def answer(status: int = 200, remaining: int = 10**6, resets_in: float = 900) -> Step:
    def step(_: web.Request) -> web.Response:
        told = quota_headers(remaining, limit=10**6, resets_in=resets_in)
        return web.json_response({}, status=status, headers=told)

    return step


def redirect(request: web.Request) -> web.StreamResponse:
    if request.path == "/x":
        return web.Response(status=302, headers={"Location": "/y"} | quota_headers(0, resets_in=1))
    return web.json_response({}, headers=quota_headers(0, resets_in=1))


def no_json(_: web.Request) -> web.StreamResponse:
    return web.Response(text="{")


def in_turn(*steps: Step) -> Handler:
    turns = cycle(steps)

    async def handle(request: web.Request) -> web.StreamResponse:
        return next(turns)(request)

    return handle


async def never(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(1000)
    return web.Response()


async def fetch(session: Session, **options: Any) -> None:
    with suppress(aiohttp.ClientError, TimeoutError):
        await session.fetch("/x", **options)


async def get(session: Session) -> None:
    async with session.get("/x") as response:
        await response.read()


async def get_for_a_user(session: Session) -> None:
    await get(session.as_user("u:42", auth=Bearer("u")))


async def post(session: Session) -> None:
    await fetch(session, method="POST", json={})


async def post_a_stream(session: Session) -> None:
    async def stream() -> Any:
        yield b"1"

    with suppress(aiohttp.ClientError):
        await session.post("/x", data=stream())


async def cancel(session: Session) -> None:
    call = asyncio.ensure_future(session.fetch("/x"))
    await asyncio.sleep(0.2)
    call.cancel()
    with suppress(asyncio.CancelledError, aiohttp.ClientError):
        await call


async def run_out_of_time(session: Session) -> None:
    await fetch(session, total_timeout=0.5)


async def run_out_of_patience(session: Session) -> None:
    await fetch(session)
    await fetch(session, max_wait=0.5)


async def crowd(session: Session) -> None:
    await asyncio.gather(*(fetch(session) for _ in range(5)))


async def coalesce(session: Session) -> None:
    await asyncio.gather(*(fetch(session, coalesce=True) for _ in range(5)))


CALLS: dict[str, tuple[Callable[[Session], Awaitable[None]], Handler, dict[str, Any]]] = {
    "answered": (get, in_turn(answer()), {}),
    "fetched": (fetch, in_turn(answer()), {}),
    "signed": (fetch, in_turn(answer()), {"auth": OAuth1("a", "b", "c", "d")}),
    "for a user": (get_for_a_user, in_turn(answer()), {}),
    "in a crowd": (crowd, in_turn(answer()), {"concurrency": 2}),
    "coalesced": (coalesce, in_turn(answer()), {}),
    "coalesced in vain": (coalesce, in_turn(answer(404)), {}),
    "not found": (fetch, in_turn(answer(404)), {}),
    "unauthorized": (fetch, in_turn(answer(401)), {"auth": Bearer("t")}),
    "without a token": (fetch, in_turn(answer(403)), {"auth": ClientCredentials("a", "b")}),
    "refused, then answered": (fetch, in_turn(answer(429, 0, 1), answer(200, 1, 1)), {}),
    "refused for good": (fetch, in_turn(answer(429, 0, 1)), {"retries": 1}),
    "failed, then answered": (fetch, in_turn(answer(503), answer()), {}),
    "failed for good": (fetch, in_turn(answer(503)), {"retries": 2}),
    "a write that failed": (post, in_turn(answer(503)), {}),
    "a write that cannot go again": (post_a_stream, in_turn(answer(429, 0, 1)), {}),
    "no json": (fetch, in_turn(no_json), {}),
    "redirected": (fetch, in_turn(redirect), {}),
    "cancelled": (cancel, never, {}),
    "cancelled in its back-off": (cancel, in_turn(answer(503)), {}),
    "out of time": (run_out_of_time, never, {}),
    "out of patience": (run_out_of_patience, in_turn(answer(remaining=0)), {}),
}


@pytest.mark.parametrize("kind", CALLS)
def test_a_call_leaves_nothing_to_the_garbage_collector(kind: str) -> None:
    call, handler, options = CALLS[kind]

    @in_a_crowd
    async def scene() -> None:
        async with serving(handler) as server, Session(server.url, **options) as session:
            assert not await litter(lambda: call(session))

    scene()


@in_a_crowd
async def test_broken_connections_leave_no_more_than_with_plain_aiohttp() -> None:
    async with serving(scripted(drop)) as server, aiohttp.ClientSession(server.url) as plain:

        async def plainly() -> None:
            with suppress(aiohttp.ClientError):
                await plain.get("/x", middlewares=middlewares)

        middlewares: tuple[Any, ...] = ()
        both_ends = set(await litter(plainly))
        middlewares = (RateLimitMiddleware(Limiter(), {X.at(server.url): None}),)
        assert set(await litter(plainly)) <= both_ends
        for retries in (0, 3):
            async with Session(server.url, retries=retries) as session:
                assert set(await litter(lambda: fetch(session))) <= both_ends


@in_a_crowd
async def test_permits_and_waiters_leave_nothing_to_the_garbage_collector() -> None:
    limiter = Limiter()

    async def pass_by() -> None:
        async with limiter.permit("free") as permit:
            permit.observed(headers(10**6))

    async def queue() -> None:
        async def one() -> None:
            async with limiter.permit("queue") as permit:
                await asyncio.sleep(0.01)
                permit.observed({})

        await asyncio.gather(*(one() for _ in range(5)))

    async def leave() -> None:
        async with limiter.permit("held"):
            waiters = [asyncio.ensure_future(limiter.acquire("held")) for _ in range(5)]
            await asyncio.sleep(0)
            for waiter in waiters:
                waiter.cancel()
            await asyncio.wait(waiters)

    async def give_up() -> None:
        async with limiter.permit("long"):
            with suppress(QuotaTimeoutError):
                await limiter.acquire("long", max_wait=1)

    for each in (pass_by, queue, leave, give_up):
        assert not await litter(each), each.__name__


# The loop is never held ----------------------------------------------------------------------


class Work:
    """Counts the calls of the limiter's functions, and keeps the most of any one callback."""

    def __init__(self) -> None:
        self.most = 0
        self._calls = 0

    def __enter__(self) -> Self:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        self.most = max(self.most, self._calls)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is asyncio.Handle._run.__code__:
            self.most, self._calls = max(self.most, self._calls), 0
        elif event == "call" and frame.f_globals["__name__"] in OURS:
            self._calls += 1


OURS = {
    f"aiotwhelp.{name}"
    for name in (
        *("limiter", "turns", "alarm", "patience", "settling", "permits", "registry", "telling"),
        *("home", "queues", "heaps", "quota", "windows", "clock"),
    )
}

ONE = QuotaKey("one")


def wait(limiter: Limiter, keys: Iterable[QuotaKey], **options: Any) -> list[asyncio.Task[Permit]]:
    return [asyncio.ensure_future(limiter.acquire(key, **options)) for key in keys]


async def join(waiters: list[asyncio.Task[Permit]]) -> None:
    await settle()
    assert not any(waiter.done() for waiter in waiters)


async def all_are_granted(limiter: Limiter, n: int, work: Work) -> None:
    await opened(limiter, 0, ONE)
    waiters = wait(limiter, [ONE] * n)
    await join(waiters)
    await asyncio.sleep(62)
    with work:
        waiters[0].result().observed(headers(10**6, 600))
        limiter._lines[ONE].bucket.answered = 10**9
        await asyncio.sleep(1)
        waiters[1].result().observed(headers(10**6, 600))
        await asyncio.wait(waiters)
    for waiter in waiters[2:]:
        waiter.result().unsent()


async def all_are_cancelled(limiter: Limiter, n: int, work: Work) -> None:
    await opened(limiter, 0, ONE)
    waiters = wait(limiter, [ONE] * n)
    await join(waiters)
    with work:
        for each in (*waiters[1::2], *waiters[::2]):
            each.cancel()
        await asyncio.wait(waiters)


async def all_deadlines_come(limiter: Limiter, n: int, work: Work) -> None:
    held = await limiter.acquire(ONE)
    waiters = wait(limiter, [ONE] * n, max_wait=30)
    await join(waiters)
    with work:
        await asyncio.wait(waiters)
    held.unsent()
    for each in waiters:
        if each.exception() is None:  # it went to see, as a probe does
            each.result().unsent()


async def all_deadlines_turn_out_too_short(limiter: Limiter, n: int, work: Work) -> None:
    held = await limiter.acquire(ONE)
    waiters = wait(limiter, [ONE] * n, max_wait=30)
    await join(waiters)
    with work:
        held.observed(headers(0))
        await asyncio.wait(waiters)


async def all_are_closed(limiter: Limiter, n: int, work: Work) -> None:
    await opened(limiter, 0, ONE)
    waiters = wait(limiter, [ONE] * n)
    await join(waiters)
    with work:
        await limiter.close()
        await asyncio.wait(waiters)


async def resets_coincide(limiter: Limiter, n: int, work: Work) -> None:
    keys = [QuotaKey(str(number)) for number in range(n)]
    for key in keys:
        await opened(limiter, 0, key)
    waiters = wait(limiter, keys)
    await join(waiters)
    with work:
        await asyncio.wait(waiters)
    for waiter in waiters:
        waiter.result().unsent()


async def a_shared_window_opens(limiter: Limiter, n: int, work: Work) -> None:
    keys = await sharing_a_day(limiter, n)
    waiters = wait(limiter, keys)
    await join(waiters)
    with work:
        waiters[0].cancel()
        for each in waiters[n // 2 :]:
            each.cancel()
        await asyncio.sleep(90_000)
        waiters[1].result().observed(headers(14) | day(10**6))
        await asyncio.wait(waiters)
    for waiter in waiters[2 : n // 2]:
        waiter.result().unsent()


async def all_quotas_are_closed(limiter: Limiter, n: int, work: Work) -> None:
    waiters = wait(limiter, await sharing_a_day(limiter, n))
    await join(waiters)
    with work:
        await limiter.close()
        await asyncio.wait(waiters)


def day(remaining: int) -> dict[str, str]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return {
        "x-app-limit-24hour-limit": str(10**7),
        "x-app-limit-24hour-remaining": str(remaining),
        "x-app-limit-24hour-reset": str(int(loop.wall_time() + 80_000)),
    }


async def sharing_a_day(limiter: Limiter, n: int) -> list[QuotaKey]:
    """Keys of so many users of one app, whose calls of a day are spent."""
    keys = [QuotaKey("POST /2/tweets", "x", str(number), "app") for number in range(n)]
    permit = await limiter.acquire(keys[0])
    permit.observed(headers(14) | day(0))
    return keys


@pytest.mark.parametrize(
    "scene",
    [
        all_are_granted,
        all_are_cancelled,
        all_deadlines_come,
        all_deadlines_turn_out_too_short,
        all_are_closed,
        all_quotas_are_closed,
        resets_coincide,
        a_shared_window_opens,
    ],
)
def test_case_52_no_callback_does_more_for_four_times_the_waiters(scene: Any) -> None:
    async def most_of(n: int) -> int:
        work = Work()
        await scene(Limiter(), n, work)
        return work.most

    @in_a_crowd
    async def compare() -> None:
        few, many = await most_of(1000), await most_of(4000)
        assert 0 < many <= 1.2 * few
        # 64 callers a slice, and for each at most some 80 calls: a few milliseconds.
        assert many < 64 * 80

    compare()


# Those who left ------------------------------------------------------------------------------


def kept() -> Counter[str]:
    """Objects of ours that are alive, by their type, of those made since `gc.freeze`."""
    return Counter(type(each).__name__ for each in gc.get_objects() if is_ours(type(each)))


def is_ours(kind: type) -> bool:
    name = kind.__module__
    return name.startswith("aiotwhelp.") and not name.startswith("aiotwhelp.testing")


@in_a_crowd
async def test_callers_who_left_are_not_kept_behind_one_who_waits_for_a_day() -> None:
    limiter = Limiter()
    keys = await sharing_a_day(limiter, 200)
    patient = wait(limiter, keys[:1])
    await settle()
    with no_collector():
        for _ in range(20):
            impatient = wait(limiter, keys)
            await settle()
            for each in impatient:
                each.cancel()
            await asyncio.wait(impatient)
            impatient.clear()
        left = kept()
    # What stays is the users' quotas, and who may not have been looked at since he left.
    assert left["Waiter"] < 20
    assert left["Parked"] < 5
    assert left["Line"] <= len(keys)
    assert len(limiter._turns.alarm.lines) == 1
    patient[0].cancel()


@in_a_crowd
async def test_callers_who_came_back_and_left_are_not_kept_behind_an_earlier_one() -> None:
    limiter = Limiter()
    await opened(limiter, 0, ONE)
    first, *early = [limiter.ticket() for _ in range(200)]
    patient = wait(limiter, [ONE]) + wait(limiter, [ONE], ticket=first)
    await settle()
    with no_collector():
        for ticket in early:
            (back,) = wait(limiter, [ONE], ticket=ticket)
            await settle()
            back.cancel()
            await asyncio.wait([back])
        del back
        left = kept()
    assert left["Waiter"] < 5
    for each in patient:
        each.cancel()


@in_a_crowd
async def test_users_who_made_one_call_each_leave_a_bounded_number_of_quotas() -> None:
    limiter = Limiter(max_quotas=100)

    async def call_for(users: range) -> Counter[str]:
        for number in users:
            auth = OAuth2User("client", access_token=f"t{number}", refresh_token="r")
            user = session.as_user(f"u:{number}", auth=auth)
            await user.fetch(f"/2/users/{number}/tweets")
        del auth, user
        return kept()

    async with (
        serving(in_turn(answer())) as server,
        Session(server.url, limiter=limiter) as session,
    ):
        with no_collector():
            few = await call_for(range(300))
            many = await call_for(range(300, 1500))
    assert few["Line"] > 50
    assert few["OAuth2User"] == 0
    assert {name: count for name, count in many.items() if count > 1.1 * few[name] + 5} == {}


@in_a_crowd
async def test_a_quota_that_nobody_waits_for_has_no_queues() -> None:
    limiter = Limiter()
    with no_collector():
        for number in range(100):
            permit = limiter.try_acquire(QuotaKey(str(number)))
            assert permit is not None
            permit.observed(headers(0))
        alone = kept()
        (waiter,) = wait(limiter, [QuotaKey("1")])
        await settle()
        assert (alone["Line"], alone["Queue"], kept()["Queue"]) == (100, 0, 1)
    waiter.cancel()


@in_a_crowd
async def test_a_quota_that_was_used_once_takes_some_three_kilobytes() -> None:
    limiter = Limiter()

    async def call_for(users: range) -> int:
        for number in users:
            permit = limiter.try_acquire(QuotaKey("GET /2/users/me", "x", f"u:{number}"))
            assert permit is not None
            permit.observed(headers(14))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        few = await call_for(range(100))
        many = await call_for(range(100, 1100))
    finally:
        tracemalloc.stop()
    assert (many - few) / 1000 < 3350


@in_a_crowd
async def test_a_quota_that_was_used_often_takes_some_four_kilobytes() -> None:
    limiter = Limiter()

    async def call_for(users: range) -> int:
        for number in users:
            for left in range(900, 840, -1):
                permit = limiter.try_acquire(QuotaKey("GET /2/users/me", "x", f"u:{number}"))
                assert permit is not None
                permit.observed(quota_headers(left))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        few = await call_for(range(300))
        many = await call_for(range(300, 600))
    finally:
        tracemalloc.stop()
    assert (many - few) / 300 < 4250, "what it was answered is kept for the last few only"


@in_virtual_time
async def test_a_quota_that_was_used_often_is_forgotten_as_any_other_is() -> None:
    limiter = Limiter(max_quotas=2)
    with no_collector():
        for number in range(20):
            for left in range(900, 890, -1):
                permit = limiter.try_acquire(QuotaKey("GET /", f"host{number}.example"))
                assert permit is not None
                permit.observed(quota_headers(left))
            await asyncio.sleep(1000)
        del permit
        left_over = kept()
    assert left_over["Line"] <= 3
    assert left_over["Window"] <= 3
    assert left_over["ServerClock"] <= 3


@in_a_crowd
async def test_hosts_that_were_called_once_leave_a_bounded_number_of_clocks() -> None:
    limiter = Limiter(max_quotas=100)
    with no_collector():
        for number in range(2000):
            key = QuotaKey("GET /", f"host{number}.example")
            permit = limiter.try_acquire(key, dialect=AUTO)
            assert permit is not None
            told = headers(14)
            if number % 2:
                del told["date"]  # then the local clock is taken, with a warning for each host
            permit.observed(told)
            limiter.server_time(f"other{number}.example")
        del permit
        left = kept()
    assert left["Line"] <= 130
    assert left["ServerClock"] <= 130
    assert 0 < len(limiter._telling._dialects) <= 130


@in_a_crowd
async def test_a_window_that_was_presumed_in_vain_goes_with_its_last_user() -> None:
    limiter = Limiter(max_quotas=2)
    first, second = await sharing_a_day(limiter, 2)
    (presumed,) = wait(limiter, [second])
    await asyncio.sleep(100_000)
    for number in range(20):
        (await limiter.acquire(QuotaKey(str(number)))).unsent()
    assert first not in limiter.quotas()
    presumed.result().observed(headers(14))
    for number in range(20, 40):
        (await limiter.acquire(QuotaKey(str(number)))).unsent()
    assert second not in limiter.quotas()
    assert not limiter._registry.windows


@in_a_crowd
async def test_a_closed_session_listens_no_more_to_a_limiter_that_others_share() -> None:
    limiter, told = Limiter(), list[events.Event]()
    limiter.listen(told.append)
    for _ in range(3):
        async with Session("http://127.0.0.1:1", limiter=limiter, on_event=told.append):
            assert len(limiter._telling.handlers) == 2
    assert limiter._telling.handlers == [told.append]
