"""The ledger in a file: its clock, its file, its thread, and what it says when something is wrong.

What it answers is looked at in test_ledgers.py, with that of the other ledgers.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import multiprocessing
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiotwhelp import LedgerError, Limiter, SQLiteLedger, sharing
from aiotwhelp.ledger import Lease, Report, database, from_url
from aiotwhelp.ledger.database import APPLICATION, Database
from aiotwhelp.ledger.hosts import RENEWED, Anchor, Clocks
from aiotwhelp.ledger.port import Counts, Note, Outcome
from tests import children
from tests.stack import in_virtual_time

SECONDS = 1000
HOUR = 3_600_000
FASTEST = multiprocessing.get_all_start_methods()[0]
WALL = 1_800_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "quota.db"


def standing(path: Path) -> SQLiteLedger:
    """Return one whose clock stands: by the machine's, a slow one's leases would run out."""
    ledger = SQLiteLedger(path)
    ledger._database.clocks = lambda: Clocks("boot", 5000, WALL)
    return ledger


def file_of(ledger: SQLiteLedger) -> database._File:
    return ledger._database.file


async def one(ledger: SQLiteLedger, **told: Any) -> Lease:
    """Exchange one report, numbered by the time."""
    said = {"record": "record", "client": "client", "sequence": time.monotonic_ns(), **told}
    said["ceiling"] = 24 * HOUR
    (lease,) = await ledger.exchange([Report(**said)])
    return lease


def used(path: Path, *work: Callable[[SQLiteLedger], Coroutine[Any, Any, Any]]) -> list[Any]:
    """Do some things with a ledger, one after another, and close it."""

    async def main() -> list[Any]:
        ledger = SQLiteLedger(path)
        try:
            return [await each(ledger) for each in work]
        finally:
            await ledger.close()

    return asyncio.run(main())


def refusal(path: Path) -> str:
    """Return the error of an exchange."""
    with pytest.raises(LedgerError) as caught:
        used(path, one)
    return str(caught.value)


# The clock ------------------------------------------------------------------------------------


def test_a_wall_clock_that_is_stepped_neither_frees_nor_freezes() -> None:
    anchor = Anchor(Clocks("boot", 5000, WALL), 100)
    for step in (-HOUR, 0, HOUR, 20 * 365 * 24 * HOUR):
        assert anchor.now(Clocks("boot", 5250, WALL + 250 + step)) == 350


def test_over_a_restart_of_the_machine_the_wall_clock_tells_what_has_passed() -> None:
    anchor = Anchor(Clocks("boot", 50 * HOUR, WALL), 100)
    assert anchor.now(Clocks("another", 20 * SECONDS, WALL + HOUR)) == 100 + HOUR
    # Longer up than before: only the name of the start tells.
    assert anchor.now(Clocks("another", 90 * HOUR, WALL + 91 * HOUR)) == 100 + 91 * HOUR
    # Its clock's battery is empty.
    assert anchor.now(Clocks("another", 20 * SECONDS, 0)) == 100


def test_where_starts_have_no_name_a_shorter_uptime_tells_of_one() -> None:
    anchor = Anchor(Clocks("", 50 * HOUR, WALL), 100)
    assert anchor.now(Clocks("", 20 * SECONDS, WALL + HOUR)) == 100 + HOUR


def test_an_anchor_is_renewed_after_a_while_and_after_a_restart() -> None:
    anchor = Anchor(Clocks("boot", 5000, WALL), 100)
    assert not anchor.is_old(Clocks("boot", 5000 + RENEWED - 1, WALL))
    assert anchor.is_old(Clocks("boot", 5000 + RENEWED, WALL))
    assert anchor.is_old(Clocks("another", 5000, WALL))
    assert anchor.is_old(Clocks("boot", 4000, WALL))


def test_the_clocks_of_this_host_go_on_and_name_its_start() -> None:
    first, second = Clocks.read(), Clocks.read()
    assert first.boot == second.boot
    assert 0 < first.uptime <= second.uptime
    if sys.platform == "linux":
        assert len(first.boot) == 36


async def spend(ledger: SQLiteLedger) -> None:
    """Let a window of one hour be seen, of which nothing is left."""
    await one(ledger, sequence=1, want=1)
    note = Note(1, Outcome.READ, probe=1, remaining=0, limit=15, resets_in=HOUR)
    await one(ledger, sequence=2, notes=(note,))


@pytest.mark.parametrize("step", [-10 * HOUR, 10 * HOUR])
@in_virtual_time
async def test_a_spent_window_stays_spent_when_the_wall_clock_is_stepped(
    path: Path, step: int
) -> None:
    ledger = SQLiteLedger(path)
    clocks = [Clocks("boot", 5000, WALL)]
    ledger._database.clocks = lambda: clocks[-1]
    await spend(ledger)
    for later in (10 * SECONDS, HOUR - 1):
        clocks.append(Clocks("boot", 5000 + later, WALL + later + step))
        lease = await one(ledger, want=1)
        assert (lease.granted, lease.resets_in) == (0, HOUR - later)
    clocks.append(Clocks("boot", 5000 + HOUR, WALL + HOUR + step))
    assert (await one(ledger, want=1)).probe
    await ledger.close()


@in_virtual_time
async def test_a_window_goes_on_over_a_restart_of_the_machine(path: Path) -> None:
    before = SQLiteLedger(path)
    clocks = [Clocks("boot", 90 * HOUR, WALL)]
    before._database.clocks = lambda: clocks[-1]
    await spend(before)
    await before.close()
    after = SQLiteLedger(path)
    after._database.clocks = lambda: clocks[-1]
    clocks.append(Clocks("another", 30 * SECONDS, WALL + 20 * 60 * SECONDS))
    lease = await one(after, client="new", want=1)
    assert (lease.granted, lease.resets_in) == (0, 40 * 60 * SECONDS)
    clocks.append(Clocks("another", 30 * SECONDS + 40 * 60 * SECONDS, 0))
    assert (await one(after, client="new", want=1)).probe
    await after.close()


# The file --------------------------------------------------------------------------------------


def test_the_file_and_its_directory_are_made_and_only_the_owner_may_read_them(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state" / "bot" / "quota #1?.db"
    used(path, one)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    header = path.read_bytes()[:100]
    assert int.from_bytes(header[68:72], "big") == APPLICATION
    assert int.from_bytes(header[60:64], "big") == database.VERSION
    assert header[18:20] == b"\2\2", "the file is in WAL mode"
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@in_virtual_time
async def test_the_log_beside_the_file_is_the_owners_alone_too(path: Path) -> None:
    ledger = SQLiteLedger(path)
    await one(ledger)
    modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    assert modes == dict.fromkeys(("quota.db", "quota.db-wal", "quota.db-shm"), 0o600)
    await ledger.close()


def test_a_path_is_taken_from_the_directory_it_was_named_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    named, at_home = SQLiteLedger("quota.db"), SQLiteLedger("~/quota.db")
    monkeypatch.chdir("/")
    assert repr(named) == f"<SQLiteLedger {tmp_path / 'quota.db'}>"
    assert repr(at_home) == f"<SQLiteLedger {tmp_path / 'home' / 'quota.db'}>"


@pytest.mark.parametrize("path", ["", ":memory:", "quota\0.db"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        SQLiteLedger(path)
    with pytest.raises(TypeError, match="path"):
        SQLiteLedger(path.encode())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///quota.db", "{cwd}/quota.db"),
        ("sqlite:////var/lib/my bot/100%.db", "/var/lib/my bot/100%.db"),
    ],
)
def test_a_url_names_a_file(url: str, shown: str) -> None:
    assert repr(from_url(url)) == f"<SQLiteLedger {shown.format(cwd=Path.cwd())}>"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "quota.db", "mysql://me:hidden@host"])
def test_a_url_of_nothing_is_refused_and_its_password_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match="a ledger is sqlite:///path") as caught:
        from_url(url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite://quota.db", "sqlite:quota.db", "sqlite:///"])
def test_of_slashes_that_are_missing_the_error_says_how_many(url: str) -> None:
    with pytest.raises(ValueError, match="a path follows three slashes, and four where"):
        from_url(url)


def test_state_and_secret_outlive_a_restart(path: Path) -> None:
    _, secret = used(path, spend, SQLiteLedger.secret)
    lease, again = used(path, lambda ledger: one(ledger, client="another", want=1), _secret)
    assert (lease.granted, lease.limit, lease.remaining) == (0, 15, 0)
    assert again == secret


async def _secret(ledger: SQLiteLedger) -> bytes:
    return await ledger.secret()


@pytest.mark.usefixtures("unhurried")
def test_nothing_of_a_name_or_a_secret_is_in_clear_in_a_key(path: Path) -> None:
    async def main() -> None:
        limiter = Limiter(ledger=f"sqlite:///{path}")
        permit = await limiter.acquire("user-4711")
        permit.observed({})
        await limiter.close()

    asyncio.run(main())
    assert b"4711" not in path.read_bytes()


# What is not ours, or broken -------------------------------------------------------------------


def _of_another(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE songs (name TEXT)")
        other.execute("INSERT INTO songs VALUES ('Ode')")
    other.close()


def _of_another_by_its_header(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA application_id = 4711")
    other.close()


def _garbage(path: Path) -> None:
    path.write_bytes(b"# notes\n" * 512)


def _of_a_later_version(path: Path) -> None:
    used(path, one)
    with sqlite3.connect(path) as ours:
        ours.execute(f"PRAGMA user_version = {database.VERSION + 1}")
    ours.close()


def _damaged(path: Path) -> None:
    used(path, one)
    content = bytearray(path.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_of_another, "another application"),
        (_of_another_by_its_header, "another application"),
        (_garbage, "is no ledger"),
        (_of_a_later_version, "update"),
        (_damaged, "damaged"),
    ],
)
def test_what_is_not_ours_is_left_as_it_is(
    path: Path, make: Callable[[Path], None], said: str
) -> None:
    make(path)
    before = path.read_bytes()
    for _ in range(2):
        text = refusal(path)
        assert said in text
        assert str(path) in text
        assert "path" in text.replace(str(path), ""), "it says what to do"
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM host", "DROP TABLE records", "UPDATE records SET state = '{}'"],
)
def test_a_file_of_ours_that_was_damaged_by_hand_is_an_error(path: Path, damage: str) -> None:
    used(path, one)
    with sqlite3.connect(path) as ours:
        ours.execute(damage)
    ours.close()
    before = path.read_bytes()
    assert "the ledger" in refusal(path)
    assert path.read_bytes() == before


def test_an_empty_file_is_taken(path: Path) -> None:
    path.touch()
    used(path, one)
    assert path.stat().st_size


def test_a_directory_is_named_as_such(path: Path) -> None:
    path.mkdir()
    assert "is a directory" in refusal(path)
    assert "is no file" in refusal(Path(os.devnull))


def test_a_directory_that_cannot_be_made_is_an_error_that_says_why(path: Path) -> None:
    path.write_text("a file")
    assert "cannot be opened: Not a directory" in refusal(path / "quota.db")


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A directory of a user to whom file modes matter, who is who runs the test."""
    with tempfile.TemporaryDirectory() as name:
        is_root = os.geteuid() == 0
        directory = Path(name)
        if is_root:
            os.chown(directory, 65534, -1)
            os.seteuid(65534)
        try:
            yield directory
        finally:
            directory.chmod(0o700)
            if is_root:
                os.seteuid(0)


def test_a_file_that_may_only_be_read_is_an_error_that_says_so(unprivileged: Path) -> None:
    path = unprivileged / "quota.db"
    used(path, one)
    path.chmod(0o400)
    assert "may only be read" in refusal(path)
    path.chmod(0o000)
    assert "cannot be opened" in refusal(path)
    unprivileged.chmod(0o500)
    assert "cannot be opened: Permission denied" in refusal(path.with_name("other.db"))


@in_virtual_time
async def test_a_full_disk_is_an_error_and_what_is_there_stays(path: Path) -> None:
    ledger = standing(path)
    await one(ledger, want=1)
    connection = file_of(ledger).connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LedgerError, match="disk is full"):
        await ledger.exchange([Report(f"record {n}", "client", 1, want=1) for n in range(500)])
    # The connection is made anew, and there is room now.
    assert (await one(ledger, client="another", want=1)).clients == 2
    await ledger.close()


@in_virtual_time
async def test_a_file_that_is_locked_for_long_is_an_error_within_the_bound(path: Path) -> None:
    ledger = SQLiteLedger(path)
    assert ledger._database.patience < sharing.BOUND
    await one(ledger)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="locked by others"):
        await asyncio.wait_for(one(ledger), 60)
    other.execute("ROLLBACK")
    other.close()
    await one(ledger)
    await ledger.close()


_SYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
static int sync_of(const char *name, int fd)
{
    write(2, "w", 1);
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}
int fsync(int fd) { return sync_of("fsync", fd); }
int fdatasync(int fd) { return sync_of("fdatasync", fd); }
"""


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="counts with gcc")
def test_a_slow_disk_does_not_hold_up_whoever_is_first(path: Path, tmp_path: Path) -> None:
    """Another may be kept from the file for 200 ms: the disk may take no time as it is made."""
    shim = tmp_path / "shim.so"
    command = ["gcc", "-shared", "-fPIC", "-w", "-o", shim, "-x", "c", "-", "-ldl"]
    subprocess.run(command, input=_SYNC, text=True, check=True)
    script = (
        "import asyncio, os, sys\n"
        "from aiotwhelp.ledger.database import Database\n"
        "database = Database(sys.argv[1], patience=1)\n"
        "asyncio.run(database.run(lambda *_: os.write(2, b'made')))\n"
        "database.file.connection.execute('UPDATE host SET at = at + 1')\n"
        "database.file.connection.execute('PRAGMA wal_checkpoint')\n"
    )
    environment = {**children.ENVIRONMENT, "LD_PRELOAD": str(shim)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, path],
        env=environment,
        stderr=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    before, _, after = done.stderr.partition(b"made")
    assert before == b""
    assert after, "later the disk is waited for"


@pytest.mark.parametrize("is_left", [True, False])
def test_a_file_that_another_begins_at_the_same_time_is_waited_for(
    path: Path, *, is_left: bool
) -> None:
    fresh = database._File(path, patience=60 if is_left else 0.1)
    fresh._make()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    fresh._fill(other, Clocks.read())
    other.execute("BEGIN IMMEDIATE")  # all may read still, none may change the journal
    leaving = threading.Timer(0.3, other.execute, ["COMMIT"])
    if is_left:
        leaving.start()
        assert fresh.transact(lambda _, host: host.secret, Clocks.read) == fresh.secret
        leaving.join()
    else:
        with pytest.raises(LedgerError, match="locked by others"):
            fresh.transact(lambda _, host: host.secret, Clocks.read)
    fresh.close()
    other.close()


@in_virtual_time
async def test_a_file_that_is_deleted_is_made_anew_with_the_same_secret(path: Path) -> None:
    ledger, neighbour = standing(path), standing(path)
    secret = await ledger.secret()
    await one(ledger, client="a", want=1)
    await one(neighbour, client="b", want=1)
    for each in path.parent.iterdir():
        each.unlink()
    assert (await one(ledger, client="a", want=1)).clients == 1
    assert (await one(neighbour, client="b", want=1)).clients == 2
    assert await neighbour.secret() == secret
    await ledger.close()
    await neighbour.close()


@in_virtual_time
async def test_a_file_with_another_secret_in_its_place_is_told_once(path: Path) -> None:
    ledger = SQLiteLedger(path)
    await ledger.secret()
    for each in path.parent.iterdir():
        each.unlink()
    stranger = SQLiteLedger(path)
    secret = await stranger.secret()
    with pytest.raises(LedgerError, match="another file"):
        await one(ledger)
    assert await ledger.secret() == secret
    await one(ledger)
    await ledger.close()
    await stranger.close()


@in_virtual_time
async def test_records_that_nobody_needs_are_deleted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiotwhelp.ledger import sqlite

    monkeypatch.setattr(sqlite, "_SWEEP", 2)
    ledger = SQLiteLedger(path)
    clocks = [Clocks("boot", 5000, WALL)]
    ledger._database.clocks = lambda: clocks[-1]
    await ledger.exchange([Report(f"record {n}", "client", 1) for n in range(50)])
    clocks.append(Clocks("boot", 5000 + 24 * HOUR, WALL))
    await one(ledger)
    connection = file_of(ledger).connection
    assert connection is not None
    assert connection.execute("SELECT count(*) FROM records").fetchone() == (1,)
    await ledger.close()


@in_virtual_time
async def test_a_record_past_its_time_is_not_believed(path: Path) -> None:
    ledger = SQLiteLedger(path)
    clocks = [Clocks("boot", 5000, WALL)]
    ledger._database.clocks = lambda: clocks[-1]
    await spend(ledger)
    clocks.append(Clocks("boot", 5000 + 24 * HOUR, WALL))
    assert (await one(ledger, client="new", want=1)).limit is None
    await ledger.close()


@in_virtual_time
async def test_another_versions_records_are_kept_apart(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiotwhelp.ledger import sqlite

    ledger = standing(path)
    await one(ledger, client="a", want=1)
    monkeypatch.setattr(sqlite, "_FORMAT", "another")
    assert (await one(ledger, client="b", want=1)).clients == 1
    monkeypatch.undo()
    assert (await one(ledger, client="b", want=1)).clients == 2
    await ledger.close()


# The thread ------------------------------------------------------------------------------------


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "aiotwhelp-ledger"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    if threads():
        gc.collect()
    for each in threads():
        each.join(10)
    assert not threads()


@in_virtual_time
async def test_the_thread_begins_with_the_first_use_and_ends_with_close(path: Path) -> None:
    ledger = SQLiteLedger(path)
    assert not threads()
    await one(ledger)
    assert len(threads()) == 1
    await ledger.close()
    assert not threads()
    await ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        await one(ledger)


@in_virtual_time
async def test_a_ledger_that_was_never_used_closes() -> None:
    await SQLiteLedger("/nowhere/quota.db").close()


@in_virtual_time
async def test_a_ledger_that_is_dropped_takes_its_thread_along(path: Path) -> None:
    ledger = SQLiteLedger(path)
    await one(ledger)
    (thread,) = threads()
    del ledger
    gc.collect()
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()


def test_an_open_ledger_does_not_keep_the_interpreter(path: Path) -> None:
    script = (
        "import asyncio, sys; from aiotwhelp import SQLiteLedger\n"
        "ledger = SQLiteLedger(sys.argv[1])\n"
        "print(len(asyncio.run(ledger.secret())))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, path],
        env=children.ENVIRONMENT,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"32\n", b"")


@in_virtual_time
async def test_cancelled_work_that_has_not_begun_is_not_done(path: Path) -> None:
    base = Database(path, patience=1.0)
    go, done = threading.Event(), []
    first = asyncio.ensure_future(base.run(lambda *_: go.wait(60)))
    second = asyncio.ensure_future(base.run(lambda *_: done.append("second")))
    third = asyncio.ensure_future(base.run(lambda *_: done.append("third")))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    assert not third.done()
    go.set()
    await third
    assert done == ["third"]
    assert await first
    await base.close()


@in_virtual_time
async def test_cancelled_work_that_has_begun_is_finished(path: Path) -> None:
    ledger = standing(path)
    await one(ledger, client="a")
    started, go = threading.Event(), threading.Event()

    def clocks() -> Clocks:
        started.set()
        go.wait(60)
        return Clocks("boot", 5000, WALL)

    ledger._database.clocks = clocks
    asked = asyncio.ensure_future(one(ledger, client="b", want=1))
    await asyncio.to_thread(started.wait, 60)
    asked.cancel()
    await asyncio.wait([asked])
    assert asked.cancelled()
    go.set()
    assert (await one(ledger, client="c", want=1)).clients == 3
    await ledger.close()


@in_virtual_time
async def test_work_that_fails_leaves_nothing_behind(path: Path) -> None:
    base = Database(path, patience=1.0)

    def fails(connection: sqlite3.Connection, _: Any) -> None:
        connection.execute("INSERT INTO records VALUES ('half', 0, '')")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await base.run(fails)
    rows = await base.run(lambda db, _: db.execute("SELECT count(*) FROM records").fetchone())
    assert rows == (0,)
    await base.close()


def test_one_ledger_serves_the_loops_of_several_threads(path: Path) -> None:
    ledger = standing(path)
    leases: list[Lease] = []

    def work(number: int) -> None:
        leases.append(asyncio.run(one(ledger, client=f"client {number}", want=1)))

    workers = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert sorted(lease.clients for lease in leases) == list(range(1, 9))
    asyncio.run(ledger.close())


# Processes -------------------------------------------------------------------------------------


async def shown(ledger: SQLiteLedger, record: str, *shows: str) -> tuple[str, ...]:
    """Show a record something, and return what it was shown: that does not run out in seconds."""
    return (await one(ledger, record=record, counts=Counts.COLD, shown=shows)).shown


_kept: list[SQLiteLedger] = []


def _keep(ledger: SQLiteLedger) -> None:
    _kept.append(ledger)


def _ask_kept(number: int) -> tuple[bytes, tuple[str, ...]]:
    # Not closed: the pool's process may be asked again.
    (ledger,) = _kept

    async def main() -> tuple[bytes, tuple[str, ...]]:
        await shown(ledger, f"of child {number}", "by a child")
        return await ledger.secret(), await shown(ledger, "of the parent")

    return asyncio.run(main())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_ledger_goes_to_other_processes(path: Path, method: str) -> None:
    """By fork it comes open, and must not be used as it comes."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    ledger = SQLiteLedger(path)
    asyncio.run(shown(ledger, "of the parent", "by the parent"))
    with multiprocessing.get_context(method).Pool(1, _keep, [ledger]) as pool:
        theirs = pool.map(_ask_kept, range(2), chunksize=1)
        pool.close()
        pool.join()
    assert theirs == [(asyncio.run(ledger.secret()), ("by the parent",))] * 2
    for number in range(2):
        assert asyncio.run(shown(ledger, f"of child {number}")) == ("by a child",)
    asyncio.run(ledger.close())


def test_a_pickled_ledger_is_one_of_the_same_file(path: Path) -> None:
    ledger = SQLiteLedger(path)
    assert repr(pickle.loads(pickle.dumps(ledger))) == repr(ledger)


def _begin(path: Path, number: int) -> bytes:
    async def main() -> bytes:
        ledger = SQLiteLedger(path)
        # Each that is the last to close it waits for the disk, and so do those who come then.
        file_of(ledger).patience = 60
        secret = await ledger.secret()
        await shown(ledger, f"of {number}", "something")
        await ledger.close()
        return secret

    return asyncio.run(main())


def test_a_file_that_another_process_is_filling_is_not_taken_for_anothers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, filled = sqlite3.connect, []

    class Interrupted(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if "sqlite_master" in sql and not filled:
                filled.append(True)
                with contextlib.suppress(LedgerError):
                    database._File(path, 0.05).transact(lambda *_: None, Clocks.read)
            return super().execute(sql, *parameters)

    monkeypatch.setattr(sqlite3, "connect", functools.partial(connect, factory=Interrupted))
    used(path, one)
    assert filled


def test_processes_that_begin_at_once_make_one_file(path: Path) -> None:
    with multiprocessing.get_context(FASTEST).Pool(4) as pool:
        begun = pool.starmap(_begin, [(path, number) for number in range(12)], chunksize=1)
        pool.close()
        pool.join()
    assert len(set(begun)) == 1
    for number in range(12):
        assert used(path, lambda ledger, of=f"of {number}": shown(ledger, of)) == [("something",)]
