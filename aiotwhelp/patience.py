"""Callers whose wait is in vain, who are told so as soon as that is known.

A deadline that the next token will not meet, and a server that answers nobody: whoever waits in a
line is looked at again when there is news of either, in slices, so that no crowd holds the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from aiotwhelp.errors import QuotaTimeoutError
from aiotwhelp.home import Home
from aiotwhelp.queues import Gate, Line, Priority, Waiter
from aiotwhelp.quota import NotUntil
from aiotwhelp.telling import describe
from aiotwhelp.views import left_text
from aiotwhelp.windows import INF, Window

#: Seconds of rest for each caller who was looked at and left to wait, beyond the first thousand: a
#: crowd that is looked at with every grant takes a few percent of the processor, and not all of it.
_REST = 1e-4
_UNRESTED = 1000 * _REST


class Patience:
    """Fails those who would wait in vain; ``fail`` takes them out, ``go_on`` asks for the next."""

    def __init__(
        self,
        home: Home,
        reserve: float,
        fail: Callable[[Line, Waiter, Exception], object],
        go_on: Callable[[Line], object],
    ) -> None:
        self._home = home
        self._reserve = reserve
        self._fail = fail
        self._go_on = go_on
        #: Lines whose callers are to be judged, and how; and the one whose callers are.
        self._reviews: dict[tuple[Line, _Judge], None] = {}
        self._reviewed: _Review | None = None
        self._reviewing: asyncio.Handle | None = None
        self._rested = -INF

    @property
    def is_busy(self) -> bool:
        """Whether callers are yet to be looked at."""
        return self._reviewing is not None

    def close(self) -> None:
        """Look at nobody any more: all of them have been failed."""
        if self._reviewing is not None:
            self._reviewing.cancel()

    def give_up_early(self, line: Line, waiter: Waiter, now: float) -> None:
        """Fail a caller at once whose wait is known to be too long."""
        ahead = sum(queue.cost for queue in line.queues[: waiter.priority])
        queue = line.queues[waiter.priority]
        is_at_back = queue.is_at_back(waiter)
        if is_at_back:
            ahead += queue.cost - waiter.cost
        at = self._expected(line, waiter, ahead, now)
        if at > waiter.deadline:
            self._fail(line, waiter, self._too_long(line, waiter.patience, at - now))
        elif not is_at_back:
            # It came back with an old ticket: who is before it is seen by going through the line.
            self._review(line, self._judge_deadline)

    def look_again(self, line: Line, answer: NotUntil) -> None:
        """After news: fail those whose wait has turned out to be too long."""
        busy = answer.by.in_flight > 0
        is_news = answer.at > line.checked + 0.5 or (line.was_busy and not busy)
        line.was_busy = busy
        if is_news:
            line.checked = answer.at
            if line.deadlines:
                self._review(line, self._judge_deadline)

    def tell_others(self, gate: Gate, first: Line) -> None:
        """That the last call in flight brought no token is news for all lines behind a window."""
        if gate.in_flight or not isinstance(gate, Window):
            return
        for parked in gate.blocked:
            line = parked.line
            if line.deadlines and line is not first:
                self._review(line, self._judge_deadline)

    def found_nothing(self, line: Line) -> None:
        """A call has ended in vain: that is known to all who wait for the same."""
        self._fail_impatient(line)
        for window in line.bucket.windows:
            if window.patience < INF:
                self.missed(window)

    def missed(self, gate: Gate) -> None:
        """A probe of a gate has found out nothing."""
        for parked in gate.blocked:
            self._fail_impatient(parked.line)

    def _fail_impatient(self, line: Line) -> None:
        """Nobody answers, again and again: fail those that have waited longer than the back-off."""
        if line.bucket.patience < INF:
            self._review(line, self._judge_patience)

    def in_vain(self, line: Line, allowed: float) -> QuotaTimeoutError:
        """Return the error of a caller who has waited for so long as it may."""
        now = self._home.now()
        needed = line.timer - now if now < line.timer < INF else 0.0
        return self._too_long(line, allowed, needed)

    # Looking at a line, caller by caller ---------------------------------------------------------

    def _judge_deadline(self, line: Line, waiter: Waiter, ahead: int) -> Exception | None:
        now = self._home.now()
        expected = self._expected(line, waiter, max(0, ahead), now)
        if expected <= waiter.deadline:
            return None
        return self._too_long(line, waiter.patience, expected - now)

    def _judge_patience(self, line: Line, waiter: Waiter, _ahead: int) -> Exception | None:
        waited, patience = self._home.now() - waiter.since, line.bucket.patience
        return self._nobody_answers(line, waited, patience) if waited > patience else None

    def _expected(self, line: Line, waiter: Waiter, ahead: int, now: float) -> float:
        """Return the earliest instant for a caller behind others that take so many tokens."""
        return line.bucket.expect(now, ahead, kept(self._reserve, waiter.priority), waiter.cost)

    def _review(self, line: Line, judge: _Judge) -> None:
        """Fail the callers of a line that are judged so: all reviews go one by one, in slices.

        One that has not begun is not asked for twice.
        """
        if not line.waiting:
            return
        self._reviews[line, judge] = None
        if self._reviewing is None:
            self._review_later()

    def _review_later(self) -> None:
        """Go on with the next breath of the loop, or after a rest that is due."""
        rest = self._rested - self._home.now() - _UNRESTED
        if rest > 0:
            self._reviewing = self._home.loop.call_later(rest, self._review_slice)
        else:
            self._reviewing = self._home.loop.call_soon(self._review_slice)

    def _review_slice(self) -> None:
        left, kept = self._home.SLICE, 0
        try:
            while left > 0 and (self._reviewed is not None or self._reviews):
                review = self._reviewed or self._next_review()
                most = min(left, len(review.waiters))
                self._reviewed = review if most < len(review.waiters) else None
                left -= most or 1
                kept += self._review_some(review, most)
        finally:
            self._rested = max(self._rested, self._home.now()) + kept * _REST
            self._reviewing = None
            if self._reviewed is not None or self._reviews:
                self._review_later()

    def _next_review(self) -> _Review:
        line, judge = next(iter(self._reviews))
        del self._reviews[line, judge]
        return _Review(line, judge, line.everyone(), line.removed)

    def _review_some(self, review: _Review, most: int) -> int:
        """Judge so many; return how many of them go on waiting."""
        line, kept = review.line, 0
        for _ in range(most):
            waiter = review.waiters.popleft()
            if waiter.future.done():
                continue
            error = review.judge(line, waiter, review.ahead - line.removed)
            if error is None:
                kept += 1
            else:
                self._fail(line, waiter, error)
            review.ahead += waiter.cost  # of one that has failed, too: it is among the removed now
        self._go_on(line)
        return kept

    # What they are told ------------------------------------------------------------------------

    def _too_long(self, line: Line, allowed: float, needed: float) -> QuotaTimeoutError:
        quota = describe(line, self._home)
        when = f"; a permit may be had in {needed:.0f} s" if needed > 0 else ""
        known = f"; the last call failed: {line.trouble}" if line.trouble else ""
        if quota.in_flight and not needed:
            known += f"; {quota.in_flight} in flight, unanswered"
        return QuotaTimeoutError(
            f"no quota for {line.key} within {round(allowed, 1):g} s: "
            f"{left_text(quota)}{known}{when}",
            key=str(line.key),
            limit=quota.limit,
            remaining=quota.remaining,
            resets_at=quota.resets_at,
            retry_after=needed if needed > 0 else quota.resets_in,
        )

    def _nobody_answers(self, line: Line, waited: float, patience: float) -> QuotaTimeoutError:
        trouble = line.trouble or "it got no answer"
        return QuotaTimeoutError(
            f"no permit for {line.key} after {waited:.0f} s: call after call has failed, "
            f"and they go one at a time until one does not; of the last: {trouble}",
            key=str(line.key),
            retry_after=patience,
        )


#: Says why a caller of a line must fail, given the tokens that those ahead of it will take.
_Judge = Callable[[Line, Waiter, int], Exception | None]


class _Review:
    """Callers of one line that are yet to be judged, and what those before them will take."""

    __slots__ = ("ahead", "judge", "line", "waiters")

    def __init__(self, line: Line, judge: _Judge, waiters: deque[Waiter], ahead: int) -> None:
        self.line = line
        self.judge = judge
        self.waiters = waiters
        #: Less what has been removed since.
        self.ahead = ahead


def kept(reserve: float, priority: int) -> float:
    """Return the share of each limit that is kept from callers of a priority."""
    return 0.0 if priority == Priority.INTERACTIVE else reserve
