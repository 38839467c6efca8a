"""What is worth another try, spoken to tenacity; the only place that knows tenacity.

Failures are tried again with exponential back-off and full jitter, within a budget that all
calls of a session share, so that an outage is not made worse. A refusal for the rate is not a
failure: the caller goes back to the gate, and the limiter decides when.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from aiotwhelp import checks

if TYPE_CHECKING:
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

    __slots__ = ("_capacity", "drawn")

    def __init__(self, capacity: int = 500) -> None:
        self._capacity = capacity
        #: What is out; while that is nothing, successes need not be noted.
        self.drawn = 0

    def __repr__(self) -> str:
        return f"<RetryBudget {self._capacity - self.drawn}/{self._capacity}>"

    def draw(self, *, timed_out: bool) -> int:
        """Take the cost of one retry; 0 if the budget does not have it."""
        cost = 10 if timed_out else 5
        if self.drawn + cost > self._capacity:
            return 0
        self.drawn += cost
        return cost

    def refill(self, cost: int = 1) -> None:
        """Note a success, of a retry that had this cost."""
        self.drawn = max(0, self.drawn - max(1, cost))


class _Raised:
    """What an attempt raised that no other attempt will mend."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Attempts(Generic[T]):
    """The attempts of one call, for tenacity; the first failure is replayed as the first.

    Each comes to a value. tenacity keeps what an attempt raises in the frame that its traceback
    refers to: a circle that waits for the garbage collector, with the call and its answer in it.
    """

    __slots__ = ("_attempt", "_first", "made")

    def __init__(self, first: Failure, attempt: Callable[[], Awaitable[T]]) -> None:
        self._first: Failure | None = first
        self._attempt = attempt
        self.made = 1

    async def __call__(self) -> T | Failure | _Raised:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        self.made += 1
        try:
            return await self._attempt()
        except Failure as failure:
            return failure.with_traceback(None)
        except BaseException as error:  # noqa: BLE001 - raised again at the end of the call
            return _Raised(error)


class Retries:
    """The policy of a session: ``retries`` after the first attempt, within the budget."""

    __slots__ = ("_random", "_template", "budget", "retries")

    def __init__(
        self,
        retries: int,
        budget: RetryBudget | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.retries = checks.whole("retries", retries)
        #: Shared by all calls of a session, whoever makes the retry.
        self.budget = budget or RetryBudget()
        self._random = random
        # Here rather than at the first failure, when the event loop has other things to do.
        import tenacity

        # Concurrent calls must not share one: its state is per thread, not per task.
        self._template = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda last: isinstance(last, Failure)),
            wait=self._delay,
            retry_error_callback=_last,
        )

    def with_retries(self, retries: int) -> Retries:
        """Return the same policy with another number, on the same budget."""
        return self if retries == self.retries else Retries(retries, self.budget, self._random)

    @property
    def refusals(self) -> int:
        """How often one call may be refused for its rate before that is an error.

        More than its retries, since a late rollover or an unannounced limit takes a few probes,
        and the caller at the front makes them all.
        """
        return 2 * self.retries

    async def after(
        self,
        failure: Failure,
        attempt: Callable[[], Awaitable[T]],
        *,
        pause: Callable[[float, Failure, int], Awaitable[None]],
        time_left: Callable[[], float],
    ) -> T:
        """Return the result of the first attempt after a failed one that does not raise `Failure`.

        The one that failed went without tenacity, whose machinery costs more than the rest of the
        stack. ``pause`` sleeps between attempts; there is none when its delay is longer than
        ``time_left``. If all fail, the last failure's error is raised or its result returned.
        """
        attempts = _Attempts(failure.with_traceback(None), attempt)
        del failure
        last = await self._go_on(attempts, pause, time_left)
        if isinstance(last, Failure) and last.otherwise is not None:
            return cast("T", await last.otherwise())
        if isinstance(last, (Failure, _Raised)):
            try:
                raise last.error
            finally:
                del last  # the error's traceback leads to this frame: it would hold itself
        return last

    async def _go_on(
        self,
        attempts: _Attempts[T],
        pause: Callable[[float, Failure, int], Awaitable[None]],
        time_left: Callable[[], float],
    ) -> T | Failure | _Raised:
        """Make more attempts; return what the last one came to."""
        drawn = 0
        failure: Failure

        def is_over(state: tenacity.RetryCallState) -> bool:
            nonlocal drawn, failure
            failure = _last(state)
            if state.attempt_number > self.retries or state.upcoming_sleep > time_left():
                return True
            drawn = self.budget.draw(timed_out=failure.timed_out)
            return drawn == 0

        async def sleep(delay: float) -> None:
            try:
                await pause(delay, failure, attempts.made)
            except BaseException:
                self.budget.refill(drawn)  # there was no retry
                raise

        retrying = self._template.copy(stop=is_over, sleep=sleep)
        try:
            last: T | Failure | _Raised = await retrying(attempts)
        finally:
            retrying.iter_state.reset()  # it holds methods of its own object
        if not isinstance(last, (Failure, _Raised)):
            self.budget.refill(drawn)
        return last

    def _delay(self, state: tenacity.RetryCallState) -> float:
        """Full jitter, and never before the server's Retry-After."""
        longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(state.attempt_number - 1, 10))
        after = min(_last(state).after or 0.0, _LONGEST_RETRY_AFTER)
        return after + self._random() * longest


def _last(state: tenacity.RetryCallState) -> Failure:
    """Return the failure that an attempt came to; tenacity asks only after a failure."""
    assert state.outcome is not None  # noqa: S101 - for the type checker
    failure: Failure = state.outcome.result()
    return failure


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
