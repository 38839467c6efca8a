"""A ledger within one process: for limiters that live side by side, and for tests."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Sequence

from aiotwhelp import checks
from aiotwhelp.ledger.port import Lease, Report
from aiotwhelp.ledger.rule import Record, exchange, lifetime

#: After so many exchanges, records that nobody needs are looked for.
_SWEEP = 1024


class MemoryLedger:
    """Shares quotas between the limiters of one process, such as those of several threads' loops.

    ``clock`` returns seconds. By default it is the process's, and on a loop of `aiotwhelp.testing`
    that loop's virtual time.
    """

    def __init__(self, *, clock: Callable[[], float] | None = None) -> None:
        if clock is not None:
            checks.function("clock", clock, "a function that returns seconds")
        self._clock = clock or _clock
        self._secret = secrets.token_bytes(32)
        #: Records, and when each may be forgotten.
        self._records: dict[str, tuple[Record, int]] = {}
        self._exchanges = 0
        #: Loops of several threads may share it; it is never held for longer than an exchange.
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<MemoryLedger {len(self._records)} records>"

    async def exchange(self, reports: Sequence[Report]) -> Sequence[Lease]:
        """Take reports in and answer each."""
        with self._lock:
            now = round(self._clock() * 1000)
            self._sweep(now)
            return [self._exchange(report, now) for report in reports]

    def _exchange(self, report: Report, now: int) -> Lease:
        record, ends = self._records.get(report.record, (None, 0))
        if record is None or now >= ends:
            record = Record()
        lease = exchange(record, report, now)
        self._records[report.record] = record, now + lifetime(record, now)
        return lease

    def _sweep(self, now: int) -> None:
        self._exchanges += 1
        if self._exchanges % _SWEEP == 0:
            self._records = {key: each for key, each in self._records.items() if each[1] > now}

    async def secret(self) -> bytes:
        """Return the key of the digests."""
        return self._secret

    async def close(self) -> None:
        """Nothing is held."""


def _clock() -> float:
    loop = asyncio.get_running_loop()
    # A loop that keeps its own wall clock (the testing loop) keeps its own time.
    return loop.time() if hasattr(loop, "wall_time") else time.monotonic()
