"""Callers wait their turn: tickets per bucket and priority, granted in order.

Whether someone may go is decided by `aiotwhelp.quota` alone. Everything here is one synchronous
step, so no lock is needed: whoever settles a call grants what it set free, and the granted permit
is assigned before its caller wakes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from aiotwhelp.alarm import Alarm
from aiotwhelp.errors import CostError, LedgerError, SessionClosedError, TooManyWaitersError
from aiotwhelp.headers import Dialect
from aiotwhelp.home import Home
from aiotwhelp.local import RateWindow, Room
from aiotwhelp.patience import Patience, kept
from aiotwhelp.permits import Permit, handed_out
from aiotwhelp.queues import Gate, Line, Priority, Waiter
from aiotwhelp.quota import ONE, Bucket, Granted, NotUntil
from aiotwhelp.sharing import Sharing, shares_of
from aiotwhelp.telling import WORTH_A_WARNING, Telling, how_many_wait
from aiotwhelp.windows import INF, NeverFitsError, Numbering, cost_in


class Turns:
    """The callers of one limiter, in the order in which they go."""

    def __init__(
        self,
        home: Home,
        telling: Telling,
        *,
        reserve: float,
        even: bool,
        max_waiters: int | None,
    ) -> None:
        self._home = home
        self._telling = telling
        self._reserve = reserve
        self._even = even
        self._max_waiters = max_waiters
        #: Numbers those who come.
        self.tickets = Numbering()
        self.alarm = Alarm(home, self._ring)
        self.patience = Patience(home, reserve, self.fail, self._pump_next)
        #: Where there is a ledger: each wakes the other.
        self.sharing: Sharing | None = None
        #: How many wait, were granted, have been settled, and the seconds that they waited in all.
        self.waiting = 0
        self.granted = 0
        self.ended = 0
        self.waited = 0.0

    def at_once(
        self,
        line: Line,
        cost: int,
        priority: Priority,
        dialect: Dialect,
        room: Room | None,
    ) -> Permit | None:
        """Grant without waiting, if nobody waits; raises `CostError` for what never fits."""
        if (asked := line.asked) is not None and not asked.future.done():
            return None  # who was first is there
        now = self._home.now()
        if line.head() is not None or line.pumping or self._others_wait(line, priority, cost):
            return None
        try:
            answer = line.bucket.ask(
                now, cost, reserve=kept(self._reserve, priority), even=self._even, room=room
            )
        except NeverFitsError as error:
            raise _cost_error(line, error) from None
        if isinstance(answer, NotUntil):
            if self.sharing is not None:
                self._ask_ledger(self.sharing, line)
            return None
        if not self._even:
            line.bucket.foresee(now, self._reserve)
        self.granted += 1
        return handed_out(line, answer, dialect, 0.0)

    def join(
        self,
        line: Line,
        cost: int,
        priority: Priority,
        max_wait: float | None,
        dialect: Dialect,
        ticket: int | None,
        room: Room | None,
        owner: object,
    ) -> Waiter:
        """Have a caller wait its turn."""
        asked = line.asked
        if ticket is None:
            ticket = self.tickets.next()
            may_be_first = asked is None or priority < asked.priority
        else:  # who comes back was here before the others
            may_be_first = True
        if (
            self._max_waiters is not None
            and line.waiting >= self._max_waiters
            and ticket == self.tickets.last
        ):
            raise TooManyWaitersError(
                f"{how_many_wait(line.waiting)} for {line.key} already, and no more may "
                f"(max_waiters={self._max_waiters})"
            )
        now = self._home.now()
        deadline = INF if max_wait is None else now + max_wait
        future: asyncio.Future[Permit] = self._home.loop.create_future()
        waiter = Waiter(future, ticket, priority, cost, now, deadline, dialect, room, owner)
        line.add(waiter)
        self.waiting += 1
        if max_wait is not None:
            line.deadlines += 1
            self.patience.give_up_early(line, waiter, now)
        if may_be_first and line.head() is waiter:
            self._pump(line)
        if now + WORTH_A_WARNING < line.timer < INF and line.timer != line.warned:
            self._home.soon(self._telling.announce, line)
        return waiter

    def expire_after(self, line: Line, waiter: Waiter, max_wait: float) -> asyncio.TimerHandle:
        """Fail a caller in so many seconds, unless the timer is cancelled before."""
        return waiter.future.get_loop().call_later(max_wait, self._expire, line, waiter)

    def cancelled(self, line: Line, waiter: Waiter) -> None:
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
            self.fail(line, waiter, self.patience.in_vain(line, waiter.patience))
            self._pump_next(line)

    def fail(self, line: Line, waiter: Waiter, error: Exception) -> None:
        """Take a caller out who waits in vain."""
        if not waiter.future.done():
            waiter.future.set_exception(error)
            self._bury(line, waiter)

    def closing(self, lines: Iterable[Line], owner: object) -> Iterator[None]:
        """Fail those who wait, in small steps."""
        for line in lines:
            everyone = line.everyone()
            while everyone:
                waiter = everyone.popleft()
                if owner is None or waiter.owner is owner:
                    self.fail(line, waiter, SessionClosedError("closed while waiting for quota"))
                yield
            self._pump(line)
            yield
        if owner is None:
            self.alarm.disarm()
            self.patience.close()

    def settled(self, line: Line, room: Room | None, *, gave_back: bool = False) -> None:
        """Grant whatever a settled call has set free; ``gave_back`` if it may have cost less."""
        self.ended += 1
        if self.sharing is not None and self.sharing.health.news:
            self.sharing.settle_all()
        if not self.waiting:
            return
        plain = line.bucket.plain
        if plain is not None and (room is None or not room.blocked):
            # No other line stands before what it has given back.
            if line.waiting and (plain.frees or line.parked is None):
                if not line.pumping:
                    self._pump(line)
                self._telling.announce_soon(line)
            return
        gates = line.bucket.gates
        rate = self._waits_for(line) if line.bucket.local and not gave_back else None
        waiter = line.head()
        if waiter is not None and line.parked is None and gates:
            # It waited for its own calls; now it stands in the order of tickets with the others.
            line.park(gates[0], waiter)
        for gate in gates if room is None else (*gates, room):
            if gate is not rate:
                self.wake(gate)
        if rate is None and not line.pumping:
            self._pump(line)
        self._telling.announce_soon(line)

    def _waits_for(self, line: Line) -> RateWindow | None:
        """Return the rate of its own that a line waits for, until an instant that is to come.

        No answer makes that come sooner, and nobody else stands there. One may tell those with a
        deadline that they wait in vain.
        """
        gate = None if line.parked is None else line.parked.gate
        # Of one that other processes share, a ledger may have news.
        if type(gate) is not RateWindow or len(gate.buckets) > 1 or line.deadlines:
            return None
        return gate if self._home.now() < line.timer < INF else None

    def wake(self, gate: Gate) -> None:
        """Grant to the lines that wait for a gate, in ticket order, until it blocks again.

        After a slice of them the loop takes a breath.
        """
        for _ in range(self._home.SLICE):
            first = gate.blocked.first
            if first is None:
                return
            line = first.line
            if len(gate.blocked) == 1:
                self._pump(line)  # nobody else's turn may come before its own callers'
                self._telling.announce_soon(line)
                return
            line.unpark()
            if not self._grant_head(line):
                self._telling.announce_soon(line)
                parked = line.parked
                # If who was first is gone, its next caller may stand behind another line's.
                if parked is not None and parked.gate is gate and parked.is_first:
                    self.patience.tell_others(gate, line)
                    return
            elif (waiter := line.head()) is None:
                self._unpark(line)
            elif waiter.takes_of(gate):
                # Its next caller may have to let another line's go first.
                line.park(gate, waiter)
            elif not line.pumping:
                line.pumping = True
                self._home.soon(self._pump, line)
        self._home.soon(self.wake, gate)

    # Granting ----------------------------------------------------------------------------------

    def _pump(self, line: Line) -> None:
        """Grant to the callers of one line, in order, until something blocks."""
        line.pumping = False
        parked = line.parked
        gate = parked.gate if parked is not None and parked.is_first else None
        for _ in range(self._home.SLICE):
            if not self._grant_head(line):
                break
        else:
            line.pumping = True
            self._home.soon(self._pump, line)
        if gate is not None and gate.blocked.first is not line.parked:
            # It was this line's timer that the others behind the gate relied on.
            self.wake(gate)

    def _grant_head(self, line: Line) -> bool:
        """Grant to the first of a line, or park the line where it is blocked."""
        line.asked = None
        waiter = None if self._home.is_closed else line.head()
        if waiter is None:
            self._unpark(line)
            return False
        now = self._home.now()
        try:
            answer = self._grant_next(line, waiter, now)
        except NeverFitsError as error:
            self.fail(line, waiter, _cost_error(line, error))
            return True
        except LedgerError as error:
            self.fail(line, waiter, error)
            return True
        if isinstance(answer, NotUntil):
            line.asked = waiter
            self._park(line, waiter, answer, now)
            return False
        line.pop(waiter)
        self.waiting -= 1
        waited = now - waiter.since
        self.waited += waited
        self.granted += 1
        waiter.future.set_result(handed_out(line, answer, waiter.dialect, waited))
        if self._telling.handlers:
            self._telling.waited(line, waited)
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
            reserve=kept(self._reserve, waiter.priority),
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
        self.alarm.clear(line)

    def _park(self, line: Line, waiter: Waiter, answer: NotUntil, now: float) -> None:
        """Remember what a line waits for: a window's next settled call, an instant, or both."""
        if isinstance(answer.by, Bucket):
            line.unpark()
        else:
            line.park(answer.by, waiter)
        if self.sharing is not None:
            self._ask_ledger(self.sharing, line)
        if answer.at != line.timer:
            self.alarm.set(line, answer.at, waiter.ticket, now)
        if answer.at < INF:
            self.patience.look_again(line, answer)

    def _ask_ledger(self, sharing: Sharing, line: Line) -> None:
        """Have the ledger asked for what the rule has found missing."""
        sharing.ask_all()
        if sharing.health.is_away:
            for share in shares_of(line.bucket):
                if share.is_away:
                    sharing.waits_alone(share.gate)

    def _ring(self, line: Line) -> None:
        """Ask again for a line whose instant has come."""
        if not line.pumping:
            self._pump(line)
        self._telling.announce_soon(line)

    def _pump_next(self, line: Line) -> None:
        """Ask for the next caller if the one that the rule was asked for is gone."""
        if line.asked is not None and line.asked.future.done():
            self._pump(line)

    def _bury(self, line: Line, waiter: Waiter) -> None:
        line.queues[waiter.priority].bury(waiter)
        line.removed += waiter.cost
        line.waiting -= 1
        self.waiting -= 1


def _cost_error(line: Line, error: NeverFitsError) -> CostError:
    return CostError(f"{line.key} was not sent: {error}", key=str(line.key))
