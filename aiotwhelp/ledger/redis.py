"""A ledger on Redis or Valkey: one script for each exchange, on the server's own clock."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import secrets
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiotwhelp import checks
from aiotwhelp.errors import (
    SHORTEST_SECRET,
    LedgerError,
    WrongLoopError,
    forget_frames,
    hide,
    one_line,
)
from aiotwhelp.ledger.port import Lease, Report

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

#: Schemes as redis-py knows them, and what Valkey's stand for.
_SCHEMES = {"redis": "redis", "rediss": "rediss", "unix": "unix"}
_SCHEMES |= {"valkey": "redis", "valkeys": "rediss"}

#: A node of a cluster that does not take a connection for so many seconds is left for the next.
_NEXT_NODE = 0.2

#: Closing waits for the other end so many seconds.
_CLOSING = 0.2

#: What lies between may have cut a connection that was idle for so many seconds.
_IDLE = 30.0

#: A secret is forgotten after so many milliseconds without a process, and looked at after so many
#: seconds by each.
_SECRET_KEPT = 7 * 86_400_000
_SECRET_LOOKED_AT = 3600.0

#: So many seconds after a record began: perhaps all that was there before is gone.
_SECRET_DOUBTED = 1.0

#: The first secret stands, and whoever comes with another one takes it over.
_AGREE = """
redis.call("SET", KEYS[1], ARGV[1], "NX", "PX", ARGV[2])
redis.call("PEXPIRE", KEYS[1], ARGV[2])
return redis.call("GET", KEYS[1])
"""

_REPLICA = "it is a replica, which takes no writes"
_NO_SCRIPT = "it does not know the script"

#: What an engine says, as a class of redis-py or in its own words, and what that means.
_MEANINGS = (
    (("foreign", "wrongtype"), "a key of this prefix holds something else, which is left alone"),
    (("noscript",), _NO_SCRIPT),
    (("readonly",), _REPLICA),
    (("oom ", "outofmemory"), "it is full: its maxmemory is reached"),
    (("loading",), "it is loading its data"),
    (("authentication", "wrongpass", "noauth"), "it does not take this user name and password"),
    (("permission", "authorization", "noperm"), "this user may not run scripts on these keys"),
    (("clusterdown", "masterdown"), "the cluster is down"),
    (
        ("moved", "askerror", "error: ask ", "crossslot"),
        "it is a cluster: pass cluster=True",
    ),
    (("user_script", "error running script"), "a record is damaged, and is left alone"),
)


class RedisLedger:
    """Shares quotas through Redis 6.2 or newer, or Valkey 7.2 or newer, among any number of hosts.

    ``redis``
        A URL: ``redis://user:password@host:6379/0``, ``rediss://`` for TLS (``?ssl_ca_certs=``
        names a file), ``valkey://`` and ``valkeys://``, ``unix:///path``. Or an asyncio client
        of redis-py, which stays yours to close: its time-outs and retries apply, though the
        limiter waits for 250 ms at most.
    ``prefix``
        Of all keys. A record is ``{prefix:app}:quota``, both as digests; every key expires.
    ``secret``
        The key of those digests, the same for all processes, of 16 bytes or more. Without one a
        random secret is kept beside the records: whoever may read it can tell by trying what
        names are behind them.
    ``cluster``
        Whether the URL is of a node of a cluster.

    It needs redis-py: ``pip install "aiotwhelp[redis]"``. A ledger belongs to one event loop.
    """

    def __init__(
        self,
        redis: str | Redis | RedisCluster,
        *,
        prefix: str = "aiotwhelp",
        secret: bytes | str | None = None,
        cluster: bool = False,
    ) -> None:
        self._server = Server(redis, is_cluster=cluster)
        self._prefix = checked_prefix(prefix)
        self._given = _checked_secret(secret)
        self._secret: str | None = None
        self._looked_at = 0.0

    def __repr__(self) -> str:
        return f"<RedisLedger {self._server.where}, keys {self._prefix}>"

    async def exchange(self, reports: Sequence[Report]) -> Sequence[Lease]:
        """Take reports in, in one round trip for each app, and answer each with a lease.

        Safe to cancel. Raises LedgerError for whatever goes wrong, and has changed nothing then,
        or something that the next reports set right.
        """
        if self._secret is not None and self._server.now() > self._looked_at + _SECRET_LOOKED_AT:
            await self._look_at_secret()
        if len(reports) == 1:
            return await self._run(reports)
        apps: dict[str, list[Report]] = {}
        for report in reports:
            apps.setdefault(report.record.partition("/")[0], []).append(report)
        if len(apps) == 1:
            return await self._run(reports)
        leases: dict[int, Lease] = {}
        answers = await asyncio.gather(*map(self._run, apps.values()), return_exceptions=True)
        for asked, answer in zip(apps.values(), answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            leases |= zip(map(id, asked), answer, strict=True)
        return [leases[id(report)] for report in reports]

    async def secret(self) -> bytes:
        """Return the key of the digests that records are named by: one for all processes."""
        if self._given is not None:
            return self._given
        # One that was known before comes first: an engine that was emptied gets it back.
        self._secret = await self._agree(self._secret or secrets.token_hex(32))
        return bytes.fromhex(self._secret)

    async def close(self) -> None:
        """Close the connection, unless the client is yours."""
        await self._server.close()

    async def _run(self, reports: Sequence[Report]) -> list[Lease]:
        text, digest = _script()
        said = self._said(reports)
        answer = await self._server.run("EVALSHA", digest, *said)
        if answer is None:  # it does not know the script, or no longer
            answer = await self._server.run("EVAL", text, *said)
        leases, begun = _leases(answer)
        if True in begun and any(
            is_new and report.sequence > 1 for is_new, report in zip(begun, reports, strict=True)
        ):
            await self._look_at_secret()
        elif True in begun:
            # Whoever comes next may begin anew with another secret, and never meet us.
            soon = self._server.now() + _SECRET_DOUBTED - _SECRET_LOOKED_AT
            self._looked_at = min(self._looked_at, soon)
        return leases

    def _said(self, reports: Sequence[Report]) -> tuple[int | str, ...]:
        """Return what the script is told."""
        keys = [self._key(report.record) for report in reports]
        return len(keys), *keys, _dumps(reports)

    def _key(self, record: str) -> str:
        app, _, quota = record.partition("/")
        return f"{{{self._prefix}:{app}}}:{quota}"

    async def _look_at_secret(self) -> None:
        """See that all still name records alike: an emptied engine may have got another secret."""
        if self._secret is None:
            return
        known, self._secret = self._secret, await self._agree(self._secret)
        if self._secret != known:
            raise LedgerError(f"the ledger at {self._server.where} was emptied, and begun anew")

    async def _agree(self, secret: str) -> str:
        key = f"{self._prefix}:secret"
        answer = await self._server.run("EVAL", _AGREE, 1, key, secret, _SECRET_KEPT)
        agreed = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)
        if len(agreed) != len(secret) or not set(agreed) <= set("0123456789abcdef"):
            raise LedgerError(f"the key {key} at {self._server.where} holds something else")
        self._looked_at = self._server.now()
        return agreed


class Server:
    """One engine, or a cluster: a client of redis-py, and its errors as ours.

    Nothing here has a bound in time but ``next_node``, for which a cluster's node may keep one
    waiting that connects to it: whoever runs a command bounds all of it.
    """

    def __init__(
        self, redis: str | Redis | RedisCluster, *, is_cluster: bool, next_node: float = _NEXT_NODE
    ) -> None:
        self._is_cluster = checks.flag("cluster", is_cluster)
        self._next_node = next_node
        self._url: str | None = None
        self._client: _Line | _Client | None = None
        if isinstance(redis, str):
            self._url = _checked_url(redis, is_cluster=is_cluster)
        else:
            self._client = _Client(_checked_client(redis), is_ours=False)
        self._words = _passwords(self._url)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._used = 0.0
        self.where = _where(self._url)

    def now(self) -> float:
        """Return seconds of the loop's clock."""
        return asyncio.get_running_loop().time()

    async def run(self, *command: bytes | str | int) -> Any:
        """Send one command and return what it answers; None for a script that is not there.

        Safe to cancel: the connection is given up then, and the next command makes another.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._bind(loop)
        client = self._client
        assert client is not None  # noqa: S101 - it is bound: for the type checker
        handled = sys.exception()
        try:
            used, self._used = self._used, loop.time()
            if self._used > used + _IDLE:
                await client.hang_up()
            return await client.run(command)
        except BaseException as error:
            forget_frames(error, handled)  # redis-py's locals show the password
            if not isinstance(error, Exception):
                raise
            hide(error, self._words, (Exception,))  # redis-py has other errors than its own
            meaning = _meaning(error)
            if meaning is _NO_SCRIPT:
                return None
            if meaning is _REPLICA:
                await client.hang_up()  # the name may lead to another engine by now
            raise LedgerError(f"the ledger at {self.where}: {meaning}") from error

    async def close(self) -> None:
        """Close the client, unless it is the user's own; safe to cancel."""
        if self._url is None or self._client is None:
            return
        client, self._client, self._loop = self._client, None, None
        closing = asyncio.ensure_future(client.aclose())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await asyncio.wait([closing])
            raise

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None:
            raise WrongLoopError("a RedisLedger belongs to one event loop: give each its own")
        self._loop = loop
        if self._url is None:
            return
        if self._is_cluster:
            cluster = _cluster(self._url, next_node=self._next_node)
            self._client = _Client(cluster, is_ours=True)
        else:
            self._client = _Line(self._url)


class _Client:
    """A client of redis-py's: a cluster's, or the user's own, whose connections are his."""

    def __init__(self, client: Any, *, is_ours: bool) -> None:
        self._client = client
        self._is_ours = is_ours

    async def run(self, command: tuple[bytes | str | int, ...]) -> Any:
        """Send a command and return what it answers, or raise what it was answered with."""
        # Else commands that come together make a cluster's client close its connections.
        await self._client.initialize()
        return await self._client.execute_command(*command)

    async def hang_up(self) -> None:
        """Have the next command make a new connection, if that is for us to do."""
        if self._is_ours:
            await self._client.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()


class _Line:
    """One connection of redis-py's, that takes one command after the other.

    Its client would do the same. What that does besides, for each command anew, took a quarter of
    an exchange's time.
    """

    def __init__(self, url: str) -> None:
        from redis.asyncio import ConnectionPool

        pool: Any = ConnectionPool.from_url(url, **_options())
        self._connection: Any = pool.make_connection()
        self._turn = asyncio.Lock()

    async def run(self, command: tuple[bytes | str | int, ...]) -> Any:
        """Send a command and return what it answers, or raise what it was answered with.

        Safe to cancel: redis-py closes a connection whose answer nobody has read.
        """
        async with self._turn:
            await self._connection.send_command(*command)
            return await self._connection.read_response()

    async def hang_up(self) -> None:
        """Have the next command make a new connection."""
        async with self._turn:
            await self._connection.disconnect(nowait=True)

    async def aclose(self) -> None:
        """Close the connection, whoever is using it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING):
                await self._connection.disconnect()


def _options() -> dict[str, Any]:
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    # Whoever bounds an exchange bounds its parts; one that is sent twice would be no use.
    return {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "protocol": 2,
    }


def _cluster(url: str, *, next_node: float = _NEXT_NODE) -> RedisCluster:
    from redis.asyncio import RedisCluster

    return RedisCluster.from_url(url, **_options() | {"socket_connect_timeout": next_node})


def _redis() -> Any:
    """Return redis-py's errors; raises ImportError that says what to install."""
    try:
        from redis import exceptions
    except ImportError as error:
        raise ImportError(
            'RedisLedger needs redis-py: pip install "aiotwhelp[redis]"', name="redis"
        ) from error
    return exceptions


def _meaning(error: Exception) -> str:
    said = f"{type(error).__name__}: {error}"
    for words, meaning in _MEANINGS:
        if any(word in said.lower() for word in words):
            return meaning
    return one_line(said)


# What is passed --------------------------------------------------------------------------------


def _checked_url(url: str, *, is_cluster: bool) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        # No more is shown: a password may follow.
        given = f"; not with {scheme[:32]!r}" if separator else ""
        raise ValueError(
            f"a Redis URL begins with {', '.join(f'{each}://' for each in _SCHEMES)}{given}"
        )
    url = f"{_SCHEMES[scheme]}://{rest}"
    _redis()
    from redis.asyncio.connection import parse_url

    try:
        options: dict[str, Any] = dict(parse_url(url))
    except ValueError:
        raise ValueError(
            "this is no Redis URL: redis://user:password@host:6379/0 is one; a user name and"
            " password are percent-encoded"
        ) from None
    errors = _redis()
    try:
        _try_options(url, is_cluster=is_cluster)
    except (TypeError, ValueError, errors.RedisError, errors.RedisClusterException):
        # Neither the URL nor what it holds is shown: a password may be in it.
        names = ", ".join(sorted(options.keys() - {"host", "port", "db", "username", "password"}))
        raise ValueError(
            f"a Redis URL has options that redis-py's connections do not take, among: {names}"
        ) from None
    return url


def _try_options(url: str, *, is_cluster: bool) -> None:
    """Make a connection of a URL, or one to each node that it names; they connect nowhere yet."""
    if not is_cluster:
        _Line(url)
        return
    for node in _cluster(url).nodes_manager.startup_nodes.values():
        node.connection_class(**node.connection_kwargs)


def _checked_client(client: Redis | RedisCluster) -> Redis | RedisCluster:
    _redis()
    from redis.asyncio import Redis, RedisCluster

    return checks.instance(
        "redis", client, (Redis, RedisCluster), "a URL, or a client of redis.asyncio"
    )


def checked_prefix(prefix: str) -> str:
    """Return the beginning of keys; raises TypeError or ValueError for none."""
    checks.instance("prefix", prefix, str, "a string")
    if not prefix or set(prefix) & set("{}"):
        raise ValueError(f"prefix is the beginning of keys, without braces, not {prefix!r}")
    return prefix


def _checked_secret(secret: bytes | str | None) -> bytes | None:
    if secret is None:
        return None
    checks.instance("secret", secret, (bytes, str), "bytes or a string")
    key = secret.encode() if isinstance(secret, str) else secret
    if len(key) < 16:
        raise ValueError(f"secret is 16 bytes or more, not {len(key)}: what is short is guessed")
    # Of one length, whatever was given.
    return hashlib.blake2b(key, digest_size=32).digest()


def _passwords(url: str | None) -> list[str]:
    """Return what an engine is told and may repeat; of a client of the user's that is his."""
    if url is None:
        return []
    from redis.asyncio.connection import parse_url

    password = str(parse_url(url).get("password") or "")
    return [password] if len(password) >= SHORTEST_SECRET else []


def _where(url: str | None) -> str:
    """Return what may be shown of a URL."""
    if url is None:
        return "your client"
    parts = urlsplit(url)
    place = parts.path if parts.scheme == "unix" else (parts.hostname or "localhost")
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{place}{port}"


# What is sent ----------------------------------------------------------------------------------

#: Tuples are lists to it, and so are reports and notes.
_dumps = json.JSONEncoder(separators=(",", ":")).encode
_decoded = json.JSONDecoder().raw_decode

_SHOWN = Lease._fields.index("shown")


@functools.cache
def _script() -> tuple[bytes, str]:
    """Return the script, and what an engine knows it by."""
    text = resources.files("aiotwhelp.ledger").joinpath("exchange.lua").read_bytes()
    return text, hashlib.sha1(text, usedforsecurity=False).hexdigest()


def _leases(answer: bytes | str) -> tuple[list[Lease], list[bool]]:
    """Return the leases of an answer, and which of their records are new."""
    rows, _ = _decoded(answer if isinstance(answer, str) else answer.decode())
    begun = [row.pop() for row in rows]
    for row in rows:
        row[_SHOWN] = tuple(row[_SHOWN] or ())
    return [Lease(*row) for row in rows], begun
