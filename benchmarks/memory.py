"""Memory and the loop under crowds, measured: one Markdown table.

    python benchmarks/memory.py
    python benchmarks/memory.py --quick    # a tenth of it

Each row is a process of its own, two at a time; memory is what the process has resident (Linux).
All of it takes six minutes of processor time: on two idle processors, half of that.
The garbage collector is off throughout, so that a circle of references would show, and no pause
of its is taken for one of ours. How long a callback holds the loop is its processor time, since
other processes have no part in that.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict, CIMultiDictProxy

import aiotwhelp
from aiotwhelp import Limiter, QuotaKey, Session, SessionClosedError
from aiotwhelp.testing import VirtualTimeLoop, run

MILLION = 1_000_000
CROWD = 100_000
WORKERS = 10


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def headers(remaining: int, now: float, resets_in: float = 900.0) -> CIMultiDictProxy[str]:
    """The headers of an answer, as aiohttp has them."""
    fields = {
        "Date": formatdate(now, usegmt=True),
        "x-rate-limit-limit": str(MILLION * 10),
        "x-rate-limit-remaining": str(remaining),
        "x-rate-limit-reset": str(int(now + resets_in)),
    }
    return CIMultiDictProxy(CIMultiDict(fields))


def in_mib(sizes: Iterable[int]) -> str:
    return ", ".join(f"{size / 2**20:.1f}" for size in sizes)


# Quotas of users who come once --------------------------------------------------------------------


async def short_lived_keys(scale: int) -> str:
    """A million users, one call each, through a limiter that remembers 100 000 quotas."""
    count, limiter = MILLION // scale, Limiter(max_quotas=CROWD // scale)
    sizes, began = [], time.process_time()
    told = [headers(left, time.time()) for left in range(15)]
    for number in range(count):
        permit = limiter.try_acquire(QuotaKey("GET /2/users/me", "api.x.com", f"u:{number}"))
        assert permit is not None
        permit.observed(told[number % 15])
        if (number + 1) % (count // 5) == 0:
            sizes.append(resident())
            await asyncio.sleep(0)
    each = (time.process_time() - began) / count
    return (
        f"| {count:,} quota keys | {in_mib(sizes)} MiB after each {count // 5:,}; "
        f"{limiter.stats().quotas:,} kept; {each * 1e6:.0f} µs each |"
    )


# Waiters ------------------------------------------------------------------------------------------


class Longest:
    """The most processor time, in seconds, that one callback of the loop took."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time all callbacks that begin and end inside: not the step of whoever watches."""
        plain = asyncio.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            began = time.thread_time()
            plain(handle)
            if asyncio.Handle._run is timed:
                self.seconds = max(self.seconds, time.thread_time() - began)

        asyncio.Handle._run = timed  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            asyncio.Handle._run = plain  # type: ignore[method-assign]

    def __str__(self) -> str:
        return f"{self.seconds * 1e3:.1f} ms"


class Crowd:
    """Callers that wait for a permit each, and settle it as soon as they have it."""

    def __init__(self, limiter: Limiter, keys: Iterable[QuotaKey]) -> None:
        self._limiter = limiter
        self._gone = asyncio.get_running_loop().create_future()
        self._before = resident()
        self._tasks = [asyncio.ensure_future(self._wait(key)) for key in keys]
        self._left = len(self._tasks)

    async def _wait(self, key: QuotaKey) -> None:
        try:
            permit = await self._limiter.acquire(key)
            permit.observed(headers(MILLION, wall()))
        except SessionClosedError:
            pass
        self._left -= 1
        if not self._left:
            self._gone.set_result(None)

    async def joined(self) -> float:
        """Bytes of each, once all of them wait."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert self._limiter.stats().waiting == self._left
        return (resident() - self._before) / self._left

    async def gone(self) -> None:
        await self._gone


def wall() -> float:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop.wall_time()


async def spend(limiter: Limiter, key: QuotaKey, calls: int = 1) -> None:
    """Make calls that use up a quota until it resets, in a minute."""
    for left in range(calls - 1, -1, -1):
        permit = await limiter.acquire(key)
        permit.observed(headers(left, wall(), 60))


async def waiters(name: str, keys: list[QuotaKey], calls: int) -> str:
    """The same crowd twice: once it is let through, once it is closed upon."""
    granting, closing = Longest(), Longest()
    sizes = []
    for longest in (granting, closing):
        limiter = Limiter()
        for key in keys[::calls]:
            await spend(limiter, key, calls)
        crowd = Crowd(limiter, keys)
        sizes.append(await crowd.joined())
        with longest.watching():
            if longest is closing:
                await asyncio.ensure_future(limiter.close())
            await crowd.gone()
    return (
        f"| {len(keys):,} waiters {name} | {sizes[0]:,.0f} bytes each, its task included; "
        f"longest callback {granting} while granting, {closing} while closing |"
    )


async def one_bucket(scale: int) -> str:
    count = CROWD // scale
    return await waiters("for one quota", [QuotaKey("GET /2/users/me")] * count, count)


async def many_buckets(scale: int) -> str:
    keys = [QuotaKey("GET /2/users/me", "x", str(number)) for number in range(CROWD // scale)]
    return await waiters("for a quota each", keys, 1)


# Calls --------------------------------------------------------------------------------------------


class Answering(asyncio.Transport):
    """Answers whatever is written, as a server that keeps its connections open."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._client = client
        self._is_closing = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._client = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._client

    def write(self, data: Any) -> None:
        self._loop.call_soon(self._answer)

    def _answer(self) -> None:
        self._client.data_received(answer(int(time.time())))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"")

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon(self._client.connection_lost, None)

    abort = close


class InMemory(aiohttp.BaseConnector):
    """Connects to nobody: there is no socket, and no server's memory in the figures."""

    async def _create_connection(self, *_: Any) -> ResponseHandler:
        loop = asyncio.get_running_loop()
        client = ResponseHandler(loop)
        client.connection_made(Answering(loop, client))
        return client


@lru_cache(maxsize=1)
def answer(second: int) -> bytes:
    body = {"Content-Length": "2", "Content-Type": "application/json"}
    fields = {**headers(MILLION, second), **body}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n{{}}".encode()


async def calls(scale: int) -> str:
    """Half a million calls of a session, ten at a time."""
    count = MILLION // 2 // scale
    sizes = []
    began = time.process_time()
    async with Session("http://127.0.0.1:1", connector=InMemory()) as session:
        for _ in range(10):
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(work(session, count // 10 // WORKERS))
            sizes.append(resident())
        granted = session.limiter.stats().granted
    assert granted == count
    each = (time.process_time() - began) / count
    return (
        f"| {count:,} calls | {in_mib(sizes)} MiB after each {count // 10:,}; "
        f"{each * 1e6:.0f} µs each, aiohttp's part included |"
    )


async def work(session: Session, calls: int) -> None:
    for _ in range(calls):
        assert await session.fetch("/2/users/me") == {}


# The table ----------------------------------------------------------------------------------------


#: The longest first, since two run at once; a million calls are made by two processes.
SCENES: tuple[Callable[[int], Any], ...] = (
    calls,
    calls,
    short_lived_keys,
    many_buckets,
    one_bucket,
)


def row(scene: Callable[[int], Any], scale: int) -> str:
    gc.disable()
    logging.getLogger("aiotwhelp").setLevel(logging.ERROR)  # each quota would say that it is spent
    main = asyncio.run if scene in (short_lived_keys, calls) else run
    return str(main(scene(scale)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    scale = 10 if parser.parse_args().quick else 1
    began = time.monotonic()
    print("| what | measured |\n|---|---|", flush=True)
    context = multiprocessing.get_context("spawn")
    with context.Pool(2, maxtasksperchild=1) as pool:
        for line in pool.imap_unordered(partial(row, scale=scale), SCENES):
            print(line, flush=True)
        pool.close()
        pool.join()  # whose processor time counts once it has ended
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(
        f"\naiotwhelp {aiotwhelp.__version__}, {time.monotonic() - began:.0f} s, of a processor "
        f"{used.ru_utime + used.ru_stime:.0f} s; load {load} on {os.cpu_count()} processors"
    )


if __name__ == "__main__":
    main()
