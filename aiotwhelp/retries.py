"""What is worth another try, spoken to tenacity; the only place that knows tenacity.

Failures are tried again with exponential back-off and full jitter, within a budget that all
calls of a session share, so that an outage is not made worse. A refusal for the rate is not a
failure: the caller goes back to the gate, and the limiter decides when.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, cast

import tenacity

T = TypeVar("T")

#: Statuses that may pass by themselves (RFC 9110, 15.6; facts of the API: codes 130 and 131).
PASSING = frozenset({500, 502, 503, 504})

#: Statuses that refuse a call for its rate; 420 is the API's old one.
REFUSALS = frozenset({429, 420})

#: v1.1 codes that say a write has been done already: liked, requested, duplicate, retweeted.
DONE_BEFORE = frozenset({139, 160, 187, 327})

#: The API's code for a timestamp out of bounds.
CLOCK_IS_OFF = 135

#: Full jitter: a random part of 0.5, 1, 2 ... seconds, at most this.
_LONGEST_DELAY = 20.0
_FIRST_DELAY = 0.5

#: No Retry-After makes one call sleep longer than a window (the ceiling of 15 minutes).
_LONGEST_RETRY_AFTER = 960.0


class Failure(Exception):  # noqa: N818 - it never leaves the package
    """An attempt failed in a way that another may mend.

    If there is no other attempt, ``otherwise`` has the last word, else ``error`` is raised.
    ``free`` gives back what the attempt holds; ``after`` is the server's Retry-After in seconds.
    """

    def __init__(
        self,
        reason: str,
        *,
        error: Exception,
        otherwise: Callable[[], Awaitable[Any]] | None = None,
        after: float | None = None,
        free: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error
        self.otherwise = otherwise
        self.after = after
        self.free = free

    @property
    def timed_out(self) -> bool:
        """Whether time ran out, so that the server was kept busy in vain."""
        return isinstance(self.error, TimeoutError)


class RetryBudget:
    """A budget that retries draw from and successes refill, shared by all calls of a session.

    When a server is down, every call fails; without a budget each would fail several times. The
    costs are those of botocore's standard mode: 500 to begin with, 5 a retry, 10 after a
    timeout; a retry that succeeds gives its cost back, any other success gives 1.
    """

    __slots__ = ("_capacity", "_left")

    def __init__(self, capacity: int = 500) -> None:
        self._capacity = self._left = capacity

    def __repr__(self) -> str:
        return f"<RetryBudget {self._left}/{self._capacity}>"

    def draw(self, *, timed_out: bool) -> int:
        """Take the cost of one retry; 0 if the budget does not have it."""
        cost = 10 if timed_out else 5
        if cost > self._left:
            return 0
        self._left -= cost
        return cost

    def refill(self, cost: int = 1) -> None:
        """Note a success, of a retry that had this cost."""
        self._left = min(self._capacity, self._left + max(1, cost))


class _Again(Generic[T]):
    """An attempt for tenacity, into which the first failure is replayed as the first."""

    __slots__ = ("_attempt", "_is_replayed", "attempts", "failure")

    def __init__(self, failure: Failure, attempt: Callable[[], Awaitable[T]]) -> None:
        self.failure = failure
        self.attempts = 1
        self._attempt = attempt
        self._is_replayed = False

    async def __call__(self) -> T:
        if not self._is_replayed:
            self._is_replayed = True
            raise self.failure
        self.attempts += 1
        try:
            return await self._attempt()
        except Failure as failure:
            self.failure = failure
            raise


class Retries:
    """The policy of a session: ``retries`` after the first attempt, within the budget."""

    __slots__ = ("_budget", "_random", "_template", "retries")

    def __init__(
        self,
        retries: int,
        budget: RetryBudget | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise ValueError(f"retries is a number from 0 on, not {retries!r}")
        self.retries = retries
        self._budget = budget or RetryBudget()
        self._random = random
        # Concurrent calls must not share one: its state is per thread, not per task.
        self._template = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Failure),
            wait=self._delay,
            reraise=True,
        )

    def with_retries(self, retries: int) -> Retries:
        """Return the same policy with another number, on the same budget."""
        return self if retries == self.retries else Retries(retries, self._budget, self._random)

    @property
    def refusals(self) -> int:
        """How often one call may be refused for its rate before that is an error.

        More than its retries, since a late rollover or an unannounced limit takes a few probes,
        and the caller at the front makes them all.
        """
        return 2 * self.retries

    async def run(
        self,
        attempt: Callable[[], Awaitable[T]],
        *,
        pause: Callable[[float, Failure, int], Awaitable[None]],
        time_left: Callable[[], float],
    ) -> T:
        """Return the result of the first attempt that does not raise `Failure`.

        The first goes without tenacity, whose machinery costs more than the rest of the stack.
        ``pause`` sleeps between attempts; there is none when its delay is longer than
        ``time_left``. If all fail, the last failure's error is raised or its result returned.
        """
        try:
            result = await attempt()
        except Failure as failure:
            first = failure
        else:
            self._budget.refill()
            return result
        # Outside of the handler: our own Failure shall not hang on what is raised in the end.
        again = _Again(first, attempt)
        try:
            return await self._run_again(again, pause, time_left)
        except Failure as failure:
            last = failure
        if last.otherwise is None:
            raise last.error
        return cast("T", await last.otherwise())

    async def _run_again(
        self,
        again: _Again[T],
        pause: Callable[[float, Failure, int], Awaitable[None]],
        time_left: Callable[[], float],
    ) -> T:
        drawn = 0

        def is_over(state: tenacity.RetryCallState) -> bool:
            nonlocal drawn
            if state.attempt_number > self.retries or state.upcoming_sleep > time_left():
                return True
            drawn = self._budget.draw(timed_out=again.failure.timed_out)
            return drawn == 0

        async def sleep(delay: float) -> None:
            try:
                await pause(delay, again.failure, again.attempts)
            except BaseException:
                self._budget.refill(drawn)  # there was no retry
                raise

        result: T = await self._template.copy(stop=is_over, sleep=sleep)(again)
        self._budget.refill(drawn)
        return result

    def _delay(self, state: tenacity.RetryCallState) -> float:
        """Full jitter, and never before the server's Retry-After."""
        failure = state.outcome.exception() if state.outcome is not None else None
        longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(state.attempt_number - 1, 10))
        after = failure.after if isinstance(failure, Failure) and failure.after else 0.0
        return min(after, _LONGEST_RETRY_AFTER) + self._random() * longest


def may_be_repeated(method: str, idempotent: frozenset[str], *, never_left: bool) -> bool:
    """Tell whether a call whose connection failed may be made again.

    A method that is not idempotent only if the call surely never left.
    """
    return never_left or method in idempotent


def may_be_mended(
    method: str, idempotent: frozenset[str], status: int, retry_after: float | None
) -> bool:
    """Tell whether an answer of that status is worth another try of this method.

    A 503 with Retry-After says that the call was not taken, so any method may go again.
    """
    if status not in PASSING:
        return False
    return method in idempotent or (status == 503 and retry_after is not None)
