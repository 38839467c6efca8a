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

#: As it is done for each request, without the detour of ``super()``.
_send = aiohttp.ClientRequest.send


class Request(aiohttp.ClientRequest):
    """A request whose connection is watched, from the first one on."""

    def send(  # pyright: ignore[reportIncompatibleMethodOverride] - a coroutine all the same
        self, conn: Connection
    ) -> Coroutine[Any, Any, aiohttp.ClientResponse]:
        """Send it, unless the server has spoken first."""
        protocol = conn.protocol
        if protocol is not None and protocol.transport is not None:
            watch = protocol.transport.get_protocol()
            if type(watch) is _Watch:
                watch.connection = conn
            elif protocol.should_close:
                raise aiohttp.ClientOSError(errno.ECONNRESET, "the server spoke unasked")
            else:
                protocol.transport.set_protocol(_Watch(protocol, conn))
        return _send(self, conn)


class _Watch(asyncio.Protocol):
    """Stands before aiohttp's protocol, and knows whose answer is awaited."""

    __slots__ = ("_protocol", "connection")

    def __init__(self, protocol: ResponseHandler, connection: Connection) -> None:
        self._protocol = protocol
        #: What the last call had of the connection: no protocol since it was given back.
        self.connection = connection

    def data_received(self, data: bytes) -> None:
        if self.connection.protocol is not None:
            self._protocol.data_received(data)
            # More may have come with the end of the answer, in one piece.
            if not self._protocol.should_close or self.connection.protocol is not None:
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
