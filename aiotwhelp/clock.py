"""The server's clock, seen through the Date headers of its answers.

Instants are seconds of a local monotonic clock; epochs are POSIX seconds of the server's clock.
Their difference, the offset, is never known exactly: ``Date`` has whole seconds, and nobody knows
when between sending and receiving it was written. Each answer therefore gives an interval, and
intervals of one clock intersect.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

#: How far two clocks may drift apart, in seconds per second: quartz is within 100 ppm.
DRIFT = 1e-4

#: So many answers in a row that agree with each other prove that a clock was stepped.
_STEPPED = 3

#: A clock that was stepped never shows its old time again. One that does is another back end's, and
#: twice as many must agree from then on, up to so many.
_MOST_STEPPED = 32

#: Contradicting clocks (edges of a network) that are remembered at once.
_MOST_BOUNDS = 3

#: Of contradicting clocks one speaks if it has a quarter of the trust of the one trusted most:
#: a page from a gateway with a clock of its own must not hold a window shut for minutes.
_LEAST_TRUST = 0.25

#: Of the same Date, an answer within so many seconds of another narrows nothing that matters.
_SAME_NEWS = 0.05

#: Trust is the number of answers that agreed, of about the last 32.
_FADING = 1 - 1 / 32


@dataclass(slots=True)
class _Bound:
    """What some answers that agree with each other say: low <= offset <= high, as of ``at``."""

    low: float
    high: float
    at: float
    #: Answers in a row that agreed with it.
    run: int = 1
    trust: float = 1.0

    def latest(self, epoch: float) -> float:
        """Return the latest instant of an epoch; what is left until then may drift, too."""
        at = epoch - self.low
        left = at - self.at
        return at + DRIFT * left if left > 0.0 else at

    def narrow(self, low: float, high: float, at: float) -> bool:
        """Intersect with another answer's interval; False if they contradict each other."""
        drift = DRIFT * (at - self.at)
        lowest, highest = self.low - drift, self.high + drift
        if low > highest or high < lowest:
            return False
        self.low = max(lowest, low)
        self.high = min(highest, high)
        self.at = at
        return True


class ServerClock:
    """One server's clock.

    Contradicting Dates widen the bound instead of breaking it, once they are no rare exception.
    """

    __slots__ = ("__weakref__", "_assumed", "_bounds", "_proof", "changes", "date", "news_from")

    def __init__(self) -> None:
        self._bounds: list[_Bound] = []
        self._assumed: float | None = None
        #: So many answers in a row prove a step.
        self._proof = _STEPPED
        #: The last Date. A call that was sent before that instant tells nothing new with it.
        self.date = 0.0
        self.news_from = -inf
        #: Whatever was worked out holds until this rises.
        self.changes = 0

    def __repr__(self) -> str:
        if not self._bounds:
            return f"<ServerClock assumed {self._assumed}>"
        low = min(bound.low for bound in self._speaking)
        high = max(bound.high for bound in self._speaking)
        return f"<ServerClock offset {low:.3f} to {high:.3f}>"

    @property
    def is_known(self) -> bool:
        """Whether a Date has been seen."""
        return bool(self._bounds)

    @property
    def tells(self) -> bool:
        """Whether an epoch has an instant: by Dates, or by an offset that is assumed."""
        return bool(self._bounds) or self._assumed is not None

    def observe(self, date: float, sent: float, received: float) -> None:
        """Learn from an answer with this ``Date`` (an epoch), sent and received at these instants.

        The server wrote it in between, when its clock showed [date, date + 1): RFC 9110, 6.6.1.
        """
        if date == self.date and sent < self.news_from:
            return
        bounds = self._bounds
        self.date = date
        self.changes += 1
        low, high = date - received, date + 1.0 - sent
        met = False
        for bound in bounds:
            bound.trust *= _FADING
            if not met and bound.narrow(low, high, received):
                if not bound.run:
                    self._proof = min(2 * self._proof, _MOST_STEPPED)
                bound.run += 1
                bound.trust += 1.0
                met = True
            else:
                bound.run = 0
        if not met:
            self._make_room()
            self._bounds.append(_Bound(low, high, received))
        else:
            stepped = [bound for bound in self._bounds if bound.run >= self._proof]
            if stepped:
                self._bounds, self._proof = stepped, _STEPPED
        # Of clocks that contradict each other one is trusted by how many answers agree with it.
        self.news_from = sent + _SAME_NEWS if len(self._bounds) == 1 else -inf

    def assume(self, offset: float) -> None:
        """Use this offset, the local wall clock's, for as long as no Date is seen."""
        self._assumed = offset
        self.changes += 1

    def local(self, epoch: float) -> float:
        """Return the latest instant at which the server's clock may come to show ``epoch``.

        The late edge: a call sent then is never early. Where windows end on whole seconds this
        loses nothing, since the error is the same at each reset.
        """
        bounds = self._bounds
        if len(bounds) == 1:
            return bounds[0].latest(epoch)
        if not bounds:
            return epoch - (self._assumed or 0.0)
        return max([bound.latest(epoch) for bound in self._speaking])

    def soonest(self, epoch: float) -> float:
        """Return the earliest instant at which the server's clock may come to show ``epoch``."""
        bounds = self._bounds
        if len(bounds) == 1:
            return epoch - bounds[0].high
        if not bounds:
            return epoch - (self._assumed or 0.0)
        return min(epoch - bound.high for bound in self._speaking)

    def left(self, epoch: float, now: float) -> float:
        """Return the seconds that are surely left until an epoch that an answer has told of now.

        Not more than by its own Date: if that contradicts what was known, a clock may have been
        stepped while nobody asked.
        """
        soonest = self.soonest(epoch)
        if len(self._bounds) > 1:
            soonest = min(soonest, epoch - self._newest.high)
        return soonest - now

    def epoch(self, now: float) -> float:
        """Return the best guess of what the server's clock shows at the instant ``now``."""
        if not self._bounds:
            return now + (self._assumed or 0.0)
        newest = self._newest
        return now + (newest.low + newest.high) / 2

    @property
    def _newest(self) -> _Bound:
        """The bound that the last Date agreed with."""
        return max(self._bounds, key=lambda bound: bound.at)

    @property
    def _speaking(self) -> list[_Bound]:
        """The bounds that count."""
        least = _LEAST_TRUST * max(bound.trust for bound in self._bounds)
        return [bound for bound in self._bounds if bound.trust >= least]

    def _make_room(self) -> None:
        """Forget the bound that is trusted least, the oldest of them, if there are too many."""
        if len(self._bounds) >= _MOST_BOUNDS:
            self._bounds.remove(min(self._bounds, key=lambda bound: bound.trust))
