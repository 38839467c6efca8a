"""Tokens of one user that many processes share: sealed with a key, in a file or on a server.

One process at a time renews a token. It holds a lease that it keeps renewing: when it dies, the
next one takes over after `LEASE` seconds. Every hold has a number, higher than the one before: what
an earlier holder, woken late, still has to save never replaces what a later one or a login saved.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import random
import secrets
import sqlite3
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from aiotwhelp.auth import Secretive, Token, discreet
from aiotwhelp.errors import LedgerError
from aiotwhelp.ledger.database import Database, Host
from aiotwhelp.ledger.redis import Server, checked_prefix

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet
    from redis.asyncio import Redis, RedisCluster

T = TypeVar("T")

logger = logging.getLogger("aiotwhelp")

#: Without news of it for so many seconds, whoever renews a token is taken for dead.
LEASE = 10.0

#: It gives news of itself so often.
_NEWS = LEASE / 4

#: Others look whether it has finished after so many seconds, doubling to the longest.
_FIRST_LOOK = 0.02
_LONGEST_LOOK = 0.5

#: A file that another process writes to, or a server, is waited for so many seconds.
_PATIENCE = 5.0

#: A server's answer is looked for so often: a process that was held up for longer, by work of its
#: own or by others on the machine, has not waited for the server meanwhile.
_LOOKS = 20

#: To connect may take longer: the bound of a command holds for that, too, and counts as above.
_CONNECT = 4 * _PATIENCE

#: A command that was cancelled may take so many seconds to end.
_CANCELLING = 1.0


class Hold(NamedTuple):
    """What came of an attempt to hold a user's token: a number, or a time to wait."""

    #: Seconds until the present holder is taken for dead, if there is one.
    wait: float
    fence: int
    #: Whether the last holder never said that it had finished.
    was_left: bool = False


class _Store(Secretive):
    """What both have in common: the seal, and who holds a token when."""

    @discreet
    def __init__(self, user: str, key: str | bytes | Iterable[str | bytes]) -> None:
        if not isinstance(user, str) or not user:
            raise ValueError("user must be what names the user, such as the user's id")
        self._user = user
        self._seal = _Seal(key)
        #: The task that holds the token here, and the number of its hold.
        self._holding: tuple[asyncio.Task[Any] | None, int] | None = None
        #: A token that could not be saved, and the number of the hold in which it was obtained.
        self._unsaved: tuple[Token, int] | None = None

    async def load(self) -> Token | None:
        """Return the token saved last, by whatever process, or None.

        LedgerError: the store is away, or the token was sealed with another key.
        """
        sealed = await self._read()
        return None if sealed is None else self._seal.open(sealed, self._user)

    async def save(self, token: Token) -> None:
        """Keep the token for good.

        Within ``exclusive`` it gives way to one that was saved since by a later holder or a new
        login. Otherwise it is a new login, and replaces any other.

        LedgerError: the store is away, or holds a token that was sealed with another key. Then
        nothing was replaced. Safe to cancel: the token is saved or it is not.
        """
        fence = self._fence(token)
        if fence is not None:
            self._unsaved = token, fence
        sealed = await self._read()
        if sealed is not None:
            self._seal.open(sealed, self._user)  # nothing is replaced that another key has sealed
        if not await self._write(self._seal.close(token, self._user), fence):
            logger.info("a token was saved meanwhile by another process: it is kept")
        self._unsaved = None

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Hold off all others, other processes too, while a token is loaded, renewed and saved.

        Safe to cancel. A process that dies meanwhile holds nobody off for longer than `LEASE`
        seconds. LedgerError: the store is away.
        """
        return self._exclusive()

    @abstractmethod
    async def close(self) -> None:
        """Let go of the file or the connection; safe to cancel. The store is of no use then."""

    @asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[None]:
        holder = secrets.token_hex(8)
        try:
            fence = await self._held(holder)
            news = asyncio.create_task(self._give_news(holder))
            self._holding = asyncio.current_task(), fence
            try:
                yield
            finally:
                self._holding = None
                news.cancel()
                await asyncio.wait([news])
        finally:
            # Should this fail, the others wait until the lease has run out.
            with suppress(LedgerError):
                await self._let_go(holder)

    async def _held(self, holder: str) -> int:
        look = _FIRST_LOOK
        while (hold := await self._hold(holder)).wait > 0:
            await asyncio.sleep(min(hold.wait, look * random.uniform(0.5, 1.0)))
            look = min(2 * look, _LONGEST_LOOK)
        if hold.was_left:
            logger.warning(
                "a process did not finish renewing the token of a user: if it had got a new one"
                " already, and the server takes the old one no more, the user has to log in again"
            )
        return hold.fence

    async def _give_news(self, holder: str) -> None:
        while True:
            await asyncio.sleep(_NEWS)
            with suppress(LedgerError):
                await self._hold(holder)

    def _fence(self, token: Token) -> int | None:
        """Return the number of the hold in which a token was obtained; None for a new login."""
        if self._holding is None or self._holding[0] is not asyncio.current_task():
            return None
        if self._unsaved is not None and self._unsaved[0] == token:
            return self._unsaved[1]
        return self._holding[1]

    @abstractmethod
    async def _read(self) -> bytes | None:
        """Return what was saved last."""

    @abstractmethod
    async def _write(self, sealed: bytes, fence: int | None) -> bool:
        """Save, and tell whether it was; None outranks all holds until now."""

    @abstractmethod
    async def _hold(self, holder: str) -> Hold:
        """Begin a hold, or renew it."""

    @abstractmethod
    async def _let_go(self, holder: str) -> None:
        """End a hold."""


class SQLiteStore(_Store):
    """The rotating token of one user, for all processes of a host, in a SQLite file.

    ``path``
        As of an `aiotwhelp.SQLiteLedger`, and it may be the same file: it is made when it is
        missing, and is its owner's alone.
    ``user``
        What names the user in all processes, such as the user's id. The file has a keyed digest
        of it only.
    ``key``
        A Fernet key, from ``cryptography.fernet.Fernet.generate_key()``; or several: the first
        seals, and any opens, so that a new one can be put first while others still use the old.

    It needs the ``cryptography`` package: ``pip install "aiotwhelp[crypto]"``. ValueError for a
    key, a path or a user that is none. What goes wrong later is an `aiotwhelp.LedgerError`.
    """

    @discreet
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        user: str,
        key: str | bytes | Iterable[str | bytes],
    ) -> None:
        super().__init__(user, key)
        self._database = Database(path, patience=_PATIENCE)

    def __repr__(self) -> str:
        return f"<SQLiteStore {self._database.path}>"

    async def close(self) -> None:
        """Close the file and end the thread; safe to cancel. The store is of no use then."""
        await self._database.close()

    async def _read(self) -> bytes | None:
        return await self._on_row(_select)

    async def _write(self, sealed: bytes, fence: int | None) -> bool:
        return await self._on_row(_update, sealed, fence)

    async def _hold(self, holder: str) -> Hold:
        return await self._on_row(_hold, holder)

    async def _let_go(self, holder: str) -> None:
        await self._on_row(_let_go, holder)

    async def _on_row(self, work: Callable[..., T], *told: Any) -> T:
        return await self._database.run(partial(self._with_name, work, told))

    def _with_name(
        self,
        work: Callable[..., T],
        told: tuple[Any, ...],
        connection: sqlite3.Connection,
        host: Host,
    ) -> T:
        return work(connection, _name(self._user, host.secret), host.now, *told)


def _select(connection: sqlite3.Connection, name: str, _now: int) -> bytes | None:
    rows = connection.execute("SELECT sealed FROM tokens WHERE name = ?", (name,))
    sealed: bytes | None = next(rows, (None,))[0]
    return sealed


def _update(
    connection: sqlite3.Connection, name: str, _now: int, sealed: bytes, fence: int | None
) -> bool:
    connection.execute("INSERT INTO tokens (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
    if fence is None:
        done = connection.execute(
            "UPDATE tokens SET sealed = ?, fence = fence + 1, saved_by = fence + 1 WHERE name = ?",
            (sealed, name),
        )
    else:
        done = connection.execute(
            "UPDATE tokens SET sealed = ?, fence = max(fence, ?), saved_by = ?"
            " WHERE name = ? AND saved_by <= ?",
            (sealed, fence, fence, name, fence),
        )
    return done.rowcount > 0


def _hold(connection: sqlite3.Connection, name: str, now: int, holder: str) -> Hold:
    connection.execute("INSERT INTO tokens (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
    other, until, fence = connection.execute(
        "SELECT holder, held_until, fence FROM tokens WHERE name = ?", (name,)
    ).fetchone()
    is_other = other is not None and other != holder
    if is_other and now < until:
        return Hold((until - now) / 1000, 0)
    fence += other != holder
    connection.execute(
        "UPDATE tokens SET holder = ?, held_until = ?, fence = ? WHERE name = ?",
        (holder, now + round(LEASE * 1000), fence, name),
    )
    return Hold(0.0, fence, was_left=is_other)


def _let_go(connection: sqlite3.Connection, name: str, _now: int, holder: str) -> None:
    connection.execute(
        "UPDATE tokens SET holder = NULL WHERE name = ? AND holder = ?", (name, holder)
    )


#: One record of a user: KEYS[1] is a hash, ARGV[1] what to do with it.
_SCRIPT = """
local key, verb = KEYS[1], ARGV[1]
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function get(name) return redis.call("HGET", key, name) end
local function number(name) return tonumber(get(name) or "0") end

if verb == "read" then
  return get("sealed")
elseif verb == "write" then
  local fence = ARGV[3] == "" and number("fence") + 1 or tonumber(ARGV[3])
  if fence < number("saved_by") then return 0 end
  redis.call("HSET", key, "sealed", ARGV[2], "saved_by", fence,
    "fence", math.max(fence, number("fence")))
  return 1
elseif verb == "hold" then
  local other, holder = get("holder"), ARGV[2]
  local is_other = other and other ~= holder
  if is_other and now < number("held_until") then return {number("held_until") - now, 0, 0} end
  local fence = number("fence") + (other == holder and 0 or 1)
  redis.call("HSET", key, "holder", holder, "fence", fence,
    "held_until", string.format("%d", now + tonumber(ARGV[3])))
  return {0, fence, is_other and 1 or 0}
elseif verb == "let_go" then
  if get("holder") == ARGV[2] then redis.call("HDEL", key, "holder") end
  return 1
end
"""

#: Whoever comes first makes the secret of the names.
_AGREE = """
redis.call("SET", KEYS[1], ARGV[1], "NX")
return redis.call("GET", KEYS[1])
"""


class RedisStore(_Store):
    """The rotating token of one user, for all processes of any hosts, on Redis or Valkey.

    ``redis``
        A URL: ``redis://``, ``rediss://`` (TLS), ``valkey://``, ``valkeys://`` or ``unix://``; or
        an asyncio client of redis-py, which stays yours to close.
    ``cluster``
        Whether the URL is of a node of a cluster.
    ``user`` and ``key``
        As of a `SQLiteStore`.
    ``prefix``
        Of all keys. They do not expire: a token is kept until it is replaced. Let the server save
        its data to disk (``appendonly yes``); if it loses them, the token that a process used last
        is what is left.

    It needs ``pip install "aiotwhelp[redis,crypto]"``. ValueError for a key, a URL or a user that
    is none. What goes wrong later is an `aiotwhelp.LedgerError`.
    """

    @discreet
    def __init__(
        self,
        redis: str | Redis | RedisCluster,
        *,
        user: str,
        key: str | bytes | Iterable[str | bytes],
        prefix: str = "aiotwhelp",
        cluster: bool = False,
    ) -> None:
        super().__init__(user, key)
        self._server = Server(redis, is_cluster=cluster, next_node=_CONNECT)
        self._prefix = checked_prefix(prefix)
        #: Closes it with the loop, if nobody does before.
        self._end: AsyncGenerator[None] | None = None

    def __repr__(self) -> str:
        return f"<RedisStore {self._server.where}, keys {self._prefix}>"

    async def close(self) -> None:
        """Close the connection, unless the client is yours; safe to cancel."""
        await self._server.close()

    async def _read(self) -> bytes | None:
        sealed = await self._run("read")
        return sealed.encode() if isinstance(sealed, str) else sealed

    async def _write(self, sealed: bytes, fence: int | None) -> bool:
        return bool(await self._run("write", sealed, "" if fence is None else fence))

    async def _hold(self, holder: str) -> Hold:
        wait, fence, was_left = await self._run("hold", holder, round(LEASE * 1000))
        return Hold(wait / 1000, fence, was_left=bool(was_left))

    async def _let_go(self, holder: str) -> None:
        await self._run("let_go", holder)

    async def _run(self, verb: str, *told: Any) -> Any:
        if self._end is None:
            self._end = self._until_the_loop_ends()
            await anext(self._end)
        # The secret is asked for each time: a server that was emptied may have got another one.
        secret = await self._eval(_AGREE, f"{self._prefix}:tokens", secrets.token_hex(32))
        material = secret if isinstance(secret, bytes) else str(secret).encode()
        return await self._eval(
            _SCRIPT, f"{self._prefix}:token:{_name(self._user, material[:64])}", verb, *told
        )

    async def _until_the_loop_ends(self) -> AsyncGenerator[None]:
        """Close it with the loop, whose end nobody but a generator is told of."""
        try:
            yield
        finally:
            self._end = None
            await self.close()

    async def _eval(self, script: str, key: str, *told: Any) -> Any:
        return await _bounded(self._server.run("EVAL", script, 1, key, *told))


async def _bounded(command: Coroutine[Any, Any, Any]) -> Any:
    """Return what a command of redis-py answers; LedgerError if that takes too long.

    In a task of its own: a client of redis-py 8.1 with default options swallows a cancellation, a
    time-out's too, that comes while it connects.
    """
    task = asyncio.create_task(command)
    try:
        for _ in range(_LOOKS):
            if not task.done():
                await asyncio.wait([task], timeout=_PATIENCE / _LOOKS)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_CANCELLING)
    if not task.done() or task.cancelled():
        raise LedgerError(f"the token store did not answer within {_PATIENCE} s")
    return task.result()


def _name(user: str, secret: bytes) -> str:
    material = user.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(material, key=secret[:64], digest_size=16).hexdigest()


class _Seal(Secretive):
    """Encrypts tokens, each for its user: a record that was put in another's place is none."""

    def __init__(self, key: str | bytes | Iterable[str | bytes]) -> None:
        self._fernet = _fernet([key] if isinstance(key, str | bytes) else list(key))

    def __repr__(self) -> str:
        return "<_Seal>"

    def close(self, token: Token, user: str) -> bytes:
        """Return the token, sealed."""
        fields = [user, token.access_token, token.refresh_token, token.expires_at]
        return self._fernet.encrypt(json.dumps(fields).encode())

    def open(self, sealed: bytes, user: str) -> Token:
        """Return a token that was sealed for this user; raises LedgerError for anything else."""
        from cryptography.fernet import InvalidToken

        try:
            owner, *fields = json.loads(self._fernet.decrypt(sealed))
        except (InvalidToken, TypeError, ValueError):
            raise LedgerError(
                "the token of this user was sealed with another key: pass that key as well, in a"
                " list after the new one; nothing was replaced"
            ) from None
        if owner != user:
            raise LedgerError("the token in this user's place is that of another user")
        return Token(*fields)


def _fernet(keys: list[str | bytes]) -> MultiFernet:
    try:
        from cryptography.fernet import Fernet, MultiFernet
    except ImportError as error:
        raise ImportError('to keep tokens: pip install "aiotwhelp[crypto]"') from error
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except (TypeError, ValueError):
        raise ValueError(
            "key must be a Fernet key, or several: make one with"
            " cryptography.fernet.Fernet.generate_key()"
        ) from None
