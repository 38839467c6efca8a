"""The ledger on real engines: keys, scripts, credentials, clusters, and every way to fail.

In real time, and short; what is asserted are counts and order, and bounds that leave room for a
machine that is busy.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from cryptography.fernet import Fernet

from aiotwhelp import LedgerError, Limiter, QuotaKey, RedisStore, WrongLoopError, events, sharing
from aiotwhelp.ledger import Lease, Report, from_url
from aiotwhelp.ledger.port import Note, Outcome
from aiotwhelp.ledger.redis import RedisLedger
from tests import children, hostile
from tests.servers import engines
from tests.servers.engines import Running, cluster_of, running
from tests.servers.proxy import proxy_to
from tests.unhurried import Pulse, pulse_of_process

RECORD = "app/quota"
KEY = QuotaKey("GET /things", api="api", identity="someone", app="an app")
PASSWORD = "a-pass-word-of-ours"

#: A call may be held for 0.3 s; what is asserted, in seconds of a `Pulse`, leaves room for more.
HELD = 1.5

#: Seconds to connect in, where how long that takes is not what is tested: ours may be too few then.
PATIENCE = 30.0


@pytest.fixture(params=engines.ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running(engines.ENGINES[request.param]) as server:
        yield server


@pytest.fixture
def server() -> Iterator[Running]:
    with running(engines.REDIS) as server:
        yield server


@asynccontextmanager
async def ledger_on(
    url: str, kind: type[RedisLedger] = RedisLedger, **options: Any
) -> AsyncIterator[RedisLedger]:
    ledger = kind(url, **options)
    ledger._server._next_node = PATIENCE
    try:
        yield ledger
    finally:
        with suppress(LedgerError):
            await ledger.close()


class Standing(RedisLedger):
    """Has the engine's clock stand: by the machine's, a slow one's leases would run out."""

    def _said(self, reports: Sequence[Report]) -> tuple[int | str, ...]:
        return *super()._said(reports), 1_800_000_000_000


def ask(sequence: int = 1, record: str = RECORD, **told: Any) -> Report:
    return Report(record, "a client", sequence, **{"want": 1, **told})


def saw(limit: int, record: str = RECORD, sequence: int = 1) -> Report:
    """Tell of an answer, so that the record is known by its limit."""
    note = Note(sequence, Outcome.READ, limit=limit, remaining=1, resets_in=600_000)
    return Report(record, "another client", sequence, notes=(note,))


async def exchanged(ledger: RedisLedger, *reports: Report) -> list[Lease]:
    return list(await ledger.exchange(reports))


def client_of(server: Running) -> redis.Redis:
    return redis.Redis(port=server.port)


# Keys --------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_every_key_has_the_prefix_and_expires_and_those_of_an_app_are_together(
    engine: Running,
) -> None:
    async with ledger_on(engine.url, prefix="of ours") as ledger:
        await ledger.secret()
        await exchanged(ledger, ask(), ask(record="app/other"), ask(record="another/quota"))
    with client_of(engine) as client:
        left = {key.decode(): client.pttl(key) for key in client.scan_iter()}
    assert set(left) == {
        "of ours:secret",
        "{of ours:app}:quota",
        "{of ours:app}:other",
        "{of ours:another}:quota",
    }
    assert min(left.values()) > 60_000


@pytest.mark.asyncio
@pytest.mark.usefixtures("unhurried")
async def test_neither_key_nor_value_shows_who_it_is_of(server: Running) -> None:
    async with ledger_on(server.url) as ledger:
        limiter = Limiter(ledger=ledger)
        (await limiter.acquire(KEY)).observed(shown(14))
        await limiter.close()
    with client_of(server) as client:
        stored = b"\n".join([*client.scan_iter(), *(client.get(k) for k in client.scan_iter())])
    assert len(stored) > 300
    for name in ("someone", "an app", "things", "api"):
        assert name.encode() not in stored


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "value",
    [
        b"hello",
        b"",
        b"[]",
        b"7",
        b'{"turn": 1',
        b'{"some": "json"}',
        b'{"turn": "one"}',
        b'{"turn": 1, "floor": "x"}',
        b'{"turn": 1, "confirmed": true, "floor": [[1]]}',
        b'{"turn": 1, "clients": [["name"], 7]}',
        b'{"turn": 1, "clients": [["name", "x", 1, 0]]}',
        b'{"turn": 1, "slot": "nine"}',
        b"\xff\xfe\x00",
    ],
    ids=str,
)
async def test_what_somebody_else_has_stored_is_left_alone(server: Running, value: bytes) -> None:
    key = "{aiotwhelp:app}:quota"
    with client_of(server) as client:
        client.set(key, value)
        async with ledger_on(server.url) as ledger:
            with pytest.raises(LedgerError, match="is left alone"):
                await exchanged(ledger, ask(record="app/first"), ask())
        assert client.get(key) == value
        assert not client.exists("{aiotwhelp:app}:first")


@pytest.mark.asyncio
async def test_a_key_of_another_type_is_left_alone(engine: Running) -> None:
    with client_of(engine) as client:
        client.hset("{aiotwhelp:app}:quota", "a", "b")
        client.hset("aiotwhelp:secret", "a", "b")
        async with ledger_on(engine.url) as ledger:
            with pytest.raises(LedgerError, match="is left alone"):
                await exchanged(ledger, ask())
            with pytest.raises(LedgerError, match="is left alone"):
                await ledger.secret()
        assert client.hgetall("{aiotwhelp:app}:quota") == {b"a": b"b"}


@pytest.mark.asyncio
async def test_a_record_of_another_version_keeps_what_this_one_does_not_know(
    server: Running,
) -> None:
    key = "{aiotwhelp:app}:quota"
    with client_of(server) as client:
        client.set(key, json.dumps({"turn": 4, "future": [1, 2]}))
        async with ledger_on(server.url) as ledger:
            assert (await exchanged(ledger, ask()))[0].probe == 4
        state = json.loads(client.get(key))
    assert (state["future"], state["ceiling"]) == ([1, 2], 960_000)


# Scripts and connections -------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_flushed_script_costs_no_call(engine: Running) -> None:
    async with ledger_on(engine.url) as ledger:
        for sequence in (1, 2, 3):
            (lease,) = await exchanged(ledger, ask(sequence))
            assert not lease.stale
            assert engine.say("SCRIPT", "FLUSH") == "+OK"


@pytest.mark.asyncio
async def test_reports_of_many_apps_are_answered_in_their_order(engine: Running) -> None:
    records = [f"app {number % 5}/{number}" for number in range(20)]
    async with ledger_on(engine.url) as ledger:
        for number, record in enumerate(records):
            await exchanged(ledger, saw(number, record))
        leases = await exchanged(ledger, *(ask(record=record) for record in records))
    assert [lease.limit for lease in leases] == list(range(20))


@pytest.mark.asyncio
async def test_one_connection_is_made_when_it_is_needed_and_kept(server: Running) -> None:
    async with proxy_to(server.port) as proxy, ledger_on(f"redis://127.0.0.1:{proxy.port}") as one:
        assert proxy.connections == 0
        for sequence in range(1, 20):
            reports = [ask(sequence, f"app {number}/quota") for number in range(3)]
            await exchanged(one, *reports)
        assert proxy.connections == 1


@pytest.mark.asyncio
async def test_an_idle_connection_that_was_cut_meanwhile_fails_nobody(engine: Running) -> None:
    async with ledger_on(engine.url) as ledger:
        await exchanged(ledger, ask(1))
        ledger._server._used -= 60  # as if a minute had passed
        engine.say("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        leases = await exchanged(ledger, ask(2), *(ask(2, f"app {each}/quota") for each in "ab"))
        assert not any(lease.stale for lease in leases)


@pytest.mark.asyncio
async def test_a_connection_that_was_cut_is_an_error_once(engine: Running) -> None:
    async with ledger_on(engine.url) as ledger:
        await exchanged(ledger, ask(1))
        engine.say("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with pytest.raises(LedgerError):
            await exchanged(ledger, ask(2))
        assert not (await exchanged(ledger, ask(3)))[0].stale


@pytest.mark.asyncio
@pytest.mark.parametrize("ticks", range(0, 24, 2))
async def test_a_cancelled_exchange_never_leaves_its_answer_to_the_next(
    server: Running, ticks: int
) -> None:
    async with ledger_on(server.url) as ledger:
        for sequence in range(1, 12):
            exchange = asyncio.ensure_future(exchanged(ledger, ask(sequence, "app/cancelled")))
            for _ in range(ticks):
                await asyncio.sleep(0.00005)
            exchange.cancel()
            await asyncio.wait([exchange])
            (lease,) = await exchanged(ledger, saw(sequence, sequence=sequence))
            assert lease.limit == sequence


@pytest.mark.asyncio
async def test_a_ledger_closed_twice_can_be_used_again(server: Running) -> None:
    ledger = RedisLedger(server.url)
    await ledger.close()
    for sequence in (1, 2):
        await exchanged(ledger, ask(sequence))
        await ledger.close()
        await ledger.close()


@pytest.mark.asyncio
async def test_another_loop_needs_a_ledger_of_its_own(server: Running) -> None:
    async with ledger_on(server.url) as ledger:
        await exchanged(ledger, ask())
        with pytest.raises(WrongLoopError, match="give each its own"):
            await asyncio.to_thread(asyncio.run, exchanged(ledger, ask(2)))


UNCLOSED = """
import asyncio, sys
from email.utils import formatdate
from aiotwhelp import Limiter, QuotaKey
from tests.test_redis import shown
from tests.unhurried import wait_for_ledgers

wait_for_ledgers(setattr)

async def main():
    global limiter  # or else whoever collects it would close it
    limiter = Limiter(ledger=sys.argv[1])
    for left in range(14, 9, -1):
        told = {**shown(left), "date": formatdate(usegmt=True)}
        (await limiter.acquire(QuotaKey("GET /"))).observed(told)

asyncio.run(main())
"""


def test_a_limiter_that_nobody_closes_ends_without_a_word(server: Running) -> None:
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", UNCLOSED]
    done = subprocess.run(
        [*command, server.url],
        env=children.ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.asyncio
@pytest.mark.parametrize("ticks", range(1, 9))
@pytest.mark.parametrize("waiting", [0, 300])
async def test_closing_leaves_no_connection_though_it_is_cancelled(
    server: Running, ticks: int, waiting: int
) -> None:
    limiter = Limiter(ledger=server.url)
    (await limiter.acquire(KEY)).observed(shown(0))
    callers = [asyncio.ensure_future(limiter.acquire(KEY)) for _ in range(waiting)]
    await asyncio.sleep(0.01)
    closing = asyncio.ensure_future(limiter.close())
    for _ in range(ticks):
        await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing, *callers])
    with client_of(server) as client:
        async with asyncio.timeout(PATIENCE):
            # One is that of this test.
            while len(client.client_list()) > 1:  # noqa: ASYNC110 - the engine does not tell
                await asyncio.sleep(0.01)


# What is passed ----------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 3}], ids=str)
async def test_a_client_of_the_users_stays_open(server: Running, options: dict[str, Any]) -> None:
    client = redis.asyncio.Redis(port=server.port, **options)
    ledger = RedisLedger(client)
    await ledger.secret()
    await exchanged(ledger, ask())
    await ledger.close()
    assert client.connection_pool._available_connections[0].is_connected
    assert "your client" in repr(ledger)
    await client.aclose()


@pytest.mark.asyncio
async def test_what_is_no_url_and_no_client_is_refused_where_it_is_passed(server: Running) -> None:
    with client_of(server) as client, pytest.raises(TypeError, match=r"a client of redis\.asyncio"):
        RedisLedger(client)
    for other in (None, 7, b"redis://localhost"):
        with pytest.raises(TypeError, match="a URL"):
            RedisLedger(other)


@pytest.mark.parametrize(
    "url",
    [
        "localhost",
        "",
        f"http://:{PASSWORD}@localhost",
        f"redis:/:{PASSWORD}@localhost",
        f"redis+tls://:{PASSWORD}@localhost",
        f"redis://user:{PASSWORD}/more@localhost",
        f"redis://:{PASSWORD}@localhost:port",
        f"redis://:{PASSWORD}@localhost:99999999",
        f"redis://:{PASSWORD}@[::1",
        f"redis://:{PASSWORD}@localhost?socket_timeout=soon",
        f"redis://:{PASSWORD}@localhost?socket_time=3",
        f"rediss://:{PASSWORD}@localhost?ssl_cert_reqs=perhaps",
        f"unix://:{PASSWORD}@/tmp/there?ssl_ca_certs=here",
    ],
)
@pytest.mark.parametrize("cluster", [False, True])
def test_a_url_that_is_none_is_refused_without_its_password(url: str, cluster: bool) -> None:
    with pytest.raises(ValueError, match="URL") as caught:
        RedisLedger(url, cluster=cluster)
    assert "a-pass" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"prefix": ""}, ValueError),
        ({"prefix": "a{b}"}, ValueError),
        ({"prefix": b"bytes"}, TypeError),
        ({"secret": "short"}, ValueError),
        ({"secret": 7}, TypeError),
    ],
    ids=str,
)
def test_options_are_checked_where_they_are_passed(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(options))):
        RedisLedger("redis://localhost", **options)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://me:{PASSWORD}@there:7000/3", "redis://there:7000"),
        (f"valkeys://:{PASSWORD}@there", "rediss://there"),
        ("valkey://there", "redis://there"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_a_repr_shows_where_it_is_and_no_password(url: str, shown: str) -> None:
    assert repr(RedisLedger(url)) == f"<RedisLedger {shown}, keys aiotwhelp>"


def test_without_redis_py_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "redis"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "aiotwhelp\[redis\]"'):
        RedisLedger("redis://localhost")


@pytest.mark.asyncio
@pytest.mark.usefixtures("unhurried")
async def test_a_limiter_finds_it_by_its_url(server: Running) -> None:
    for scheme in ("redis", "valkey"):
        limiter = Limiter(ledger=f"{scheme}://127.0.0.1:{server.port}")
        (await limiter.acquire(KEY)).observed(shown(14))
        await limiter.close()
    with client_of(server) as client:
        assert client.dbsize() == 3
    assert isinstance(from_url("rediss://localhost"), RedisLedger)


@pytest.mark.asyncio
async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    with running(engines.REDIS, "--unixsocket", str(path)):
        async with ledger_on(f"unix://{path}") as ledger:
            assert (await exchanged(ledger, ask()))[0].granted == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return str(key), str(certificate)


@pytest.mark.asyncio
async def test_tls_by_the_url_alone(certificate: tuple[str, str]) -> None:
    key, trusted = certificate
    port = str(engines.free_port())
    options = ("--tls-port", port, "--tls-auth-clients", "no", "--tls-ca-cert-file", trusted)
    with running(engines.REDIS, *options, "--tls-cert-file", trusted, "--tls-key-file", key):
        url = f"rediss://127.0.0.1:{port}"
        async with ledger_on(f"{url}?ssl_ca_certs={trusted}") as ledger:
            assert (await exchanged(ledger, ask()))[0].granted == 1
        async with ledger_on(url) as ledger:
            with pytest.raises(LedgerError, match="rediss:"):
                await exchanged(ledger, ask())


@pytest.mark.asyncio
async def test_how_long_it_may_take_to_connect_is_up_to_those_who_bound_it(
    certificate: tuple[str, str],
) -> None:
    """A token that cannot be renewed is one that is lost: a store has time."""
    key, trusted = certificate
    port = engines.free_port()
    options = ("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", trusted)
    with running(engines.REDIS, *options, "--tls-cert-file", trusted, "--tls-key-file", key):
        async with proxy_to(port) as proxy:
            proxy.delay = 0.15  # twice at least, for the handshake alone
            url = f"rediss://127.0.0.1:{proxy.port}?ssl_ca_certs={trusted}"
            async with ledger_on(url) as ledger:
                assert (await exchanged(ledger, ask()))[0].granted == 1
            store = RedisStore(url, user="somebody", key=Fernet.generate_key())
            assert await store.load() is None
            await store.close()


@pytest.mark.asyncio
async def test_a_process_that_is_held_up_as_it_connects_does_not_take_the_engine_for_away(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "BOUND", 1.0)  # the engine may need a part of it on a busy machine
    told: list[object] = []
    limiter = Limiter(ledger=server.url, on_event=told.append)
    asking = asyncio.ensure_future(limiter.acquire(KEY))
    for _ in range(4):
        await asyncio.sleep(0)
        time.sleep(0.4)  # noqa: ASYNC251 - whatever else this loop does
    (await asking).unsent()
    assert not [event for event in told if isinstance(event, events.LedgerAway)]
    await limiter.close()


# The secret --------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_processes_agree_on_a_secret_or_are_given_one(engine: Running) -> None:
    async with ledger_on(engine.url) as first, ledger_on(engine.url) as second:
        agreed = await asyncio.gather(first.secret(), second.secret(), first.secret())
        assert len(set(agreed)) == 1
    own = [
        RedisLedger(engine.url, secret=each) for each in ("ours of 16 bytes", b"ours of 16 bytes")
    ]
    given = {await each.secret() for each in own}
    assert len(given) == 1
    assert not given & set(agreed)


@pytest.mark.asyncio
async def test_an_engine_that_was_emptied_gets_the_secret_back(engine: Running) -> None:
    async with ledger_on(engine.url) as old, ledger_on(engine.url) as new:
        secret = await old.secret()
        await exchanged(old, ask(1))
        engine.say("FLUSHALL")
        await exchanged(old, ask(2))
        assert await new.secret() == secret


@pytest.mark.asyncio
async def test_who_finds_another_secret_in_an_emptied_engine_takes_it_over(
    engine: Running,
) -> None:
    async with ledger_on(engine.url) as old, ledger_on(engine.url) as new:
        await old.secret()
        await exchanged(old, ask(1))
        engine.say("FLUSHALL")
        secret = await new.secret()
        with pytest.raises(LedgerError, match="emptied"):
            await exchanged(old, ask(2))
        assert await old.secret() == secret


@pytest.mark.asyncio
async def test_who_had_its_secret_before_all_was_emptied_finds_another_one_soon(
    engine: Running,
) -> None:
    """Eight processes were two groups for ten seconds, and one call was refused in each window."""
    async with ledger_on(engine.url) as old, ledger_on(engine.url) as new:
        at = old._server.now()
        old._server.now = lambda: at  # type: ignore[method-assign]
        await old.secret()
        engine.say("FLUSHALL")
        await exchanged(old, ask(1))
        secret = await new.secret()
        await exchanged(old, ask(2))
        at += 1.01
        with pytest.raises(LedgerError, match="emptied"):
            await exchanged(old, ask(3))
        assert await old.secret() == secret


@pytest.mark.asyncio
async def test_now_and_then_a_process_looks_whether_the_secret_is_still_there(
    server: Running,
) -> None:
    async with ledger_on(server.url) as ledger:
        await ledger.secret()
        server.say("PEXPIRE", "aiotwhelp:secret", "1000")
        await exchanged(ledger, ask(1))
        with client_of(server) as client:
            assert client.pttl("aiotwhelp:secret") <= 1000
            ledger._looked_at -= 7200
            await exchanged(ledger, ask(2))
            assert client.pttl("aiotwhelp:secret") > 1000


# What engines say --------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_password_by_the_url_and_a_wrong_one(engine: Running) -> None:
    engine.say("CONFIG", "SET", "requirepass", PASSWORD)
    there = f"127.0.0.1:{engine.port}"
    async with ledger_on(f"redis://:{PASSWORD}@{there}") as ledger:
        assert (await exchanged(ledger, ask()))[0].granted == 1
    for user in ("", ":a-pass-word-that-is-wrong@", "somebody:a-pass-word-that-is-wrong@"):
        async with ledger_on(f"redis://{user}{there}") as ledger:
            with pytest.raises(LedgerError, match="does not take this user name") as caught:
                await exchanged(ledger, ask(2))
        assert "a-pass" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.asyncio
async def test_a_user_of_its_own_needs_two_commands_on_its_keys(engine: Running) -> None:
    with client_of(engine) as client:
        allowed = ["+evalsha", "+eval", "+get", "+set", "+pexpire", "+time"]
        client.acl_setuser(
            "limiter", enabled=True, passwords=f"+{PASSWORD}", keys=["*aiotwhelp:*"], reset=True,
            commands=allowed,
        )  # fmt: skip
    url = f"redis://limiter:{PASSWORD}@127.0.0.1:{engine.port}"
    async with ledger_on(url) as ledger:
        await ledger.secret()
        assert (await exchanged(ledger, ask()))[0].granted == 1
    async with ledger_on(url, prefix="another") as ledger:
        with pytest.raises(LedgerError, match="may not run scripts on these keys"):
            await exchanged(ledger, ask())


@pytest.mark.asyncio
async def test_a_full_engine_says_so_and_goes_on_when_there_is_room(engine: Running) -> None:
    async with ledger_on(engine.url) as ledger:
        await exchanged(ledger, ask(1))
        engine.say("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(LedgerError, match="maxmemory is reached"):
            await exchanged(ledger, ask(2))
        engine.say("CONFIG", "SET", "maxmemory", "0")
        assert not (await exchanged(ledger, ask(3)))[0].stale


@pytest.mark.asyncio
async def test_a_replica_says_so_and_the_name_is_looked_up_again(engine: Running) -> None:
    async with proxy_to(engine.port) as proxy, ledger_on(f"redis://127.0.0.1:{proxy.port}") as one:
        await exchanged(one, ask(1))
        engine.say("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(LedgerError, match="replica"):
            await exchanged(one, ask(2))
        engine.say("REPLICAOF", "NO", "ONE")
        await exchanged(one, ask(3))
        assert proxy.connections == 2


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("says", "meaning"),
    [
        ("LOADING Redis is loading the dataset in memory", "is loading its data"),
        ("READONLY You can't write against a read only replica.", "replica"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "maxmemory is reached"),
        ("MOVED 3999 127.0.0.1:6381", "cluster=True"),
        ("ASK 3999 127.0.0.1:6381", "cluster=True"),
        ("CROSSSLOT Keys in request don't hash to the same slot", "cluster=True"),
        ("CLUSTERDOWN The cluster is down", "the cluster is down"),
        ("MASTERDOWN Link with MASTER is down", "the cluster is down"),
        ("NOAUTH Authentication required.", "user name and password"),
        ("NOPERM this user has no permissions to run the 'evalsha' command", "may not run scripts"),
        ("BUSY Redis is busy running a script.", "BUSY"),
        ("ERR unknown command 'EVALSHA'", "unknown command"),
        ("ERR \x1b[31mred\x07 \u202etext", r"ResponseError: \[31mred text$"),
        (f"ERR {'long ' * 1000}", "long"),
    ],
)
async def test_what_an_engine_refuses_with_is_told_in_our_words(says: str, meaning: str) -> None:
    over = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                if line.startswith(b"*"):  # one refusal for each command
                    writer.write(f"-{says}\r\n".encode())
        writer.close()
        over.set()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as refusing:
        port = refusing.sockets[0].getsockname()[1]
        async with ledger_on(f"redis://127.0.0.1:{port}") as ledger:
            with pytest.raises(LedgerError, match=meaning) as caught:
                await exchanged(ledger, ask())
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 600
        await asyncio.wait_for(over.wait(), PATIENCE)


@pytest.mark.parametrize("says", [f"ERR {PASSWORD} it is not", "WRONGPASS x", "LOADING x", ""])
@pytest.mark.asyncio
async def test_the_password_is_in_no_error_and_no_locals_of_its_frames_whatever_is_said(
    says: str,
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            if await reader.read(1) and says:
                writer.write(f"-{says}\r\n".encode())
            await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        limiter = Limiter(
            ledger=f"redis://someone:{PASSWORD}@127.0.0.1:{port}", on_ledger_failure="fail"
        )
        with pytest.raises(LedgerError) as caught:
            await limiter.acquire(KEY)
        await limiter.close()
    texts = "".join(hostile.shown(caught.value))
    assert PASSWORD not in texts + hostile.frame_locals(caught.value)


@pytest.mark.asyncio
async def test_what_a_caller_was_handling_keeps_its_frames() -> None:
    async with ledger_on("redis://127.0.0.1:1") as ledger:
        try:
            int("x")
        except ValueError as handled:
            with pytest.raises(LedgerError):
                await exchanged(ledger, ask())
            assert handled.__traceback__ is not None


@pytest.mark.asyncio
async def test_nobody_there_is_said_at_once() -> None:
    async with ledger_on(f"redis://:{PASSWORD}@127.0.0.1:1") as ledger:
        with pytest.raises(LedgerError, match=r"127\.0\.0\.1:1") as caught:
            await exchanged(ledger, ask())
    assert "a-pass" not in "".join(traceback.format_exception(caught.value))


# A limiter, and an engine that goes away ---------------------------------------------------------


def shown(remaining: int) -> dict[str, str]:
    return {
        "x-rate-limit-limit": "900",
        "x-rate-limit-remaining": str(remaining),
        "x-rate-limit-reset": str(int(time.time()) + 600),
    }


class User:
    """A limiter in use: one call at a time, whose longest wait is remembered."""

    def __init__(self, url: str, pulse: Pulse, **options: Any) -> None:
        self.limiter = Limiter(ledger=url, **options)
        self.told: list[events.Event] = []
        self.limiter.listen(self.told.append)
        self.left = 800
        self.pulse = pulse
        self.longest = 0.0

    async def call(self) -> None:
        began = self.pulse.seconds
        permit = await self.limiter.acquire(KEY)
        self.longest = max(self.longest, self.pulse.seconds - began)
        self.left -= 1
        permit.observed(shown(self.left))

    async def make_some_calls(self) -> None:
        """Have some served, though a busy machine may keep the ledger from answering at first."""
        served = 0
        async with asyncio.timeout(120):
            while served < 20:
                try:
                    await self.call()
                except LedgerError:
                    await asyncio.sleep(0.05)
                else:
                    served += 1

    async def call_until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not is_so():
                await self.call()
                await asyncio.sleep(0.01)

    @property
    def kinds(self) -> list[type[events.Event]]:
        kinds = (events.LedgerAway, events.LedgerBack)
        return [type(each) for each in self.told if isinstance(each, kinds)]

    @property
    def is_away(self) -> bool:
        return self.kinds[-1:] == [events.LedgerAway]

    @property
    def is_back(self) -> bool:
        return self.kinds[-1:] == [events.LedgerBack]


@asynccontextmanager
async def in_use(url: str, **options: Any) -> AsyncIterator[User]:
    """Have a limiter that has made some calls."""
    logging.getLogger("aiotwhelp").setLevel(logging.ERROR)
    with pulse_of_process(0.01) as pulse:
        user = User(url, pulse, **options)
        try:
            await user.make_some_calls()
            yield user
        finally:
            await user.limiter.close()
            logging.getLogger("aiotwhelp").setLevel(logging.NOTSET)


def hurt_by_pausing(server: Running) -> Callable[[], None]:
    server.pause()
    return server.go_on


def hurt_by_killing(server: Running) -> Callable[[], None]:
    server.kill()
    return server.start


def hurt_by_saving_and_killing(server: Running) -> Callable[[], None]:
    assert server.say("SAVE") == "+OK"
    server.kill()
    return server.start


def hurt_by_filling(server: Running) -> Callable[[], None]:
    server.say("CONFIG", "SET", "maxmemory", "1")
    return lambda: server.say("CONFIG", "SET", "maxmemory", "0") and None


def hurt_by_client_pause(server: Running) -> Callable[[], None]:
    server.say("CLIENT", "PAUSE", "600000", "WRITE")  # of all, nobody could end it
    return lambda: server.say("CLIENT", "UNPAUSE") and None


HURTS = [
    hurt_by_pausing,
    hurt_by_killing,
    hurt_by_saving_and_killing,
    hurt_by_filling,
    hurt_by_client_pause,
]


@pytest.mark.asyncio
@pytest.mark.parametrize("hurt", HURTS)
async def test_callers_go_on_without_the_engine_and_with_it_when_it_is_back(
    engine: Running, hurt: Callable[[Running], Callable[[], None]]
) -> None:
    async with in_use(engine.url) as user:
        # A busy machine may have kept the engine from answering before.
        await user.call_until(lambda: not user.is_away)
        user.told.clear()
        mend = hurt(engine)
        await user.call_until(lambda: user.is_away)
        left = user.left
        await user.call_until(lambda: user.left <= left - 10)
        mend()
        await user.call_until(lambda: user.is_back)
        assert user.longest < HELD
        assert user.kinds == [events.LedgerAway, events.LedgerBack]


@pytest.mark.asyncio
async def test_an_engine_that_came_back_empty_learns_again_what_is_left(server: Running) -> None:
    async with in_use(server.url) as user, in_use(server.url) as other:
        server.kill()
        await user.call_until(lambda: user.is_away)
        await other.call_until(lambda: other.is_away)
        server.start()
        await user.call_until(lambda: user.is_back)
        await other.call_until(lambda: other.is_back)
        for each in (user, other) * 5:
            await each.call()
        with client_of(server) as client:
            secret = client.get("aiotwhelp:secret")
            states = [json.loads(client.get(key)) for key in client.scan_iter("{*")]
    assert secret is not None
    windows = [state for state in states if state.get("confirmed")]
    assert len(windows) == 1  # both name the records alike
    assert windows[0]["limit"] == 900


@pytest.mark.asyncio
@pytest.mark.usefixtures("unhurried")
async def test_what_a_saved_engine_knew_is_still_there(server: Running) -> None:
    async with in_use(server.url) as user:
        await user.limiter.close()
    hurt_by_saving_and_killing(server)()
    with client_of(server) as client:
        (window,) = [
            state
            for key in client.scan_iter("{*")
            if (state := json.loads(client.get(key)))["seen"]
        ]
    assert (window["limit"], window["confirmed"]) == (900, True)


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["silent", "slow", "reset"])
async def test_callers_go_on_when_the_network_does_not(server: Running, how: str) -> None:
    async with proxy_to(server.port) as proxy, in_use(f"redis://127.0.0.1:{proxy.port}") as user:
        if how == "reset":
            proxy.reset()
        else:
            proxy.is_silent, proxy.delay = how == "silent", 1.0 if how == "slow" else 0.0
        await user.call_until(lambda: user.is_away)
        proxy.is_silent, proxy.delay = False, 0.0
        await user.call_until(lambda: user.is_back)
        assert user.longest < HELD
        # Connections that were cut are not used again, however often.
        for _ in range(3):
            proxy.reset()
            await asyncio.sleep(0.02)
        await user.call_until(lambda: user.is_back)


@pytest.mark.asyncio
@pytest.mark.parametrize("hurt", [hurt_by_pausing, hurt_by_killing])
async def test_without_the_engine_callers_fail_if_they_prefer_that(
    server: Running, hurt: Callable[[Running], Callable[[], None]]
) -> None:
    async with in_use(server.url, on_ledger_failure="fail") as user:
        mend = hurt(server)
        began = user.pulse.seconds
        with pytest.raises(LedgerError):
            await user.call_until(lambda: False)
        with pytest.raises(LedgerError):
            await user.call()
        assert user.pulse.seconds - began < 5
        mend()
        async with asyncio.timeout(120):
            while not user.is_back:
                with suppress(LedgerError):
                    await user.call()
                await asyncio.sleep(0.01)


@pytest.mark.asyncio
@pytest.mark.usefixtures("unhurried")
async def test_a_flushed_script_is_no_failure(server: Running) -> None:
    async with in_use(server.url) as user:
        for _ in range(20):
            server.say("SCRIPT", "FLUSH")
            await user.call()
            await asyncio.sleep(0.02)
        assert user.kinds == []


@pytest.mark.asyncio
@pytest.mark.usefixtures("unhurried")
async def test_a_wrong_password_is_an_event_and_stops_nobody(server: Running) -> None:
    server.say("CONFIG", "SET", "requirepass", PASSWORD)
    async with in_use(f"redis://:a-pass-word-that-is-wrong@127.0.0.1:{server.port}") as user:
        (away,) = [each for each in user.told if isinstance(each, events.LedgerAway)]
        assert "user name and password" in str(away)
        assert "a-pass" not in str(away)
        assert user.longest < HELD


# A cluster ---------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_cluster_shares_quotas_over_its_nodes() -> None:
    apps = [f"app {number}/quota" for number in range(24)]
    with cluster_of(engines.REDIS) as nodes:
        async with (
            ledger_on(nodes[0].url, Standing, cluster=True) as one,
            ledger_on(nodes[2].url, Standing, cluster=True) as other,
        ):
            assert await one.secret() == await other.secret()
            leases = await exchanged(one, *(ask(record=app) for app in apps))
            assert [lease.granted for lease in leases] == [1] * 24
            other_leases = await other.exchange([Report(app, "b", 1, want=1) for app in apps])
            assert [lease.granted for lease in other_leases] == [0] * 24
            for node in nodes:
                node.say("SCRIPT", "FLUSH")
            leases = await exchanged(one, *(ask(2, app, held=1) for app in apps))
            assert [lease.clients for lease in leases] == [2] * 24
        for node in nodes:
            with client_of(node) as client:
                keys = list(client.scan_iter())
                assert keys
                assert all(client.pttl(key) > 0 for key in keys)


def place_of(key: str, nodes: list[Running]) -> tuple[int, int]:
    """Return a key's slot, and the number of the node that has it from the start."""
    with client_of(nodes[0]) as client:
        slot = client.execute_command("CLUSTER KEYSLOT", key)
    return slot, min(slot // 5461, 2)


@pytest.mark.asyncio
async def test_a_slot_that_moves_is_followed() -> None:
    with cluster_of(engines.REDIS) as nodes:
        async with ledger_on(nodes[0].url, cluster=True) as ledger:
            slot, owner = place_of("{aiotwhelp:app}:quota", nodes)
            target = nodes[(owner + 1) % 3]
            # It takes the slots in before it is asked for this one.
            await ledger.secret()
            await exchanged(ledger, ask(1, "another/quota"))
            with client_of(target) as client:
                name = client.execute_command("CLUSTER MYID").decode()
            for node in (target, *nodes):
                assert node.say("CLUSTER", "SETSLOT", str(slot), "NODE", name) == "+OK"
            assert (await exchanged(ledger, ask()))[0].granted == 1
            with client_of(target) as client:
                assert client.exists("{aiotwhelp:app}:quota")


@pytest.mark.asyncio
async def test_a_node_that_is_away_is_an_error_and_the_others_go_on() -> None:
    apps = [f"app {number}/quota" for number in range(24)]
    with cluster_of(engines.REDIS) as nodes:
        for node in nodes:
            node.say("CONFIG", "SET", "cluster-require-full-coverage", "no")
        options = {"require_full_coverage": False}
        client = redis.asyncio.RedisCluster.from_url(nodes[0].url, **options)
        ledger = RedisLedger(client)
        await exchanged(ledger, *(ask(record=app) for app in apps))
        keys = [f"{{aiotwhelp:app {number}}}:quota" for number in range(24)]
        is_away = [place_of(key, nodes)[1] == 1 for key in keys]
        nodes[1].pause()
        answered = 0
        for app, will_not_answer in zip(apps, is_away, strict=True):
            with suppress(LedgerError, TimeoutError):
                async with asyncio.timeout(0.25 if will_not_answer else PATIENCE):
                    answered += len(await exchanged(ledger, ask(2, app)))
        assert 0 < answered == is_away.count(False) < 24
        nodes[1].go_on()
        async with asyncio.timeout(120):
            while answered < 24:
                with suppress(LedgerError):
                    answered = len(await exchanged(ledger, *(ask(3, app) for app in apps)))
        await client.aclose()


@pytest.mark.asyncio
async def test_who_takes_a_cluster_for_one_engine_is_told() -> None:
    with cluster_of(engines.REDIS) as nodes:
        said = set()
        for node in nodes:
            async with ledger_on(node.url) as ledger:
                for number in range(4):
                    try:
                        await exchanged(ledger, ask(1, f"app {number}/quota"))
                    except LedgerError as error:
                        said.add(str(error).partition(": ")[2])
    assert said == {"it is a cluster: pass cluster=True"}
