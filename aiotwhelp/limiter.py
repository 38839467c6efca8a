"""The limiter: callers wait for their share of a quota, and settle what they were given.

Who goes is decided in `aiotwhelp.quota`, in which order in `aiotwhelp.turns`; what is learned from
an answer in `aiotwhelp.settling`; what is remembered, and for how long, in `aiotwhelp.registry`.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from threading import get_ident
from typing import Literal

from aiotwhelp import checks, events
from aiotwhelp.costs import as_cost
from aiotwhelp.errors import QuotaTimeoutError
from aiotwhelp.headers import X_DIALECT, Dialect, WindowReading
from aiotwhelp.home import Home
from aiotwhelp.ledger import Ledger, from_url
from aiotwhelp.local import Room
from aiotwhelp.permits import HeldPermit, Permit
from aiotwhelp.queues import Line, Priority
from aiotwhelp.quota import ONE
from aiotwhelp.rates import LocalLimit
from aiotwhelp.registry import Registry
from aiotwhelp.settling import Settling
from aiotwhelp.sharing import Sharing
from aiotwhelp.telling import Telling, describe
from aiotwhelp.turns import Turns
from aiotwhelp.views import Quota, QuotaKey, Stats, as_key

_ROOM_OR_NONE = (Room, type(None))


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
        A name without a slash is a quota of that name, or a path; one with a host is refused.
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
    __slots__ = ("__dict__", "__weakref__", "_home", "_lines", "_turns")

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
        if not isinstance(reserve, (int, float)) or not 0.0 <= reserve < 1.0:
            raise ValueError(f"reserve is a share from 0 to below 1, not {reserve!r}")
        if pace not in ("burst", "even"):
            raise ValueError(f'pace is "burst" or "even", not {pace!r}')
        if max_waiters is not None:
            max_waiters = checks.whole("max_waiters", max_waiters, of=" of callers")
        max_quotas = checks.whole("max_quotas", max_quotas)
        if on_event is not None:
            checks.listener("on_event", on_event)
        if rates is not None:
            checks.instance("rates", rates, Mapping, "a mapping from routes to a Rate")
        if on_ledger_failure not in ("degrade", "fail"):
            raise ValueError(f'on_ledger_failure is "degrade" or "fail", not {on_ledger_failure!r}')
        if ledger is not None and not isinstance(ledger, str):
            meaning = "a URL such as 'sqlite:///quota.db', or a Ledger such as SQLiteLedger(path)"
            checks.methods("ledger", ledger, ("exchange", "secret", "close"), meaning)
        self._home = home = Home()
        self._telling = Telling(home, on_event)
        self._turns = turns = Turns(
            home, self._telling, reserve=reserve, even=pace == "even", max_waiters=max_waiters
        )
        if ledger is not None:
            turns.sharing = Sharing(
                from_url(ledger) if isinstance(ledger, str) else ledger,
                owns=isinstance(ledger, str),
                fails=on_ledger_failure == "fail",
                now=lambda: home.now(),
                wake=turns.wake,
                miss=turns.patience.missed,
                tell=self._telling.tell,
            )
        #: Numbers callers in the order of their arrival.
        self.tickets = turns.tickets
        self._sharing = turns.sharing
        self._settling = Settling(home, turns, self._telling)
        self._registry = Registry(
            home, self._settling, self._sharing, rates=rates or {}, max_quotas=max_quotas
        )
        self._lines = self._registry.lines

    def __repr__(self) -> str:
        if not hasattr(self, "_registry"):
            return "<Limiter that was not made>"
        return f"<Limiter {len(self._registry.lines)} quotas, {self._turns.waiting} waiting>"

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
        home = self._home
        if get_ident() != home.thread or current_task(home.open_in) is None:
            home.bind()
        if type(priority) is not Priority:
            priority = checks.member("priority", priority, Priority)
        if cost is not ONE:
            cost = as_cost(cost)
        if type(dialect) is not Dialect or type(room) not in _ROOM_OR_NONE or ticket is not None:
            _check(dialect, room, ticket)
        permit = self.at_once(key, cost, priority, dialect, room, HeldPermit)
        if permit is not None:
            return permit
        line, turns = self._lines.get(key), self._turns  # type: ignore[arg-type] # as above
        if line is None:
            line = self._first(key)
        waiter = turns.join(line, cost, priority, max_wait, dialect, ticket, room, owner)
        timer = None if max_wait is None else turns.expire_after(line, waiter, max_wait)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            turns.cancelled(line, waiter)
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
        home = self._home
        if get_ident() != home.thread or current_task(home.open_in) is None:
            home.bind()
        if type(priority) is not Priority:
            priority = checks.member("priority", priority, Priority)
        if cost is not ONE:
            cost = as_cost(cost)
        if type(dialect) is not Dialect or type(room) not in _ROOM_OR_NONE:
            _check(dialect, room)
        return self.at_once(key, cost, priority, dialect, room, HeldPermit)

    def at_once(
        self,
        key: QuotaKey | str,
        cost: int,
        priority: Priority,
        dialect: Dialect,
        room: Room | None,
        kind: type[Permit] = Permit,
    ) -> Permit | None:
        """Do what `try_acquire` does: with options that were looked at, in the right loop."""
        line = self._lines.get(key)  # type: ignore[arg-type] # the name of a route is not found
        if line is None:
            line = self._first(key)
        if not line.waiting and cost is ONE:
            time = self._home.now
            permit: Permit | None
            permit = line.bucket.take_foreseen(time(), room, kind)  # type: ignore[assignment]
            if permit is not None:
                self._turns.granted += 1
                # As `handed_out` has it.
                permit._line = line  # noqa: SLF001
                permit._dialect = dialect  # noqa: SLF001
                permit.waited = 0.0
                return permit
        return self._turns.at_once(line, cost, priority, dialect, room)

    def _first(self, key: QuotaKey | str) -> Line:
        """Return the line of a key that is asked for first, or since the limiter was closed."""
        self._home.bind()
        return self._registry.line(as_key(key))

    @property
    def home(self) -> Home:
        """The loop that it belongs to, and the clock by which permits are timed."""
        return self._home

    def timed_out(self, key: QuotaKey | str, allowed: float) -> QuotaTimeoutError:
        """Return the error of a caller whom a timer from outside took from the queue."""
        return self._turns.patience.in_vain(self._registry.line(as_key(key)), allowed)

    def adopt(self, api: str, rates: Mapping[str, LocalLimit | Sequence[LocalLimit]]) -> None:
        """Hold the limits that an API does not announce, written as ``rates``, from now on.

        ``api`` is what the keys of its quotas have as theirs. Sessions do this for their `Api`;
        what several of them know of one API is held together.
        """
        self._registry.adopt(api, rates)

    def digest(self, material: str) -> str:
        """Return a keyed digest of what names a credential, valid in this process only.

        Where a ledger shares quotas the material is remembered: its records are named by digests
        under a key that all processes have.
        """
        return self._registry.digest(material)

    def ticket(self) -> int:
        """Return a place in the order of arrival."""
        return self.tickets.next()

    def quota(self, key: QuotaKey | str) -> Quota:
        """Return what is believed of a quota now; all None where nothing is known."""
        line = self._registry.lines.get(as_key(key))
        return Quota(str(key)) if line is None else describe(line, self._home)

    def quotas(self) -> dict[QuotaKey, Quota]:
        """Return what is believed of every quota that is remembered.

        Takes 10 ms and more for each thousand of them: ask for a single `quota` where you can.
        """
        return {key: describe(line, self._home) for key, line in self._registry.lines.items()}

    def stats(self) -> Stats:
        """Return counts over all quotas; quick, however many there are."""
        return Stats(
            granted=self._turns.granted,
            waited=self._turns.waited,
            refused=self._settling.refused,
            lost=self._settling.lost_calls,
            waiting=self._turns.waiting,
            in_flight=self._turns.granted - self._turns.ended,
            quotas=len(self._registry.lines),
        )

    def prime(self, key: QuotaKey | str, readings: Iterable[WindowReading]) -> None:
        """Take second-hand numbers, as ``rate_limit_status`` tells them.

        They may be stale: they lower what is believed, never raise it, and replace no probe.
        """
        readings = checks.instances("readings", readings, WindowReading, "WindowReadings")
        self._registry.line(as_key(key)).bucket.prime(readings)

    def restore(self, key: QuotaKey | str, readings: Iterable[WindowReading]) -> None:
        """Start from the state of an earlier run; what has reset since counts as unknown."""
        readings = checks.instances("readings", readings, WindowReading, "WindowReadings")
        line = self._first(key)
        if not line.clock.is_known:
            line.clock.assume(self._home.wall() - self._home.now())
        line.bucket.restore(self._home.now(), readings)

    def server_time(self, api: str) -> float:
        """Return the best guess of what that API's clock shows, in POSIX seconds."""
        self._home.bind()
        clock = self._registry.clock_of(api)
        if clock is None or not clock.is_known:
            return self._home.wall()
        return clock.epoch(self._home.now())

    def listen(self, handler: events.Handler) -> None:
        """Call ``handler`` with every event from now on."""
        checks.listener("handler", handler)
        self._telling.handlers.append(handler)

    def unlisten(self, handler: events.Handler) -> None:
        """Undo one `listen` with this handler, if it listens."""
        if handler in self._telling.handlers:
            self._telling.handlers.remove(handler)

    def tell(self, event: events.Event) -> None:
        """Hand an event to the handlers; what they raise is logged and goes no further."""
        self._telling.tell(event)

    @property
    def is_heard(self) -> bool:
        """Whether anyone listens, so that events are worth making."""
        return bool(self._telling.handlers)

    async def close(self, owner: object = None) -> None:
        """Wake all waiters, or those of one owner, with `SessionClosedError`.

        Done in slices, so that the loop is never held for long; cancelling this leaves nobody
        waiting. Without ``owner`` the limiter accepts nobody from then on.
        """
        if owner is None:
            self._home.close()
            self._lines = {}  # whoever comes is looked at
        closed = asyncio.get_running_loop().create_future()
        _close_slice(self._turns.closing(list(self._registry.lines.values()), owner), closed)
        try:
            await closed
        finally:
            if owner is None and self._sharing is not None:
                await self._sharing.close()


def _close_slice(steps: Iterator[None], closed: asyncio.Future[None]) -> None:
    if sum(1 for _ in islice(steps, Home.SLICE)) == Home.SLICE:
        closed.get_loop().call_soon(_close_slice, steps, closed)
    elif not closed.done():
        closed.set_result(None)


def _check(dialect: Dialect, room: Room | None, ticket: int | None = None) -> None:
    """Refuse what is no such thing, nor of a kind of it."""
    checks.instance("dialect", dialect, Dialect, "a Dialect, such as DIALECTS['github']")
    checks.instance("room", room, _ROOM_OR_NONE, "a Room")
    if ticket is not None:
        checks.whole("ticket", ticket)
