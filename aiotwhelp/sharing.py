"""A limiter's conversation with its ledger: one exchange in flight, and nobody polls.

Every caller of a loop tick shares an exchange, settled calls are reported together, and a gate
that waits knows when to ask again. No exchange takes longer than a bound; when the ledger is away
the rule goes on with a share of what was known, or fails its callers, as the user prefers.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from itertools import islice
from random import random as uniform

from aiotwhelp import events
from aiotwhelp.errors import LedgerError
from aiotwhelp.heaps import Heap
from aiotwhelp.leases import Gate, Health, LeasedConcurrency, LeasedRate, LeasedWindow, Share
from aiotwhelp.ledger.port import BACK, Lease, Ledger, Report
from aiotwhelp.quota import Bucket
from aiotwhelp.windows import INF

logger = logging.getLogger("aiotwhelp")

#: No exchange may take longer, in seconds; with it a call is held for 300 ms at most.
BOUND = 0.25

#: It is looked at so often until then; a look that comes later than so many seconds does not count,
#: up to as many times again: a process that was held up has not seen the ledger take that time.
_LOOKS = 4
_LATE = 0.03

#: Records in one exchange: a batch must not hold the engine, or this loop, for long.
_BATCH = 64

#: The ledger is tried again after so many seconds, doubling to the longest.
_FIRST_RETRY = 0.1
_LONGEST_RETRY = BACK / 1000 - 2 * BOUND

#: When it is back, windows are asked for at once, since what others may have claimed of them is
#: known; for all else processes report for so many seconds first, until the last has noticed.
_GRACE = BACK / 1000

#: Callers of a gate that are counted for what is asked: more never make a difference.
_MOST_LINES = 64

#: So much of what callers wait for and have used is asked for. The ledger divides what there is in
#: any case: who asks for just enough comes back all the time, before it is the next one's turn.
_AMPLE = 2

#: Reports are at least so many seconds apart, unless somebody asks.
_LEAST_PAUSE = 0.02

#: A timer below this would spin.
_SHORTEST_TIMER = 0.001


class Sharing:
    """What one limiter has with its ledger."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        owns: bool,
        fails: bool,
        now: Callable[[], float],
        wake: Callable[[Gate], object],
        miss: Callable[[Gate], object],
        tell: Callable[[events.Event], None],
        random: Callable[[], float] = uniform,
    ) -> None:
        self.health = Health()
        self._ledger = ledger
        self._owns = owns
        self._fails = fails
        self._now = now
        self._wake = wake
        self._miss = miss
        self._tell = tell
        self._random = random
        #: What the ledger knows this process by, from the first report on: a limiter that is made
        #: before a fork is one in each process.
        self._client = ""
        self._secret: bytes | None = None
        self._records: dict[tuple[str, ...], str] = {}
        #: Shares that ask or have to report now; a dict keeps their order.
        self._pending: dict[Share, None] = {}
        #: Shares by the instant at which they are to report.
        self._due: Heap[Share] = Heap()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = INF
        self._exchange: asyncio.Task[None] | None = None
        #: Looks at the exchange until it is given up, and how many that come late do not count.
        self._look: asyncio.TimerHandle | None = None
        self._looks = self._excuses = 0
        self._has_given_up = False
        #: Shares of which the ledger may hold something for us.
        self._known: set[Share] = set()
        #: Gates whose callers wait on their own while the ledger is away.
        self._alone: dict[Gate, None] = {}
        self._retry_in = _FIRST_RETRY
        self._resumption: asyncio.TimerHandle | None = None
        self._is_closed = False
        #: Closes it with the loop, if nobody does before.
        self._end: AsyncGenerator[None] | None = None

    def ask_all(self) -> None:
        """Have the ledger asked for what the rule has found missing."""
        if self.health.asking:
            asking, self.health.asking = self.health.asking, []
            for share in asking:
                if share.asks:
                    self.ask(share)

    def settle_all(self) -> None:
        """Have reported, when it is due, what has happened since the last time."""
        if self.health.news:
            news, self.health.news = self.health.news, []
            for share in news:
                self.settled(share)

    def ask(self, share: Share) -> None:
        """Have the ledger asked for tokens, together with all who ask in this tick."""
        if share.is_away:
            self._alone[share.gate] = None
        elif not share.is_out and share not in self._pending:
            self._pending[share] = None
            self._call()

    def settled(self, share: Share) -> None:
        """Have what was settled reported when it is due."""
        if share.due < INF and (share.place < 0 or share.due < share.rank):
            self._due.discard(share)
            share.rank = max(share.due, self._now() + _LEAST_PAUSE)
            self._due.add(share)
            self._arm()

    def waits_alone(self, gate: Gate) -> None:
        """Have callers that wait without the ledger look again when it is back."""
        self._alone[gate] = None

    async def close(self) -> None:
        """Give back what is unused, and close the ledger if it was made here.

        Bounded, and safe to cancel.
        """
        try:
            await self._leave()
        finally:
            if self._owns:
                await self._ledger.close()

    async def _until_the_loop_ends(self) -> AsyncGenerator[None]:
        """Close it with the loop, whose end nobody but a generator is told of."""
        try:
            yield
        finally:
            if not self._is_closed:
                await self.close()

    async def _leave(self) -> None:
        self._is_closed = True
        self._disarm()
        if self._exchange is not None:
            self._exchange.cancel()
            await asyncio.wait([self._exchange])
        if not self.health.is_reachable or self._secret is None:
            return
        known = {*self._known, *self._due, *self._pending}
        last = [share for share in known if share.held or share.notes or share.shown]
        for share in last:
            share.left = share.turn = 0
        reports = [self._report(share, 0, leaves=True) for share in last]
        try:
            async with asyncio.timeout(BOUND):
                for at in range(0, len(reports), _BATCH):
                    await self._ledger.exchange(reports[at : at + _BATCH])
        except (LedgerError, TimeoutError):
            logger.debug("the ledger was not told that this process ends: its leases run out")

    # Exchanging --------------------------------------------------------------------------------

    def _call(self) -> None:
        """Have an exchange begin in the next tick: until then others may join it."""
        if self._exchange is None and not self._is_closed:
            self._exchange = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        batch = list(islice(self._pending, _BATCH))
        for share in batch:
            del self._pending[share]
            self._due.discard(share)
        try:
            sent, leases = await self._ask(batch)
        except LedgerError as error:
            self._exchange = None
            self._lost(batch, error)
        except asyncio.CancelledError:
            for share in batch:
                share.failed()
            raise
        else:
            self._exchange = None
            self._found()
            now = self._now()
            for share, lease in zip(batch, leases, strict=True):
                share.apply(lease, sent, now, self._random())
                self._keep(share)
            self._wake_all(batch, now)
        if self._pending:
            self._call()

    def _wake_all(self, batch: list[Share], now: float) -> None:
        """Have callers use what was leased, and what none of them takes go back soon."""
        for share in batch:
            if share.missed:
                self._miss(share.gate)
            self._wake(share.gate)
            if share.turn:
                share.keep_probe(now)
        self.settle_all()

    async def _ask(self, batch: list[Share]) -> tuple[float, Sequence[Lease]]:
        self._has_given_up = False
        self._looks = self._excuses = _LOOKS
        self._look_later()
        try:
            if self._secret is None:
                await self._meet()
            reports = [self._report(share, self._demand(share)) for share in batch]
            sent = self._now()
            return sent, _one_for_each(reports, await self._ledger.exchange(reports))
        except LedgerError:
            raise
        except asyncio.CancelledError as error:
            if self._has_given_up:
                raise LedgerError(f"the ledger did not answer within {BOUND} s") from error
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                # Nobody wanted this to end: an engine's client has cancelled a part of its own.
                raise LedgerError("the ledger cancelled its own answer") from error
            raise
        except Exception as error:
            if not self.health.is_away:
                logger.exception("the ledger failed in a way of its own")
            raise LedgerError(f"the ledger failed: {type(error).__name__}") from error
        finally:
            if self._look is not None:
                self._look.cancel()

    async def _meet(self) -> None:
        """Learn by which names all processes know the records."""
        if self._end is None:
            self._end = self._until_the_loop_ends()
            await anext(self._end)
        self._secret = await self._ledger.secret()

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        at = loop.time() + BOUND / _LOOKS
        self._look = loop.call_at(at, self._look_at_exchange, at)

    def _look_at_exchange(self, due: float) -> None:
        """Cancel an exchange that takes too long: what a time-out of asyncio's does, in steps."""
        if self._excuses and asyncio.get_running_loop().time() > due + _LATE:
            self._excuses -= 1
        else:
            self._looks -= 1
        if self._looks:
            self._look_later()
        elif self._exchange is not None:
            self._has_given_up = self._exchange.cancel()

    def _report(self, share: Share, want: int, *, leaves: bool = False) -> Report:
        self._known.add(share)
        want = 0 if share.is_away else want
        self._client = self._client or secrets.token_hex(8)
        record, client = self._record(share.name), f"{self._client}.{share.serial:x}"
        leaves = leaves or share.leaves
        return share.report(client, record, self._now(), want, ample=_AMPLE, leaves=leaves)

    def _record(self, name: tuple[str, ...]) -> str:
        """Return what names a record: digests of the API and app, and of all of it."""
        record = self._records.get(name)
        if record is None:
            if len(self._records) >= 4096:
                self._records.clear()
            record = f"{self._digest(name[:2])}/{self._digest(name)}"
            self._records[name] = record
        return record

    def _digest(self, name: tuple[str, ...]) -> str:
        key = self._secret or b""
        return hashlib.blake2b(json.dumps(name).encode(), key=key[:64], digest_size=16).hexdigest()

    def _demand(self, share: Share) -> int:
        waiting = sum(len(parked.line) for parked in islice(share.gate.blocked, _MOST_LINES))
        return waiting * share.need + max(share.use, share.taken) if waiting else 0

    def _keep(self, share: Share) -> None:
        if not share.held and not share.notes and not share.turn:
            self._known.discard(share)
        self.settled(share)
        self._arm()

    # Away and back -----------------------------------------------------------------------------

    def _lost(self, batch: list[Share], error: LedgerError) -> None:
        # Whoever emptied it may have begun anew, with other names for the records.
        self._secret = None
        self._records.clear()
        for share in batch:
            share.failed()
            share.due = -INF
        if self.health.is_reachable:
            self.health.is_reachable = False
            self.health.outages += 1
        if self._resumption is not None:
            self._resumption.cancel()
            self._resumption = None
        waiting = [*batch, *self._pending]
        self._pending.clear()
        self._known.update(waiting)  # all of them have something to report when it is back
        if not self.health.is_away:
            self.health.is_away = True
            self.health.failure = error if self._fails else None
            how = "calls that need it fail" if self._fails else "a share of what it knew is used"
            logger.warning("the ledger is away (%s): until it is back, %s", error, how)
            self._tell(events.LedgerAway("", "", str(error)))
        loop = asyncio.get_running_loop()
        if not self._is_closed:
            loop.call_later(self._retry_in, self._retry, batch)
        self._retry_in = min(_LONGEST_RETRY, 2 * self._retry_in)
        for share in waiting:
            self._alone[share.gate] = None
            self._wake(share.gate)

    def _retry(self, batch: list[Share]) -> None:
        self._pending.update(dict.fromkeys(batch))
        self._call()

    def _found(self) -> None:
        if self.health.is_reachable:
            return
        self.health.is_reachable = True
        self._retry_in = _FIRST_RETRY
        for share in self._known:
            self.settled(share)
        for gate in [gate for gate in self._alone if not gate.share.is_away]:
            del self._alone[gate]
            asyncio.get_running_loop().call_soon(self._wake, gate)
        grace = 0.0 if self._fails else _GRACE
        self._resumption = asyncio.get_running_loop().call_later(grace, self._resume)

    def _resume(self) -> None:
        """Ask the ledger again."""
        self._resumption = None
        self.health.is_away = False
        self.health.failure = None
        logger.info("the ledger is back")
        self._tell(events.LedgerBack("", ""))
        alone, self._alone = self._alone, {}
        for gate in alone:
            asyncio.get_running_loop().call_soon(self._wake, gate)

    # The timer ---------------------------------------------------------------------------------

    def _arm(self) -> None:
        first = self._due.first
        if self._is_closed or (INF if first is None else first.rank) == self._timer_at:
            return
        self._disarm()  # a process that wakes for nothing is slow at what comes next, too
        if first is None:
            return
        self._timer_at = first.rank
        delay = max(first.rank - self._now(), _SHORTEST_TIMER)
        self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def _disarm(self) -> None:
        if self._is_closed and self._resumption is not None:
            self._resumption.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, INF

    def _ring(self) -> None:
        self._disarm()
        now = self._now()
        while (share := self._due.first) is not None and share.rank <= now:
            self._due.discard(share)
            if not self.health.is_reachable:
                self._known.add(share)  # it has something to report when the ledger is back
            elif not share.is_out:
                self._pending[share] = None
        self._arm()
        if self._pending:
            self._call()


#: What a lease tells in numbers, all of them far below this.
_NUMBERS_OR_NONE = ("wait", "limit", "resets_in", "epoch")
_NUMBERS = tuple(set(Lease._fields) - set(_NUMBERS_OR_NONE) - {"confirmed", "shown", "stale"})
_MOST = 2**63


def _one_for_each(reports: Sequence[Report], leases: Sequence[Lease]) -> Sequence[Lease]:
    if len(leases) != len(reports):
        raise LedgerError(f"the ledger answered {len(leases)} of {len(reports)} reports")
    for lease in leases:
        if not isinstance(lease, Lease) or not _makes_sense(lease):
            raise LedgerError(f"the ledger answered a report with what is no lease: {lease!r:.200}")
    return leases


def _makes_sense(lease: Lease) -> bool:
    """Whether a lease can be counted with; one that cannot would leave its callers waiting."""
    numbers = [getattr(lease, name) for name in _NUMBERS]
    numbers += [each for name in _NUMBERS_OR_NONE if (each := getattr(lease, name)) is not None]
    counts = all(isinstance(each, (int, float)) and -_MOST < each < _MOST for each in numbers)
    return counts and lease.granted >= 0 and isinstance(lease.shown, tuple)


def shares_of(bucket: Bucket) -> Iterator[Share]:
    """Return what a ledger shares of a bucket."""
    if bucket.cold is not None and bucket.paced is not None:
        yield bucket.cold.share
        yield bucket.paced.share
        for gate in bucket.gates:
            if isinstance(gate, (LeasedWindow, LeasedRate, LeasedConcurrency)):
                yield gate.share
