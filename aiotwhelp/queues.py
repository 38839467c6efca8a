"""Callers in the order of their tickets, by priority, in front of a bucket."""

from __future__ import annotations

import asyncio
import enum
import heapq
from collections import deque
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING

from aiotwhelp.clock import ServerClock
from aiotwhelp.headers import Dialect
from aiotwhelp.heaps import Entry, Heap
from aiotwhelp.leases import BucketGate
from aiotwhelp.local import LocalWindow, Room
from aiotwhelp.quota import Bucket
from aiotwhelp.views import QuotaKey
from aiotwhelp.windows import INF, Window, cost_in

if TYPE_CHECKING:
    from aiotwhelp.permits import Permit
    from aiotwhelp.settling import Settling


#: What a line may stand before.
Gate = Window | LocalWindow | Room | BucketGate

#: Each waiter that leaves has so many others looked at: at most half of them are ever dead.
_SWEPT_PER_BURIAL = 3


class Priority(enum.IntEnum):
    """Who goes first; callers of one priority go in the order of their arrival."""

    INTERACTIVE = 0
    NORMAL = 1
    BATCH = 2


class Waiter(Entry):
    """A caller in the queue, with what it needs; its rank is its ticket."""

    __slots__ = ("cost", "deadline", "dialect", "future", "owner", "priority", "room", "since")

    def __init__(
        self,
        future: asyncio.Future[Permit],
        ticket: int,
        priority: int,
        cost: int,
        since: float,
        deadline: float,
        dialect: Dialect,
        room: Room | None,
        owner: object,
    ) -> None:
        self.rank = ticket
        self.place = -1
        self.future = future
        self.priority = priority
        self.cost = cost
        self.since = since
        self.deadline = deadline
        self.dialect = dialect
        self.room = room
        self.owner = owner

    @property
    def ticket(self) -> int:
        """Its place in the order of arrival."""
        ticket: int = self.rank
        return ticket

    @property
    def patience(self) -> float:
        """Seconds that it may wait in all."""
        return self.deadline - self.since

    def takes_of(self, gate: Gate) -> bool:
        """Whether it takes anything of a gate, so that its turn there matters to it."""
        if isinstance(gate, Room):
            return self.room is gate
        return cost_in(gate.unit, self.cost) > 0


class Queue:
    """Waiters of one priority in the order of their tickets; those that left are passed over."""

    __slots__ = ("_back", "_dead", "_front", "_swept", "cost")

    def __init__(self) -> None:
        #: What those who wait here will take.
        self.cost = 0
        # Callers that come back after a refusal hold older tickets than all who arrived since.
        self._front: Heap[Waiter] = Heap()
        # All others: first those that the sweep has seen in this round, then the rest.
        self._swept: deque[Waiter] = deque()
        self._back: deque[Waiter] = deque()
        self._dead = 0

    def __len__(self) -> int:
        return len(self._front) + len(self._swept) + len(self._back) - self._dead

    def __iter__(self) -> Iterator[Waiter]:
        """Go through the waiters in order, the dead among them."""
        by_ticket = attrgetter("rank")
        arrived = chain(self._swept, self._back)
        if not self._front:
            return arrived
        return heapq.merge(sorted(self._front, key=by_ticket), arrived, key=by_ticket)

    def add(self, waiter: Waiter) -> None:
        """Take a waiter in, at the place of its ticket."""
        self.cost += waiter.cost
        arrived = self._back or self._swept
        if arrived and waiter.rank < arrived[-1].rank:
            self._front.add(waiter)
        else:
            self._back.append(waiter)

    def head(self) -> Waiter | None:
        """Return who is first, dropping the dead on the way."""
        front = self._first_of_old() if self._front else None
        arrived = self._swept or self._back
        while arrived:
            first = arrived[0]
            if not first.future.done():
                return first if front is None or first.rank < front.rank else front
            arrived.popleft()
            self._dead -= 1
            arrived = self._swept or self._back
        return front

    def _first_of_old(self) -> Waiter | None:
        """Return who is first of those that came back."""
        while (front := self._front.first) is not None and front.future.done():
            self._front.discard(front)
            self._dead -= 1
        return front

    def pop(self, head: Waiter) -> None:
        """Remove who `head` returned."""
        self.cost -= head.cost
        if head.place >= 0:
            self._front.discard(head)
        else:
            (self._swept or self._back).popleft()

    def bury(self, waiter: Waiter) -> None:
        """Note that a waiter's future is done, and sweep a little: the dead never pile up."""
        self.cost -= waiter.cost
        if waiter.place >= 0:
            self._front.discard(waiter)
            return
        self._dead += 1
        for _ in range(_SWEPT_PER_BURIAL):
            if not self._back:
                self._back, self._swept = self._swept, self._back
            if not self._back:
                return
            seen = self._back.popleft()
            # A cancelled waiter is done before it is buried: this may be yet to come.
            if seen.future.done():
                self._dead -= 1
            else:
                self._swept.append(seen)

    def is_at_back(self, waiter: Waiter) -> bool:
        """Whether everyone else is before this waiter."""
        return waiter is self._last

    @property
    def _last(self) -> Waiter | None:
        arrived = self._back or self._swept
        return arrived[-1] if arrived else None


#: In place of the queues in which nobody has waited yet: a quota of most users never has any.
_NOBODY = Queue()


class Line(Entry):
    """The callers in front of one bucket; its rank is its place among the timers."""

    __slots__ = (
        "asked",
        "bucket",
        "checked",
        "clock",
        "deadlines",
        "key",
        "parked",
        "pumping",
        "queues",
        "removed",
        "settling",
        "timer",
        "trouble",
        "waiting",
        "warned",
        "was_busy",
    )

    def __init__(
        self, settling: Settling, key: QuotaKey, bucket: Bucket, clock: ServerClock
    ) -> None:
        super().__init__(None)
        #: What its permits are settled with.
        self.settling = settling
        self.key = key
        self.bucket = bucket
        #: Its API's; kept by the lines that need it.
        self.clock = clock
        #: How many wait.
        self.waiting = 0
        #: By priority.
        self.queues = [_NOBODY] * len(Priority)
        #: Its place among the lines that wait for a window; None if it is not parked.
        self.parked: Parked | None = None
        #: Who was first when the rule was asked last: only a change of it makes news.
        self.asked: Waiter | None = None
        #: When the rule is to be asked again.
        self.timer = INF
        self.pumping = False
        #: How many wait with a deadline; what they were last checked against.
        self.deadlines = 0
        self.checked = -INF
        self.was_busy = False
        #: The cost of all callers that have left the queue so far.
        self.removed = 0
        #: Until when waits have been announced.
        self.warned: float | None = None
        #: What was wrong with the last call, if it failed.
        self.trouble = ""

    def __len__(self) -> int:
        return self.waiting

    def add(self, waiter: Waiter) -> None:
        """Take a waiter in, in the queue of its priority."""
        self.waiting += 1
        queue = self.queues[waiter.priority]
        if queue is _NOBODY:
            queue = self.queues[waiter.priority] = Queue()
        queue.add(waiter)

    def pop(self, head: Waiter) -> None:
        """Remove who `head` returned."""
        self.removed += head.cost
        self.waiting -= 1
        self.queues[head.priority].pop(head)

    def head(self) -> Waiter | None:
        """Return who is first, of the highest priority that waits."""
        if not self.waiting:
            return None
        for queue in self.queues:
            if queue is not _NOBODY and (waiter := queue.head()) is not None:
                return waiter
        return None

    def everyone(self) -> deque[Waiter]:
        """Return the waiters in order, the dead among them, in a queue to take them from."""
        return deque(chain.from_iterable(self.queues))

    def is_idle(self) -> bool:
        """Whether nobody waits and nothing is in flight."""
        return self.bucket.calls == 0 and not len(self) and not self.pumping

    def park(self, gate: Gate, waiter: Waiter) -> None:
        """Stand among those that wait for a gate, at the place of the first waiter's ticket."""
        if self.parked is not None:
            if self.parked.is_for(gate, waiter):
                return
            self.unpark()
        self.parked = Parked(self, gate, waiter)
        gate.blocked.add(self.parked)
        if isinstance(gate, Window) and len(gate.buckets) > 1:
            gate.upset()  # what others foresaw there is for whoever waits first

    def unpark(self) -> None:
        """Wait for no gate any more."""
        if self.parked is not None:
            self.parked.gate.blocked.discard(self.parked)
            self.parked = None


class Parked(Entry):
    """A line's place among those that wait for one gate, by its first waiter's ticket."""

    __slots__ = ("gate", "line")

    def __init__(self, line: Line, gate: Gate, waiter: Waiter) -> None:
        super().__init__((waiter.priority, waiter.ticket))
        self.line = line
        self.gate = gate

    @property
    def is_first(self) -> bool:
        """Whether nobody stands before it."""
        return self.gate.blocked.first is self

    def is_for(self, gate: Gate, waiter: Waiter) -> bool:
        """Whether this is the place of that waiter at that gate."""
        return self.gate is gate and self.rank == (waiter.priority, waiter.ticket)
