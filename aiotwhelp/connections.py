"""Connections between two calls: a server that speaks on one unasked loses it.

aiohttp (3.14.5) keeps all that comes then, and gives it to the next call as its answer: 15 MB of
empty answers became 700 MB, and some other user's answer could become one's own.
"""

from __future__ import annotations

import asyncio
import errno
from functools import partial

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection


class Request(aiohttp.ClientRequest):
    """A request after whose answer its connection is watched."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Send it, unless the server has spoken first."""
        protocol = conn.protocol
        if protocol is not None and protocol.transport is not None:
            if protocol.should_close:
                raise aiohttp.ClientOSError(errno.ECONNRESET, "the server spoke unasked")
            protocol.transport.set_protocol(protocol)
            conn.add_callback(partial(_watch, protocol))
        return await super().send(conn)


class _Watch(asyncio.Protocol):
    """Stands in for aiohttp's protocol while nothing is asked."""

    def __init__(self, protocol: ResponseHandler) -> None:
        self._protocol = protocol

    def data_received(self, data: bytes) -> None:
        self._protocol.abort()

    def eof_received(self) -> None:
        self._protocol.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def look_back(self) -> None:
        """Drop the connection if more came with the end of the answer, in one piece."""
        transport = self._protocol.transport
        is_idle = transport is not None and transport.get_protocol() is self
        if is_idle and self._protocol.should_close:
            self._protocol.abort()


def _watch(protocol: ResponseHandler) -> None:
    """Watch a connection that goes back to the pool; called while the answer's end is read."""
    if protocol.transport is not None:
        watch = _Watch(protocol)
        protocol.transport.set_protocol(watch)
        asyncio.get_running_loop().call_soon(watch.look_back)
