"""Connections between two calls: a server that speaks on one unasked loses it.

aiohttp (3.14.5) keeps all that comes then, and gives it to the next call as its answer: 15 MB of
empty answers became 700 MB, and some other user's answer could become one's own.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Coroutine
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection


class Request(aiohttp.ClientRequest):
    """A request whose connection is watched."""

    def send(self, conn: Connection) -> Coroutine[Any, Any, aiohttp.ClientResponse]:
        """Send it, unless the server has spoken first."""
        protocol = conn.protocol
        if protocol is not None and protocol.transport is not None:
            if protocol.should_close:
                raise aiohttp.ClientOSError(errno.ECONNRESET, "the server spoke unasked")
            watch = _watch(protocol, protocol.transport)
            watch.is_asked = True
            conn.add_callback(watch.answered)
        return super().send(conn)


class _Watch(asyncio.Protocol):
    """Stands before aiohttp's protocol for as long as there is a connection."""

    def __init__(self, protocol: ResponseHandler) -> None:
        self._protocol = protocol
        #: Whether an answer is awaited, or being read.
        self.is_asked = False

    def answered(self) -> None:
        """Note that the connection goes back to the pool."""
        self.is_asked = False

    def data_received(self, data: bytes) -> None:
        if self.is_asked:
            self._protocol.data_received(data)
            # More may have come with the end of the answer, in one piece.
            if self.is_asked or not self._protocol.should_close:
                return
        self._protocol.abort()

    def eof_received(self) -> None:
        self._protocol.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._protocol.transport is not None:
            self._protocol.transport.set_protocol(self._protocol)  # nothing shall lead here
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


def _watch(protocol: ResponseHandler, transport: asyncio.Transport) -> _Watch:
    """Return who watches a connection, from its first call on."""
    watch = transport.get_protocol()
    if not isinstance(watch, _Watch):
        watch = _Watch(protocol)
        transport.set_protocol(watch)
    return watch
