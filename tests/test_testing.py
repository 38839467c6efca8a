"""The virtual-time loop, its in-memory network, and the pytest fixtures."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import io
import os
import random
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from aiotwhelp.testing import Clock, DeadlockError, VirtualTimeLoop, run
from aiotwhelp.testing.transports import MemoryTransport

pytest_plugins = ["pytester"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(params=[False, True], ids=["plain", "debug"])
def debug(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def the_loop() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop


@contextlib.asynccontextmanager
async def served(handler: Handler, **options: Any) -> AsyncIterator[str]:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, **options)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site.port}/"
    finally:
        await runner.cleanup()


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def body_back(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


# Time


def test_time_jumps_to_the_next_timer_and_is_exact(debug: bool) -> None:
    async def main() -> tuple[float, float]:
        await asyncio.sleep(900)
        await asyncio.sleep(0.25)
        return the_loop().time(), the_loop().elapsed

    started = time.monotonic()
    assert run(main, debug=debug) == (1900.25, 900.25)
    assert time.monotonic() - started < 300


def test_timers_run_in_the_order_of_their_instants_and_then_of_their_making() -> None:
    async def main() -> list[str]:
        log: list[str] = []
        for delay, name in [(2, "c"), (1, "a"), (1, "b"), (3, "d")]:
            the_loop().call_later(delay, log.append, f"{name}{delay}")
        await asyncio.sleep(5)
        return log

    assert run(main) == ["a1", "b1", "c2", "d3"]


def test_no_time_passes_while_callbacks_are_ready() -> None:
    async def main() -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return the_loop().elapsed

    assert run(main) == 0


def test_a_timer_fires_exactly_when_due_even_after_months() -> None:
    async def main() -> list[float]:
        late = []
        for _ in range(2000):
            due = the_loop().time() + 7919.1
            await asyncio.sleep(7919.1)
            late.append(the_loop().time() - due)
        return late

    assert set(run(main)) == {0.0}


def test_no_timer_runs_early_not_even_by_a_microsecond() -> None:
    async def main() -> list[float]:
        loop = the_loop()
        dues = [loop.time() + 1 + i * 1e-7 for i in range(20)]
        early: list[float] = []
        for due in dues:
            loop.call_at(due, lambda due=due: early.append(due - loop.time()))
        await asyncio.sleep(2)
        return early

    assert run(main) == [0.0] * 20


def test_timeouts_expire_at_their_instant(debug: bool) -> None:
    async def main() -> list[float]:
        expired = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(300):
                await asyncio.sleep(301)
        expired.append(the_loop().elapsed)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 15)
        expired.append(the_loop().elapsed)
        return expired

    assert run(main, debug=debug) == [300, 315]


def test_a_task_group_ends_as_on_any_loop(debug: bool) -> None:
    async def fail() -> None:
        await asyncio.sleep(2)
        raise ValueError("two seconds are over")

    async def main() -> float:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                group.create_task(asyncio.sleep(100))
        except* ValueError:
            pass
        return the_loop().elapsed

    assert run(main, debug=debug) == 2


def test_thousands_of_jumps_are_cheap_enough_to_forget() -> None:
    async def main() -> float:
        await asyncio.gather(*(asyncio.sleep(i % 977) for i in range(1000)))
        return the_loop().elapsed

    assert run(main) == 976


def test_the_wall_clock_goes_with_virtual_time_and_can_be_stepped() -> None:
    async def main() -> list[float]:
        loop = the_loop()
        seen = [loop.wall_time()]
        await asyncio.sleep(60)
        seen.append(loop.wall_time())
        loop.wall_offset = -300
        seen.append(loop.wall_time())
        await asyncio.sleep(1)
        loop.wall_offset = 30
        seen.append(loop.wall_time())
        return [at - seen[0] for at in seen]

    assert run(main) == [0, 60, -240, 91]


def test_the_wall_clock_starts_where_it_is_told_to() -> None:
    async def main() -> float:
        return the_loop().wall_time()

    assert run(main, loop_factory=lambda: VirtualTimeLoop(wall_start=12.5)) == 12.5


# Instead of hanging


def test_a_deadlock_is_an_error_that_names_the_tasks() -> None:
    async def wait_for_godot() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.sleep(3)
        await asyncio.create_task(wait_for_godot(), name="vladimir")

    with pytest.raises(DeadlockError, match=r"(?s)after 3 s.*vladimir: .*wait_for_godot at .*py:"):
        run(main)


def test_after_a_deadlock_the_tasks_are_cancelled_and_can_clean_up() -> None:
    log = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            log.append("clean")

    with pytest.raises(DeadlockError):
        run(main)
    assert log == ["clean"]


def test_a_heartbeat_does_not_hide_a_deadlock() -> None:
    async def beat() -> None:
        while await asyncio.sleep(30, result=True):
            pass

    async def main() -> None:
        heart = asyncio.create_task(beat())
        await asyncio.Event().wait()
        await heart

    with pytest.raises(DeadlockError, match="next timer is later than 3600 s"):
        run(main, loop_factory=lambda: VirtualTimeLoop(max_elapsed=3600))


def test_a_sleep_without_end_is_a_deadlock() -> None:
    with pytest.raises(DeadlockError):
        run(asyncio.sleep(float("inf")))


def test_spinning_without_time_passing_is_an_error() -> None:
    async def main() -> None:
        while await asyncio.sleep(0, result=True):
            pass

    with pytest.raises(DeadlockError, match="no time has passed for 1000 iterations"):
        run(main, loop_factory=lambda: VirtualTimeLoop(max_iterations=1000))


def test_tasks_that_spun_can_clean_up() -> None:
    log = []

    async def main() -> None:
        try:
            while await asyncio.sleep(0, result=True):
                pass
        finally:
            await asyncio.sleep(1)
            log.append("clean")

    with pytest.raises(DeadlockError):
        run(main, loop_factory=lambda: VirtualTimeLoop(max_iterations=1000))
    assert log == ["clean"]


def test_time_that_passes_resets_the_count_of_iterations() -> None:
    async def main() -> str:
        for _ in range(20):
            for _ in range(90):
                await asyncio.sleep(0)
            await asyncio.sleep(1)
        return "done"

    assert run(main, loop_factory=lambda: VirtualTimeLoop(max_iterations=100)) == "done"


# Running


def test_run_takes_a_coroutine_or_a_function_and_passes_on_what_comes_of_it() -> None:
    async def main() -> str:
        return "value"

    async def fail() -> None:
        raise LookupError("mine")

    assert run(main) == run(main()) == "value"
    with pytest.raises(LookupError, match="mine"):
        run(fail)


def test_run_cancels_what_is_left_and_shuts_generators_down() -> None:
    log = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            log.append("generator")

    async def background() -> None:
        try:
            await asyncio.sleep(1e6)
        finally:
            log.append("task")

    async def main() -> AsyncIterator[int]:
        asyncio.create_task(background(), name="left over").add_done_callback(lambda _: None)
        await asyncio.sleep(1)
        generator = numbers()
        await anext(generator)
        return generator

    run(main)
    assert sorted(log) == ["generator", "task"]


def test_a_seed_makes_random_repeat_and_is_put_back() -> None:
    async def draw() -> float:
        return random.random()

    random.seed(7)
    expected = random.random()
    random.seed(7)
    first, second = run(draw, seed=1), run(draw, seed=1)
    assert first == second != expected
    assert random.random() == expected


def crowd_log(seed: int) -> list[str]:
    """Run fifty callers with random pauses and delays, and tell what happened when."""
    log: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        log.append(f"{the_loop().time()!r} server {request.path}")
        await asyncio.sleep(random.expovariate(10))
        return web.Response()

    async def call(session: aiohttp.ClientSession, url: str, number: int) -> None:
        await asyncio.sleep(random.random())
        async with session.get(f"{url}{number}") as response:
            log.append(f"{the_loop().time()!r} client {number} {response.status}")

    async def main() -> None:
        the_loop().network.latency = lambda _direction: random.uniform(0.001, 0.1)
        async with served(answer) as url, aiohttp.ClientSession() as session:
            await asyncio.gather(*(call(session, url, i) for i in range(50)))

    run(main, seed=seed)
    return log


def test_the_same_seed_gives_the_same_course() -> None:
    assert len(crowd_log(1)) == 100
    assert crowd_log(1) == crowd_log(1)
    assert crowd_log(1) != crowd_log(2)


# Real work


def test_time_stands_still_while_an_executor_works(debug: bool) -> None:
    async def main() -> tuple[str, float]:
        async with asyncio.timeout(0.001):
            await asyncio.to_thread(time.sleep, 0.02)
        loop = the_loop()
        done = await asyncio.wait_for(loop.run_in_executor(None, lambda: "done"), 0.001)
        return done, loop.elapsed

    assert run(main, debug=debug) == ("done", 0)


def test_time_goes_on_after_an_executor_job_that_failed_or_was_cancelled() -> None:
    async def main() -> float:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        finish = threading.Event()
        job = the_loop().run_in_executor(None, finish.wait)
        job.cancel()
        await asyncio.sleep(5)
        finish.set()
        return the_loop().elapsed

    assert run(main) == 5


def test_hold_time_waits_for_a_thread_to_call_in() -> None:
    async def main() -> tuple[str, float]:
        loop = the_loop()
        called: asyncio.Future[str] = loop.create_future()
        thread = threading.Timer(0.01, loop.call_soon_threadsafe, (called.set_result, "called"))
        with loop.hold_time():
            thread.start()
            answer = await asyncio.wait_for(called, 0.001)
        thread.join()
        return answer, loop.elapsed

    assert run(main) == ("called", 0)


def test_a_real_file_that_is_watched_wakes_the_loop() -> None:
    async def main() -> tuple[bytes, float]:
        loop = the_loop()
        source, sink = os.pipe()
        arrived: asyncio.Future[bytes] = loop.create_future()
        loop.add_reader(source, lambda: arrived.set_result(os.read(source, 10)))
        thread = threading.Timer(0.01, os.write, (sink, b"real"))
        thread.start()
        data = await asyncio.wait_for(arrived, 60)
        loop.remove_reader(source)
        thread.join()
        os.close(source)
        os.close(sink)
        return data, loop.elapsed

    assert run(main) == (b"real", 0)


def test_a_real_pair_of_sockets_is_left_to_asyncio() -> None:
    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        theirs.sendall(b"real")
        data = await reader.readexactly(4)
        writer.close()
        await writer.wait_closed()
        theirs.close()
        return data

    assert run(main) == b"real"


# HTTP over the network


def test_a_thousand_requests_share_a_hundred_connections_in_virtual_time(debug: bool) -> None:
    async def slow(_request: web.Request) -> web.Response:
        await asyncio.sleep(0.5)
        return web.Response(text="hi")

    async def main() -> tuple[set[str], float, int, int]:
        network = the_loop().network
        async with served(slow) as url, aiohttp.ClientSession() as session:

            async def one() -> str:
                async with session.get(url) as response:
                    return await response.text()

            texts = set(await asyncio.gather(*(one() for _ in range(1000))))
            took = the_loop().elapsed
        await asyncio.sleep(1)
        return texts, took, network.opened, network.connections

    assert run(main, debug=debug) == ({"hi"}, 5.0, 100, 0)


@pytest.mark.parametrize("latency", [0.0, 0.05])
def test_large_bodies_go_both_ways(latency: float) -> None:
    body = bytes(range(256)) * 16_384

    async def main() -> bool:
        the_loop().network.latency = latency
        async with (
            served(body_back) as url,
            aiohttp.ClientSession() as session,
            session.post(url, data=io.BytesIO(body)) as response,
        ):
            return await response.read() == body

    assert run(main)


def test_a_streaming_upload_arrives_as_it_was_made() -> None:
    async def main() -> bytes:
        async def pieces() -> AsyncIterator[bytes]:
            for i in range(100):
                await asyncio.sleep(0.1)
                yield b"%d," % i

        async with (
            served(body_back) as url,
            aiohttp.ClientSession() as session,
            session.post(url, data=pieces()) as response,
        ):
            return await response.read()

    assert run(main) == b"".join(b"%d," % i for i in range(100))


def test_a_reader_that_waits_holds_up_the_server() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(10_000))
            sent += 10_000

    async def main() -> tuple[int, int]:
        async with (
            served(endless) as url,
            aiohttp.ClientSession() as session,
            session.get(url) as response,
        ):
            await asyncio.sleep(60)
            before = sent
            await response.content.readexactly(500_000)
            await asyncio.sleep(60)
            return before, sent

    before, after = run(main)
    # The reader's own buffer (half a megabyte), the kernel's, and the writer's.
    assert before < 1_200_000
    assert before < after < 3_000_000


def test_connections_are_kept_alive_and_closed_by_the_server_when_idle() -> None:
    async def main() -> tuple[int, int, int]:
        network = the_loop().network
        connector = aiohttp.TCPConnector(keepalive_timeout=10_000)
        async with (
            served(hello, keepalive_timeout=75) as url,
            aiohttp.ClientSession(connector=connector) as session,
        ):
            for _ in range(10):
                async with session.get(url) as response:
                    await response.read()
                await asyncio.sleep(60)
            opened, idle = network.opened, network.connections
            await asyncio.sleep(100)
            return opened, idle, network.connections

    assert run(main) == (1, 1, 0)


def test_localhost_is_known_and_other_names_are_not() -> None:
    async def main() -> str:
        async with served(hello) as url, aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorDNSError):
                await session.get("http://api.example/")
            the_loop().network.hosts["api.example"] = "127.0.0.1"
            async with session.get(url.replace("127.0.0.1", "localhost")) as response:
                assert await response.text() == "hello"
            async with session.get(url.replace("127.0.0.1", "api.example")) as response:
                return await response.text()

    assert run(main) == "hello"


def test_the_test_server_of_aiohttp_works_with_its_own_socket() -> None:
    async def main() -> tuple[str, int]:
        app = web.Application()
        app.router.add_get("/", hello)
        async with (
            TestServer(app) as server,
            aiohttp.ClientSession() as session,
            session.get(server.make_url("/")) as response,
        ):
            return await response.text(), the_loop().network.opened

    assert run(main) == ("hello", 1)


def test_web_sockets_work() -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            await ws.send_str(message.data * 2)
        return ws

    async def main() -> str:
        async with (
            served(echo) as url,
            aiohttp.ClientSession() as session,
            session.ws_connect(url) as ws,
        ):
            await ws.send_str("ab")
            return str(await ws.receive_str())

    assert run(main) == "abab"


def test_a_server_may_stop_while_clients_wait(debug: bool) -> None:
    async def never(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async def main() -> tuple[int, int]:
        async with aiohttp.ClientSession() as session:
            async with served(never) as url:
                calls = [asyncio.ensure_future(session.get(url)) for _ in range(20)]
                await asyncio.sleep(1)
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(url)
        await asyncio.sleep(1)
        lost = sum(isinstance(outcome, aiohttp.ClientError) for outcome in outcomes)
        return lost, the_loop().network.connections

    assert run(main, debug=debug) == (20, 0)


# Faults


def test_a_client_timeout_expires_in_virtual_time() -> None:
    async def slow(_request: web.Request) -> web.Response:
        await asyncio.sleep(1000)
        return web.Response()

    async def main() -> float:
        timeout = aiohttp.ClientTimeout(total=4.5)
        async with served(slow) as url, aiohttp.ClientSession(timeout=timeout) as session:
            with pytest.raises(TimeoutError):
                await session.get(url)
            return the_loop().elapsed

    assert run(main) == 4.5


def test_a_handler_that_aborts_resets_the_client(debug: bool) -> None:
    async def drop(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def main() -> int:
        async with served(drop) as url, aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientOSError) as caught:
                await session.post(url)
            assert caught.value.errno == errno.ECONNRESET
        await asyncio.sleep(1)
        return the_loop().network.connections

    assert run(main, debug=debug) == 0


def test_a_handler_that_closes_early_truncates_the_body() -> None:
    async def truncate(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"x" * 10)
        assert request.transport is not None
        request.transport.close()
        return response

    async def main() -> None:
        async with (
            served(truncate) as url,
            aiohttp.ClientSession() as session,
            session.get(url) as response,
        ):
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()

    run(main)


def test_nobody_listening_is_refused_at_once() -> None:
    async def main() -> float:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await session.get("http://127.0.0.1:9/")
            assert isinstance(caught.value.os_error, ConnectionRefusedError)
        return the_loop().elapsed

    assert run(main) == 0


def test_an_address_is_refused_until_it_is_allowed_again() -> None:
    async def main() -> str:
        network = the_loop().network
        async with served(hello) as url, aiohttp.ClientSession() as session:
            address = ("127.0.0.1", int(url.split(":")[2].strip("/")))
            network.refuse(address)
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(url)
            network.allow(address)
            async with session.get(url) as response:
                return await response.text()

    assert run(main) == "hello"


def test_latency_counts_a_round_trip_to_connect_and_one_to_ask() -> None:
    async def main() -> list[float]:
        the_loop().network.latency = 0.25
        took = []
        async with served(hello) as url, aiohttp.ClientSession() as session:
            for _ in range(2):
                start = the_loop().time()
                async with session.get(url) as response:
                    await response.read()
                took.append(the_loop().time() - start)
        return took

    assert run(main) == [1.0, 0.5]


def test_latency_may_differ_by_direction() -> None:
    async def main() -> list[float]:
        arrived = []

        async def note(_request: web.Request) -> web.Response:
            arrived.append(the_loop().elapsed)
            return web.Response()

        the_loop().network.latency = {"up": 2.0, "down": 0.5}.__getitem__
        async with (
            served(note) as url,
            aiohttp.ClientSession() as session,
            session.get(url),
        ):
            return [*arrived, the_loop().elapsed]

    assert run(main) == [4.5, 5.0]


def test_cutting_the_network_resets_every_call_and_leaves_nothing_open() -> None:
    async def slow(_request: web.Request) -> web.Response:
        await asyncio.sleep(10)
        return web.Response()

    async def main() -> tuple[int, set[type], int]:
        network = the_loop().network
        async with served(slow) as url, aiohttp.ClientSession() as session:
            calls = [asyncio.ensure_future(session.post(url)) for _ in range(5)]
            await asyncio.sleep(1)
            cut = network.cut()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            return cut, {type(outcome) for outcome in outcomes}, network.connections

    assert run(main) == (5, {aiohttp.ClientOSError}, 0)


def test_only_the_connections_to_one_address_are_cut() -> None:
    async def main() -> tuple[int, int]:
        network = the_loop().network
        async with served(hello) as one, served(hello) as two, aiohttp.ClientSession() as session:
            for url in (one, two):
                async with session.get(url) as response:
                    await response.read()
            cut = network.cut(("127.0.0.1", int(one.split(":")[2].strip("/"))))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return cut, network.connections

    assert run(main) == (1, 1)


# Transports, below HTTP


class Recorder(asyncio.Protocol):
    """A protocol that writes down what it is told."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.log.append("made")

    def data_received(self, data: bytes) -> None:
        self.log.append(f"data {len(data)}")

    def eof_received(self) -> None:
        self.log.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.log.append(f"lost {type(exc).__name__}")

    def pause_writing(self) -> None:
        self.log.append("pause")

    def resume_writing(self) -> None:
        self.log.append("resume")


async def a_pair() -> tuple[Recorder, Recorder]:
    """Return a client's and a server's protocol, connected."""
    accepted: list[Recorder] = []

    def accept() -> Recorder:
        accepted.append(Recorder())
        return accepted[-1]

    server = await the_loop().create_server(accept, "127.0.0.1", 0)
    _, client = await the_loop().create_connection(Recorder, *server.sockets[0].getsockname())
    server.close()
    return client, accepted[0]


def test_a_close_delivers_what_was_written_and_is_told_once_to_each_side() -> None:
    async def main() -> tuple[list[str], list[str]]:
        client, server = await a_pair()
        client.transport.write(b"abc")
        client.transport.writelines([b"d", bytearray(b"e")])
        client.transport.close()
        client.transport.close()
        client.transport.write(b"too late")
        client.transport.abort()
        await asyncio.sleep(1)
        server.transport.abort()
        await asyncio.sleep(1)
        return client.log, server.log

    assert run(main) == (
        ["made", "lost NoneType"],
        ["made", "data 3", "data 2", "eof", "lost NoneType"],
    )


def test_an_abort_is_a_reset_for_the_peer() -> None:
    async def main() -> tuple[list[str], list[str]]:
        client, server = await a_pair()
        server.transport.write(b"abc")
        server.transport.abort()
        await asyncio.sleep(1)
        return client.log, server.log

    assert run(main) == (
        ["made", "data 3", "lost ConnectionResetError"],
        ["made", "lost NoneType"],
    )


def test_pieces_stay_in_order_when_a_later_one_is_faster() -> None:
    async def main() -> list[str]:
        client, server = await a_pair()
        delays = iter([5.0, 1.0, 3.0, 0.0])
        the_loop().network.latency = lambda _direction: next(delays)
        for piece in (b"a", b"bb", b"ccc"):
            client.transport.write(piece)
        client.transport.abort()
        await asyncio.sleep(4.9)
        early = list(server.log)
        await asyncio.sleep(0.2)
        return early + server.log

    assert run(main) == [
        "made",
        *("made", "data 1", "data 2", "data 3", "lost ConnectionResetError"),
    ]


@pytest.mark.parametrize(
    ("method", "seen"),
    [
        ("close_clients", ["made", "eof", "lost NoneType"]),
        ("abort_clients", ["made", "lost ConnectionResetError"]),
    ],
)
def test_a_server_can_end_its_connections(method: str, seen: list[str]) -> None:
    async def main() -> list[str]:
        server = await the_loop().create_server(Recorder, "127.0.0.1", 0)
        _, client = await the_loop().create_connection(Recorder, *server.sockets[0].getsockname())
        server.close()
        waiting = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(1)
        assert not waiting.done()
        getattr(server, method)()
        await waiting
        await asyncio.sleep(1)
        return list(client.log)

    assert run(main) == seen


def test_one_direction_may_end_alone() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    async def main() -> bytes:
        server = await asyncio.start_server(answer, "localhost", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"all of it")
            writer.write_eof()
            with pytest.raises(RuntimeError):
                writer.write(b"more")
            data = await reader.read()
            writer.close()
            await writer.wait_closed()
        await server.wait_closed()
        return data

    assert run(main) == b"all of it"


def test_a_writer_is_paused_once_and_resumed_when_the_reader_has_caught_up() -> None:
    async def main() -> tuple[list[str], int, list[str], int]:
        client, server = await a_pair()
        server.transport.pause_reading()
        for _ in range(20):
            client.transport.write(bytes(50_000))
        await asyncio.sleep(1)
        paused, waiting = list(client.log), client.transport.get_write_buffer_size()
        server.transport.resume_reading()
        await asyncio.sleep(1)
        received = sum(int(line.split()[1]) for line in server.log if line.startswith("data"))
        return paused, waiting, client.log, received

    assert run(main) == (
        ["made", "pause"],
        1_000_000 - 256 * 1024,
        ["made", "pause", "resume"],
        1_000_000,
    )


def test_a_close_waits_until_what_was_written_is_taken() -> None:
    async def main() -> tuple[list[str], list[str]]:
        client, server = await a_pair()
        server.transport.pause_reading()
        client.transport.write(bytes(1_000_000))
        client.transport.close()
        await asyncio.sleep(1)
        before = list(client.log)
        server.transport.resume_reading()
        await asyncio.sleep(1)
        return before, client.log[2:]

    assert run(main) == (["made", "pause"], ["lost NoneType"])


def test_a_reader_that_pauses_itself_gets_nothing_more() -> None:
    async def main() -> list[str]:
        client, server = await a_pair()

        def pause_after(data: bytes) -> None:
            server.log.append(f"data {len(data)}")
            server.transport.pause_reading()

        server.data_received = pause_after  # type: ignore[method-assign] # this one pauses
        client.transport.write(b"a")
        client.transport.write(b"bc")
        await asyncio.sleep(1)
        return server.log

    assert run(main) == ["made", "data 1"]


def test_who_writes_to_a_closed_peer_is_reset() -> None:
    async def main() -> list[str]:
        client, server = await a_pair()
        # Half open: the client stays when the server has ended.
        client.eof_received = lambda: True  # type: ignore[method-assign,assignment,return-value]
        server.transport.close()
        await asyncio.sleep(1)
        client.transport.write(b"anybody there?")
        await asyncio.sleep(1)
        return client.log

    assert run(main) == ["made", "lost ConnectionResetError"]


def test_what_a_protocol_raises_is_reported_and_ends_the_connection() -> None:
    async def main() -> tuple[list[str], list[str], list[str]]:
        reported: list[str] = []
        the_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
        client, server = await a_pair()

        def refuse(_data: bytes) -> None:
            raise ValueError("cannot read this")

        server.data_received = refuse  # type: ignore[method-assign] # this one fails
        client.transport.write(b"x")
        await asyncio.sleep(1)
        return reported, client.log, server.log

    reported, client, server = run(main)
    assert reported == ["Fatal error: the protocol failed to take what arrived"]
    assert client == ["made", "lost ConnectionResetError"]
    assert server == ["made", "lost ValueError"]


def test_transports_answer_what_servers_and_clients_ask_them() -> None:
    async def main() -> None:
        client, server = await a_pair()
        end: MemoryTransport = client.transport
        own, peer = end.get_extra_info("sockname"), end.get_extra_info("peername")
        assert (peer, own) == (
            server.transport.get_extra_info("sockname"),
            server.transport.get_extra_info("peername"),
        )
        sock = end.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert (sock.getpeername(), sock.family, sock.fileno()) == (peer, socket.AF_INET, -1)
        assert end.get_extra_info("sslcontext") is None
        assert (end.get_protocol(), end.is_closing(), end.is_reading()) == (client, False, True)
        assert end.can_write_eof()
        end.set_write_buffer_limits(high=100)
        assert end.get_write_buffer_limits() == (25, 100)
        assert repr(end) == f"<MemoryTransport open {own} to {peer}>"
        with pytest.raises(TypeError):
            end.write("text")  # type: ignore[arg-type] # the mistake under test
        client.transport.close()

    run(main)


def test_servers_have_addresses_of_their_own() -> None:
    async def main() -> None:
        loop = the_loop()
        one = await loop.create_server(Recorder, "127.0.0.1", 0)
        two = await loop.create_server(Recorder, None, 0)
        six = await loop.create_server(Recorder, "::1", 0)
        addresses = [server.sockets[0].getsockname() for server in (one, two, six)]
        assert len({address[1] for address in addresses}) == 3
        assert addresses[2][2:] == (0, 0)
        with pytest.raises(OSError, match="already in use"):
            await loop.create_server(Recorder, *addresses[0])
        # A server of every host is reached by each.
        transport, _ = await loop.create_connection(Recorder, "127.0.0.1", addresses[1][1])
        transport.close()
        other, _ = await loop.create_connection(Recorder, *addresses[2][:2])
        other.close()
        for server in (one, two, six):
            server.close()
            await server.wait_closed()
            assert not server.sockets
            assert not server.is_serving()
        assert loop.network.connections == 0

    run(main)


def test_a_server_that_serves_for_ever_ends_with_its_task() -> None:
    async def main() -> bool:
        server = await the_loop().create_server(Recorder, "127.0.0.1", 0, start_serving=False)
        with pytest.raises(ConnectionRefusedError):
            await the_loop().create_connection(Recorder, *server.sockets[0].getsockname())
        task = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(10)
        assert server.is_serving()
        task.cancel()
        await asyncio.wait([task])
        return bool(server.is_serving())

    assert not run(main)


def test_a_connection_that_is_cancelled_while_it_is_made_leaves_nothing() -> None:
    async def main() -> int:
        loop = the_loop()
        server = await loop.create_server(Recorder, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for steps in range(5):
            task = asyncio.ensure_future(loop.create_connection(Recorder, *address))
            for _ in range(steps):
                await asyncio.sleep(0)
            if not task.cancel():
                task.result()[0].close()
            await asyncio.wait([task])
        server.close()
        await server.wait_closed()
        await asyncio.sleep(1)
        return loop.network.connections

    assert run(main) == 0


def test_tls_is_refused_in_so_many_words() -> None:
    async def main() -> None:
        async with served(hello) as url, aiohttp.ClientSession() as session:
            await session.get(url.replace("http:", "https:"))

    with pytest.raises(NotImplementedError, match="speaks no TLS"):
        run(main)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's list of open files")
def test_no_file_and_no_warning_is_left(debug: bool) -> None:
    async def main() -> int:
        async with served(hello) as url, aiohttp.ClientSession() as session:
            before = open_files()
            for _ in range(50):
                async with session.get(url, headers={"Connection": "close"}) as response:
                    await response.read()
            calls = [session.get(url) for _ in range(50)]
            for response in await asyncio.gather(*calls):
                response.release()
            return open_files() - before

    gc.collect()
    before = open_files()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert run(main, debug=debug) == 0
        gc.collect()
    assert open_files() == before
    assert [str(warning.message) for warning in caught] == []


# The fixtures


def test_the_clock_drives_one_loop_through_a_plain_test(aiotwhelp_clock: Clock) -> None:
    log: list[float] = []

    async def beat() -> None:
        while True:
            log.append(aiotwhelp_clock.elapsed)
            await asyncio.sleep(10)

    async def begin() -> asyncio.Task[None]:
        return asyncio.create_task(beat())

    task = aiotwhelp_clock.run(begin())
    aiotwhelp_clock.run(asyncio.sleep(25))
    assert log == [0, 10, 20]
    assert repr(aiotwhelp_clock) == "<Clock 25 s>"
    assert not task.done()


async def test_a_coroutine_without_a_mark_runs_in_virtual_time(aiotwhelp_clock: Clock) -> None:
    await asyncio.sleep(900)
    assert aiotwhelp_clock.elapsed == 900
    assert aiotwhelp_clock.network is the_loop().network


# As an entry point does it; registered here in case the package is not installed but on the path.
CONFTEST = """
import aiotwhelp.testing

def pytest_configure(config):
    if not config.pluginmanager.is_registered(aiotwhelp.testing):
        config.pluginmanager.register(aiotwhelp.testing, "aiotwhelp")
"""


# Left unset, it is a warning of pytest-asyncio's.
BESIDE = ("-o", "asyncio_default_fixture_loop_scope=function")
ALONE = ("-p", "no:asyncio")


@pytest.fixture
def inner(pytester: pytest.Pytester) -> Iterator[pytest.Pytester]:
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = -q --strict-markers")
    yield pytester
    # The runs within leave their loops to the collector.
    gc.collect()


A_BOT = """
import asyncio
import aiohttp
import pytest

async def bot(api):
    headers = {"Authorization": f"Bearer {api.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{api.url}/1.1/help/privacy.json") as response,
    ):
        await response.read()
        return response.status, response.headers.get("x-rate-limit-limit")
"""


@pytest.mark.parametrize("plugins", [BESIDE, ALONE], ids=["beside", "alone"])
def test_the_emulator_serves_plain_tests_and_coroutines(
    inner: pytest.Pytester, plugins: tuple[str, ...]
) -> None:
    inner.makepyfile(
        A_BOT
        + """
def test_plain(aiotwhelp_clock, aiotwhelp_emulator):
    assert aiotwhelp_clock.run(bot(aiotwhelp_emulator)) == (200, "15")
    aiotwhelp_clock.run(asyncio.sleep(900))
    assert aiotwhelp_clock.run(bot(aiotwhelp_emulator)) == (200, "15")

@pytest.mark.parametrize("pause", [1, 100_000])
async def test_coroutine(aiotwhelp_clock, aiotwhelp_emulator, pause):
    await asyncio.sleep(pause)
    assert await bot(aiotwhelp_emulator) == (200, "15")

@pytest.mark.aiotwhelp_emulator(limit=3)
async def test_without_the_clock(aiotwhelp_emulator):
    statuses = [(await bot(aiotwhelp_emulator))[0] for _ in range(4)]
    assert statuses == [200, 200, 200, 429]

class TestIt:
    async def test_method(self, aiotwhelp_emulator):
        await asyncio.sleep(100_000)
        assert await bot(aiotwhelp_emulator) == (200, "15")

async def test_failing(aiotwhelp_clock):
    await asyncio.sleep(100_000)
    assert 1 == 2
"""
    )
    result = inner.runpytest_inprocess(*plugins)
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(["*assert 1 == 2*"])


def test_the_emulator_is_closed_before_the_clock(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        A_BOT
        + """
@pytest.fixture
def urls(aiotwhelp_clock):
    urls = []
    yield urls
    with pytest.raises(aiohttp.ClientConnectorError):
        aiotwhelp_clock.run(visit(urls[0]))
    assert aiotwhelp_clock.network.connections == 0

async def visit(url):
    async with aiohttp.ClientSession() as session:
        await session.get(url)

def test_plain(urls, aiotwhelp_clock, aiotwhelp_emulator):
    urls.append(aiotwhelp_emulator.url)
    assert aiotwhelp_clock.run(bot(aiotwhelp_emulator)) == (200, "15")
"""
    )
    inner.runpytest_inprocess(*BESIDE).assert_outcomes(passed=1)


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_pytest_asyncio_gets_the_emulator_on_its_own_loop(
    inner: pytest.Pytester, mode: str
) -> None:
    inner.makepyfile(
        A_BOT
        + """
import pytest_asyncio

@pytest_asyncio.fixture
async def answer(aiotwhelp_emulator):
    return await bot(aiotwhelp_emulator)

@pytest.mark.asyncio
async def test_marked(aiotwhelp_emulator):
    assert await bot(aiotwhelp_emulator) == (200, "15")

@pytest.mark.asyncio
@pytest.mark.aiotwhelp_emulator(limit=7)
async def test_with_an_async_fixture(aiotwhelp_emulator, answer):
    assert answer == (200, "7")
    assert await bot(aiotwhelp_emulator) == (200, "7")
"""
    )
    inner.runpytest_inprocess(*BESIDE, f"--asyncio-mode={mode}").assert_outcomes(passed=2)


MARKED = """
import asyncio
import pytest

@pytest.mark.asyncio
async def test_marked(aiotwhelp_clock):
    await asyncio.sleep(100_000)
    assert aiotwhelp_clock.elapsed == 100_000
"""


def test_a_test_that_would_really_sleep_fails_and_says_why(inner: pytest.Pytester) -> None:
    inner.makepyfile(MARKED)
    result = inner.runpytest_inprocess(*BESIDE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*another plugin runs this test on*in real time*"])


def test_pytest_asyncio_runs_in_virtual_time_where_it_is_given_the_loop(
    inner: pytest.Pytester,
) -> None:
    inner.makeconftest(
        CONFTEST
        + """
from aiotwhelp.testing import VirtualTimeLoop

def pytest_asyncio_loop_factories(config, item):
    return {"virtual": VirtualTimeLoop}
"""
    )
    inner.makepyfile(
        A_BOT
        + MARKED
        + """
@pytest.mark.asyncio
async def test_emulated(aiotwhelp_emulator):
    await asyncio.sleep(100_000)
    assert await bot(aiotwhelp_emulator) == (200, "15")
"""
    )
    inner.runpytest_inprocess(*BESIDE).assert_outcomes(passed=2)


def test_the_plugin_is_cheap_to_import() -> None:
    code = (
        "import sys, aiotwhelp.testing; "
        "print(sorted({'aiohttp.web', 'aiotwhelp.emulator', 'pytest_asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
