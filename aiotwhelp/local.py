"""Limits that no server announces, as gates: a rate, calls in flight, room for those of a session.

Part of the rule, and as pure: see `aiotwhelp.quota`, which asks every gate of a call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiotwhelp.heaps import Heap
from aiotwhelp.rates import Concurrency, LocalLimit, Rate
from aiotwhelp.windows import INF, NeverFitsError, next_slot

if TYPE_CHECKING:
    from aiotwhelp.quota import Bucket


class RateWindow:
    """A local rate as a window: the generic cell rate algorithm, ahead of its schedule by burst."""

    __slots__ = ("blocked", "buckets", "in_flight", "rate", "slot", "unit")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.unit = rate.unit
        #: When the next token is there if every earlier one was taken in time.
        self.slot = -INF
        self.in_flight = 0
        self.buckets: dict[Bucket, None] = {}
        self.blocked: Heap[Any] = Heap()

    def __repr__(self) -> str:
        return f"<RateWindow {self.rate.limit:g} per {self.rate.per:g} s>"

    def opens(self, now: float, cost: int) -> float:
        """Return the instant from which a call may go."""
        if not cost:
            return -INF
        if cost > self.rate.burst:
            raise NeverFitsError(
                f"a call of cost {cost} never fits into {self.rate!r}: raise its burst"
            )
        return self.slot - (self.rate.burst - cost) * self.rate.gap

    def expect(self, ahead: int) -> float:
        """Return the earliest instant for a caller behind so many tokens."""
        return self.slot + (ahead + 1 - self.rate.burst) * self.rate.gap

    def holds(self, now: float) -> bool:
        """Whether it matters that calls were made: not all of a burst may go at once."""
        return self.slot > now

    def take(self, now: float, cost: int, since: float) -> None:
        """Take the tokens; the schedule goes on from the last slot, not from a late timer."""
        self.slot = next_slot(self.slot, cost * self.rate.gap, now, since)
        self.in_flight += cost

    def give_back(self, cost: int) -> None:
        """Note that a call is no longer in flight."""
        self.in_flight -= cost

    def returned(self, cost: int, sent: float, now: float) -> None:
        """Give the tokens of a call that never left back, unless they have grown again since."""
        if now < sent + cost * self.rate.gap:
            self.slot -= cost * self.rate.gap

    def correct(self, more: int) -> None:
        """Note that a call took so many more tokens than was thought, or fewer if negative."""
        self.slot += more * self.rate.gap


class ConcurrencyWindow:
    """A local limit on calls in flight, as a window: each takes its tokens for as long as it is."""

    __slots__ = ("blocked", "buckets", "concurrency", "in_flight", "unit")

    def __init__(self, concurrency: Concurrency) -> None:
        self.concurrency = concurrency
        self.unit = concurrency.unit
        self.in_flight = 0
        self.buckets: dict[Bucket, None] = {}
        self.blocked: Heap[Any] = Heap()

    def __repr__(self) -> str:
        return f"<ConcurrencyWindow {self.in_flight} of {self.concurrency.limit} in flight>"

    def opens(self, now: float, cost: int) -> float:
        """Return whether a call may go: at once, or when others have ended."""
        if cost > self.concurrency.limit:
            raise NeverFitsError(f"a call of cost {cost} never fits into {self.concurrency!r}")
        return -INF if self.in_flight + cost <= self.concurrency.limit else INF

    def expect(self, ahead: int) -> float:
        """Return the earliest instant for a caller behind others: any."""
        return -INF

    def holds(self, now: float) -> bool:
        """Whether it matters that calls were made: not once they have ended."""
        return False

    def take(self, now: float, cost: int, since: float) -> None:
        """Take room for a call."""
        self.in_flight += cost

    def give_back(self, cost: int) -> None:
        """Note that a call is no longer in flight."""
        self.in_flight -= cost

    def returned(self, cost: int, sent: float, now: float) -> None:
        """Nothing is left to give back of a call that never left."""

    def correct(self, more: int) -> None:
        """A call that has ended takes nothing."""


LocalWindow = RateWindow | ConcurrencyWindow


def window_of(limit: LocalLimit) -> LocalWindow:
    """Return a window that holds a local limit."""
    return RateWindow(limit) if isinstance(limit, Rate) else ConcurrencyWindow(limit)


class Room:
    """So many calls may be in flight at once, whatever their quota."""

    __slots__ = ("blocked", "in_flight", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self.blocked: Heap[Any] = Heap()

    def __repr__(self) -> str:
        return f"<Room {self.in_flight} of {self.limit} in flight>"
