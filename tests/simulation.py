"""A server with windows and faults, and callers that share one limiter, without HTTP.

Everything runs on one event loop in virtual time, so that a run of 15 minutes takes
milliseconds. The server counts by itself what it was asked and what it refused.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, ParamSpec

from aiotwhelp.limiter import Limiter
from aiotwhelp.permits import Permit
from aiotwhelp.queues import Priority
from aiotwhelp.testing import VirtualTimeLoop, run
from aiotwhelp.views import QuotaKey
from aiotwhelp.windows import Foreign

P = ParamSpec("P")


class DroppedError(Exception):
    """The connection was dropped; nobody knows whether the call was counted."""


@dataclass
class Faults:
    """What goes wrong, as probabilities and seconds."""

    skew: float = 0.0
    late: float = 0.0
    drop_before: float = 0.0
    drop_after: float = 0.0
    headerless: float = 0.0
    garbled: float = 0.0
    server_error: float = 0.0
    cancelled: float = 0.0
    no_date: bool = False
    backends: tuple[float, ...] = (0.0,)
    hidden_gap: float = 0.0
    foreign: float = 0.0
    reset_rounding: Callable[[float], float] = float
    #: One-way latency, drawn anew each way.
    latency: tuple[float, float] = (0.01, 0.08)


@dataclass
class Window:
    limit: int
    ends: float
    used: int = 0


@dataclass
class Server:
    """Counts in fixed windows that begin at the first request, floored to whole seconds."""

    limit: int = 15
    length: float = 5.0
    whole_seconds: bool = True
    faults: Faults = field(default_factory=Faults)
    seed: int = 0
    #: How far its windows are off whole seconds of the loop's own clock.
    offset: float = 0.25

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self.loop = loop
        self.windows: dict[Any, Window] = {}
        self.history: list[Window] = []
        self.requests = 0
        self.accepted = 0
        self.refused: list[tuple[float, str]] = []
        self.refused_in: Counter[int] = Counter()
        #: Without those whose answer was lost: nobody saw them.
        self.seen_refused_in: Counter[int] = Counter()
        self.periods = 0
        self.last_hidden = -1e9
        self.turn = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.starts: list[float] = []
        #: Tickets in the order of their first grants.
        self.order: list[int] = []

    def now(self) -> float:
        return self.loop.wall_time() + self.offset + self.faults.skew

    async def call(self, key: Any = "") -> tuple[int, dict[str, str]]:
        """Make one request: status and headers. Raises DroppedError."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.starts.append(self.loop.time())
        try:
            await asyncio.sleep(self.random.uniform(*self.faults.latency))
            if self.random.random() < self.faults.drop_before:
                raise DroppedError
            answer = self.answer(key)
            period = self.periods
            await asyncio.sleep(self.random.uniform(*self.faults.latency))
            if self.random.random() < self.faults.drop_after:
                raise DroppedError
            if answer[0] == 429:
                self.seen_refused_in[period] += 1
            return answer
        finally:
            self.in_flight -= 1

    def answer(self, key: Any = "") -> tuple[int, dict[str, str]]:
        self.requests += 1
        now = self.now()
        window = self.window(key, now)
        headers = {} if self.faults.no_date else {"date": formatdate(int(now), usegmt=True)}
        if self.random.random() < self.faults.foreign and window.used < window.limit:
            window.used += 1
        status = 200
        if self.random.random() < self.faults.server_error:
            return 503, headers
        hidden = now - self.last_hidden < self.faults.hidden_gap
        if window.used >= window.limit or hidden:
            status = 429
            self.refused.append((self.loop.time(), "hidden" if hidden else "window"))
            self.refused_in[self.periods] += 1
        else:
            window.used += 1
            self.accepted += 1
            if self.faults.hidden_gap:
                self.last_hidden = now
        if self.random.random() >= self.faults.headerless:
            headers |= self.rate_headers(window)
        return status, headers

    def window(self, key: Any, now: float) -> Window:
        window = self.windows.get(key)
        if window is None or now >= window.ends + self.faults.late:
            start = float(int(now)) if self.whole_seconds else now
            window = self.windows[key] = Window(self.limit, start + self.length)
            self.periods += 1
            self.history.append(window)
        return window

    def rate_headers(self, window: Window) -> dict[str, str]:
        offset = self.faults.backends[self.turn % len(self.faults.backends)]
        self.turn += 1
        reset = str(int(self.faults.reset_rounding(window.ends + offset)))
        remaining = str(window.limit - window.used)
        if self.random.random() < self.faults.garbled:
            reset = self.random.choice(["abc", "0", "-1", "99999999999999", "1", ""])
        if self.random.random() < self.faults.garbled:
            remaining = self.random.choice(["abc", "1e999", "", "nan", "1,2"])
        return {
            "x-rate-limit-limit": str(window.limit),
            "x-rate-limit-remaining": remaining,
            "x-rate-limit-reset": reset,
        }


KEY = QuotaKey("GET /1.1/help/privacy.json", api="x", identity="someone", app="app")


async def caller(
    server: Server,
    limiter: Limiter,
    *,
    key: QuotaKey = KEY,
    attempts: int = 100,
    priority: Priority = Priority.NORMAL,
    max_wait: float | None = None,
) -> str:
    """Call until answered, as a session does: with one ticket for all attempts."""
    ticket = limiter.ticket()
    for attempt in range(attempts):
        permit = await limiter.acquire(key, ticket=ticket, priority=priority, max_wait=max_wait)
        if not attempt:
            server.order.append(ticket)
        status = await send(server, permit, key)
        if status == 200:
            return "served"
        if status not in (429, 0):
            await asyncio.sleep(server.random.uniform(0, min(20.0, 0.5 * 2**attempt)))
    return "gave up"


async def send(server: Server, permit: Permit, key: Any) -> int:
    try:
        status, headers = await server.call(key)
    except DroppedError:
        permit.lost()
        return 0
    except BaseException:
        permit.lost()
        raise
    permit.observed(headers, status=status)
    return status


class Seen:
    """What a server saw of a run."""

    server: Server

    @property
    def refused(self) -> int:
        return len(self.server.refused)

    @property
    def most_refused_in_a_window(self) -> int:
        return max(self.server.refused_in.values(), default=0)


@dataclass
class Outcome(Seen):
    server: Server
    limiter: Limiter
    served: int
    results: list[Any]
    makespan: float


async def crowd(
    n: int,
    server: Server,
    limiter: Limiter | None = None,
    *,
    spread: float = 0.0,
    **options: Any,
) -> Outcome:
    """Let n callers come at once, or spread over so many seconds, and wait for all of them."""
    limiter = limiter or Limiter()
    began = server.loop.time()

    async def one() -> str:
        if spread:
            await asyncio.sleep(server.random.uniform(0, spread))
        return await caller(server, limiter, **options)

    tasks = [asyncio.ensure_future(one()) for _ in range(n)]
    for task in tasks:
        if server.random.random() < server.faults.cancelled:
            server.loop.call_later(server.random.uniform(0, 4 * server.length), task.cancel)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    served = sum(result == "served" for result in results)
    return Outcome(server, limiter, served, results, server.loop.time() - began)


def at_rest(limiter: Limiter) -> bool:
    """Whether nothing is left behind: no waiter, no call in flight, no timer."""
    stats = limiter.stats()
    return stats.waiting == 0 and stats.in_flight == 0 and not limiter._turns.alarm.is_armed


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test's coroutine on a loop of its own that jumps from timer to timer.

    What a callback raises, which asyncio only logs, fails the test.
    """

    @functools.wraps(test)
    def runs(*args: P.args, **named: P.kwargs) -> None:
        raised: list[BaseException] = []

        def note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            if "handle" in context:
                raised.append(context["exception"])

        async def watched() -> None:
            asyncio.get_running_loop().set_exception_handler(note)
            await test(*args, **named)

        # asyncio's debug mode makes 100 000 callers cost minutes.
        run(watched(), seed=7, debug=False)
        assert not raised, raised

    return runs


def played(
    n: int = 100,
    *,
    seed: int = 0,
    limiter: dict[str, Any] | None = None,
    faults: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    **options: Any,
) -> Outcome:
    """Play a crowd in virtual time and return what became of it."""

    async def main() -> Outcome:
        model = Server(seed=seed, faults=Faults(**(faults or {})), **(server or {}))
        return await crowd(n, model, limiter=Limiter(**(limiter or {})), **options)

    logging.getLogger("aiotwhelp").setLevel(logging.ERROR)
    try:
        return run(main(), seed=seed, debug=False)
    finally:
        logging.getLogger("aiotwhelp").setLevel(logging.NOTSET)


def headers(
    remaining: int, reset_in: float | None = 60.0, *, limit: int = 15, **more: str
) -> dict[str, str]:
    """Return the headers of an answer that is given now."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    told = {
        "date": formatdate(int(loop.wall_time()), usegmt=True),
        "x-rate-limit-limit": str(limit),
        "x-rate-limit-remaining": str(remaining),
    }
    if reset_in is not None:
        told["x-rate-limit-reset"] = str(int(loop.wall_time() + reset_in))
    return told | {name.replace("_", "-"): value for name, value in more.items()}


async def opened(
    limiter: Limiter, remaining: int, key: Any = KEY, reset_in: float = 60.0, **more: str
) -> None:
    """Let a first call's answer open the windows of a key, and let it be known as one of ours."""
    permit = await limiter.acquire(key)
    permit.observed(headers(remaining, reset_in, **more))
    bucket = limiter._lines[key].bucket
    bucket.answered = 10**9
    for window in bucket.windows:
        window.foreign = Foreign(presumed=0.0)


async def settle() -> None:
    """Let everyone who can go on do so, without time passing."""
    for _ in range(10):
        await asyncio.sleep(0)
