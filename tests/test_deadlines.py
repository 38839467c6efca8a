"""How long an attempt may take: the session's `timeout` and a call's, without aiohttp's timers."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aiotwhelp import Session, SessionClosedError
from aiotwhelp.calls import NO_TIMEOUT
from aiotwhelp.deadlines import OUT_OF_TIME, Deadlines
from tests.stack import assert_at_rest, elapsed, in_virtual_time, serving

Read = Callable[[aiohttp.ClientResponse], Awaitable[Any]]


async def never(_: web.Request) -> web.Response:
    await asyncio.sleep(10_000)
    return web.Response()


async def half(request: web.Request) -> web.StreamResponse:
    """Answer after 2 s, and break the body off in the middle."""
    await asyncio.sleep(2)
    answer = web.StreamResponse(headers={"Content-Length": "10"})
    await answer.prepare(request)
    await answer.write(b"12345")
    await asyncio.sleep(10_000)
    return answer


def timer_of(session: Session) -> asyncio.TimerHandle | None:
    return session._settings.pool.deadlines._timer


def total(seconds: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds)


@pytest.mark.parametrize(
    ("of_session", "of_call", "took"),
    [
        ({}, {}, 300),  # as in aiohttp
        ({"timeout": None}, {}, 300),  # as there
        ({"timeout": 7}, {}, 7),
        ({"timeout": total(7.25)}, {}, 7.25),
        ({"timeout": 7}, {"timeout": 3}, 3),
        ({"timeout": NO_TIMEOUT}, {}, 300),
        ({"timeout": 7}, {"timeout": NO_TIMEOUT}, 7),
        ({"timeout": 7}, {"timeout": total(9)}, 9),
        ({"timeout": aiohttp.ClientTimeout(total=900, sock_read=4)}, {}, 4),
    ],
)
def test_an_attempt_takes_so_long_at_most(
    of_session: dict[str, Any], of_call: dict[str, Any], took: float
) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with (
            serving(never) as server,
            Session(server.url, retries=0, **of_session) as session,
        ):
            with pytest.raises(TimeoutError, match=r"no answer within|Timeout on reading"):
                await session.fetch("/x", **of_call)
            assert elapsed() == pytest.approx(took, abs=0.01)
            await assert_at_rest(session)

    scene()


@pytest.mark.parametrize(
    ("of_session", "of_call"),
    [
        ({"timeout": total(None)}, {}),
        ({"timeout": total(0)}, {}),
        ({"timeout": 7}, {"timeout": None}),
        ({"timeout": 7}, {"timeout": float("inf")}),
    ],
)
def test_without_a_timeout_it_takes_as_long_as_it_takes(
    of_session: dict[str, Any], of_call: dict[str, Any]
) -> None:
    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(2000)
        return web.json_response(1)

    @in_virtual_time
    async def scene() -> None:
        async with serving(slow) as server, Session(server.url, **of_session) as session:
            assert await session.fetch("/x", **of_call) == 1
            assert timer_of(session) is None

    scene()


@pytest.mark.parametrize(
    "read",
    [
        aiohttp.ClientResponse.read,
        aiohttp.ClientResponse.json,
        lambda response: response.content.readexactly(10),
    ],
)
def test_reading_the_body_counts_from_the_beginning_of_the_attempt(read: Read) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with serving(half) as server, Session(server.url, timeout=7) as session:
            async with session.get("/x") as response:
                with pytest.raises(TimeoutError, match=OUT_OF_TIME):
                    await read(response)
                assert elapsed() == 7
            await assert_at_rest(session)
            assert not session._settings.pool.deadlines

    scene()


@in_virtual_time
async def test_of_a_body_that_is_there_in_time_nothing_is_kept_and_it_sets_no_timer() -> None:
    async def halves(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "10"})
        await asyncio.sleep(2)
        timers.append(timer_of(session))
        await answer.prepare(request)
        await answer.write(b"12345")
        await asyncio.sleep(2)
        await answer.write(b"67890")
        return answer

    timers: list[asyncio.TimerHandle | None] = []
    async with serving(halves) as server, Session(server.url, timeout=7) as session:
        async with session.get("/x") as response:
            assert len(session._settings.pool.deadlines) == 1
            assert timers == [timer_of(session)] != [None]
            assert await response.read() == b"1234567890"
            assert not session._settings.pool.deadlines
        await assert_at_rest(session)


@in_virtual_time
async def test_who_comes_to_read_too_late_is_told_at_once() -> None:
    async with serving(half) as server, Session(server.url, timeout=7) as session:
        async with session.get("/x") as response:
            await asyncio.sleep(60)
            with pytest.raises(TimeoutError, match=OUT_OF_TIME):
                await response.read()
            assert elapsed() == 62
        await assert_at_rest(session)


@in_virtual_time
async def test_a_body_that_stalls_is_fetched_again() -> None:
    async with serving(half) as server, Session(server.url, timeout=7, retries=2) as session:
        with pytest.raises(TimeoutError, match=OUT_OF_TIME):
            await session.fetch("/x")
        assert len(server.seen) == 3
        await assert_at_rest(session)


@in_virtual_time
async def test_one_timer_is_there_for_all_and_it_goes_when_nobody_is_left() -> None:
    async def quick(_: web.Request) -> web.Response:
        await asyncio.sleep(1)
        return web.json_response(1)

    async with serving(quick) as server, Session(server.url, timeout=10) as session:
        await session.fetch("/x")
        first = timer_of(session)
        assert first is not None
        for _ in range(5):
            await session.fetch("/x")
        assert timer_of(session) is first
        # One whose instant comes before has it set anew.
        await session.fetch("/x", timeout=2)
        assert first.cancelled()
        earlier = timer_of(session)
        assert earlier is not None
        assert earlier.when() - first.when() == pytest.approx(-2.0, abs=0.5)
        await asyncio.sleep(11)
        assert timer_of(session) is None
        await session.fetch("/x")
        assert timer_of(session) is not None
        await session.close()
        assert timer_of(session) is None


@in_virtual_time
async def test_those_who_are_not_due_yet_are_told_at_their_own_instant() -> None:
    async with serving(never) as server, Session(server.url, retries=0) as session:
        told: list[tuple[str, float]] = []

        async def call(path: str, seconds: float) -> None:
            with pytest.raises(TimeoutError):
                await session.fetch(path, timeout=seconds)
            told.append((path, elapsed()))

        ways = {"/a": 9.0, "/b": 3.0, "/c": 30.0, "/d": 3.5}
        await asyncio.gather(*(call(path, seconds) for path, seconds in ways.items()))
        assert told == [("/b", 3.0), ("/d", 3.5), ("/a", 9.0), ("/c", 30.0)]


@in_virtual_time
async def test_an_answer_that_is_dropped_unread_is_not_kept() -> None:
    deadlines = Deadlines(asyncio.get_running_loop().time)

    class Dropped:
        """An answer whose body is yet to come."""

        def __init__(self) -> None:
            self.connection = self
            self.ends: list[Callable[[], None]] = []
            self.add_callback = self.ends.append

    answer = Dropped()
    ends = answer.ends
    kept = weakref.ref(answer)
    deadlines.read_by(asyncio.get_running_loop().time() + 5, answer)  # type: ignore[arg-type]
    del answer
    gc.collect()
    assert kept() is None
    await asyncio.sleep(6)
    assert not deadlines
    for end in ends:  # its connection is given back at last
        end()


@in_virtual_time
async def test_whoever_leaves_while_others_are_told_is_not_told() -> None:
    deadlines, told = Deadlines(asyncio.get_running_loop().time), []

    class Timed:
        def __init__(self, number: int) -> None:
            self.number = number

        def expire(self) -> None:
            told.append(self.number)
            # As an answer does that is collected as garbage just then.
            deadlines.pop(each[self.number + 1], None)

    each = [Timed(number) for number in range(5)]
    at = asyncio.get_running_loop().time() + 1.0
    for one in each[:4]:
        deadlines[one] = at
    deadlines.set(at)
    await asyncio.sleep(2)
    assert told == [0, 2]
    assert not deadlines


@in_virtual_time
async def test_a_middleware_that_swallows_the_end_leaves_no_cancellation_behind() -> None:
    async def swallow(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        try:
            return await handler(request)
        except asyncio.CancelledError:
            request.url = request.url.with_path("/quick")
            return await handler(request)

    async def answer(request: web.Request) -> web.Response:
        if request.path != "/quick":
            await asyncio.sleep(100)
        return web.json_response(1)

    async with serving(answer) as server, Session(server.url, middlewares=[swallow]) as session:
        task = asyncio.current_task()
        assert task is not None
        async with session.get("/slow", timeout=3) as response:
            assert response.status == 200
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # where one that was yet to come would strike


@in_virtual_time
async def test_what_else_ends_a_call_in_that_tick_is_not_taken_for_its_timeout() -> None:
    async with serving(never) as server, Session(server.url, timeout=3) as session:
        calls = [asyncio.create_task(session.fetch("/x")) for _ in range(2)]
        asyncio.get_running_loop().call_later(3, calls[0].cancel)
        closing = asyncio.create_task(session.close(grace=3))
        await asyncio.wait([*calls, closing])
        assert calls[0].cancelled()
        assert isinstance(calls[1].exception(), SessionClosedError)
