"""What sessions share: connections, a limiter, room for calls in flight, and their end."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from typing import Any, Protocol
from weakref import WeakSet

import aiohttp

from aiotwhelp import checks
from aiotwhelp.auth import Auth
from aiotwhelp.connections import Request
from aiotwhelp.deadlines import Deadlines
from aiotwhelp.errors import SessionClosedError
from aiotwhelp.limiter import Limiter
from aiotwhelp.local import Room

logger = logging.getLogger("aiotwhelp")


class Cuttable(Protocol):
    """A call under way."""

    def cut(self) -> None:
        """End it now."""


class Pool:
    """What sessions on one pool share: connections, a limiter, and the room for calls in flight."""

    def __init__(self, limiter: Limiter | None, concurrency: int, options: dict[str, Any]) -> None:
        self.is_closed = False
        #: Calls under way, and answers that are being read: closing waits for them. Whoever leaves
        #: a closed pool says so by `left`.
        self.calls: set[Cuttable] = set()
        self.reading = 0
        self._owns_limiter = limiter is None
        self.limiter = limiter if limiter is not None else Limiter()
        self.home = home = self.limiter.home
        self.tickets = self.limiter.tickets
        self.room = Room(checks.whole("concurrency", concurrency, least=1, of=" of calls"))
        #: Credentials in use: their token requests go over these connections.
        self.auths: WeakSet[Auth] = WeakSet()
        #: When attempts, and the reading of their answers, have taken too long.
        self.deadlines = Deadlines(lambda: home.now())
        self._options = options
        #: The connections, while there are any: `connect` makes them.
        self.client: aiohttp.ClientSession | None = None
        #: The loop that they are in.
        self.loop: asyncio.AbstractEventLoop | None = None
        self._closing: aiohttp.ClientSession | None = None
        self._sleepers: set[asyncio.Future[None]] = set()
        self._rested: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<Pool {self.active} calls{', closed' if self.is_closed else ''}>"

    @property
    def active(self) -> int:
        """How many calls are under way, or have an answer that is being read."""
        return len(self.calls) + self.reading

    def connect(self) -> aiohttp.ClientSession:
        """Return the connections, made on first use, since aiohttp wants a running loop for that.

        Raises `SessionClosedError` if the pool is closed.
        """
        if self.is_closed:
            raise SessionClosedError("the session is closed: make a new one")
        if self.client is None:
            # Cookies of one user must not ride on the calls of another.
            self._options.setdefault("cookie_jar", aiohttp.DummyCookieJar())
            self._options.setdefault("request_class", Request)
            self.home.bind()
            self.loop = asyncio.get_running_loop()
            self.client = aiohttp.ClientSession(**self._options)
            self.room.limit = min(self.room.limit, *_connections(self.client.connector))
        return self.client

    def look_at_the_loop(self) -> None:
        """Raise `WrongLoopError` if the connections are in another loop than the one that runs."""
        if self.loop is not None and not self.is_closed:  # that is told by whoever connects
            self.home.bind()

    def left(self) -> None:
        """Note that a call has ended, or the reading of an answer, while the pool closes."""
        if not self.active and self._rested is not None:
            self._rested.set()

    async def pause(self, delay: float) -> None:
        """Sleep; raises `SessionClosedError` as soon as the pool is closed."""
        loop = asyncio.get_running_loop()
        sleeper = loop.create_future()
        timer = loop.call_later(delay, _wake, sleeper)
        self._sleepers.add(sleeper)
        try:
            if not self.is_closed:
                await sleeper
        finally:
            timer.cancel()
            self._sleepers.discard(sleeper)
        if self.is_closed:
            raise SessionClosedError("the session was closed between two attempts of a call")

    async def close(self, grace: float | None) -> None:
        """Wake all waiters; after so many seconds cut what is still in flight.

        Whatever a close that was cancelled has left, the next one brings to its end.
        """
        self.is_closed = True
        self._closing, self.client = self.client or self._closing, None
        for sleeper in self._sleepers:
            _wake(sleeper)
        try:
            await self.limiter.close(None if self._owns_limiter else self)
            async with asyncio.timeout(grace):
                await self._rest()
        except TimeoutError:
            calls = (
                "1 call in flight was"
                if self.active == 1
                else f"{self.active} calls in flight were"
            )
            logger.warning("%s cut when the session closed", calls)
        finally:
            # Also where they wait for no connection that could be closed.
            for call in list(self.calls):
                call.cut()
            self.deadlines.close()
            if self._closing is not None:
                await self._closing.close()

    async def _rest(self) -> None:
        """Wait for calls in flight, and then for token requests that outlive their calls."""
        if self._rested is None:
            self._rested = asyncio.Event()
        while self.active:
            self._rested.clear()
            await self._rested.wait()
        for auth in list(self.auths):
            await auth.close()


def _wake(sleeper: asyncio.Future[None]) -> None:
    with suppress(asyncio.InvalidStateError):
        sleeper.set_result(None)


def _connections(connector: aiohttp.BaseConnector | None) -> list[int]:
    """Return what bounds the connections to one host; aiohttp's 0 is no bound."""
    limits = (getattr(connector, name, 0) for name in ("limit", "limit_per_host"))
    return [limit or sys.maxsize for limit in limits]
