"""Many callers in front of one quota: what each costs, beside bare futures in a deque.

    python -m benchmarks.waiters
    python -m benchmarks.waiters --quick     # up to 10 000

1 000, 10 000 and 100 000 callers wait, each in a task of its own, while one call is in flight; its
answer opens the gate, and each caller settles its permit as soon as it has it. "Bare futures" do
the same without any rule: whoever is done wakes the next in a deque. Each row is a process of its
own. Wake-ups are callbacks of the event loop, less the one by which each task ends. The bounds for
ours: CPU per grant flat within 1.5, and at most 1.3 times that of bare futures; at most 1.2 times
their memory; one wake-up per grant.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from aiotwhelp import Limiter, QuotaKey
from benchmarks.common import arguments, footer, micro, print_table
from benchmarks.grant import KEY, MANY, told
from benchmarks.memory import resident

SIZES = (1_000, 10_000, 100_000)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one caller: seconds to wait and be granted, bytes while it waits, wake-ups."""

    joining: float
    granting: float
    memory: float
    wakes: float


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts the callbacks that are scheduled to run soon."""

    soon = 0

    def call_soon(  # type: ignore[override] # which functions take which arguments, we pass on
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        self.soon += 1
        return super().call_soon(callback, *args, context=context)


class Crowd:
    """Callers, and what they cost from here on."""

    def __init__(self, callers: list[Callable[[], Coroutine[Any, Any, None]]]) -> None:
        self._callers = callers

    async def go(self, release: Callable[[], None]) -> Cost:
        gc.collect()
        count, before = len(self._callers), resident()
        began = time.process_time()
        tasks = [asyncio.create_task(caller()) for caller in self._callers]
        await asyncio.sleep(0)
        joined, memory = time.process_time(), resident() - before
        loop = asyncio.get_running_loop()
        soon = loop.soon if isinstance(loop, CountingLoop) else 0
        started = time.process_time()
        release()
        await asyncio.gather(*tasks)
        granted = time.process_time()
        wakes = (loop.soon - soon) / count - 1 if isinstance(loop, CountingLoop) else 0.0
        return Cost((joined - began) / count, (granted - started) / count, memory / count, wakes)


async def ours(count: int, key: QuotaKey = KEY) -> Cost:
    limiter, answer = Limiter(), told(MANY)
    probe = await limiter.acquire(key)

    async def caller() -> None:
        (await limiter.acquire(key)).observed(answer)

    return await Crowd([caller] * count).go(lambda: void(probe.observed(answer)))


async def bare_futures(count: int) -> Cost:
    queue: deque[asyncio.Future[None]] = deque()
    loop = asyncio.get_running_loop()

    def wake() -> None:
        if queue:
            queue.popleft().set_result(None)

    async def caller() -> None:
        turn = loop.create_future()
        queue.append(turn)
        await turn
        wake()

    return await Crowd([caller] * count).go(wake)


def void(_: object) -> None:
    """Take what a lambda must not return."""


async def idle_buckets(count: int) -> float:
    """Bytes of a quota that was used once."""
    limiter, answer = Limiter(max_quotas=2 * count), told(MANY)
    gc.collect()
    before = resident()
    for number in range(count):
        key = QuotaKey("GET /2/users/me", "api.x.com", f"u:{number}", "app")
        (await limiter.acquire(key)).observed(answer)
    gc.collect()
    return (resident() - before) / count


def measured(scene: Callable[[int], Coroutine[Any, Any, Any]], count: int, counting: bool) -> Any:
    gc.disable()
    logging.getLogger("aiotwhelp").setLevel(logging.ERROR)
    loops = CountingLoop if counting else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=loops) as runner:
        return runner.run(scene(count))


def several(scene: Callable[[int], Coroutine[Any, Any, Cost]], count: int, times: int) -> Cost:
    """Return the medians of some runs, a process each."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        costs: list[Cost] = pool.map(
            partial(measured, scene, counting=False), [count] * times, chunksize=1
        )
        wakes = pool.apply(measured, (scene, count, True)).wakes
    return Cost(
        median(each.joining for each in costs),
        median(each.granting for each in costs),
        median(each.memory for each in costs),
        wakes,
    )


def row(name: str, count: int, cost: Cost, base: Cost) -> tuple[str, ...]:
    return (
        f"{count:,} {name}",
        micro(cost.joining),
        micro(cost.granting),
        f"{(cost.joining + cost.granting) / (base.joining + base.granting):.2f}",
        f"{cost.memory:,.0f}",
        f"{cost.memory / base.memory:.2f}" if base.memory else "",
        f"{cost.wakes:.2f}",
    )


def main(*, quick: bool) -> None:
    rows = []
    for count in SIZES[:2] if quick else SIZES:
        times = 3 if quick else 5
        base, own = several(bare_futures, count, times), several(ours, count, times)
        rows += [row("bare futures", count, base, base), row("**aiotwhelp**", count, own, base)]
    print_table(
        ("callers", "to wait, µs", "to be granted, µs", "of bare", "bytes", "of bare", "wake-ups"),
        rows,
    )
    count = 10_000 if quick else 100_000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        each = pool.apply(measured, (idle_buckets, count, False))
    print(f"{count:,} idle quotas take {each:,.0f} bytes each.\n")
    footer()


if __name__ == "__main__":
    main(quick=arguments(__doc__).quick)
