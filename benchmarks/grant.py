"""An uncontended grant: what asking for permission costs, ours and others'.

    python -m benchmarks.grant

Ours is measured with an answer whose headers are read, as every call has one ("grant and settle"),
and by itself ("grant"): the permits are settled outside of the measured time. Others have no answer
to learn from. The bounds for ours: 2 µs with a reading, 0.3 µs alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from email.utils import formatdate

from multidict import CIMultiDict, CIMultiDictProxy

from aiotwhelp import Limiter, QuotaKey
from benchmarks.common import Work, arguments, footer, micro, pin, print_table, rounds

MANY = 10**9


def bare() -> Work:
    left = MANY

    async def acquire() -> None:
        nonlocal left
        left -= 1

    async def work(count: int) -> None:
        for _ in range(count):
            await acquire()

    return work


def semaphore() -> Work:
    gate = asyncio.Semaphore(10)

    async def work(count: int) -> None:
        for _ in range(count):
            await gate.acquire()
            gate.release()

    return work


def aiolimiter() -> Work:
    from aiolimiter import AsyncLimiter

    limiter = AsyncLimiter(MANY, 1)

    async def work(count: int) -> None:
        for _ in range(count):
            await limiter.acquire()

    return work


def pyrate_limiter() -> Work:
    from pyrate_limiter import GCRA, Duration, InMemoryStateStore, Limiter, Rate, StateBucket

    bucket = StateBucket([Rate(MANY, Duration.SECOND)], GCRA(), InMemoryStateStore())
    limiter = Limiter(bucket)

    async def work(count: int) -> None:
        for _ in range(count):
            await limiter.try_acquire_async("key")

    return work


def limits() -> Work:
    from limits import RateLimitItemPerSecond
    from limits.aio.storage import MemoryStorage
    from limits.aio.strategies import FixedWindowRateLimiter

    limiter, item = FixedWindowRateLimiter(MemoryStorage()), RateLimitItemPerSecond(MANY)

    async def work(count: int) -> None:
        for _ in range(count):
            await limiter.hit(item, "key")

    return work


def throttled() -> Work:
    from throttled import per_sec
    from throttled.asyncio import MemoryStore, Throttled

    limiter = Throttled(key="key", quota=per_sec(MANY, burst=MANY), store=MemoryStore())

    async def work(count: int) -> None:
        for _ in range(count):
            await limiter.limit()

    return work


KEY = QuotaKey("GET /2/users/me", "api.x.com", "u:1", "app")


def told(remaining: int) -> CIMultiDictProxy[str]:
    """Headers of an answer, as aiohttp gives them."""
    now = time.time()
    fields = {
        "Content-Type": "application/json; charset=utf-8",
        "Content-Length": "64",
        "Date": formatdate(now, usegmt=True),
        "x-rate-limit-limit": str(MANY),
        "x-rate-limit-remaining": str(remaining),
        "x-rate-limit-reset": str(int(now + 900)),
    }
    return CIMultiDictProxy(CIMultiDict(fields))


async def warm(limiter: Limiter, calls: int) -> None:
    """Have answers for so many calls, or no more may be in flight."""
    answer = told(MANY)
    for _ in range(calls):
        (await limiter.acquire(KEY)).observed(answer)


async def grant_and_settle() -> Work:
    limiter = Limiter()
    await warm(limiter, 10)
    answers = [told(MANY - number) for number in range(1000)]

    async def work(count: int) -> None:
        for number in range(count):
            (await limiter.acquire(KEY)).observed(answers[number % 1000])

    return work


async def grant() -> Work:
    limiter = Limiter()
    await warm(limiter, 200_000)
    answer = told(MANY)

    async def work(count: int) -> object:
        permits = [await limiter.acquire(KEY) for _ in range(count)]

        def settle() -> None:
            for permit in permits:
                permit.observed(answer)

        return settle

    return work


async def main(*, quick: bool) -> None:
    works = {
        "a counter in a coroutine": bare(),
        "asyncio.Semaphore, and release": semaphore(),
        "**aiotwhelp, grant**": await grant(),
        "**aiotwhelp, grant and settle**": await grant_and_settle(),
    }
    missing = []
    for peer in (aiolimiter, pyrate_limiter, limits, throttled):
        try:
            works[peer.__name__] = peer()
        except ImportError:
            missing.append(peer.__name__)
    number, seconds = (5, 0.02) if quick else (25, 0.05)
    results = await rounds(works, number=number, seconds=seconds, least=100)
    base = results["asyncio.Semaphore, and release"]
    print_table(
        ("one grant", "CPU µs", "of the Semaphore's"),
        [(name, micro(each.cpu), f"{each.cpu_ratio(base):.2f}") for name, each in results.items()],
    )
    if missing:
        print(f"not installed: {', '.join(missing)}\n")
    packages = [*{"aiolimiter", "pyrate-limiter", "limits", "throttled-py"}]
    with contextlib.suppress(ImportError):
        footer(*sorted(packages))


if __name__ == "__main__":
    options = arguments(__doc__)
    pin(0)
    asyncio.run(main(quick=options.quick))
