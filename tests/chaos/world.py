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
from math import ceil
from typing import Self

from aiotwhelp.testing import VirtualTimeLoop
from tests.chaos.plan import Plan

#: The app's window: many of the users' own, though not the day that it is named after, which would
#: be nothing but waiting.
APP_LENGTH = 10_800.0
BODY = b'{"privacy": "of your data", "padding": "................................"}'

#: Faults by which an answer tells less than it should.
UNREADABLE = ("garbled headers", "an answer from a cache")

#: Says that a refusal holds for all routes.
EVERYWHERE = "x-everywhere"

#: How much longer than others the first request of a cancelled caller takes: the next overtakes it,
#: and is answered before it is counted.
OVERTAKEN = 0.5

#: Values that no parser should choke on, and no caller should trust.
NONSENSE = ["", "abc", "-1", "nan", "1e999", "1,2", "\u0661\u0662", "0x10", "9" * 60, "1;q=2"]
NO_NUMBERS = [text for text in NONSENSE if not text.isdecimal()]

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
class Count:
    """A window: begins with its first request, on a whole second of the server's clock."""

    key: object
    number: int
    limit: int
    length: float
    ends: float
    used: float = 0
    seen: int = 0
    #: Calls of ours whose answers were lost or told nothing of it, refusals among them: each leaves
    #: one unknown, and a probe finds out. As it does for a quota that was forgotten.
    unknown: int = 0
    #: What other consumers used of it, and had used of the one before if that was spent.
    others: int = 0
    others_before: int = 0
    #: Where calls come back one by one: the seconds for each, and when they were last looked for.
    gap: float = 0.0
    looked: float = 0.0

    @property
    def left(self) -> int:
        """Whole calls that are left."""
        return self.left_but_for(0.0)

    def left_but_for(self, missed: float) -> int:
        """Return how many would be left if so many more had come back."""
        return int(self.limit - self.used + missed + 1e-9)

    def look(self, now: float) -> None:
        """Bring it up to an instant."""
        if self.gap:
            self.used = max(0.0, self.used - max(0.0, now - self.looked) / self.gap)
            self.looked, self.ends = now, now + self.used * self.gap

    def free_at(self, cost: int) -> float:
        """Return when a call of that cost will be let through."""
        return self.ends - (self.limit - cost) * self.gap if self.gap else self.ends


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    identity: str
    cost: int = 1
    number: str = ""


@dataclass(slots=True)
class Verdict:
    status: int
    headers: dict[str, str]
    body: bytes = BODY
    blamed: Count | None = None
    is_garbled: bool = False


class World:
    """One server, and another of a foreign origin that must never see a credential."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.dice = random.Random(plan.seed ^ 0x5EED)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self.loop = loop
        self.began = loop.time()
        self.counts: dict[object, Count] = {}
        self.history: list[Count] = []
        self.numbers: Counter[object] = Counter()
        self.faults: Counter[str] = Counter()
        self.requests = 0
        self.spilled: list[str] = []
        self.last_accepted: dict[object, float] = {}
        self.last_told: dict[object, dict[str, str]] = {}
        #: Costs of requests that have been sent, and have not arrived yet; by name of the window.
        self.under_way: Counter[object] = Counter()
        #: Those among them whose caller has gone, with the instants from which nobody counts them.
        self.orphans: dict[object, list[tuple[float, int]]] = {}
        self.in_silence: Counter[object] = Counter()
        self.turn = 0
        self.hiding = (plan.hidden_from, plan.hidden_until)
        #: Whoever made a call, by its number: some leave while it is on its way.
        self.callers: dict[str, asyncio.Future[None]] = {}
        self.is_calm = False
        self.is_first = True
        #: What the server's clock showed at the start.
        self.began_at = self.clock()

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

    def set_back_since(self, at: float) -> float:
        """Return by how many seconds the clock was set back since an instant of the loop's."""
        elapsed, since = self.loop.time() - self.began, at - self.began
        return -min(0.0, sum(by for when, by in self.plan.steps if since < when <= elapsed))

    def falls(self, chance: float, fault: str = "") -> bool:
        if self.is_calm or chance <= 0 or self.dice.random() >= chance:
            return False
        if fault:
            self.faults[fault] += 1
        return True

    def delay(self) -> float:
        return self.dice.uniform(*self.plan.latency)

    def delay_there(self, request: Request) -> float:
        """Return how long a request is under way; the first of all may be overtaken."""
        delay = self.delay()
        if self.is_first and self.plan.cancelled and request.number in self.callers:
            self.is_first = False
            self.faults["cancelled"] += 1
            self.loop.call_later(delay, self.callers[request.number].cancel)
            delay += OVERTAKEN
        return delay

    def delay_back(self) -> float:
        slow = self.falls(self.plan.slow, "an answer after the timeout")
        return self.delay() + (30.0 if slow else 0.0)

    # On the way --------------------------------------------------------------------------------

    def names(self, request: Request) -> list[object]:
        """Return the names of the windows that count a request."""
        if request.path.startswith(("/old", "/away")):
            return []
        own = (request.identity, request.method, request.path)
        names: list[object] = [own]
        if self.plan.narrow:
            names.append(("narrow", *own))
        if self.plan.app_limit and request.method == "GET":
            names.append(("app", request.path))
        return names

    def is_lifted(self, name: object) -> bool:
        """Whether a window counts no more."""
        is_narrow = isinstance(name, tuple) and name[0] == "narrow"
        return is_narrow and self.loop.time() - self.began >= self.plan.lifted_at

    def sent(self, request: Request) -> None:
        if request.number in self.callers and self.falls(self.plan.cancelled / 2, "cancelled"):
            self.loop.call_later(self.delay(), self.callers[request.number].cancel)
        for name in self.names(request):
            self.under_way[name] += request.cost

    def arrived(self, request: Request, *, is_orphan: bool) -> None:
        for name in self.names(request):
            self.under_way[name] -= request.cost
            if is_orphan:
                self.orphans[name].pop()

    def abandoned(self, request: Request) -> None:
        """Note that nobody waits for a request any more: its ghost may go in a second."""
        for name in self.names(request):
            due = (self.loop.time() + 1.0, request.cost)
            self.orphans.setdefault(name, []).insert(0, due)

    def forgotten(self, name: object) -> int:
        """Return the cost of what is under way though its caller need not reckon with it."""
        now = self.loop.time()
        return sum(cost for at, cost in self.orphans.get(name, ()) if at <= now)

    # Judging -----------------------------------------------------------------------------------

    def judge(self, request: Request) -> Verdict | None:
        """Decide on a request that has arrived; None if its connection breaks unanswered."""
        self.requests += 1
        plan, now = self.plan, self.clock()
        date = {"Date": formatdate(int(now), usegmt=True)}
        if self.falls(plan.drop_before, "lost before counting"):
            return None
        path = request.path
        if path.startswith("/old"):
            self.faults["redirect"] += 1
            return Verdict(302, {**date, "Location": path.removeprefix("/old")}, b"")
        if path.startswith("/away"):
            self.faults["redirect abroad"] += 1
            return Verdict(302, {**date, "Location": f"{self.foreign_url}/x"}, b"")
        counts = [self.current(name) for name in self.names(request) if not self.is_lifted(name)]
        if any(self.is_in(burst) for burst in plan.bursts):
            self.faults["5xx"] += 1
            for count in counts:
                count.used += request.cost * (plan.burst_counts and count.used < count.limit)
            return Verdict(plan.burst_status, date)
        verdict = self.weigh(request, counts, date, now)
        if self.is_in(plan.silence):
            self.faults["silence"] += 1
            self.in_silence[counts[0].key] += 1
            return None
        return verdict

    def is_in(self, span: tuple[float, float] | None) -> bool:
        elapsed = self.loop.time() - self.began
        return span is not None and not self.is_calm and span[0] <= elapsed < span[1]

    def weigh(
        self, request: Request, counts: list[Count], headers: dict[str, str], now: float
    ) -> Verdict:
        plan, key = self.plan, counts[0].key
        if counts[0].used < counts[0].limit and self.falls(plan.foreign, "another consumer"):
            counts[0].used += 1
            counts[0].others += 1
        spent = next((each for each in counts if request.cost > each.left), None)
        gap = now - self.last_accepted.get(key, -1e9)
        verdict = Verdict(200, headers)
        if spent is not None or (gap < plan.hidden_gap and self.is_in(self.hiding)):
            verdict.status, verdict.blamed = 429, spent
            verdict.body = b'{"errors":[{"code":88,"message":"Rate limit exceeded"}]}'
            self.faults["hidden limit"] += spent is None
            if spent is not None and plan.retry_after:
                headers["Retry-After"] = (
                    f"{max(0.0, spent.free_at(request.cost) - now) + plan.retry_after:.1f}"
                )
        elif self.falls(plan.outcry, "a refusal for every route"):
            verdict.status = 429
            headers |= {EVERYWHERE: "true", "Retry-After": f"{self.dice.uniform(0.5, 5.0):.1f}"}
        else:
            self.last_accepted[key] = now
            for count in counts:
                count.used += request.cost
                count.look(now)
        garbled = sum(self.faults[name] for name in UNREADABLE)
        if not self.falls(plan.missing, "no headers"):
            headers |= self.told(counts)
        if self.falls(plan.names, "another name each time"):
            headers["RateLimit"] = f'"{self.requests}";r=50;t={self.dice.randint(1, 9)}'
        verdict.is_garbled = sum(self.faults[name] for name in UNREADABLE) > garbled
        if self.falls(plan.adversarial, "a lie"):
            headers |= self.dice.choice(LIES)
        return verdict

    def told(self, counts: list[Count]) -> dict[str, str]:
        """Return what the headers say of the windows, or said before, out of a cache."""
        self.turn += 1
        headers: dict[str, str] = {}
        key = counts[0].key
        shared = [count for count in counts if is_of_app(count.key)]
        # Of windows that take turns the one that is spent first, and for longest.
        own = [count for count in counts if count not in shared]
        headers |= self.told_of(
            self.plan.fields, min(own, key=lambda each: (each.left, -each.ends))
        )
        if shared and (key in self.last_told or not self.plan.shy):
            headers |= self.told_of("x-app-limit-24hour-{}", shared[0])
        if key in self.last_told and self.falls(self.plan.cached, "an answer from a cache"):
            return {**self.last_told[key], "Age": "77"}
        self.last_told[key] = headers
        return headers

    def told_of(self, fields: str, count: Count) -> dict[str, str]:
        offset = self.plan.backends[self.turn % len(self.plan.backends)]
        remaining, reset = str(count.left), self.written(count, count.ends + offset)
        if self.falls(self.plan.garbled, "garbled headers"):
            remaining = self.dice.choice(NONSENSE)
        if self.falls(self.plan.garbled_resets or self.plan.garbled, "garbled headers"):
            # Seconds are believed, however many: that would be a lie.
            is_told_in_seconds = self.plan.refills or self.plan.seconds
            reset = self.dice.choice(NO_NUMBERS if is_told_in_seconds else NONSENSE)
        if self.falls(self.plan.misled, "a reset that is told too late"):
            reset = self.written(count, count.ends + self.dice.uniform(30.0, 700.0))
        told = {"limit": str(count.limit), "remaining": remaining, "reset": reset}
        if self.plan.no_reset:
            del told["reset"]
        return {fields.format(name): value for name, value in told.items()}

    def written(self, count: Count, reset: float) -> str:
        """Return a reset as it is told: as an epoch or, of some windows of users, in seconds."""
        written = "" if is_of_app(count.key) else self.plan.refills or self.plan.seconds
        if not written:
            return str(int(reset))
        seconds = max(0.0, reset - self.clock())
        if written == "exact":
            return f"{seconds:.3f}s"
        return str(ceil(seconds - 1e-6) if written == "up" else int(seconds))

    def current(self, name: object) -> Count:
        """Return the window of that name that counts now."""
        plan, now = self.plan, self.clock()
        is_app, is_narrow = is_of_app(name), isinstance(name, tuple) and name[0] == "narrow"
        limit, length = (plan.app_limit, APP_LENGTH) if is_app else (plan.limit, plan.length)
        if is_narrow:
            limit, length = plan.narrow, plan.narrow_length
        elapsed = self.loop.time() - self.began
        shrinks = not is_app and plan.shrink_at is not None and elapsed > plan.shrink_at
        if shrinks:
            limit = max(1, limit // 2)
        off = 0.0 if is_app else (plan.late if elapsed < plan.late_until else 0.0) - plan.early
        count = self.counts.get(name)
        if count is not None:
            count.look(now)
        if count is None or (now >= count.ends + off and not count.gap):
            self.numbers[name] += 1
            before = count.others if count is not None and count.used >= count.limit else 0
            count = Count(name, self.numbers[name], limit, length, float(int(now)) + length)
            count.others_before = before
            if plan.refills and not is_app:
                count.gap, count.looked = length / limit, now
                count.look(now)
            self.counts[name] = count
            self.history.append(count)
        elif count.limit > limit:
            self.faults["a limit that shrinks"] += 1
            count.limit, count.used = limit, min(count.used, limit)
        return count

    def spend(self, name: object, used: int, ends: float) -> Count:
        """Let a window have begun before the schedule, and so much of it have been used."""
        self.numbers[name] += 1
        count = Count(name, self.numbers[name], self.plan.limit, self.plan.length, ends, used)
        self.counts[name] = count
        self.history.append(count)
        return count

    def delivered(self, verdict: Verdict) -> None:
        """Note what a caller gets to see."""
        if verdict.status == 429 and verdict.blamed is not None:
            verdict.blamed.seen += 1
            verdict.blamed.unknown += verdict.is_garbled


def is_of_app(name: object) -> bool:
    """Whether a window is shared by the users of an app."""
    return isinstance(name, tuple) and name[0] == "app"


class Wire(asyncio.Protocol):
    """One connection: a request at a time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.received = b""
        self.under_way: list[Request] = []
        self.is_lost = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        for request in self.under_way:
            self.world.abandoned(request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        for request in self.requests():
            self.under_way.append(request)
            self.world.sent(request)
            self.world.loop.call_later(self.world.delay_there(request), self.arrive, request)

    def requests(self) -> Iterator[Request]:
        while b"\r\n\r\n" in self.received:
            head, _, rest = self.received.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            fields = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
            length = int(fields.get("content-length", 0))
            if len(rest) < length:
                return
            self.received = rest[length:]
            method, path, _ = first.split(" ")
            cost = int(fields.get("x-cost", 1))
            identity, number = fields.get("authorization", ""), fields.get("x-number", "")
            yield Request(method, path, identity, cost, number)

    def arrive(self, request: Request) -> None:
        self.under_way.remove(request)
        self.world.arrived(request, is_orphan=self.is_lost)
        verdict = self.world.judge(request)
        if verdict is None:
            self.transport.abort()
        else:
            self.world.loop.call_later(self.world.delay_back(), self.answer, verdict)

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

    def arrive(self, request: Request) -> None:
        if request.identity:
            self.world.spilled.append(request.identity)
        self.answer(Verdict(200, {}))
