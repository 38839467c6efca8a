"""Callers wait their turn: tickets per bucket and priority, one timer, no task of its own.

Whether someone may go is decided by `aiotwhelp.quota` alone. Everything between two awaits here
is one synchronous step, so no lock is needed: whoever settles a call grants what it set free, and
the granted permit is assigned before its caller wakes.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import sys
import time
from asyncio import get_running_loop
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import Literal
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

from aiotwhelp import checks, events
from aiotwhelp.clock import ServerClock
from aiotwhelp.errors import (
    CostError,
    LedgerError,
    QuotaTimeoutError,
    SessionClosedError,
    TooManyWaitersError,
    WrongLoopError,
)
from aiotwhelp.headers import X_DIALECT, Dialect, Frame, Reading, WindowKind, WindowReading
from aiotwhelp.heaps import Heap
from aiotwhelp.leases import (
    BucketGate,
    ColdGate,
    LeasedConcurrency,
    LeasedRate,
    LeasedWindow,
    PaceGate,
    Share,
)
from aiotwhelp.ledger import Ledger, from_url
from aiotwhelp.local import LocalWindow, Room, window_of
from aiotwhelp.queues import Line, Priority, Waiter
from aiotwhelp.quota import ONE, Bucket, Granted, Household, NotUntil
from aiotwhelp.rates import LocalLimit, Rate
from aiotwhelp.routes import generic_template
from aiotwhelp.sharing import Sharing
from aiotwhelp.views import Quota, QuotaKey, Stats, WindowQuota, as_key, left_text, tightness
from aiotwhelp.windows import (
    INF,
    Cost,
    NeverFitsError,
    Numbering,
    Window,
    cost_in,
)

logger = logging.getLogger("aiotwhelp")

#: A timer looks again after at most this, against the clock that counts suspend.
_LONGEST_TIMER = 30.0

#: asyncio's clock has a resolution of its own; a timer below this would spin.
_SHORTEST_TIMER = 0.001

#: Callers granted or failed between two breaths of the loop: 1 to 4 ms.
_SLICE = 64

#: Seconds of rest for each caller who was looked at and left to wait, beyond the first thousand: a
#: crowd that is looked at with every grant takes a few percent of the processor, and not all of it.
_REST = 1e-4
_UNRESTED = 1000 * _REST

#: So many quotas are kept without a look at whether anyone still needs them; from there on
#: each new one has so many old ones looked at.
_FEW_QUOTAS = 1024
_LOOKS = 4

#: For each quota that is remembered so many credentials are: of a user, an app, and to spare.
_MATERIALS = 4

#: An API speaks one dialect, or two where a proxy adds its own; a server that changes it with each
#: answer is told of so often.
_MOST_DIALECTS = 8

#: Digests of credentials are keyed, since plain ones of user ids can be found by trying all.
_DIGEST_KEY = secrets.token_bytes(16)

_UNKNOWN = WindowQuota("", None, None, None, None)

#: Callers that will wait longer than this are announced.
_WORTH_A_WARNING = 5.0

#: While nobody answers, they are announced again after so many seconds.
_SAID_AGAIN = 900.0


class Permit(Granted):
    """One caller's go. Settle it exactly once: `observed`, `unsent` or `lost`."""

    __slots__ = ("_dialect", "_line", "waited")

    _dialect: Dialect
    _line: Line
    #: Seconds that the caller waited for it.
    waited: float

    def __repr__(self) -> str:
        return f"<Permit {self._line.key} {'settled' if self.is_settled else 'out'}>"

    def observed(
        self,
        headers: Mapping[str, str],
        *,
        status: int = 200,
        cost: int | Mapping[str, int] | None = None,
    ) -> Reading:
        """Settle with an answer's headers and status, as soon as they are there.

        Pass what the call really took as ``cost`` if that is known by now and differs from what
        was asked for: local rates are corrected; windows that the server announces correct
        themselves. Returns what was read. Raises RuntimeError if the permit is settled already.
        """
        line, dialect = self._line, self._dialect
        plain = line.bucket.plain
        if plain is not None and status == 200 and cost is None:
            frame = plain.frame
            if frame is not None and frame.dialect is dialect:
                remaining = frame.left(headers)
                if remaining >= 0:
                    reading = frame.reading(remaining)
                    line.limiter._observed(line, self, reading, 200, None, frame, remaining)
                    return reading
        reading = dialect.read(headers, status)
        took = None if cost is None else as_cost(cost)
        line.limiter._observed(line, self, reading, status, took)
        if plain is not None and plain.is_plain and status == 200:
            plain.expect_as(dialect.frame(headers))
        return reading

    def refused_after_all(self, reading: Reading, status: int) -> None:
        """Note that the body of the answer, read after its headers, refused the call."""
        self._line.limiter._refused_after_all(self._line, self, reading, status)

    def unsent(self, *, failed: bool = False, reason: str = "") -> None:
        """Settle a call that surely never left: its token goes back.

        Pass ``failed=True`` if it was tried and nobody was there (a refused connection). Callers
        that wait in vain are told the ``reason``.
        """
        self._line.limiter._unsent(self._line, self, failed=failed, reason=reason)

    def lost(self, *, reason: str = "") -> None:
        """Settle a call that may have been counted and whose answer will not come.

        Callers that wait in vain are told the ``reason``.
        """
        self._line.limiter._lost(self._line, self, reason=reason)


class Limiter:
    """Shares quotas between all callers of one event loop.

    ``reserve``
        The share of each limit, from 0 to below 1, that is kept for `Priority.INTERACTIVE`.
    ``pace``
        ``"burst"`` grants as long as tokens are left; ``"even"`` spreads them over the window.
    ``rates``
        Local limits by route template, such as ``{"/2/tweets/search/all": Rate(1, per=1)}``, for
        limits that a server does not announce; a `Rate`, a `Concurrency`, or several of them.
        ``"POST /2/tweets"`` names one method's only. ``"*"`` is one limit for all routes of an
        identity together, ``"POST *"`` one for all its POSTs that are in no category.
    ``max_waiters``
        So many callers may wait for one quota; the next gets `TooManyWaitersError`.
    ``max_quotas``
        About so many quotas are remembered; idle ones are forgotten first, spent ones last.
    ``on_event``
        Is called with each `aiotwhelp.events.Event`.
    ``ledger``
        Shares every quota with other processes: ``"sqlite:///path"`` for those of one host,
        ``"redis://host"`` for any, or a ledger such as `SQLiteLedger`. Close the limiter, or the
        session that made it, so that unused tokens go back at once.
    ``on_ledger_failure``
        ``"degrade"`` goes on with a share of what the ledger knew last while it is away,
        ``"fail"`` raises `LedgerError`.

    A limiter belongs to the event loop that first used it; another raises `WrongLoopError`.
    """

    # What every call looks at; all else has time to be found in a dictionary.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_ended",
        "_even",
        "_granted",
        "_handlers",
        "_is_closed",
        "_lines",
        "_now",
        "_open_in",
        "_reserve",
        "_sharing",
        "_tickets",
        "_waited",
        "_waiting",
    )

    def __init__(
        self,
        *,
        reserve: float = 0.0,
        pace: Literal["burst", "even"] = "burst",
        rates: Mapping[str, LocalLimit | Sequence[LocalLimit]] | None = None,
        max_waiters: int | None = None,
        max_quotas: int = 100_000,
        on_event: events.Handler | None = None,
        ledger: Ledger | str | None = None,
        on_ledger_failure: Literal["degrade", "fail"] = "degrade",
    ) -> None:
        self._lines: dict[QuotaKey, Line] = {}
        #: The same, whose turn it is to be looked at first. An ordered dict would hold the loop
        #: for 40 ms when it grows beyond 87 000.
        self._rounds: deque[Line] = deque()
        self._waiting = 0
        #: Lines whose callers are to be judged, and how; and the one whose callers are.
        self._reviews: dict[tuple[Line, _Judge], None] = {}
        self._reviewed: _Review | None = None
        self._reviewing: asyncio.Handle | None = None
        self._rested = -INF
        if not isinstance(reserve, (int, float)) or not 0.0 <= reserve < 1.0:
            raise ValueError(f"reserve is a share from 0 to below 1, not {reserve!r}")
        if pace not in ("burst", "even"):
            raise ValueError(f'pace is "burst" or "even", not {pace!r}')
        if max_waiters is not None:
            checks.whole("max_waiters", max_waiters, of=" of callers")
        checks.whole("max_quotas", max_quotas)
        if on_event is not None:
            checks.function("on_event", on_event, "a function of one event")
        if rates is not None:
            checks.instance("rates", rates, Mapping, "a mapping from routes to a Rate")
        if on_ledger_failure not in ("degrade", "fail"):
            raise ValueError(f'on_ledger_failure is "degrade" or "fail", not {on_ledger_failure!r}')
        if ledger is not None and not isinstance(ledger, str):
            meaning = "a URL such as 'sqlite:///quota.db', or a Ledger such as SQLiteLedger(path)"
            checks.methods("ledger", ledger, ("exchange", "secret", "close"), meaning)
        self._sharing: Sharing | None = None
        if ledger is not None:
            self._sharing = Sharing(
                from_url(ledger) if isinstance(ledger, str) else ledger,
                owns=isinstance(ledger, str),
                fails=on_ledger_failure == "fail",
                now=lambda: self._now(),
                wake=self._wake,
                miss=self._missed,
                tell=self.tell,
            )
        #: What digests are of, for a ledger: other processes have other digests.
        self._materials: dict[str, str] = {}
        self._reserve = reserve
        self._even = pace == "even"
        self._rates = _Rates(rates or {})
        #: Limits of an API's own, by its host.
        self._api_rates: dict[str, list[_Rates]] = {}
        #: By API and identity; each lives as long as a line of it does.
        self._households: WeakValueDictionary[tuple[str, str], Household] = WeakValueDictionary()
        #: By the clock of an API: the dialects that were recognised.
        self._dialects: WeakKeyDictionary[ServerClock, set[str]] = WeakKeyDictionary()
        #: One for all quotas: a bound method of each would take 64 bytes.
        self._forget = self._forget_window
        self._max_waiters = max_waiters
        self._max_quotas = max_quotas
        self._handlers: list[events.Handler] = [on_event] if on_event is not None else []
        self._numbering = Numbering()
        self._windows: dict[Hashable, Window] = {}
        #: By API, app and route.
        self._siblings: dict[tuple[str, str, str], _Siblings] = {}
        #: By API; each lives as long as a line of its API does.
        self._clocks: WeakValueDictionary[str, ServerClock] = WeakValueDictionary()
        self._assumed: WeakSet[ServerClock] = WeakSet()
        self._tickets = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        #: The same until the limiter is closed.
        self._open_in: asyncio.AbstractEventLoop | None = None
        self._now: Callable[[], float] = time.monotonic
        self._wall: Callable[[], float] = time.time
        #: Lines by the instant at which the rule is to be asked again.
        self._timers: Heap[Line] = Heap()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = INF
        self._is_closed = False
        self._granted = 0
        self._ended = 0
        self._waited = 0.0
        self._refused = 0
        self._lost_calls = 0

    def __repr__(self) -> str:
        return f"<Limiter {len(self._lines)} quotas, {self._waiting} waiting>"

    # For callers -------------------------------------------------------------------------------

    @asynccontextmanager
    async def permit(
        self,
        key: QuotaKey | str,
        *,
        cost: int | Mapping[str, int] = 1,
        priority: Priority = Priority.NORMAL,
        max_wait: float | None = None,
        dialect: Dialect = X_DIALECT,
    ) -> AsyncIterator[Permit]:
        """Hold one permit for a call by any HTTP client.

        Settle it inside: ``permit.observed(headers)`` as soon as there is an answer,
        ``permit.unsent()`` if the call surely never left. Leaving without either counts the call
        as lost. ``cost`` is how many calls this one counts as, or what it takes of windows that
        count something else, such as ``{"tokens": 1200}``; see `acquire`. ``max_wait`` is in
        seconds; raises `QuotaTimeoutError` when it will not do.
        Cancelling is safe at any moment.
        """
        permit = await self.acquire(
            key, cost=cost, priority=priority, max_wait=max_wait, dialect=dialect
        )
        try:
            yield permit
        finally:
            if not permit.is_settled:
                permit.lost()

    async def acquire(
        self,
        key: QuotaKey | str,
        *,
        cost: int | Mapping[str, int] = 1,
        priority: Priority = Priority.NORMAL,
        max_wait: float | None = None,
        dialect: Dialect = X_DIALECT,
        ticket: int | None = None,
        room: Room | None = None,
        owner: object = None,
    ) -> Permit:
        """Wait for a permit, which the caller must settle; prefer `permit`, which sees to it.

        A caller that comes back after a refusal passes its ``ticket`` and keeps its place.
        ``cost`` is a number for all windows, or a mapping from units to numbers: of a window that
        counts a unit it does not name, the call takes one.
        Raises `QuotaTimeoutError`, `TooManyWaitersError`, `SessionClosedError`, and `CostError`
        for a cost that never fits. Cancelling is safe: a token granted meanwhile goes on.
        """
        if max_wait is not None:
            max_wait = checks.seconds("max_wait", max_wait)
        if priority.__class__ is not Priority:
            priority = checks.member("priority", priority, Priority)
        line = self._lines.get(key)  # type: ignore[arg-type] # the name of a route is not found
        if line is None or not line.waiting or get_running_loop() is not self._open_in:
            permit = self._at_once(line, key, cost, priority, dialect, room)
            if permit is not None:
                return permit
            line = self._line(as_key(key))
        waiter = self._join(line, cost, priority, max_wait, dialect, ticket, room, owner)
        timer = None if max_wait is None else self._time_out(line, waiter, max_wait)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            self._cancelled(line, waiter)
            raise
        finally:
            if timer is not None:
                line.deadlines -= 1
                timer.cancel()
            # An error's traceback leads here: it and the future would hold each other.
            del waiter

    def try_acquire(
        self,
        key: QuotaKey | str,
        *,
        cost: int | Mapping[str, int] = 1,
        priority: Priority = Priority.NORMAL,
        dialect: Dialect = X_DIALECT,
        room: Room | None = None,
    ) -> Permit | None:
        """Return a permit if one is there now and nobody waits for it, else None.

        Where a ledger shares quotas it is asked for a token then, for whoever comes next.
        Raises ValueError for a cost that is no whole number from 1 on, `CostError` for one that
        never fits.
        """
        if priority.__class__ is not Priority:
            priority = checks.member("priority", priority, Priority)
        line = self._lines.get(key)  # type: ignore[arg-type] # the name of a route is not found
        return self._at_once(line, key, cost, priority, dialect, room)

    def _at_once(
        self,
        line: Line | None,
        key: QuotaKey | str,
        cost: int | Mapping[str, int],
        priority: Priority,
        dialect: Dialect,
        room: Room | None,
    ) -> Permit | None:
        """Grant without waiting; ``line`` is the key's, if it has been asked for before."""
        if (
            line is not None
            and cost is ONE
            and not line.waiting
            and get_running_loop() is self._open_in
        ):
            granted = line.bucket.take_foreseen(self._now(), room)
            if granted is not None:
                return self._handed_out(line, granted, dialect, 0.0)
        cost = as_cost(cost)
        self._bind()
        line = self._line(as_key(key))
        if line.head() is not None or line.pumping or self._others_wait(line, priority, cost):
            return None
        now = self._now()
        try:
            answer = line.bucket.ask(
                now, cost, reserve=self._kept(priority), even=self._even, room=room
            )
        except NeverFitsError as error:
            raise _cost_error(line, error) from None
        if isinstance(answer, NotUntil):
            if self._sharing is not None:
                self._ask_ledger(self._sharing, line)
            return None
        if not self._even:
            line.bucket.foresee(now, self._reserve)
        return self._handed_out(line, answer, dialect, 0.0)

    def _handed_out(self, line: Line, granted: Granted, dialect: Dialect, waited: float) -> Permit:
        permit: Permit = granted  # type: ignore[assignment] # as `Bucket.grants` has it
        permit._line = line
        permit._dialect = dialect
        permit.waited = waited
        self._granted += 1
        return permit

    def timed_out(self, key: QuotaKey | str, allowed: float) -> QuotaTimeoutError:
        """Return the error of a caller whom a timer from outside took from the queue."""
        return self._in_vain(self._line(as_key(key)), allowed)

    def adopt(self, api: str, rates: Mapping[str, LocalLimit | Sequence[LocalLimit]]) -> None:
        """Hold the limits that an API does not announce, written as ``rates``, from now on.

        ``api`` is what the keys of its quotas have as theirs. Sessions do this for their `Api`;
        what several of them know of one API is held together.
        """
        if not rates:
            return
        own = _Rates(rates)
        known = self._api_rates.setdefault(api, [])
        if any(own.limits == each.limits for each in known):
            return
        known.append(own)
        for (host, identity), household in list(self._households.items()):
            if host == api:
                household.local += tuple(self._wide(own, host, identity))
        for line in self._lines.values():
            if line.key.api == api:
                bucket = line.bucket
                windows = self._local_windows([own], bucket.household.local, line.key)
                bucket.hold(each for each in windows if each not in bucket.local)

    def digest(self, material: str) -> str:
        """Return a keyed digest of what names a credential, valid in this process only.

        Where a ledger shares quotas the material is remembered: its records are named by digests
        under a key that all processes have.
        """
        digest = hashlib.blake2b(material.encode(), key=_DIGEST_KEY, digest_size=9).hexdigest()
        if self._sharing is not None:
            # What is used stays; of what nobody has used for longest the name is forgotten.
            self._materials.pop(digest, None)
            self._materials[digest] = material
            if len(self._materials) > _MATERIALS * max(self._max_quotas, _FEW_QUOTAS):
                del self._materials[next(iter(self._materials))]
        return digest

    def ticket(self) -> int:
        """Return a place in the order of arrival."""
        self._tickets += 1
        return self._tickets

    def quota(self, key: QuotaKey | str) -> Quota:
        """Return what is believed of a quota now; all None where nothing is known."""
        line = self._lines.get(as_key(key))
        return Quota(str(key)) if line is None else self._describe(line)

    def quotas(self) -> dict[QuotaKey, Quota]:
        """Return what is believed of every quota that is remembered.

        Takes 10 ms and more for each thousand of them: ask for a single `quota` where you can.
        """
        return {key: self._describe(line) for key, line in self._lines.items()}

    def stats(self) -> Stats:
        """Return counts over all quotas; quick, however many there are."""
        return Stats(
            granted=self._granted,
            waited=self._waited,
            refused=self._refused,
            lost=self._lost_calls,
            waiting=self._waiting,
            in_flight=self._granted - self._ended,
            quotas=len(self._lines),
        )

    def prime(self, key: QuotaKey | str, readings: Iterable[WindowReading]) -> None:
        """Take second-hand numbers, as ``rate_limit_status`` tells them.

        They may be stale: they lower what is believed, never raise it, and replace no probe.
        """
        self._line(as_key(key)).bucket.prime(readings)

    def restore(self, key: QuotaKey | str, readings: Iterable[WindowReading]) -> None:
        """Start from the state of an earlier run; what has reset since counts as unknown."""
        self._bind()
        line = self._line(as_key(key))
        if not line.clock.is_known:
            line.clock.assume(self._wall() - self._now())
        line.bucket.restore(self._now(), readings)

    def server_time(self, api: str) -> float:
        """Return the best guess of what that API's clock shows, in POSIX seconds."""
        self._bind()
        clock = self._clocks.get(api)
        if clock is None or not clock.is_known:
            return self._wall()
        return clock.epoch(self._now())

    def listen(self, handler: events.Handler) -> None:
        """Call ``handler`` with every event from now on."""
        self._handlers.append(handler)

    def unlisten(self, handler: events.Handler) -> None:
        """Undo one `listen` with this handler."""
        self._handlers.remove(handler)

    def tell(self, event: events.Event) -> None:
        """Hand an event to the handlers; what they raise is logged and goes no further."""
        for handler in self._handlers:
            try:
                handler(event)
            except Exception:
                logger.exception("an event handler failed")

    @property
    def is_heard(self) -> bool:
        """Whether anyone listens, so that events are worth making."""
        return bool(self._handlers)

    async def close(self, owner: object = None) -> None:
        """Wake all waiters, or those of one owner, with `SessionClosedError`.

        Done in slices, so that the loop is never held for long; cancelling this leaves nobody
        waiting. Without ``owner`` the limiter accepts nobody from then on.
        """
        if owner is None:
            self._is_closed = True
            self._open_in = None
        closed = asyncio.get_running_loop().create_future()
        self._close_slice(self._closing(owner), closed)
        try:
            await closed
        finally:
            if owner is None and self._sharing is not None:
                await self._sharing.close()

    # Closing -----------------------------------------------------------------------------------

    def _closing(self, owner: object) -> Iterator[None]:
        """Fail those who wait, in small steps."""
        for line in list(self._lines.values()):
            everyone = line.everyone()
            while everyone:
                waiter = everyone.popleft()
                if owner is None or waiter.owner is owner:
                    self._fail(line, waiter, SessionClosedError("closed while waiting for quota"))
                yield
            self._pump(line)
            yield
        if owner is None:
            self._disarm()
            if self._reviewing is not None:
                self._reviewing.cancel()

    def _close_slice(self, steps: Iterator[None], closed: asyncio.Future[None]) -> None:
        if sum(1 for _ in islice(steps, _SLICE)) == _SLICE:
            closed.get_loop().call_soon(self._close_slice, steps, closed)
        elif not closed.done():
            closed.set_result(None)

    # Waiting -----------------------------------------------------------------------------------

    def _join(
        self,
        line: Line,
        cost: int | Mapping[str, int],
        priority: Priority,
        max_wait: float | None,
        dialect: Dialect,
        ticket: int | None,
        room: Room | None,
        owner: object,
    ) -> Waiter:
        """Have a caller wait its turn."""
        loop = self._loop
        assert loop is not None  # noqa: S101 - bound by _at_once, for the type checker
        asked = line.asked
        if ticket is None:
            self._tickets = ticket = self._tickets + 1
            may_be_first = asked is None or priority < asked.priority
        else:  # who comes back was here before the others
            may_be_first = True
        if (
            self._max_waiters is not None
            and line.waiting >= self._max_waiters
            and ticket == self._tickets
        ):
            raise TooManyWaitersError(
                f"{_waiting(line.waiting)} for {line.key} already, and no more may "
                f"(max_waiters={self._max_waiters})"
            )
        now = self._now()
        deadline = INF if max_wait is None else now + max_wait
        future: asyncio.Future[Permit] = loop.create_future()
        if cost is not ONE:
            cost = as_cost(cost)
        waiter = Waiter(future, ticket, priority, cost, now, deadline, dialect, room, owner)
        line.add(waiter)
        self._waiting += 1
        if max_wait is not None:
            line.deadlines += 1
            self._give_up_early(line, waiter, now)
        if may_be_first and line.head() is waiter:
            self._pump(line)
        if now + _WORTH_A_WARNING < line.timer < INF and line.timer != line.warned:
            self._soon(self._announce, line)
        return waiter

    def _time_out(self, line: Line, waiter: Waiter, max_wait: float) -> asyncio.TimerHandle:
        return waiter.future.get_loop().call_later(max_wait, self._expire, line, waiter)

    def _cancelled(self, line: Line, waiter: Waiter) -> None:
        """Undo what happened to a caller that was cancelled, even in the tick of its grant."""
        future = waiter.future
        if future.cancelled():
            self._bury(line, waiter)
            self._pump_next(line)
        elif future.exception() is None:
            future.result().unsent()

    def _expire(self, line: Line, waiter: Waiter) -> None:
        """Fail a caller whose deadline has come."""
        if not waiter.future.done():
            self._fail(line, waiter, self._in_vain(line, waiter.patience))
            self._pump_next(line)

    def _fail(self, line: Line, waiter: Waiter, error: Exception) -> None:
        if not waiter.future.done():
            waiter.future.set_exception(error)
            self._bury(line, waiter)

    def _bury(self, line: Line, waiter: Waiter) -> None:
        line.queues[waiter.priority].bury(waiter)
        line.removed += waiter.cost
        line.waiting -= 1
        self._waiting -= 1

    def _pump_next(self, line: Line) -> None:
        """Ask for the next caller if the one that the rule was asked for is gone."""
        if line.asked is not None and line.asked.future.done():
            self._pump(line)

    def _give_up_early(self, line: Line, waiter: Waiter, now: float) -> None:
        """Fail a caller at once whose wait is known to be too long."""
        ahead = sum(queue.cost for queue in line.queues[: waiter.priority])
        queue = line.queues[waiter.priority]
        if queue.is_at_back(waiter):  # else it came back with an old ticket, near the front
            ahead += queue.cost - waiter.cost
        at = self._expected(line, waiter, ahead, now)
        if at > waiter.deadline:
            self._fail(line, waiter, self._too_long(line, waiter.patience, at - now))

    def _expected(self, line: Line, waiter: Waiter, ahead: int, now: float) -> float:
        """Return the earliest instant for a caller behind others that take so many tokens."""
        return line.bucket.expect(now, ahead, self._kept(waiter.priority), waiter.cost)

    def _check_deadlines(self, line: Line, answer: NotUntil) -> None:
        """After news: fail those whose wait has turned out to be too long."""
        busy = answer.by.in_flight > 0
        is_news = answer.at > line.checked + 0.5 or (line.was_busy and not busy)
        line.was_busy = busy
        if is_news:
            line.checked = answer.at
            if line.deadlines:
                self._review(line, self._judge_deadline)

    def _judge_deadline(self, line: Line, waiter: Waiter, ahead: int) -> Exception | None:
        now = self._now()
        expected = self._expected(line, waiter, max(0, ahead), now)
        if expected <= waiter.deadline:
            return None
        return self._too_long(line, waiter.patience, expected - now)

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
        assert self._loop is not None  # noqa: S101 - for the type checker
        rest = self._rested - self._now() - _UNRESTED
        if rest > 0:
            self._reviewing = self._loop.call_later(rest, self._review_slice)
        else:
            self._reviewing = self._loop.call_soon(self._review_slice)

    def _review_slice(self) -> None:
        left, kept = _SLICE, 0
        try:
            while left > 0 and (self._reviewed is not None or self._reviews):
                review = self._reviewed or self._next_review()
                most = min(left, len(review.waiters))
                self._reviewed = review if most < len(review.waiters) else None
                left -= most or 1
                kept += self._review_some(review, most)
        finally:
            self._rested = max(self._rested, self._now()) + kept * _REST
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
        self._pump_next(line)
        return kept

    def _in_vain(self, line: Line, allowed: float) -> QuotaTimeoutError:
        """Return the error of a caller who has waited for so long as it may."""
        now = self._now()
        needed = line.timer - now if now < line.timer < INF else 0.0
        return self._too_long(line, allowed, needed)

    def _too_long(self, line: Line, allowed: float, needed: float) -> QuotaTimeoutError:
        quota = self._describe(line)
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

    # Granting ----------------------------------------------------------------------------------

    def _pump(self, line: Line) -> None:
        """Grant to the callers of one line, in order, until something blocks."""
        line.pumping = False
        parked = line.parked
        gate = parked.gate if parked is not None and parked.is_first else None
        for _ in range(_SLICE):
            if not self._grant_head(line):
                break
        else:
            line.pumping = True
            self._soon(self._pump, line)
        if gate is not None and gate.blocked.first is not line.parked:
            # It was this line's timer that the others behind the gate relied on.
            self._wake(gate)

    def _grant_head(self, line: Line) -> bool:
        """Grant to the first of a line, or park the line where it is blocked."""
        line.asked = None
        waiter = None if self._is_closed else line.head()
        if waiter is None:
            self._unpark(line)
            return False
        now = self._now()
        try:
            answer = self._grant_next(line, waiter, now)
        except NeverFitsError as error:
            self._fail(line, waiter, _cost_error(line, error))
            return True
        except LedgerError as error:
            self._fail(line, waiter, error)
            return True
        if isinstance(answer, NotUntil):
            line.asked = waiter
            self._park(line, waiter, answer, now)
            return False
        line.pop(waiter)
        self._waiting -= 1
        waited = now - waiter.since
        self._waited += waited
        waiter.future.set_result(self._handed_out(line, answer, waiter.dialect, waited))
        if self._handlers:
            self.tell(events.Waited(str(line.key), line.key.identity, waited))
        return True

    def _grant_next(self, line: Line, waiter: Waiter, now: float) -> Granted | NotUntil:
        """Let who is first go, if that was foreseen, or as the rule has it."""
        bucket = line.bucket
        if waiter.cost is ONE:
            granted = bucket.take_foreseen(now, waiter.room)
            if granted is not None:
                return granted
        answer = self._ask(line, waiter, now)
        if not self._even and not isinstance(answer, NotUntil):
            bucket.foresee(now, self._reserve)
        return answer

    def _ask(self, line: Line, waiter: Waiter, now: float) -> Granted | NotUntil:
        """Ask the rule, unless another line's caller waits in front of one of the gates."""
        for gate in line.bucket.gates:
            first = gate.blocked.first
            if (
                first is not None
                and first.line is not line
                and cost_in(gate.unit, waiter.cost)
                and first.rank < (waiter.priority, waiter.ticket)
            ):
                at = line.bucket.expect(now, 0, cost=waiter.cost)
                return NotUntil(at if at > now else INF, gate)
        return line.bucket.ask(
            now,
            waiter.cost,
            since=waiter.since,
            reserve=self._kept(waiter.priority),
            even=self._even,
            room=waiter.room,
        )

    def _others_wait(self, line: Line, priority: Priority, cost: int) -> bool:
        """Whether other lines' callers, no less urgent, wait for a window that this one shares."""
        for gate in line.bucket.gates:
            first = gate.blocked.first
            if first is not None and first.rank[0] <= priority and cost_in(gate.unit, cost):
                return True
        return False

    def _unpark(self, line: Line) -> None:
        """Nobody waits in this line any more."""
        line.unpark()
        if line.timer < INF:
            self._set_timer(line, INF)
            self._arm(self._now())

    def _park(self, line: Line, waiter: Waiter, answer: NotUntil, now: float) -> None:
        """Remember what a line waits for: a window's next settled call, an instant, or both."""
        if isinstance(answer.by, Bucket):
            line.unpark()
        else:
            line.park(answer.by, waiter)
        if self._sharing is not None:
            self._ask_ledger(self._sharing, line)
        if answer.at != line.timer:
            self._set_timer(line, answer.at, waiter.ticket)
            self._arm(now)
        if answer.at < INF:
            self._check_deadlines(line, answer)

    def _ask_ledger(self, sharing: Sharing, line: Line) -> None:
        """Have the ledger asked for what the rule has found missing."""
        sharing.ask_all()
        if sharing.health.is_away:
            for share in _shares(line.bucket):
                if share.is_away:
                    sharing.waits_alone(share.gate)

    def _set_timer(self, line: Line, at: float, ticket: int = 0) -> None:
        """Have a line's turn come at an instant, or never; of several in the ticket's order."""
        self._timers.discard(line)
        line.timer = at
        if at < INF:
            line.rank = (at, ticket)
            self._timers.add(line)

    def _settled(self, line: Line, room: Room | None) -> None:
        """Grant whatever a settled call has set free."""
        self._ended += 1
        if self._sharing is not None and self._sharing.health.news:
            self._sharing.settle_all()
        if not self._waiting:
            return
        plain = line.bucket.plain
        if plain is not None and len(plain.buckets) == 1 and (room is None or not room.blocked):
            # No other line stands before what it has given back.
            if line.waiting and (plain.frees or line.parked is None):
                if not line.pumping:
                    self._pump(line)
                self._announce_soon(line)
            return
        gates = line.bucket.gates
        waiter = line.head()
        if waiter is not None and line.parked is None and gates:
            # It waited for its own calls; now it stands in the order of tickets with the others.
            line.park(gates[0], waiter)
        goes_on = False
        for gate in gates if room is None else (*gates, room):
            goes_on = self._wake(gate) or goes_on
        if goes_on and not line.pumping:
            # A slice has been granted: the rest after the next breath of the loop.
            line.pumping = True
            self._soon(self._pump, line)
        elif not line.pumping:
            self._pump(line)
        self._announce_soon(line)

    def _wake(self, gate: _Gate) -> bool:
        """Grant to the lines that wait for a gate, in ticket order, until it blocks again.

        Returns whether it goes on after a slice.
        """
        for _ in range(_SLICE):
            first = gate.blocked.first
            if first is None:
                return False
            line = first.line
            if len(gate.blocked) == 1:
                self._pump(line)  # nobody else's turn may come before its own callers'
                self._announce_soon(line)
                return False
            line.unpark()
            if not self._grant_head(line):
                self._announce_soon(line)
                if line.parked is not None and line.parked.gate is gate:
                    self._tell_others(gate, line)
                    return False
            elif (waiter := line.head()) is None:
                self._unpark(line)
            else:
                # Its next caller may have to let another line's go first.
                line.park(gate, waiter)
        self._soon(self._wake, gate)
        return True

    def _tell_others(self, gate: _Gate, first: Line) -> None:
        """That the last call in flight brought no token is news for all lines behind a window."""
        if gate.in_flight or not isinstance(gate, Window):
            return
        for parked in gate.blocked:
            line = parked.line
            if line.deadlines and line is not first:
                self._review(line, self._judge_deadline)

    def _kept(self, priority: int) -> float:
        return 0.0 if priority == Priority.INTERACTIVE else self._reserve

    # Settling ----------------------------------------------------------------------------------

    def _observed(
        self,
        line: Line,
        granted: Granted,
        reading: Reading,
        status: int,
        cost: int | None,
        frame: Frame | None = None,
        remaining: int = 0,
    ) -> None:
        """Learn from an answer.

        With a ``frame`` it says what the one before did, but that so many calls are ``remaining``.
        """
        now, clock = self._now(), line.clock
        if (
            frame is not None
            and granted.sent < clock.news_from
            and frame.date == clock.date
            and self._sharing is None
            and line.bucket.answered_plainly(granted, now, remaining, frame.resets_in)
        ):
            line.trouble = ""
            if self._handlers:
                self._tell_observed(line, reading, status, now)
            self._settled(line, granted.room)
            return
        if reading.date is None or reading.cached:
            self._presume_time(line, now, reading)
        else:
            clock.observe(reading.date, granted.sent, now)
        line.bucket.observed(granted, now, reading, status=status, cost=cost)
        if reading.refused:
            self._refused += 1
        if reading.dialect:
            self._note_dialect(line, reading.dialect)
        line.trouble = f"it was answered with {status}" if status >= 500 else ""
        if self._handlers:
            self._tell_observed(line, reading, status, now)
        if status >= 500 and not reading.windows:
            self._found_nothing(line)
        self._settled(line, granted.room)

    def _refused_after_all(
        self, line: Line, granted: Granted, reading: Reading, status: int
    ) -> None:
        now = self._now()
        line.bucket.refused_after_all(granted, now, reading)
        self._refused += 1
        if self._handlers:
            self._tell_refused(line, status, now)

    def _note_dialect(self, line: Line, dialect: str) -> None:
        known = self._dialects.setdefault(line.clock, set())
        if dialect not in known and len(known) < _MOST_DIALECTS:
            known.add(dialect)
            logger.debug("%s announces its limits as %s", line.key.api or "the server", dialect)
            self.tell(events.DialectRecognized(str(line.key), line.key.identity, dialect))

    def _unsent(self, line: Line, granted: Granted, *, failed: bool, reason: str) -> None:
        line.bucket.unsent(granted, self._now(), failed=failed)
        if failed:
            line.trouble = reason
            self._found_nothing(line)
        self._settled(line, granted.room)

    def _lost(self, line: Line, granted: Granted, *, reason: str) -> None:
        line.bucket.lost(granted, self._now())
        line.trouble = reason
        self._lost_calls += 1
        if self._handlers:
            self.tell(events.Lost(str(line.key), line.key.identity))
        self._found_nothing(line)
        self._settled(line, granted.room)

    def _found_nothing(self, line: Line) -> None:
        """A call has ended in vain; a ledger will tell what the calls of all processes have."""
        if self._sharing is not None and not self._sharing.health.is_away:
            return
        self._fail_impatient(line)
        for window in line.bucket.windows:
            if window.patience < INF:
                self._missed(window)

    def _missed(self, gate: _Gate) -> None:
        """A probe has found out nothing: that is known to all who wait for the same."""
        for parked in gate.blocked:
            self._fail_impatient(parked.line)

    def _fail_impatient(self, line: Line) -> None:
        """Nobody answers, again and again: fail those that have waited longer than the back-off."""
        if line.bucket.patience < INF:
            self._review(line, self._judge_patience)

    def _judge_patience(self, line: Line, waiter: Waiter, _ahead: int) -> Exception | None:
        waited, patience = self._now() - waiter.since, line.bucket.patience
        return self._nobody_answers(line, waited, patience) if waited > patience else None

    def _nobody_answers(self, line: Line, waited: float, patience: float) -> QuotaTimeoutError:
        trouble = line.trouble or "it got no answer"
        return QuotaTimeoutError(
            f"no permit for {line.key} after {waited:.0f} s: call after call has failed, "
            f"and they go one at a time until one does not; of the last: {trouble}",
            key=str(line.key),
            retry_after=patience,
        )

    def _presume_time(self, line: Line, now: float, reading: Reading) -> None:
        """Take the local wall clock for the server's, where that tells no time."""
        key, clock = line.key, line.clock
        if not clock.is_known and any(each.reset is not None for each in reading.windows):
            clock.assume(self._wall() - now)
            if clock not in self._assumed:
                self._assumed.add(clock)
                logger.warning(
                    "answers from %s have no usable Date header: resets are measured "
                    "with the local clock, which had better be right",
                    key.api or "the server",
                )
                self.tell(events.ClockAssumed(str(key), key.identity))

    def _tell_observed(self, line: Line, reading: Reading, status: int, now: float) -> None:
        key, identity = str(line.key), line.key.identity
        for window in line.bucket.windows:
            for said in reading.windows:
                if said.kind.name == window.kind.name:
                    resets_in = None if window.reset is None else window.ends - now
                    self.tell(
                        events.Observed(
                            key, identity, said.kind.name, said.limit, said.remaining, resets_in
                        )
                    )
        if reading.refused:
            self._tell_refused(line, status, now)

    def _tell_refused(self, line: Line, status: int, now: float) -> None:
        expected = max(0.0, line.bucket.expect(now, 0) - now)
        self.tell(events.Refused(str(line.key), line.key.identity, status, expected))

    # The timer ---------------------------------------------------------------------------------

    def _arm(self, now: float) -> None:
        """Have the one timer ring for the earliest instant."""
        assert self._loop is not None  # noqa: S101 - for the type checker
        first = self._timers.first
        if first is None:
            self._disarm()
            return
        at = min(first.timer, now + _LONGEST_TIMER)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        delay = max(at - now, _SHORTEST_TIMER)
        self._timer = self._loop.call_later(delay, self._ring)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, INF

    def _ring(self) -> None:
        """Ask again for the lines whose instant has come, in ticket order, a slice at a time."""
        self._disarm()
        now = self._now()
        for _ in range(_SLICE):
            line = self._timers.first
            if line is None or line.timer > now:
                break
            self._set_timer(line, INF)
            if not line.pumping:
                self._pump(line)
            self._announce_soon(line)
        if self._timers:
            self._arm(now)

    def _soon(self, function: Callable[..., object], *args: object) -> None:
        assert self._loop is not None  # noqa: S101 - for the type checker
        self._loop.call_soon(function, *args)

    def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        if self._is_closed:
            raise SessionClosedError("this limiter is closed: make a new one")
        if loop is self._loop:
            return
        if self._loop is not None:
            raise WrongLoopError(
                "this limiter belongs to another event loop: make a session, or limiter, for each "
                "loop, inside the coroutine that asyncio.run gets"
            )
        self._loop = self._open_in = loop
        self._now = _clock_of(loop)
        # A loop that keeps its own wall clock (the testing loop) is asked for it.
        self._wall = getattr(loop, "wall_time", time.time)

    # Telling -----------------------------------------------------------------------------------

    def _announce_soon(self, line: Line) -> None:
        """Say that callers wait, once everyone of this tick has joined the queue."""
        if (
            line.timer < INF
            and line.timer != line.warned
            and (line.timer - self._now() > _WORTH_A_WARNING)
        ):
            self._soon(self._announce, line)

    def _announce(self, line: Line) -> None:
        now = self._now()
        callers = len(line)
        wait = line.timer - now
        if not callers or not _WORTH_A_WARNING < wait < INF or self._is_announced(line):
            return
        if any(share.may_ask_sooner(now) for share in _shares(line.bucket)):
            return  # how long they wait is told when calls of their own have ended
        quota = self._describe(line)
        # At an even or a learned pace the head waits for one slot after the other.
        line.warned = max(line.timer, now + (quota.resets_in or 0.0))
        logger.warning("%s for %s: %s", _waiting(callers), line.key, left_text(quota))
        if self._handlers:
            key = line.key
            self.tell(
                events.Waiting(
                    str(key), key.identity, callers, quota.limit, quota.remaining, quota.resets_in
                )
            )

    def _is_announced(self, line: Line) -> bool:
        """Whether a wait in this window was announced; its end moves as the clock gets better.

        While nobody answers one back-off follows the other, and all are one wait.
        """
        if line.warned is None:
            return False
        span = _WORTH_A_WARNING if line.bucket.patience == INF else _SAID_AGAIN
        return line.timer < line.warned + span

    def _describe(self, line: Line) -> Quota:
        now = self._now()
        windows = tuple(self._describe_window(line, window, now) for window in line.bucket.windows)
        known = [window for window in windows if window.remaining is not None]
        tightest = min(known, key=tightness, default=(*windows, _UNKNOWN)[0])
        return Quota(
            key=str(line.key),
            limit=tightest.limit,
            remaining=tightest.remaining,
            resets_in=tightest.resets_in,
            resets_at=tightest.resets_at,
            waiting=len(line),
            in_flight=line.bucket.calls,
            windows=windows,
        )

    def _describe_window(self, line: Line, window: Window, now: float) -> WindowQuota:
        name, limit = window.kind.name, window.limit
        if not window.is_confirmed or now >= window.ends:
            return WindowQuota(name, limit, None, None, None)
        if window.reset is None:
            return WindowQuota(name, limit, window.available, None, None)
        resets_at = window.reset
        if window.counts_down:
            clock = line.clock
            resets_at = (
                clock.epoch(window.ends) if clock.is_known else self._wall() + window.ends - now
            )
        return WindowQuota(name, limit, window.available, window.ends - now, resets_at)

    # What is remembered ------------------------------------------------------------------------

    def _line(self, key: QuotaKey) -> Line:
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) >= min(_FEW_QUOTAS, self._max_quotas):
                self._forget_some()
            clock = self._clock(key.api)
            line = self._lines[key] = Line(self, key, self._new_bucket(key, clock), clock)
            self._rounds.append(line)
        return line

    def _new_bucket(self, key: QuotaKey, clock: ServerClock) -> Bucket:
        siblings = self._siblings.setdefault((key.api, key.app, key.route), _Siblings())
        household = self._household(key)
        bucket = Bucket(
            partial(self._find_window, key, clock),
            self._numbering,
            key=str(key),
            rates=self._local_windows(self._rates_of(key.api), household.local, key),
            forget_window=self._forget,
            household=household,
            grants=Permit,
        )
        if self._sharing is not None:
            name = self._name(key.api, key.app, key.identity, key.route)
            health = self._sharing.health
            bucket.share(
                ColdGate(bucket, name, self._numbering, health),
                PaceGate(bucket, (*name, "pace"), self._numbering, health),
            )
        siblings.join(bucket)
        return bucket

    def _household(self, key: QuotaKey) -> Household:
        place = (key.api, key.identity)
        household = self._households.get(place)
        if household is None:
            household = Household(
                each for rates in self._rates_of(key.api) for each in self._wide(rates, *place)
            )
            self._households[place] = household
        return household

    def _wide(self, rates: _Rates, api: str, identity: str) -> Iterator[tuple[str, LocalWindow]]:
        """Return windows of the limits that all routes of an identity share."""
        for pattern, limit in rates.wide:
            yield pattern, self._local_window(limit, api, identity, pattern)

    def _local_windows(
        self, rates: Iterable[_Rates], wide: Iterable[tuple[str, LocalWindow]], key: QuotaKey
    ) -> list[LocalWindow]:
        """Return the windows of one route: those of its own, and those that it shares."""
        own = [
            self._local_window(limit, key.api, key.identity, key.route)
            for some in rates
            for limit in some.of(key.route)
        ]
        return [*own, *(window for pattern, window in wide if _covers(pattern, key.route))]

    def _local_window(self, limit: LocalLimit, api: str, identity: str, counts: str) -> LocalWindow:
        if self._sharing is None:
            return window_of(limit)
        # The app of a wide limit is of no matter: whoever calls is told by the identity.
        name = self._name(api, "", identity, counts, repr(limit))
        health = self._sharing.health
        if isinstance(limit, Rate):
            return LeasedRate(limit, name, self._numbering, health)
        return LeasedConcurrency(limit, name, self._numbering, health)

    def _rates_of(self, api: str) -> list[_Rates]:
        return [self._rates, *self._api_rates.get(api, ())]

    def _find_window(
        self, key: QuotaKey, clock: ServerClock, reading: WindowReading, known: Window | None
    ) -> Window:
        if reading.bucket:
            return self._named_window(key, clock, reading, known)
        return self._window(key, clock, reading.kind)

    def _window(self, key: QuotaKey, clock: ServerClock, kind: WindowKind) -> Window:
        place = (key.api, _owner(key, kind), key.route, key.partition, kind.name)
        window = self._windows.get(place)
        if window is None:
            window = self._new_window(kind, clock, place, key, key.route)
            if kind.scope == "app":
                self._siblings[key.api, key.app, key.route].share(window)
        return window

    def _new_window(
        self, kind: WindowKind, clock: ServerClock, place: Hashable, key: QuotaKey, counts: str
    ) -> Window:
        window: Window
        if self._sharing is None:
            window = Window(kind, clock, self._numbering, place)
        else:
            name = self._name(key.api, key.app, _owner(key, kind), counts, kind.name)
            health = self._sharing.health
            window = LeasedWindow(kind, clock, self._numbering, place, name, health)
        self._windows[place] = window
        return window

    def _name(self, api: str, app: str, owner: str, *counted: str) -> tuple[str, ...]:
        """Return what a ledger's record is of, with what digests of this process stand for."""
        app = self._materials.get(app, app)
        kept = owner.removeprefix("app ")
        whose = self._materials.get(kept, kept)
        return (api, app, "app" if kept != owner else "identity", whose, *counted)

    def _named_window(
        self, key: QuotaKey, clock: ServerClock, reading: WindowReading, known: Window | None
    ) -> Window:
        """Return the window that a server calls by its own name, whatever the route.

        What one route alone has known of it without its name, callers included, goes into it.
        """
        kind = reading.kind
        place = (key.api, _owner(key, kind), key.partition, reading.bucket, kind.name)
        window = self._windows.get(place)
        if window is None:
            window = self._new_window(kind, clock, place, key, reading.bucket)
            window.bucket = reading.bucket
        if known is not None and not known.bucket:
            self._windows.pop(known.key, None)
            self._siblings[key.api, key.app, key.route].forget(known)
            window.absorb(known)
        return window

    def _clock(self, api: str) -> ServerClock:
        clock = self._clocks.get(api)
        if clock is None:
            clock = self._clocks[api] = ServerClock()
        return clock

    def _forget_some(self) -> None:
        """Look at a few quotas, longest ago first, and forget idle ones that are not needed.

        Those that have reset are not needed; beyond ``max_quotas`` no idle one is, and a quarter
        beyond it not even those that are spent or shut. One whose lost call may be yet to be
        counted is in use, a minute at most.
        """
        now = self._now()
        excess = len(self._lines) / self._max_quotas if self._max_quotas else INF
        needless = 0 if excess < 1.0 else 1 if excess < 1.25 else 2
        for _ in range(min(_LOOKS, len(self._rounds))):
            line = self._rounds.popleft()
            is_idle = line.is_idle() and not line.bucket.may_be_counted(now)
            if is_idle and self._worth(line, now) <= needless:
                del self._lines[line.key]
                self._forget_bucket(line.key, line.bucket)
            else:
                self._rounds.append(line)

    def _forget_bucket(self, key: QuotaKey, bucket: Bucket) -> None:
        family = (key.api, key.app, key.route)
        siblings = self._siblings[family]
        del siblings.buckets[bucket]
        unused = bucket.leave()
        if self._sharing is not None:
            gone = (bucket.cold, bucket.paced, *unused)
            for share in _shares(bucket):
                share.leaves = share.gate in gone
                share.report_by(-INF)  # what is unused goes back
            self._sharing.settle_all()
        for window in unused:
            del self._windows[window.key]
            siblings.forget(window)
        if not siblings.buckets:
            del self._siblings[family]
            for window in siblings.windows:  # whoever was left presumed it, in vain
                del self._windows[window.key]

    def _forget_window(self, window: Window) -> None:
        # One that an app's users share is kept for those that are yet to come.
        if window.kind.scope != "app" or window.bucket:
            self._windows.pop(window.key, None)

    def _worth(self, line: Line, now: float) -> int:
        """0: nothing is known that still holds; 1: something is; 2: it is spent or shut."""
        holding = [w for w in line.bucket.windows if w.is_confirmed and now < w.ends]
        shut = any(w.shut > now for w in line.bucket.windows) or line.bucket.next > now
        local = line.bucket.local
        spent = any(window.available == 0 for window in holding)
        if shut or spent or any(each.expect(0) > now for each in local):
            return 2
        backs_off = line.bucket.pace.gap or line.bucket.probing.misses
        return 1 if holding or backs_off or any(each.holds(now) for each in local) else 0


class _Siblings:
    """The quotas of one app's users on one route, and the windows that all of them spend."""

    __slots__ = ("buckets", "windows")

    def __init__(self) -> None:
        self.buckets: dict[Bucket, None] = {}
        self.windows: list[Window] = []

    def join(self, bucket: Bucket) -> None:
        """Let one more presume that it shares what the others do."""
        self.buckets[bucket] = None
        for window in self.windows:
            bucket.presume(window)

    def share(self, window: Window) -> None:
        """Let the others presume that they share a window that one of them has shown.

        What they have on the way counts there, and whoever waits for it is before their callers.
        """
        self.windows.append(window)
        for bucket in self.buckets:
            bucket.presume(window)

    def forget(self, window: Window) -> None:
        """Let nobody presume that it shares a window that is no more."""
        if window in self.windows:
            self.windows.remove(window)


#: What callers may wait for.
_Gate = Window | LocalWindow | Room | BucketGate

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


def _owner(key: QuotaKey, kind: WindowKind) -> str:
    """Return whose calls a window counts."""
    return f"app {key.app}" if kind.scope == "app" else key.identity


def _cost_error(line: Line, error: NeverFitsError) -> CostError:
    return CostError(f"{line.key} was not sent: {error}", key=str(line.key))


def _waiting(callers: int) -> str:
    return "1 caller waits" if callers == 1 else f"{callers} callers wait"


def _plain(route: str) -> str:
    """Return a route by which templates are compared: the names of placeholders do not matter."""
    method, space, path = route.rpartition(" ")
    if not path.startswith("/"):
        return route
    return method.strip().upper() + space + generic_template(path)


class _Rates:
    """Limits that no server announces, by the routes that they are for."""

    __slots__ = ("_by_route", "limits", "wide")

    def __init__(self, rates: Mapping[str, LocalLimit | Sequence[LocalLimit]]) -> None:
        limits = {_plain(name): _as_limits(name, rate) for name, rate in rates.items()}
        self.limits = limits
        #: Those that many routes share: ``"*"``, and ``"POST *"``.
        self.wide = [(n, each) for n, some in limits.items() if _is_wide(n) for each in some]
        self._by_route = {name: some for name, some in limits.items() if not _is_wide(name)}

    def of(self, route: str) -> tuple[LocalLimit, ...]:
        """Return those of one route."""
        plain = _plain(route)
        return self._by_route.get(plain) or self._by_route.get(plain.partition(" ")[2]) or ()


def _shares(bucket: Bucket) -> Iterator[Share]:
    """Return what a ledger shares of a bucket."""
    if bucket.cold is not None and bucket.paced is not None:
        yield bucket.cold.share
        yield bucket.paced.share
        for gate in bucket.gates:
            if isinstance(gate, (LeasedWindow, LeasedRate, LeasedConcurrency)):
                yield gate.share


def _as_limits(name: str, rate: LocalLimit | Sequence[LocalLimit]) -> tuple[LocalLimit, ...]:
    limits = tuple(rate) if isinstance(rate, Sequence) else (rate,)
    if not all(isinstance(each, LocalLimit) for each in limits):
        raise TypeError(f"rates[{name!r}] is a Rate, a Concurrency, or several, not {rate!r}")
    return limits


def _is_wide(pattern: str) -> bool:
    return pattern == "*" or pattern.endswith(" *")


def _covers(pattern: str, route: str) -> bool:
    """Whether a limit of many routes is for this one, whose method is its first word."""
    return pattern == "*" or pattern.partition(" ")[0] == route.partition(" ")[0]


def as_cost(cost: int | Mapping[str, int]) -> int:
    """Return what a call takes, as the rule has it; raises ValueError for what is no cost."""
    if isinstance(cost, Cost) or (type(cost) is int and cost > 0):
        return cost
    if not isinstance(cost, Mapping):
        raise ValueError(  # noqa: TRY004 - as for a number that makes no sense
            "cost is a whole number from 1 on, or a mapping such as {'tokens': 1200}, "
            f"not {cost!r}"
        )
    for unit, amount in cost.items():
        if type(amount) is not int or amount < 0:
            raise ValueError(f"cost[{unit!r}] is a whole number, not {amount!r}")
    if cost.get("requests", 1) < 1:
        raise ValueError("a call is at least one request")
    return Cost(dict(cost))


def _clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return a loop's clock; of those that stand still while a laptop sleeps, one that goes on.

    Windows go on, too. Loops that keep a time of their own are left to it.
    """
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    kind = type(loop)
    is_plain = kind.time is asyncio.BaseEventLoop.time or kind is _uvloop()
    if boottime is None or not is_plain:
        return loop.time
    try:
        time.clock_gettime(boottime)
    except OSError:  # the name is there, and a sandbox does without the clock
        return loop.time
    return partial(time.clock_gettime, boottime)


def _uvloop() -> object:
    """Return uvloop's kind of loop, if it has been imported."""
    return getattr(sys.modules.get("uvloop"), "Loop", None)
