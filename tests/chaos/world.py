"""A server that counts strictly, and everything that may go wrong between it and its callers.

It speaks HTTP on the in-memory network, by hand: a framework would cost more than all the rest.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from typing import Self

from aiotwhelp.testing import VirtualTimeLoop
from tests.chaos.plan import Plan

DAY = 86_400.0
BODY = b'{"privacy": "of your data", "padding": "................................"}'

#: Values that no parser should choke on, and no caller should trust.
NONSENSE = ["", "abc", "-1", "nan", "1e999", "1,2", "\u0661\u0662", "0x10", "9" * 60, "1;q=2"]

#: Plausible, and wrong.
LIES = [
    {"x-rate-limit-remaining": "0", "x-rate-limit-reset": "99999999999"},
    {"x-rate-limit-remaining": "0"},
    {"x-rate-limit-remaining": "100000"},
    {"x-rate-limit-limit": "0", "x-rate-limit-remaining": "0"},
    {"x-rate-limit-limit": "1", "x-rate-limit-remaining": "-5"},
    {"x-rate-limit-reset": "0"},
    {"x-rate-limit-reset": "1"},
    {"x-app-limit-24hour-remaining": "0", "x-app-limit-24hour-reset": "9" * 11},
    {"retry-after": "99999999"},
    {"retry-after": "-1"},
    {"age": "77"},
    {"date": "Thu, 01 Jan 1970 00:00:00 GMT"},
    {"date": "Fri, 31 Dec 9999 23:59:59 GMT"},
    {"x-rate-limit-remaining": "1" * 4000},
]


@dataclass(slots=True)
class Window:
    """Begins with its first request, on a whole second of the server's clock."""

    key: object
    number: int
    limit: int
    ends: float
    used: int = 0
    seen: int = 0


@dataclass(slots=True)
class Verdict:
    status: int
    headers: dict[str, str]
    body: bytes = BODY
    blamed: Window | None = None


class World:
    """One server, and another of a foreign origin that must never see a credential."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.dice = random.Random(plan.seed ^ 0x5EED)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self.loop = loop
        self.began = loop.time()
        self.windows: dict[object, Window] = {}
        self.history: list[Window] = []
        self.numbers: Counter[object] = Counter()
        self.faults: Counter[str] = Counter()
        self.requests = 0
        self.counted = 0
        self.most_seen = 0
        self.spilled: list[str] = []
        self.last_accepted = -1e9
        self.turn = 0
        self.is_calm = False

    async def __aenter__(self) -> Self:
        self.server = await self.loop.create_server(lambda: Wire(self), "127.0.0.1", 0)
        self.abroad = await self.loop.create_server(lambda: Abroad(self), "127.0.0.2", 0)
        self.address = self.server.sockets[0].getsockname()[:2]
        self.url = "http://{}:{}".format(*self.address)
        self.foreign_url = "http://{}:{}".format(*self.abroad.sockets[0].getsockname()[:2])
        for start, end in self.plan.outages:
            self.loop.call_later(start, self._go_down)
            self.loop.call_later(end, self.loop.network.allow, self.address)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        self.abroad.close()
        self.loop.network.cut()

    def _go_down(self) -> None:
        if not self.is_calm:
            self.faults["refused connection"] += 1
            self.loop.network.refuse(self.address)
            self.loop.network.cut(self.address)

    def calm(self) -> None:
        """Nothing goes wrong from now on."""
        self.is_calm = True
        self.loop.network.allow(self.address)

    def clock(self) -> float:
        elapsed = self.loop.time() - self.began
        stepped = sum(by for at, by in self.plan.steps if at <= elapsed)
        return 1_800_000_000.25 + self.plan.skew + elapsed * (1 + self.plan.drift) + stepped

    def falls(self, chance: float, fault: str = "") -> bool:
        if self.is_calm or chance <= 0 or self.dice.random() >= chance:
            return False
        if fault:
            self.faults[fault] += 1
        return True

    def delay(self) -> float:
        delay = self.dice.uniform(*self.plan.latency)
        return delay + 30.0 if self.falls(self.plan.slow, "an answer after the timeout") else delay

    # Judging -----------------------------------------------------------------------------------

    def judge(self, method: str, path: str, identity: str) -> Verdict | None:
        """Decide on a request that has arrived; None if its connection breaks unanswered."""
        self.requests += 1
        plan, now = self.plan, self.clock()
        date = {"Date": formatdate(int(now), usegmt=True)}
        if self.falls(plan.drop_before, "lost before counting"):
            return None
        if path.startswith("/old"):
            self.faults["redirect"] += 1
            to = path.removeprefix("/old")
            return Verdict(302, {**date, "Location": to}, b"")
        if path.startswith("/away"):
            self.faults["redirect abroad"] += 1
            return Verdict(302, {**date, "Location": f"{self.foreign_url}/x"}, b"")
        windows = [self.window((identity, method, path), plan.limit, plan.length)]
        if plan.app_limit and method == "GET":
            windows.append(self.window(("app", path), plan.app_limit, DAY))
        if not self.is_calm and any(a <= self.loop.time() - self.began < b for a, b in plan.bursts):
            self.faults["5xx"] += 1
            for window in windows:
                window.used += plan.burst_counts and window.used < window.limit
            return Verdict(plan.burst_status, date)
        return self.count(windows, date, now)

    def count(self, windows: list[Window], headers: dict[str, str], now: float) -> Verdict:
        plan = self.plan
        if self.falls(plan.foreign, "another consumer"):
            windows[0].used = min(windows[0].limit, windows[0].used + 1)
        spent = next((window for window in windows if window.used >= window.limit), None)
        hidden = not self.is_calm and now - self.last_accepted < plan.hidden_gap
        verdict = Verdict(200, headers)
        if spent is not None or hidden:
            verdict.status, verdict.blamed = 429, spent
            verdict.body = b'{"errors":[{"code":88,"message":"Rate limit exceeded"}]}'
            self.faults["hidden limit"] += spent is None
        else:
            self.counted += 1
            self.last_accepted = now
            for window in windows:
                window.used += 1
        if not self.falls(plan.missing, "no headers"):
            for name, window in zip(("x-rate-limit", "x-app-limit-24hour"), windows, strict=False):
                headers |= self.told(name, window)
        if self.falls(plan.adversarial, "a lie"):
            headers |= self.dice.choice(LIES)
        return verdict

    def window(self, key: object, limit: int, length: float) -> Window:
        plan, now = self.plan, self.clock()
        window = self.windows.get(key)
        is_own = length == plan.length
        if window is None or now >= window.ends + is_own * (plan.late - plan.early):
            self.numbers[key] += 1
            if plan.shrink_at is not None and self.loop.time() - self.began > plan.shrink_at:
                limit = max(1, limit // 2)
            window = Window(key, self.numbers[key], limit, float(int(now)) + length)
            self.windows[key] = window
            self.history.append(window)
        elif (
            plan.shrink_at is not None
            and is_own
            and self.loop.time() - self.began > plan.shrink_at
            and window.limit == plan.limit > 1
        ):
            self.faults["a limit that shrinks"] += 1
            window.limit = max(1, limit // 2)
            window.used = min(window.used, window.limit)
        return window

    def told(self, name: str, window: Window) -> dict[str, str]:
        self.turn += 1
        offset = self.plan.backends[self.turn % len(self.plan.backends)]
        values = [
            str(window.limit),
            str(window.limit - window.used),
            str(int(window.ends + offset)),
        ]
        if self.falls(self.plan.garbled, "garbled headers"):
            values[1] = self.dice.choice(NONSENSE)
        if self.falls(self.plan.garbled, "garbled headers"):
            values[2] = self.dice.choice(NONSENSE)
        return dict(
            zip((f"{name}-limit", f"{name}-remaining", f"{name}-reset"), values, strict=True)
        )

    def delivered(self, verdict: Verdict) -> None:
        """Note what a caller gets to see."""
        if verdict.status == 429 and verdict.blamed is not None:
            verdict.blamed.seen += 1


class Wire(asyncio.Protocol):
    """One connection: a request at a time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.received = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        for request in self.requests():
            self.world.loop.call_later(self.world.delay(), self.arrive, *request)

    def requests(self) -> Iterator[tuple[str, str, str]]:
        while b"\r\n\r\n" in self.received:
            head, _, rest = self.received.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            fields = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
            length = int(fields.get("content-length", 0))
            if len(rest) < length:
                return
            self.received = rest[length:]
            method, path, _ = first.split(" ")
            yield method, path, fields.get("authorization", "")

    def arrive(self, method: str, path: str, identity: str) -> None:
        verdict = self.world.judge(method, path, identity)
        if verdict is None:
            self.transport.abort()
        else:
            self.world.loop.call_later(self.world.delay(), self.answer, verdict)

    def answer(self, verdict: Verdict) -> None:
        world = self.world
        if world.falls(world.plan.drop_after, "lost after counting"):
            self.transport.abort()
        if self.transport.is_closing():
            return
        world.delivered(verdict)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(verdict.body))}
        lines = [f"{name}: {value}" for name, value in (headers | verdict.headers).items()]
        head = "\r\n".join([f"HTTP/1.1 {verdict.status} -", *lines, "", ""]).encode()
        if verdict.body and world.falls(world.plan.truncated, "a body that breaks off"):
            self.transport.write(head + verdict.body[: len(verdict.body) // 2])
            self.transport.close()
        else:
            self.transport.write(head + verdict.body)


class Abroad(Wire):
    """A server of another origin: what it is told is told to anyone."""

    def arrive(self, method: str, path: str, identity: str) -> None:
        if identity:
            self.world.spilled.append(identity)
        self.answer(Verdict(200, {}))
