"""A ledger in a file, for the processes of one host and for a script that is started again."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from aiotwhelp.errors import LedgerError
from aiotwhelp.ledger.database import Database, Host
from aiotwhelp.ledger.port import Lease, Report
from aiotwhelp.ledger.rule import Client, Record, exchange, lifetime

#: A file that another process writes to is waited for so many seconds: less than the limiter's
#: bound for an exchange, so that it learns the reason.
_PATIENCE = 0.2

#: After so many exchanges of this process, records that nobody needs are deleted.
_SWEEP = 512

#: So many at once: nobody is to be held off for long.
_SWEPT = 1000


def _format() -> str:
    """Return a mark of what records look like: other versions of aiotwhelp keep their own."""
    shape = repr([[each.name for each in fields(kind)] for kind in (Record, Client)])
    return hashlib.blake2b(shape.encode(), digest_size=4).hexdigest()


_FORMAT = _format()


class SQLiteLedger:
    """Shares quotas between the processes of one host, in a file that outlives them.

    The file, and the directory it is in, are made when they are missing; only their owner may
    read them. Use a local disk: SQLite's log is in memory that hosts do not share. A thread of
    its own does the work; one ledger serves any number of limiters, on any loops. It can be handed
    to other processes, forked or spawned: each opens the file for itself.

    What goes wrong is an `aiotwhelp.LedgerError` that says what to do. A file of something else is
    never written to. A file that is deleted while it is in use is made anew.

    ValueError for a path that is empty or ``:memory:``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._database = Database(path, patience=_PATIENCE)
        self._secret: bytes | None = None
        self._exchanges = 0

    def __repr__(self) -> str:
        return f"<SQLiteLedger {self._database.path}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._database.path,)

    async def exchange(self, reports: Sequence[Report]) -> Sequence[Lease]:
        """Take reports in, in one transaction, and answer each.

        Cancelling is safe: the transaction is not begun, or is finished on its thread.
        """
        return await self._database.run(partial(self._exchange, reports))

    async def secret(self) -> bytes:
        """Return the key of the digests, which the file has had from its beginning."""
        secret = self._secret = await self._database.run(lambda _, host: host.secret)
        return secret

    async def close(self) -> None:
        """Close the file and end the thread; safe to cancel. The ledger is of no use then."""
        await self._database.close()

    def _exchange(
        self, reports: Sequence[Report], connection: sqlite3.Connection, host: Host
    ) -> list[Lease]:
        if self._secret is not None and host.secret != self._secret:
            self._secret = None
            raise LedgerError(
                "another file has taken the ledger's place: names are to be made anew"
            )
        self._exchanges += 1
        if self._exchanges % _SWEEP == 0:
            _sweep(connection, host.now)
        return [_answer(connection, report, host.now) for report in reports]


def _answer(connection: sqlite3.Connection, report: Report, now: int) -> Lease:
    name = f"{_FORMAT}/{report.record}"
    row = connection.execute("SELECT ends, state FROM records WHERE name = ?", (name,)).fetchone()
    record = Record() if row is None or now >= row[0] else _loaded(row[1])
    lease = exchange(record, report, now)
    connection.execute(
        "INSERT INTO records VALUES (?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET ends = excluded.ends, state = excluded.state",
        (name, now + lifetime(record, now), record.dumps()),
    )
    return lease


def _loaded(state: str) -> Record:
    try:
        return Record.loads(state)
    except ValueError as error:
        raise sqlite3.DatabaseError("a record cannot be read: move the file away") from error


def _sweep(connection: sqlite3.Connection, now: int) -> None:
    connection.execute(
        "DELETE FROM records WHERE name IN (SELECT name FROM records WHERE ends <= ? LIMIT ?)",
        (now, _SWEPT),
    )
