"""The least waiting: refusals and makespan, ours and others', in virtual time.

    python -m benchmarks.least_waiting

A server with one window of 900 s, 20 to 300 ms away each way, so that answers overtake each other.
The others are their own code (tweepy's client, aiolimiter, the bucket of discord.py and that of
hikari), driven here as their own clients drive them; `time.time()` is virtual for them, too.
The ideal is the last reset that the calls need. After 30 000 requests nobody is answered any more:
those who still wait are "stuck". The last table is in real time: 10 000 permits at
10 000 per second, evenly, a burst of 1.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

from multidict import CIMultiDict

from aiotwhelp import Limiter, QuotaKey, Rate
from aiotwhelp.testing import VirtualTimeLoop, run
from benchmarks.common import arguments, footer, print_table

WINDOW = 900.0

#: After so many requests nobody is answered any more: it would take all day.
RUNAWAY = 30_000

#: Makes one call, however often it is refused.
Caller = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Scene:
    """What callers meet: how many, how fast they come, and how the server is."""

    name: str
    callers: int = 1000
    limit: int = 100
    #: Seconds from caller to caller.
    every: float = 0.0
    #: What share of them gives up after up to 10 s.
    cancelled: float = 0.0
    #: Seconds by which the server's clock is behind ours, and by which it resets late.
    behind: float = 0.0
    late: float = 0.0

    @property
    def ideal(self) -> float:
        return max(0.0, (math.ceil(self.callers / self.limit) - 1) * WINDOW)


SCENES = (
    Scene("cold burst, 1000 callers, 100 a window"),
    Scene("the same, server's clock 30 s behind", 300, 50, behind=30.0),
    Scene("the same, resets 0.7 s late", 300, 50, late=0.7),
    Scene("50 a second, 30 % give up", 1000, 100, every=0.02, cancelled=0.3),
)


@dataclass(slots=True)
class Answer:
    status: int
    headers: CIMultiDict[str]
    reason: str = ""

    async def read(self) -> bytes:
        return b"{}"

    async def json(self) -> Any:
        return json.loads(b'{"errors":[{"code":88,"message":"Rate limit exceeded"}]}')


@dataclass(slots=True)
class Server:
    scene: Scene
    random: random.Random
    refused: int = 0
    requests: int = 0
    _window: int = 0
    _left: int = field(init=False)

    def __post_init__(self) -> None:
        self._left = self.scene.limit

    async def ask(self) -> Answer:
        if self.requests >= RUNAWAY:
            await asyncio.Event().wait()
        await asyncio.sleep(self.random.uniform(0.02, 0.3))
        answer = self._answer()
        await asyncio.sleep(self.random.uniform(0.02, 0.3))
        return answer

    def _answer(self) -> Answer:
        now, shown = loop().elapsed, loop().wall_time() - self.scene.behind
        window = max(self._window, int((now - self.scene.late) // WINDOW))
        if window > self._window:
            self._window, self._left = window, self.scene.limit
        self.requests += 1
        ok = self._left > 0
        self._left -= ok
        self.refused += not ok
        resets_in = (self._window + 1) * WINDOW - now
        fields = {
            "Date": formatdate(shown, usegmt=True),
            "x-rate-limit-limit": str(self.scene.limit),
            "x-rate-limit-remaining": str(self._left),
            "x-rate-limit-reset": str(math.ceil(shown + resets_in)),
        }
        # The same numbers, as Discord spells them.
        fields |= {
            name.replace("rate-limit", "ratelimit"): fields[name] for name in list(fields)[1:]
        }
        return Answer(200 if ok else 429, CIMultiDict(fields))


def loop() -> VirtualTimeLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualTimeLoop)
    return running


@contextmanager
def virtual_clock(*modules: str) -> Iterator[None]:
    """Have `time.time()` of these modules tell virtual time."""
    clock = SimpleNamespace(time=loop().wall_time, monotonic=loop().time, sleep=time.sleep)
    found: list[Any] = [importlib.import_module(name) for name in modules]
    before = [each.time for each in found]
    for each in found:
        each.time = clock
    try:
        yield
    finally:
        for each, old in zip(found, before, strict=True):
            each.time = old


# Callers, each by its own library -----------------------------------------------------------------


@asynccontextmanager
async def aiotwhelp(server: Server) -> Any:
    limiter, key = Limiter(), QuotaKey("GET /2/users/me")

    async def call() -> None:
        ticket, status = limiter.ticket(), 429
        while status == 429:
            permit = await limiter.acquire(key, ticket=ticket)
            try:
                answer = await server.ask()
            except asyncio.CancelledError:
                permit.lost()
                raise
            permit.observed(answer.headers, status=answer.status)
            status = answer.status

    yield call


@asynccontextmanager
async def by_hand(server: Server) -> Any:
    """Sleep until the reset, as everybody writes it first."""

    async def call() -> None:
        while (answer := await server.ask()).status == 429:
            reset = float(answer.headers["x-rate-limit-reset"])
            await asyncio.sleep(max(1.0, reset - loop().wall_time()))

    yield call


class AsSession:
    """What tweepy uses of a session."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @asynccontextmanager
    async def request(self, *_: object, **__: object) -> Any:
        yield await self._server.ask()


@asynccontextmanager
async def tweepy(server: Server) -> Any:
    from tweepy.asynchronous import AsyncClient

    client = AsyncClient("a-token", wait_on_rate_limit=True)
    client.session = AsSession(server)
    with virtual_clock("tweepy.asynchronous.client"):
        yield lambda: client.request("GET", "/2/users/me")


@asynccontextmanager
async def aiolimiter(server: Server) -> Any:
    """With the right static rate; refusals as by hand."""
    from aiolimiter import AsyncLimiter

    limiter = AsyncLimiter(server.scene.limit, WINDOW)
    async with by_hand(server) as ask:

        async def call() -> None:
            await limiter.acquire()
            await ask()

        yield call


@asynccontextmanager
async def discord_py(server: Server) -> Any:
    from discord.http import Ratelimit

    bucket = Ratelimit(None)

    async def call() -> None:
        async with bucket:
            while (answer := await server.ask()).status == 429:
                reset = float(answer.headers["x-rate-limit-reset"])
                await asyncio.sleep(max(0.0, reset - loop().wall_time()))
            now = loop().wall_time()
            reset_after = float(answer.headers["x-rate-limit-reset"]) - now
            answer.headers["X-Ratelimit-Reset-After"] = str(reset_after)
            bucket.update(answer)

    yield call


@asynccontextmanager
async def hikari(server: Server) -> Any:
    from hikari.impl.buckets import RESTBucket
    from hikari.impl.rate_limits import ManualRateLimiter

    with virtual_clock("hikari.impl.buckets", "hikari.impl.rate_limits"):
        route: Any = None  # only shown in its errors
        bucket = RESTBucket("bucket", route, ManualRateLimiter(), math.inf)

        async def call() -> None:
            status = 429
            while status == 429:
                async with bucket:
                    answer = await server.ask()
                    told = answer.headers
                    remaining, limit = (
                        int(told[f"x-ratelimit-{each}"]) for each in ("remaining", "limit")
                    )
                    reset = float(told["x-ratelimit-reset"])
                    numbers = (remaining, limit, reset, reset - loop().wall_time())
                    if bucket.is_unknown:
                        bucket.resolve("bucket", *numbers)
                    else:
                        bucket.update_rate_limit(*numbers)
                    status = answer.status

        yield call


CONTESTANTS = (aiotwhelp, by_hand, tweepy, aiolimiter, discord_py, hikari)

# The scenes ---------------------------------------------------------------------------------------


async def play(scene: Scene, contestant: Callable[[Server], Any]) -> list[str]:
    chance = random.Random(7)
    server = Server(scene, chance)
    until = scene.ideal + 3 * WINDOW

    async def impatient(call: Caller) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(chance.uniform(0.0, 10.0)):
                await call()

    async with contestant(server) as call:
        tasks = []
        for _ in range(scene.callers):
            gives_up = chance.random() < scene.cancelled
            work = impatient(call) if gives_up else call()
            tasks.append(asyncio.ensure_future(work))
            if scene.every:
                await asyncio.sleep(scene.every)
        done, stuck = await asyncio.wait(tasks, timeout=until - loop().elapsed)
        took = loop().elapsed
        for task in stuck:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    failed = sum(not task.cancelled() and task.exception() is not None for task in done)
    makespan = f"{took - scene.ideal:+.1f} s" if not stuck and not scene.cancelled else ""
    return [str(server.requests), str(server.refused), makespan, str(len(stuck)), str(failed)]


def compare(scene: Scene) -> None:
    rows, missing = [], []
    for contestant in CONTESTANTS:
        name = contestant.__name__.replace("_", " ").replace("discord py", "discord.py")
        try:
            found = run(play(scene, contestant), debug=False)
        except ImportError:
            missing.append(name)
            continue
        except AssertionError as error:  # it spins, or waits for nothing
            found = ["", "", "", "", type(error).__name__]
        rows.append([f"**{name}**" if contestant is aiotwhelp else name, *found])
    print_table(
        (
            scene.name,
            "requests",
            "refused",
            f"over the ideal {scene.ideal:.0f} s",
            "stuck",
            "failed",
        ),
        rows,
    )
    if missing:
        print(f"not installed: {', '.join(missing)}\n")


# In real time -------------------------------------------------------------------------------------


async def even(count: int, rate: float) -> None:
    limiter = Limiter(rates={"*": Rate(rate, per=1)})
    key = QuotaKey("GET /")
    answers: dict[str, Caller] = {"ours": lambda: _settled(limiter, key)}
    with suppress(ImportError):
        from aiolimiter import AsyncLimiter

        static = AsyncLimiter(1, 1 / rate)
        answers["aiolimiter"] = static.acquire
    rows = []
    for name, call in answers.items():
        number = count if name == "ours" else count // 10
        asked: list[float] = []
        began = time.perf_counter()
        await asyncio.gather(*(_noting(asked, call) for _ in range(number)))
        ended = time.perf_counter()
        took, waited, ideal = ended - began, ended - asked[0], number / rate
        rows.append((name, f"{took:.2f} s", f"{took / ideal:.3f}", f"{waited / ideal:.3f}"))
    head = (f"{rate:,.0f} per second, evenly", "took", "of the ideal", "from the first who asked")
    print_table(head, rows)


async def _noting(asked: list[float], call: Caller) -> None:
    """Note when a task had come as far as to ask."""
    if not asked:
        asked.append(time.perf_counter())
    await call()


async def _settled(limiter: Limiter, key: QuotaKey) -> None:
    (await limiter.acquire(key)).observed(_NOTHING)


_NOTHING: Mapping[str, str] = {}


def main(*, quick: bool) -> None:
    logging.disable(logging.WARNING)
    for scene in SCENES[: 2 if quick else None]:
        compare(scene)
    asyncio.run(even(2_000 if quick else 10_000, 10_000.0))
    with suppress(ImportError):
        footer("tweepy", "aiolimiter", "discord.py", "hikari")


if __name__ == "__main__":
    main(quick=arguments(__doc__).quick)
