"""Callers in the order of their tickets, by priority, in front of a bucket."""

from __future__ import annotations

import asyncio
import enum
import heapq
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiotwhelp.headers import Dialect
from aiotwhelp.quota import Bucket
from aiotwhelp.views import QuotaKey
from aiotwhelp.windows import INF, RateWindow, Room, Window

if TYPE_CHECKING:
    from aiotwhelp.limiter import Permit


class Priority(enum.IntEnum):
    """Who goes first; callers of one priority go in the order of their arrival."""

    INTERACTIVE = 0
    NORMAL = 1
    BATCH = 2


class Waiter:
    """A caller in the queue, with what it needs."""

    __slots__ = (
        "cost",
        "deadline",
        "dialect",
        "future",
        "owner",
        "priority",
        "room",
        "since",
        "ticket",
    )

    def __init__(
        self,
        future: asyncio.Future[Permit],
        ticket: int,
        priority: int,
        cost: int,
        since: float,
        deadline: float | None,
        dialect: Dialect,
        room: Room | None,
        owner: object,
    ) -> None:
        self.future = future
        self.ticket = ticket
        self.priority = priority
        self.cost = cost
        self.since = since
        self.deadline = deadline
        self.dialect = dialect
        self.room = room
        self.owner = owner

    def __lt__(self, other: Waiter) -> bool:
        return self.ticket < other.ticket


class Queue:
    """Waiters of one priority in the order of their tickets; cancelled ones are passed over."""

    __slots__ = ("_back", "_front", "dead")

    def __init__(self) -> None:
        # Callers that come back after a refusal hold older tickets than all who arrived since.
        self._front: list[Waiter] = []
        self._back: deque[Waiter] = deque()
        self.dead = 0

    def __len__(self) -> int:
        return len(self._front) + len(self._back) - self.dead

    def add(self, waiter: Waiter) -> None:
        """Take a waiter in, at the place of its ticket."""
        if self._back and waiter < self._back[-1]:
            heapq.heappush(self._front, waiter)
        else:
            self._back.append(waiter)

    def head(self) -> Waiter | None:
        """Return who is first, dropping the dead on the way."""
        while self._front and self._front[0].future.done():
            heapq.heappop(self._front)
            self.dead -= 1
        while self._back and self._back[0].future.done():
            self._back.popleft()
            self.dead -= 1
        if self._front and (not self._back or self._front[0] < self._back[0]):
            return self._front[0]
        return self._back[0] if self._back else None

    def pop(self) -> None:
        """Remove who `head` returned."""
        if self._front and (not self._back or self._front[0] < self._back[0]):
            heapq.heappop(self._front)
        else:
            self._back.popleft()

    def bury(self) -> None:
        """Note that a waiter's future is done; compact when more than half are dead."""
        self.dead += 1
        if self.dead > 32 and self.dead > len(self):
            before = len(self._front) + len(self._back)
            self._front = [waiter for waiter in self._front if not waiter.future.done()]
            heapq.heapify(self._front)
            self._back = deque(waiter for waiter in self._back if not waiter.future.done())
            # A cancelled waiter is done before it is buried: some of these are yet to come here.
            self.dead -= before - len(self._front) - len(self._back)

    def is_at_back(self, waiter: Waiter) -> bool:
        """Whether everyone else is before this waiter."""
        return bool(self._back) and self._back[-1] is waiter

    def everyone(self) -> list[Waiter]:
        """Return the waiters in order, the dead among them."""
        return [*sorted(self._front), *self._back]


class Line:
    """The callers in front of one bucket."""

    __slots__ = (
        "asked",
        "bucket",
        "checked",
        "deadlines",
        "key",
        "parked",
        "pumping",
        "queues",
        "removed",
        "timer",
        "trouble",
        "used",
        "warned",
        "was_busy",
    )

    def __init__(self, key: QuotaKey, bucket: Bucket) -> None:
        self.key = key
        self.bucket = bucket
        self.queues = tuple(Queue() for _ in Priority)
        #: Its entry among the lines that wait for a window; None if it is not parked.
        self.parked: Parked | None = None
        #: Who was first when the rule was asked last: only a change of it makes news.
        self.asked: Waiter | None = None
        self.timer = INF
        self.pumping = False
        #: How many wait with a deadline; what they were last checked against.
        self.deadlines = 0
        self.checked = -INF
        self.was_busy = False
        #: The cost of all callers that have left the queue so far.
        self.removed = 0
        self.warned: float | None = None
        #: What was wrong with the last call, if it failed.
        self.trouble = ""
        self.used = -INF

    def __len__(self) -> int:
        return sum(map(len, self.queues))

    def head(self) -> Waiter | None:
        """Return who is first, of the highest priority that waits."""
        for queue in self.queues:
            waiter = queue.head()
            if waiter is not None:
                return waiter
        return None

    def everyone(self) -> list[Waiter]:
        """Return the waiters in order, the dead among them."""
        return [waiter for queue in self.queues for waiter in queue.everyone()]

    def is_idle(self) -> bool:
        """Whether nobody waits and nothing is in flight."""
        return self.bucket.calls == 0 and not len(self) and not self.pumping


@dataclass(slots=True, eq=False)
class Parked:
    """A line's place among those that wait for one window, by its head's ticket."""

    priority: int
    ticket: int
    line: Line
    gate: Window | RateWindow | Room

    def __lt__(self, other: Parked) -> bool:
        return (self.priority, self.ticket) < (other.priority, other.ticket)

    def is_for(self, gate: Window | RateWindow | Room, waiter: Waiter) -> bool:
        """Whether this is the place of that waiter at that gate."""
        return (
            self.gate is gate and self.ticket == waiter.ticket and self.priority == waiter.priority
        )


def first_at(gate: Window | RateWindow | Room) -> Parked | None:
    """Return who waits first for a gate, dropping places that were left."""
    blocked = gate.blocked
    while blocked and blocked[0].line.parked is not blocked[0]:
        heapq.heappop(blocked)
    first: Parked | None = blocked[0] if blocked else None
    return first
