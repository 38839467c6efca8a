"""What a process and a ledger say to each other: a report, and a lease.

All lengths of time are whole milliseconds. Clocks of two hosts do not compare, so no instant
crosses the port: a reset goes in as the time until it, and comes out so. Reports, notes and leases
are tuples, which JSON takes as they are: to put one together field by field is slow work for a
process that has just woken.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple, Protocol

#: What a process holds without news of it for so long becomes calls without an answer.
LEASE = 2000

#: The last of all processes notices within so long that a ledger is back.
BACK = 2500


class Counts(enum.StrEnum):
    """What a record keeps count of."""

    #: A window that the server announces.
    WINDOW = "window"
    #: Calls of a quota that has shown no window yet.
    COLD = "cold"
    #: A local rate: slots of a schedule.
    RATE = "rate"
    #: Calls in flight.
    CONCURRENCY = "concurrency"
    #: A gap from call to call, learned from refusals by a limit that nobody announces.
    PACE = "pace"


class Outcome(enum.StrEnum):
    """How a call ended that a note tells of."""

    #: An answer that told what is left.
    READ = "read"
    #: An answer that told nothing of this window.
    UNREAD = "unread"
    #: The same, from a server that failed: perhaps it was not counted.
    FAILED = "failed"
    #: The same, and it was a refusal.
    REFUSED = "refused"
    #: A cache answered: it may have been counted, or not.
    CACHED = "cached"
    #: No answer will come; it may have been counted.
    LOST = "lost"
    #: It never left, since nobody was there.
    UNSENT = "unsent"


class Note(NamedTuple):
    """How one call ended, or several that say the same; told once.

    ``number`` rises from note to note of one process and record. ``known`` is the ledger's newest
    number when the call was sent, ``took`` its round trip, ``ago`` how long its answer is here.
    ``epoch`` is the reset in the server's own words, ``resets_in`` how long until it surely comes;
    ``lasts`` how long its window surely went on as the answer came, None for as long as that.
    """

    number: int
    outcome: Outcome
    cost: int = 1
    known: int = 0
    took: int = 0
    ago: int = 0
    #: The turn of which it was a probe; 0 if it was none.
    probe: int = 0
    refused: bool = False
    #: Calls of which this is said.
    times: int = 1
    remaining: int = 0
    limit: int | None = None
    epoch: int | None = None
    resets_in: int | None = None
    lasts: int | None = None


class Report(NamedTuple):
    """What one process tells of one record, and what it asks for.

    ``held`` is absolute: tokens that were leased and not yet settled, unused ones included. With
    it and the rising ``sequence`` a lost or repeated message does no harm.
    """

    #: The record: a digest, never a name.
    record: str
    client: str
    sequence: int
    counts: Counts = Counts.WINDOW
    held: int = 0
    notes: tuple[Note, ...] = ()
    #: Tokens that are of use, and those without which none is; none to ask for nothing.
    want: int = 0
    need: int = 1
    #: Tokens to leave for more urgent callers of all processes.
    keep: int = 0
    #: Asked in vain so many times in a row: the ledger has it wait longer each time.
    vain: int = 0
    #: Probes that were leased and are not settled, one that has not gone yet included.
    probes: int = 0
    #: Whether this process is about to end, and is no longer one of those that share.
    leaves: bool = False
    #: How many shared it before the ledger was away, told once by each that is back; 0 else.
    crew: int = 0
    #: No reset further away than this is believed.
    ceiling: int = 960_000
    #: Let nothing go for so long: the server asked for it.
    shut: int = 0
    #: The same for every route of the identity that the record is of, and how many refusals in
    #: a row said no time.
    paused: int = 0
    pauses: int = 0
    #: Windows that an answer has shown, for processes that have seen none (`Counts.COLD`).
    shown: tuple[str, ...] = ()
    #: The limit of a local rate or concurrency; the gap of a rate in microseconds.
    limit: int = 0
    gap: int = 0
    #: Whether nobody waits any more here: it will not ask when it was told to.
    idle: bool = False
    #: How many shared it as of a lease that still holds; 0 if there is none. A new record that
    #: does not know who had that lease was emptied, and knows nothing of what the others hold.
    peers: int = 0


class Lease(NamedTuple):
    """What a ledger answers: tokens, or when to ask again."""

    granted: int = 0
    #: Ask again after so long; None if something must happen in this process first.
    wait: int | None = None
    #: The newest number: a call sent from now on knows it.
    number: int = 0
    #: The turn of probing if what is granted is a probe, else 0.
    probe: int = 0
    confirmed: bool = False
    limit: int | None = None
    #: What is left for all processes together.
    remaining: int = 0
    resets_in: int | None = None
    epoch: int | None = None
    #: Processes that share the record.
    clients: int = 1
    shown: tuple[str, ...] = ()
    #: When the first slot of a rate is.
    starts_in: int = 0
    #: The learned gap (`Counts.PACE`), 0 once there is none any more. Of a window: whether a call
    #: was refused just now although tokens were left.
    gap: int = 0
    #: Probes of all processes in a row that found out nothing.
    misses: int = 0
    #: For how long nothing of the record's identity may go, on any route, as `Report` tells it.
    paused: int = 0
    pauses: int = 0
    #: Tokens that are held without a lease, and are not there: others have them.
    void: int = 0
    #: Whether the report was older than one that came before it, and was ignored.
    stale: bool = False
    #: How long a window is, as far as is known.
    span: int = 0


class Ledger(Protocol):
    """A quota shared beyond one process.

    Whatever goes wrong is raised as an `aiotwhelp.LedgerError`; no call takes longer than the
    engine allows for, and the limiter bounds it besides.
    """

    async def exchange(self, reports: Sequence[Report]) -> Sequence[Lease]:
        """Take reports in, in one round trip, and answer each with a lease.

        Safe to cancel: whether the reports were taken or not, the next ones set it right.
        """
        ...

    async def secret(self) -> bytes:
        """Return the key of the digests that records are named by: one for all processes."""
        ...

    async def close(self) -> None:
        """Let go of connections and files."""
        ...
