"""What sessions share: connections, a limiter, room for calls in flight, and their end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiohttp

from aiotwhelp.errors import SessionClosedError
from aiotwhelp.limiter import Limiter
from aiotwhelp.windows import Room

logger = logging.getLogger("aiotwhelp")


class Pool:
    """What sessions on one pool share: connections, a limiter, and the room for calls in flight."""

    def __init__(self, limiter: Limiter | None, concurrency: int, options: dict[str, Any]) -> None:
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise ValueError(f"concurrency is a number of calls from 1 on, not {concurrency!r}")
        self.owns_limiter = limiter is None
        self.limiter = limiter if limiter is not None else Limiter()
        self.room = Room(concurrency)
        self.raise_for_status = options.pop("raise_for_status", False)
        self._options = options
        self._client: aiohttp.ClientSession | None = None
        self.is_closed = False
        self.active = 0
        self._changed: asyncio.Event | None = None

    @property
    def client(self) -> aiohttp.ClientSession:
        """The connections, made on first use, since aiohttp wants a running loop for that."""
        if self.is_closed:
            raise SessionClosedError("the session is closed: make a new one")
        if self._client is None:
            # Cookies of one user must not ride on the calls of another.
            self._options.setdefault("cookie_jar", aiohttp.DummyCookieJar())
            self._client = aiohttp.ClientSession(**self._options)
            limit = getattr(self._client.connector, "limit", 0)
            if limit:
                self.room.limit = min(self.room.limit, limit)
        return self._client

    def begin(self) -> None:
        """Note that a call has begun."""
        self.active += 1

    def end(self) -> None:
        """Note that a call has ended."""
        self.active -= 1
        if self._changed is not None:
            self._changed.set()

    async def pause(self, delay: float) -> None:
        """Sleep, unless the pool is closed meanwhile."""
        if not self.is_closed:
            self._changed = self._changed or asyncio.Event()
            deadline = asyncio.get_running_loop().time() + delay
            try:
                async with asyncio.timeout_at(deadline):
                    while not self.is_closed:
                        self._changed.clear()
                        await self._changed.wait()
            except TimeoutError:
                return
        raise SessionClosedError("the session was closed between two attempts of a call")

    async def close(self, grace: float) -> None:
        """Wake all waiters; after so many seconds cut what is still in flight."""
        if self.is_closed:
            return
        self.is_closed = True
        self._changed = self._changed or asyncio.Event()
        self._changed.set()
        if self.owns_limiter:
            await self.limiter.close()
        else:
            await self.limiter.close(self)
        try:
            async with asyncio.timeout(grace):
                while self.active:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            logger.warning("%d calls in flight were cut when the session closed", self.active)
        finally:
            if self._client is not None:
                await self._client.close()
