"""Tokens that processes share: what is kept and how, who renews, and who outlives a crash."""

from __future__ import annotations

import asyncio
import functools
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from aiotwhelp import AuthError, LedgerError, OAuth2User, SQLiteLedger, Token, stores
from aiotwhelp.auth import TokenAnswer
from aiotwhelp.emulator import Emulator
from aiotwhelp.ledger.hosts import Clocks
from aiotwhelp.stores import LEASE, RedisStore, SQLiteStore, _Store
from aiotwhelp.testing import VirtualTimeLoop
from tests import children
from tests.servers import engines
from tests.stack import in_virtual_time, session_of
from tests.test_auth import NOW, Server, bearer, ok, says

KEY, OTHER_KEY = Fernet.generate_key(), Fernet.generate_key()
USER = "user-4711"
TOKEN = Token("access-clear", "refresh-clear", 1_700_000_000.5)
LATER = Token("access-later", "refresh-later", None)
LOGIN = Token("access-login", None, None)
ME = "/2/users/me"


class Place:
    """Where several stores keep the tokens of the same users."""

    def __init__(self) -> None:
        self.opened: list[_Store] = []

    def store(self, user: str = USER, key: Any = KEY) -> _Store:
        store = self.made(user, key)
        self.opened.append(store)
        return store

    def made(self, user: str, key: Any) -> _Store:
        raise NotImplementedError

    async def let_leases_run_out(self) -> None:
        """Let time pass for the leases of those who do not give news."""
        raise NotImplementedError

    async def content(self) -> bytes:
        """Return all that is kept, as it is kept."""
        raise NotImplementedError

    async def swap(self, one: str, other: str) -> None:
        """Put the sealed token of one user in another's place."""
        raise NotImplementedError

    async def close(self) -> None:
        for store in self.opened:
            await store.close()


class File(Place):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.passed = 0

    def made(self, user: str, key: Any) -> SQLiteStore:
        store = SQLiteStore(self.path, user=user, key=key)
        store._database.clocks = self.clocks
        return store

    def clocks(self) -> Clocks:
        real = Clocks.read()
        return real._replace(uptime=real.uptime + self.passed)

    async def let_leases_run_out(self) -> None:
        self.passed += round(LEASE * 1000) + 1

    async def content(self) -> bytes:
        return b"".join(each.read_bytes() for each in sorted(self.path.parent.iterdir()))

    async def swap(self, one: str, other: str) -> None:
        database = self.opened[0]._database  # type: ignore[attr-defined]

        def swapped(connection: Any, host: Any) -> None:
            names = [stores._name(each, host.secret) for each in (one, other)]
            connection.execute(
                "UPDATE tokens SET sealed = (SELECT sealed FROM tokens WHERE name = ?)"
                " WHERE name = ?",
                names,
            )

        await database.run(swapped)


class Engine(Place):
    def __init__(self, url: str, prefix: str, *, is_cluster: bool) -> None:
        from redis.asyncio import Redis, RedisCluster

        super().__init__()
        self.url = url
        self.prefix = prefix
        self.is_cluster = is_cluster
        self.client: Any = (RedisCluster if is_cluster else Redis).from_url(url)

    def made(self, user: str, key: Any) -> RedisStore:
        return RedisStore(self.url, user=user, key=key, prefix=self.prefix, cluster=self.is_cluster)

    async def keys(self) -> list[bytes]:
        every = self.client.scan_iter(f"{self.prefix}:token:*")
        return sorted({key async for key in every})

    async def let_leases_run_out(self) -> None:
        for key in await self.keys():
            await self.client.hset(key, "held_until", "1")

    async def content(self) -> bytes:
        found = [str(await self.client.hgetall(key)).encode() + key for key in await self.keys()]
        return b"".join(found)

    async def swap(self, one: str, other: str) -> None:
        secret = await self.client.get(f"{self.prefix}:tokens")
        keys = [f"{self.prefix}:token:{stores._name(each, secret)}" for each in (one, other)]
        await self.client.hset(keys[1], "sealed", await self.client.hget(keys[0], "sealed"))

    async def close(self) -> None:
        await super().close()
        await self.client.aclose()


#: Where tokens are kept: a file, each engine alone, and clusters of two of them.
CLUSTERS = {"cluster of redis": "redis", "cluster of valkey-9.1": "valkey-9.1"}
PLACES = ["sqlite", *engines.ENGINES, *CLUSTERS]


@pytest.fixture(scope="module")
def url_of() -> Iterator[Callable[[str], str]]:
    """Return the URL of an engine, or of a node of a cluster, which is started at first use."""
    with ExitStack() as stack:

        @functools.cache
        def url(kind: str) -> str:
            if kind in CLUSTERS:
                nodes = engines.cluster_of(engines.ENGINES[CLUSTERS[kind]])
                return stack.enter_context(nodes)[1].url
            return stack.enter_context(engines.running(engines.ENGINES[kind])).url

        yield url


Opened = Callable[[Callable[[Place], Awaitable[None]]], None]


@pytest.fixture(params=PLACES)
def at_place(
    request: pytest.FixtureRequest, tmp_path: Path, url_of: Callable[[str], str]
) -> Opened:
    """Run a coroutine with a place of each kind."""
    kind = request.param

    def opened() -> Place:
        if kind == "sqlite":
            return File(tmp_path / "tokens.db")
        return Engine(url_of(kind), tmp_path.name, is_cluster=kind in CLUSTERS)

    def runs(test: Callable[[Place], Awaitable[None]]) -> None:
        async def main() -> None:
            place = opened()
            try:
                await test(place)
            finally:
                await place.close()

        asyncio.run(main())

    return runs


# What is kept ----------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [TOKEN, LATER, LOGIN, Token(None, "refresh", 0.0)])
def test_a_token_comes_back_as_it_was_saved(at_place: Opened, token: Token) -> None:
    async def test(place: Place) -> None:
        store = place.store()
        assert await store.load() is None
        await store.save(TOKEN)
        await store.save(token)
        assert await store.load() == await place.store().load() == token

    at_place(test)


def test_users_are_apart(at_place: Opened) -> None:
    async def test(place: Place) -> None:
        await place.store("one").save(TOKEN)
        assert await place.store("two").load() is None

    at_place(test)


def test_neither_user_nor_token_nor_key_is_kept_in_clear(at_place: Opened) -> None:
    async def test(place: Place) -> None:
        store = place.store()
        async with store.exclusive():
            await store.save(TOKEN)
            content = await place.content()
        assert content
        for secret in (USER, "4711", "clear", KEY.decode()):
            assert secret.encode() not in content

    at_place(test)


def test_another_key_is_an_error_and_replaces_nothing(at_place: Opened) -> None:
    async def test(place: Place) -> None:
        await place.store().save(TOKEN)
        stranger = place.store(key=OTHER_KEY)
        with pytest.raises(LedgerError, match="another key"):
            await stranger.load()
        with pytest.raises(LedgerError, match="another key"):
            await stranger.save(LATER)
        assert await place.store().load() == TOKEN

    at_place(test)


def test_a_new_key_is_put_before_the_old_one(at_place: Opened) -> None:
    async def test(place: Place) -> None:
        await place.store().save(TOKEN)
        both = place.store(key=[OTHER_KEY, KEY.decode()])
        assert await both.load() == TOKEN
        await both.save(LATER)
        assert await place.store(key=OTHER_KEY).load() == LATER

    at_place(test)


def test_a_token_in_another_users_place_is_refused(at_place: Opened) -> None:
    async def test(place: Place) -> None:
        await place.store("one").save(TOKEN)
        await place.store("two").save(LATER)
        await place.swap("one", "two")
        with pytest.raises(LedgerError, match="another user"):
            await place.store("two").load()

    at_place(test)


def test_a_file_holds_quotas_and_tokens_side_by_side(tmp_path: Path) -> None:
    async def main() -> None:
        store = SQLiteStore(tmp_path / "one.db", user=USER, key=KEY)
        ledger = SQLiteLedger(tmp_path / "one.db")
        await ledger.secret()
        await store.save(TOKEN)
        assert await store.load() == TOKEN
        await ledger.close()
        await store.close()

    asyncio.run(main())


@pytest.mark.parametrize("key", ["", "short", b"\xff" * 32, [], [KEY, "short"], 4711])
def test_a_key_that_is_none_is_refused_and_not_shown(key: Any, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        SQLiteStore(tmp_path / "tokens.db", user=USER, key=key)
    assert "short" not in str(caught.value)
    assert caught.traceback[-1].name != "__init__"


@pytest.mark.parametrize("user", ["", None, 4711])
def test_a_user_that_is_none_is_refused(user: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="user"):
        SQLiteStore(tmp_path / "tokens.db", user=user, key=KEY)


def test_a_url_that_is_none_is_refused_and_its_password_not_shown() -> None:
    with pytest.raises(ValueError, match="redis://") as caught:
        RedisStore("mysql://me:hidden@host", user=USER, key=KEY)
    assert "hidden" not in str(caught.value)


def test_a_store_shows_nothing_and_is_not_copied(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "tokens.db", user=USER, key=KEY)
    away = RedisStore("redis://me:hidden@localhost", user=USER, key=KEY)
    assert repr(store) == f"<SQLiteStore {tmp_path / 'tokens.db'}>"
    assert repr(away) == "<RedisStore redis://localhost, keys aiotwhelp>"
    for each in (store, away, store._seal):
        assert KEY.decode() not in repr(each)
        with pytest.raises(TypeError, match="secrets"):
            pickle.dumps(each)


@pytest.mark.parametrize("kind", ["redis", "valkey-9.1", "cluster of redis"])
def test_a_client_of_the_users_own_stays_open(
    kind: str, url_of: Callable[[str], str], tmp_path: Path
) -> None:
    async def main() -> None:
        from redis.asyncio import Redis, RedisCluster

        client_of: Any = RedisCluster if kind in CLUSTERS else Redis
        async with client_of.from_url(url_of(kind)) as client:
            store = RedisStore(client, user=USER, key=KEY, prefix=tmp_path.name)
            await store.save(TOKEN)
            for ticks in range(0, 60, 3):  # a client like this one swallows cancellations
                task = asyncio.create_task(store.load())
                for _ in range(ticks):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
            assert await store.load() == TOKEN
            await store.close()
            assert await client.ping()

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["redis", "cluster of redis"])
def test_a_process_that_was_held_up_has_not_waited_for_the_server(
    kind: str, url_of: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_PATIENCE", 1.0)

    async def main() -> None:
        store = RedisStore(
            url_of(kind), user=USER, key=KEY, prefix=tmp_path.name, cluster=kind in CLUSTERS
        )
        reading = asyncio.create_task(store.load())
        for _ in range(3):
            await asyncio.sleep(0)
            time.sleep(1.1)  # noqa: ASYNC251 - the machine has other things to do
        assert await reading is None
        await store.close()

    asyncio.run(main())


UNCLOSED = """
import asyncio, sys
from aiotwhelp import RedisStore, SQLiteStore, Token

kind, where, key, *cluster = sys.argv[1:]
if kind == "sqlite":
    store = SQLiteStore(where, user="u", key=key)
else:
    store = RedisStore(where, user="u", key=key, cluster=bool(cluster))

async def main(token):
    async with store.exclusive():
        await store.save(token)
    assert await store.load() == token

for name in ("first", "second"):  # one loop after the other
    asyncio.run(main(Token(name)))
"""


@pytest.mark.parametrize("kind", ["sqlite", "redis", "cluster of redis"])
def test_a_store_that_nobody_closes_ends_without_a_word(
    kind: str, url_of: Callable[[str], str], tmp_path: Path
) -> None:
    where = str(tmp_path / "tokens.db") if kind == "sqlite" else url_of(kind)
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", UNCLOSED]
    told = [kind, where, KEY.decode(), *(["cluster"] if kind in CLUSTERS else [])]
    done = subprocess.run(
        [*command, *told],
        env=children.ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_engine_that_is_not_there_is_a_ledger_error_without_its_password() -> None:
    async def main() -> None:
        store = RedisStore("redis://me:hidden@127.0.0.1:1", user=USER, key=KEY)
        with pytest.raises(LedgerError) as caught:
            await store.load()
        assert "hidden" not in str(caught.value)
        await store.close()

    asyncio.run(main())


# Who renews ------------------------------------------------------------------------------------


def test_one_at_a_time_holds_a_token(at_place: Opened) -> None:
    async def test(place: Place) -> None:
        inside, most = 0, 0

        async def renew(store: _Store) -> None:
            nonlocal inside, most
            async with store.exclusive():
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

        one = place.store()
        await asyncio.gather(*(renew(each) for each in (one, one, place.store(), place.store())))
        assert most == 1

    at_place(test)


def test_users_do_not_wait_for_each_other(at_place: Opened) -> None:
    async def test(place: Place) -> None:
        async with place.store("one").exclusive(), place.store("two").exclusive():
            pass

    at_place(test)


def test_a_dead_holder_is_followed_by_another(
    at_place: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(place: Place) -> None:
        dead, alive = place.store(), place.store()
        assert (await dead._hold("dead")).wait == 0
        assert 0 < (await alive._hold("alive")).wait <= LEASE
        await place.let_leases_run_out()
        async with alive.exclusive():
            await alive.save(TOKEN)
        assert await alive.load() == TOKEN

    at_place(test)
    assert "did not finish renewing" in caplog.text


def test_who_leaves_in_good_order_leaves_no_warning(
    at_place: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(place: Place) -> None:
        with pytest.raises(ZeroDivisionError):
            async with place.store().exclusive():
                raise ZeroDivisionError
        async with place.store().exclusive():
            pass

    at_place(test)
    # asyncio's debug mode has words of its own for a machine that is slow.
    assert not [each for each in caplog.records if each.name == "aiotwhelp"]


def test_a_cancelled_holder_and_a_cancelled_waiter_hold_nobody_off(at_place: Opened) -> None:
    async def test(place: Place) -> None:
        entered = asyncio.Event()

        async def hold(store: _Store) -> None:
            async with store.exclusive():
                entered.set()
                await asyncio.Event().wait()

        holder = asyncio.create_task(hold(place.store()))
        await entered.wait()
        waiter = asyncio.create_task(hold(place.store()))
        await asyncio.sleep(0.01)
        for task in (waiter, holder):
            task.cancel()
            await asyncio.wait([task])
        for ticks in range(6):
            task = asyncio.create_task(hold(place.store()))
            for _ in range(ticks):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        async with place.store().exclusive():
            pass

    at_place(test)


@pytest.fixture
def without_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a holder give no news: after what he gives, on a busy machine, nobody would take over."""
    monkeypatch.setattr(stores, "_NEWS", 1e6)


@pytest.mark.usefixtures("without_news")
def test_a_late_holder_does_not_replace_what_a_later_one_saved(at_place: Opened) -> None:
    async def test(place: Place) -> None:
        late, later = place.store(), place.store()
        async with late.exclusive():
            await place.let_leases_run_out()

            async def take_over() -> None:
                async with later.exclusive():
                    await later.save(LATER)

            await asyncio.create_task(take_over())
            await late.save(TOKEN)
        assert await later.load() == LATER

    at_place(test)


@pytest.mark.usefixtures("without_news")
def test_a_late_holders_token_is_kept_if_the_later_one_got_none(at_place: Opened) -> None:
    """The server has spent the one before: this one is all there is."""

    async def test(place: Place) -> None:
        late, later = place.store(), place.store()
        async with late.exclusive():
            await place.let_leases_run_out()
            await later._hold("later")
            await late.save(TOKEN)
        assert await later.load() == TOKEN

    at_place(test)


def test_a_login_replaces_what_is_renewed_meanwhile(at_place: Opened) -> None:
    async def test(place: Place) -> None:
        renewing = place.store()
        async with renewing.exclusive():
            await asyncio.create_task(renewing.save(LOGIN))
            await renewing.save(TOKEN)
        assert await renewing.load() == LOGIN

    at_place(test)


def test_a_token_that_was_saved_late_gives_way_to_a_login(at_place: Opened) -> None:
    async def test(place: Place) -> None:
        store = place.store()
        write = store._write

        async def fails(*_: object) -> bool:
            raise LedgerError("away")

        store._write = fails  # type: ignore[method-assign]
        with pytest.raises(LedgerError, match="away"):
            async with store.exclusive():
                await store.save(TOKEN)
        store._write = write  # type: ignore[method-assign]
        await place.store().save(LOGIN)
        async with store.exclusive():
            await store.save(TOKEN)
        assert await store.load() == LOGIN
        async with store.exclusive():
            await store.save(LATER)
        assert await store.load() == LATER

    at_place(test)


def virtual(store: SQLiteStore) -> SQLiteStore:
    """Have a store follow the time of the running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    store._database.clocks = lambda: Clocks("boot", round(loop.time() * 1000), 0)
    return store


@in_virtual_time
async def test_a_holder_that_gives_news_is_not_overtaken(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    one, other = (
        virtual(SQLiteStore(tmp_path / "tokens.db", user=USER, key=KEY)) for _ in range(2)
    )
    async with one.exclusive():
        waiting = asyncio.create_task(other._held("other"))
        began = loop.time()
        await asyncio.sleep(10 * LEASE)
        assert not waiting.done()
    await waiting
    assert loop.time() - began <= 10 * LEASE + 1
    await one.close()
    await other.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_that_is_killed_while_it_renews_holds_nobody_off_for_long(
    tmp_path: Path,
) -> None:
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_die_holding, args=[tmp_path / "tokens.db"])
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL

    async def main() -> None:
        place = File(tmp_path / "tokens.db")
        store = place.store()
        assert (await store._hold("another")).wait > 0
        await place.let_leases_run_out()
        async with store.exclusive():
            pass
        await place.close()

    asyncio.run(main())


def _die_holding(path: Path) -> None:
    async def main() -> None:
        async with SQLiteStore(path, user=USER, key=KEY).exclusive():
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_real_processes_renew_a_token_once_for_each_of_its_ends(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    issued, asked = context.Value("i", 0), context.Value("i", 0)
    children = [
        context.Process(target=_renew_often, args=[tmp_path / "tokens.db", issued, asked])
        for _ in range(6)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 6
    assert issued.value == asked.value == RENEWALS


RENEWALS = 5


def _renew_often(path: Path, issued: Any, asked: Any) -> None:
    async def send(method: str, url: str, *, headers: Any, data: bytes) -> TokenAnswer:
        with issued.get_lock():
            asked.value += 1
            if f"refresh_token=refresh-{issued.value}".encode() not in data.split(b"&"):
                return says(400, {"error": "invalid_grant"})
            issued.value += 1
            fresh = {"access_token": f"access-{issued.value}", "expires_in": 7200}
            fresh |= {"refresh_token": f"refresh-{issued.value}", "token_type": "bearer"}
        await asyncio.sleep(0.01)
        return ok(fresh)

    async def main() -> None:
        store = SQLiteStore(path, user=USER, key=KEY)
        auth = OAuth2User("the-client-id", refresh_token="refresh-0", store=store)
        for number in range(RENEWALS):
            # Of a token that is asked for after its end, all processes at about the same time.
            await auth.prepare(send, NOW + 7200 * number)
            assert bearer(auth) in {f"Bearer access-{each}" for each in range(number + 1, 6)}
        await store.close()

    asyncio.run(main())


# With a credential -----------------------------------------------------------------------------


class Rotating(Server):
    """Each refresh token works once, and once more within the server's grace, if it has any."""

    def __init__(self, grace: int = 0) -> None:
        super().__init__()
        self.grace = grace

    def _refreshed(self, data: bytes) -> TokenAnswer:
        spent = f"refresh_token=refresh-{self.issued - 1}".encode()
        if self.grace and spent in data.split(b"&"):
            self.grace -= 1
            self.issued -= 1
        return super()._refreshed(data)


def someone(store: _Store) -> OAuth2User:
    return OAuth2User("the-client-id", refresh_token="refresh-0", store=store)


def test_processes_that_share_a_store_ask_once(at_place: Opened) -> None:
    async def test(place: Place) -> None:
        server = Rotating()
        users = [someone(place.store()) for _ in range(6)]
        await asyncio.gather(*(each.prepare(server.send, NOW) for each in users))
        assert {bearer(each) for each in users} == {"Bearer access-1"}
        assert len(server.requests) == 1

    at_place(test)


def test_another_key_is_named_in_the_error_of_a_call(at_place: Opened) -> None:
    async def test(place: Place) -> None:
        await place.store().save(TOKEN)
        server = Rotating()
        with pytest.raises(AuthError, match="another key"):
            await someone(place.store(key=OTHER_KEY)).prepare(server.send, NOW)
        assert not server.requests

    at_place(test)


async def for_ever(*_: Any) -> None:
    await asyncio.Event().wait()


async def dies(auth: OAuth2User, server: Server, at: str) -> None:
    """Let a process renew until it is there, and no further: nothing of it is cleaned up."""
    store: Any = auth._store
    reached = asyncio.Event()

    async def stops(*_: Any, **__: Any) -> Any:
        reached.set()
        await asyncio.Event().wait()

    async def sends_and_stops(*args: Any, **named: Any) -> TokenAnswer:
        await server.send(*args, **named)
        return await stops()

    send = {"before the request": stops, "before the answer": sends_and_stops}.get(at, server.send)
    if at == "before it is saved":
        store._write = stops
    store._let_go = store._give_news = for_ever
    task = asyncio.create_task(auth.prepare(send, NOW))
    await reached.wait()
    assert len(server.requests) == (at != "before the request")
    renewing = auth._flight._task
    for each in (task, renewing):
        if each is not None:
            each.cancel()
    await asyncio.sleep(0)
    _dead.extend([task, renewing])


_dead: list[Any] = []


@pytest.mark.parametrize(
    ("at", "grace"),
    [("before the request", 0), ("before the answer", 1), ("before it is saved", 1)],
)
def test_a_crash_while_a_token_is_renewed_logs_nobody_out(
    at_place: Opened, at: str, grace: int
) -> None:
    async def test(place: Place) -> None:
        server = Rotating(grace)
        await dies(someone(place.store()), server, at)
        await place.let_leases_run_out()
        after = someone(place.store())
        await after.prepare(server.send, NOW)
        assert bearer(after) == "Bearer access-1"
        assert (await place.store().load() or TOKEN).access_token == "access-1"

    at_place(test)


def test_a_crash_at_a_server_without_grace_is_an_error_that_says_what_to_do(
    at_place: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(place: Place) -> None:
        server = Rotating()
        await dies(someone(place.store()), server, "before it is saved")
        await place.let_leases_run_out()
        after = someone(place.store())
        with pytest.raises(AuthError, match="log in again"):
            await after.prepare(server.send, NOW)
        await place.store().save(Token("access-login", "refresh-1", NOW + 7200))
        await after.prepare(server.send, NOW)
        assert bearer(after) == "Bearer access-login"

    at_place(test)
    assert "did not finish renewing" in caplog.text


def test_a_store_that_lost_its_data_gets_the_token_that_was_used_last(at_place: Opened) -> None:
    async def test(place: Place) -> None:
        server, store = Rotating(), place.store()
        auth = someone(store)
        await auth.prepare(server.send, NOW)

        async def empty() -> None:
            return None

        read = store._read
        store._read = empty  # type: ignore[method-assign]
        await auth.prepare(server.send, NOW + 7200)
        store._read = read  # type: ignore[method-assign]
        assert bearer(auth) == "Bearer access-2"

    at_place(test)


# A day -----------------------------------------------------------------------------------------

PROCESSES, DAY, PAUSE = 12, 24 * 3600.0, 900.0


async def a_day(make: Callable[[Emulator, int], OAuth2User]) -> tuple[int, int]:
    """Let twelve processes call every quarter of an hour; return who is in, and refreshes."""
    logging.getLogger("aiotwhelp").setLevel(logging.ERROR)
    async with Emulator(limit=10_000, keep=10_000) as api:
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def process(number: int) -> bool:
            async with session_of(api, auth=make(api, number)) as session:
                await asyncio.sleep(number * 7.0)
                while loop.time() - began < DAY:
                    try:
                        await session.fetch(ME)
                    except AuthError:
                        return False
                    await asyncio.sleep(PAUSE)
            return True

        logged_in = await asyncio.gather(*map(process, range(PROCESSES)))
        refreshes = sum(request.path == "/2/oauth2/token" for request in api.requests)
    logging.getLogger("aiotwhelp").setLevel(logging.NOTSET)
    return sum(logged_in), refreshes


@in_virtual_time
async def test_twelve_processes_that_share_no_store_are_logged_out_within_a_day() -> None:
    tokens: list[str] = []

    def make(api: Emulator, _: int) -> OAuth2User:
        if not tokens:
            tokens.append(api.grant().refresh_token)
        return OAuth2User(
            api.app.client_id, client_secret=api.app.client_secret, refresh_token=tokens[0]
        )

    logged_in, _ = await a_day(make)
    assert logged_in <= 1, "only who has the last refresh token"


@in_virtual_time
async def test_twelve_processes_that_share_a_store_are_logged_in_all_day(tmp_path: Path) -> None:
    tokens: list[str] = []
    opened: list[SQLiteStore] = []

    def make(api: Emulator, _: int) -> OAuth2User:
        if not tokens:
            tokens.append(api.grant().refresh_token)
        opened.append(virtual(SQLiteStore(tmp_path / "tokens.db", user=USER, key=KEY)))
        return OAuth2User(
            api.app.client_id,
            client_secret=api.app.client_secret,
            refresh_token=tokens[0],
            store=opened[-1],
        )

    logged_in, refreshes = await a_day(make)
    for store in opened:
        await store.close()
    assert logged_in == PROCESSES
    assert 12 <= refreshes <= 13, "one for each token of two hours"
