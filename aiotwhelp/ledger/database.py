"""A SQLite file that the processes of one host share, used on a thread of its own.

A file that is not ours is never written to. Whatever goes wrong is a `LedgerError` that says what
to do.
"""

from __future__ import annotations

import asyncio
import os
import queue
import secrets
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from aiotwhelp import checks
from aiotwhelp.errors import LedgerError
from aiotwhelp.ledger.hosts import Anchor, Clocks

P = ParamSpec("P")
T = TypeVar("T")

#: In the header of each of our files: "atwh".
APPLICATION = 0x61747768

#: Of the tables below. A file of a later version is left alone.
VERSION = 1

_TABLES = """
CREATE TABLE host (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
    secret BLOB NOT NULL,
    boot TEXT NOT NULL,
    uptime INTEGER NOT NULL,
    wall INTEGER NOT NULL,
    at INTEGER NOT NULL
);
CREATE TABLE records (
    name TEXT PRIMARY KEY,
    ends INTEGER NOT NULL,
    state TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE tokens (
    name TEXT PRIMARY KEY,
    sealed BLOB,
    saved_by INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    holder TEXT,
    held_until INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""

#: The log of changes is cut to so many bytes when its content has moved into the file.
_LONGEST_LOG = 4 * 1024 * 1024

#: Seconds between two tries of what SQLite does not wait for.
_BREATH = 0.005

#: Closing waits for the thread so many seconds; a disk that hangs is left to itself.
_CLOSING = 1.0


class Host:
    """What a transaction knows of the file's own secret and clock."""

    def __init__(self, connection: sqlite3.Connection, clocks: Clocks) -> None:
        row = connection.execute("SELECT secret, boot, uptime, wall, at FROM host").fetchone()
        if row is None:
            raise sqlite3.DatabaseError("a ledger without its first row")
        self.secret = bytes(row[0])
        anchor = Anchor(Clocks(*row[1:4]), row[4])
        #: Milliseconds of the clock that all processes share.
        self.now = anchor.now(clocks)
        if anchor.is_old(clocks):
            connection.execute(
                "UPDATE host SET boot = ?, uptime = ?, wall = ?, at = ?", (*clocks, self.now)
            )


#: What is done in a transaction.
Work = Callable[[sqlite3.Connection, Host], T]


class Database:
    """A file of ours, made when it is first used. It can be pickled; a child process reopens it.

    ``patience`` is for how many seconds to wait while another process writes. A file that is
    deleted meanwhile is made anew, with the same secret.
    """

    def __init__(self, path: str | os.PathLike[str], *, patience: float) -> None:
        meaning = "a path to a file, as a str or a Path"
        name = os.fspath(checks.instance("path", path, (str, os.PathLike), meaning))
        checks.instance("path", name, str, meaning)
        if not name or name.startswith(":memory:"):
            raise ValueError("give a path to a file: within one process use a MemoryLedger")
        if "\0" in name:
            raise ValueError("a path has no NUL character")
        self.path = Path(name).expanduser().absolute()
        self.patience = patience
        self.clocks: Callable[[], Clocks] = Clocks.read
        self._is_closed = False
        self._begin()
        _databases.add(self)

    def _begin(self) -> None:
        self.file = _File(self.path, self.patience)
        self._worker = _Worker(self.file.close)
        self._finalizer = weakref.finalize(self, self._worker.stop)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.path, self.patience)

    async def run(self, work: Work[T]) -> T:
        """Do something in one transaction, off the event loop.

        Cancelling is safe: work that has not begun is not done, work that has is finished.
        """
        if self._is_closed:
            raise LedgerError(f"{self.path} was closed here")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self.file.transact, work, self.clocks)

    def leave_to_parent(self) -> None:
        """Open the file anew: this process is a child of the one that has it open."""
        _inherited.append(self.file)
        self._finalizer.detach()
        self._begin()

    async def close(self) -> None:
        """Close the file and end the thread; bounded, and safe to cancel."""
        self._is_closed = True
        if not self._finalizer.detach():
            return
        try:
            if self._worker.is_begun:
                loop = asyncio.get_running_loop()
                closed = loop.run_in_executor(self._worker, self.file.close)
                await asyncio.wait([closed], timeout=_CLOSING)
        finally:
            self._worker.stop()
        if self.file.connection is None:
            self._worker.join()


_databases: weakref.WeakSet[Database] = weakref.WeakSet()

#: Files that a parent process has open. Even closing one of its connections may do damage
#: (https://www.sqlite.org/howtocorrupt.html, 2.6).
_inherited: list[_File] = []


def _leave_all_to_parent() -> None:
    for database in list(_databases):
        database.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_parent)


def _rebuilt(kind: type[Database], path: Path, patience: float) -> Database:
    return kind(path, patience=patience)


class _File:
    """The connection, and what to make of its failures; for one thread at a time."""

    def __init__(self, path: Path, patience: float) -> None:
        self.path = path
        self.patience = patience
        self.connection: sqlite3.Connection | None = None
        #: The secret of a file that is made anew: the names of records hang on it.
        self.secret = secrets.token_bytes(32)
        #: Device and inode of what is open.
        self._opened: tuple[int, int] | None = None

    def transact(self, work: Work[T], clocks: Callable[[], Clocks]) -> T:
        """Do something in one transaction, on the file that is at the path now."""
        try:
            connection = self._connected(clocks)
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                host = Host(connection, clocks())
                self.secret = host.secret
                return work(connection, host)
        except sqlite3.Error as error:
            if not _is_busy(error):
                self.close()
            raise LedgerError(self._explained(error)) from error
        except OSError as error:
            self.close()
            reason = error.strerror or type(error).__name__
            raise LedgerError(f"the ledger {self.path} cannot be opened: {reason}") from error

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self.connection, self._opened = self.connection, None, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _connected(self, clocks: Callable[[], Clocks]) -> sqlite3.Connection:
        if self.connection is not None:
            if self._identity() == self._opened:
                return self.connection
            self.close()  # it was deleted or replaced: others are at another file
        self._make()
        self._opened = self._identity()
        self.connection = self._open(clocks)
        return self.connection

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _make(self) -> None:
        """Make an empty file that only its owner may read, unless there is something."""
        try:
            mode = self.path.stat().st_mode
        except FileNotFoundError:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        else:
            if not stat.S_ISREG(mode):
                what = "a directory" if stat.S_ISDIR(mode) else "no file"
                raise LedgerError(f"the ledger {self.path} is {what}: name a file")

    def _open(self, clocks: Callable[[], Clocks]) -> sqlite3.Connection:
        # Never with open(): closing any other handle of the file drops all locks of this process
        # (https://www.sqlite.org/howtocorrupt.html, 2.2).
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw",
            uri=True,
            timeout=self.patience,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            # To make a file would wait for the disk eight times, with all who share it behind: a
            # power cut in its first seconds may cost it instead, while it holds next to nothing.
            connection.execute("PRAGMA synchronous = OFF")
            with connection:
                connection.execute("BEGIN")  # one look: another process may be filling it
                is_new = self._is_new(connection)
            if is_new:
                self._fill(connection, clocks())
            # Before this line nothing has been written to a file of somebody else's.
            self._keep_a_log(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA journal_size_limit = {_LONGEST_LOG}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _keep_a_log(self, connection: sqlite3.Connection) -> None:
        # SQLite waits for others by itself where it begins a transaction; this lock it wants in
        # the midst of one, and does not.
        given_up = time.monotonic() + self.patience
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.Error as error:
                if not _is_busy(error) or time.monotonic() > given_up:
                    raise
                time.sleep(_BREATH)
            else:
                return

    def _is_new(self, connection: sqlite3.Connection) -> bool:
        """Whether nobody has put anything there; raises LedgerError if it is not for us."""
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if application == APPLICATION:
            if version > VERSION:
                raise LedgerError(
                    f"the ledger {self.path} is of a later version of aiotwhelp: update"
                    " aiotwhelp, or name another path"
                )
            return False
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application or version or tables:
            raise LedgerError(
                f"{self.path} is the database of another application, which was left as it is:"
                " name another path for the ledger"
            )
        return True

    def _fill(self, connection: sqlite3.Connection, clocks: Clocks) -> None:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            if not self._is_new(connection):
                return  # another process was faster
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            row = (1, self.secret, *clocks, clocks.wall)
            connection.execute("INSERT INTO host VALUES (?, ?, ?, ?, ?, ?)", row)
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute(f"PRAGMA application_id = {APPLICATION}")

    def _explained(self, error: sqlite3.Error) -> str:
        code = _code(error)
        said = _SAID.get(code) if code is not None else None
        if said is None:
            return f"the ledger {self.path} failed: {error}"
        return said.format(path=self.path, patience=self.patience)


_DAMAGED = (
    "{path} is no ledger of aiotwhelp, or it is damaged; it was left as it is: move it away, or"
    " name another path"
)

_SAID = {
    sqlite3.SQLITE_BUSY: "the ledger {path} was locked by others for longer than {patience} s",
    sqlite3.SQLITE_FULL: "the ledger {path} cannot grow: the disk is full",
    sqlite3.SQLITE_READONLY: "the ledger {path} may only be read: processes that share it write",
    sqlite3.SQLITE_PERM: "the ledger {path} may not be opened by this user",
    sqlite3.SQLITE_CANTOPEN: "the ledger {path} cannot be opened: is its directory writable?",
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
}


def _code(error: sqlite3.Error) -> int | None:
    """Return the primary code of a failure; None if the module itself raised it."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _is_busy(error: sqlite3.Error) -> bool:
    return _code(error) == sqlite3.SQLITE_BUSY


class _Worker(Executor):
    """One thread, begun with the first job. It never keeps the interpreter from ending."""

    def __init__(self, at_end: Callable[[], object]) -> None:
        self._at_end = at_end
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_stopped = False

    @property
    def is_begun(self) -> bool:
        """Whether there is, or was, a thread."""
        return self._thread is not None

    def submit(self, work: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> Future[T]:
        """Have something done on the thread; what is cancelled before its turn is not done."""
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = work(*args, **named)
            except BaseException as error:  # noqa: BLE001 - it is whoever waits that raises it
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._is_stopped:
                raise LedgerError("the thread of this ledger has ended")
            self._jobs.put(job)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_work,
                    args=(self._jobs, self._at_end),
                    name="aiotwhelp-ledger",
                    daemon=True,
                )
                self._thread.start()
        return future

    def stop(self) -> None:
        """Have the thread end after what it was given."""
        with self._lock:
            self._is_stopped = True
            self._jobs.put(None)

    def join(self) -> None:
        """Wait for a thread that has nothing more to do."""
        if self._thread is not None:
            self._thread.join()


def _work(
    jobs: queue.SimpleQueue[Callable[[], object] | None], at_end: Callable[[], object]
) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # what it was given is not kept until the next one comes
    at_end()
