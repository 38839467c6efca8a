"""The ends of an in-memory connection and the wires between them.

It behaves as TCP does where a program can tell: pieces arrive in order, a reader that pauses
holds up the writer, a close is an end of file for the peer and an abort is a reset.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from aiotwhelp.testing.network import MemoryServer, Network

#: Host and port, as ``socket`` spells them.
Address = tuple[str, int]
#: ``up`` is from the client to the server.
Direction = Literal["up", "down"]
#: What travels: bytes, the end of the stream, or a reset.
Piece = bytes | Literal["end", "reset"]

# What a kernel takes from a writer before asyncio's own buffer begins to fill: the order of
# Linux's default socket buffers (net.ipv4.tcp_wmem, tcp_rmem).
_SOCKET_BUFFER: Final = 256 * 1024
# asyncio reads at most this much at once (selector_events._SelectorTransport.max_size).
_PIECE: Final = 256 * 1024
# asyncio's default high-water mark (transports._FlowControlMixin).
_HIGH_WATER: Final = 64 * 1024


class Link:
    """A connection: two ends and a wire each way."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        network: Network,
        client: asyncio.BaseProtocol,
        server: MemoryServer,
        address: Address,
    ) -> None:
        self.loop = loop
        self.network = network
        self.server = server
        own = network.client_address(address[0])
        self._wires: dict[Direction, _Wire] = {"up": _Wire(self, "up"), "down": _Wire(self, "down")}
        accepted = server.factory()
        self.client_end = MemoryTransport(self, client, MemorySocket(own, address))
        self._server_end = MemoryTransport(self, accepted, MemorySocket(address, own))
        self._open = {self.client_end, self._server_end}
        server.attach(self._server_end)
        loop.call_soon(accepted.connection_made, self._server_end)
        loop.call_soon(client.connection_made, self.client_end)

    def outbound(self, end: MemoryTransport) -> _Wire:
        """Return the wire that ``end`` writes to."""
        return self._wires["up" if end is self.client_end else "down"]

    def inbound(self, end: MemoryTransport) -> _Wire:
        """Return the wire that ``end`` reads from."""
        return self._wires["down" if end is self.client_end else "up"]

    def sender(self, direction: Direction) -> MemoryTransport:
        """Return the end that writes in this direction."""
        return self.client_end if direction == "up" else self._server_end

    def receiver(self, direction: Direction) -> MemoryTransport:
        """Return the end that reads in this direction."""
        return self._server_end if direction == "up" else self.client_end

    def cut(self) -> None:
        """Lose what is under way and reset both ends."""
        for wire in self._wires.values():
            wire.clear()
        for end in (self.client_end, self._server_end):
            end.lose(_reset())

    def ended(self, end: MemoryTransport) -> None:
        """Note that ``end`` is closed."""
        self._open.discard(end)
        self.inbound(end).schedule()
        if end is self._server_end:
            self.server.detach(end)
        if not self._open:
            self.network.unlink(self)


class MemoryTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, link: Link, protocol: asyncio.BaseProtocol, sock: MemorySocket) -> None:
        super().__init__(
            {"socket": sock, "sockname": sock.getsockname(), "peername": sock.getpeername()}
        )
        self._loop = link.loop
        self._link = link
        self._protocol: Any = protocol
        self._closing = False
        self._lost = False
        self._ended = False
        self._reading_paused = False
        self._writing_paused = False
        self._high = _HIGH_WATER
        self._low = _HIGH_WATER // 4

    def __repr__(self) -> str:
        state = "closed" if self._lost else "closing" if self._closing else "open"
        own, peer = self.get_extra_info("sockname"), self.get_extra_info("peername")
        return f"<MemoryTransport {state} {own[:2]} to {peer[:2]}>"

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand what comes from now on to ``protocol``."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who is told of what comes."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        """Return whether it is closed or about to be."""
        return self._closing

    def is_reading(self) -> bool:
        """Return whether what arrives is handed on."""
        return not (self._closing or self._reading_paused)

    def is_lost(self) -> bool:
        """Return whether ``connection_lost`` was called or is due."""
        return self._lost

    def pause_reading(self) -> None:
        """Leave what arrives on the wire, which in time holds up the peer."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Hand on what has arrived."""
        if self._reading_paused and not self._closing:
            self._reading_paused = False
            self._link.inbound(self).schedule()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when the protocol is told to pause writing, in bytes, as asyncio does."""
        if high is None:
            high = _HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self._hold_up()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and the high mark, in bytes."""
        return (self._low, self._high)

    def get_write_buffer_size(self) -> int:
        """Return the bytes that a kernel would not have taken yet."""
        return max(0, self._link.outbound(self).size - _SOCKET_BUFFER)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send ``data``; never blocks. After ``close`` it is dropped."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes-like, not {type(data).__name__}")
        if self._ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._closing:
            return
        whole = bytes(data)
        for start in range(0, len(whole), _PIECE):
            self._link.outbound(self).send(whole[start : start + _PIECE])
        self._hold_up()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Send the parts as one write."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Return True: one direction can end alone."""
        return True

    def write_eof(self) -> None:
        """End this direction; the peer may go on sending."""
        if not (self._ended or self._closing):
            self._ended = True
            self._link.outbound(self).send("end")

    def close(self) -> None:
        """Send what was written, then end."""
        if self._closing:
            return
        if not self._ended:
            self._link.outbound(self).send("end")
        self._closing = True
        if not self.get_write_buffer_size():
            self.lose(None)

    def abort(self) -> None:
        """End at once; the peer sees a reset after what had been written."""
        if not self._lost:
            self._link.outbound(self).send("reset")
            self.lose(None)

    def take(self, piece: Piece) -> None:
        """Hand on what arrived. What the protocol raises ends the connection."""
        if piece == "reset":
            self.lose(_reset())
            return
        try:
            if isinstance(piece, bytes):
                self._protocol.data_received(piece)
            elif not self._protocol.eof_received():
                self.close()
        except Exception as error:  # noqa: BLE001 # as asyncio: reported, and fatal for the link
            self._report("Fatal error: the protocol failed to take what arrived", error)
            self._link.outbound(self).send("reset")
            self.lose(error)

    def drained(self) -> None:
        """Go on after the peer took some of what was written."""
        size = self.get_write_buffer_size()
        if self._closing and not size:
            self.lose(None)
        elif self._writing_paused and size <= self._low:
            self._writing_paused = False
            self._tell("resume_writing")

    def lose(self, error: Exception | None) -> None:
        """Let the protocol know that it is over: once, and not before the next iteration."""
        if not self._lost:
            self._lost = self._closing = True
            self._loop.call_soon(self._over, error)

    def _hold_up(self) -> None:
        if not self._writing_paused and self.get_write_buffer_size() > self._high:
            self._writing_paused = True
            self._tell("pause_writing")

    def _tell(self, what: Literal["pause_writing", "resume_writing"]) -> None:
        try:
            getattr(self._protocol, what)()
        except Exception as error:  # noqa: BLE001 # as asyncio: reported, and the link goes on
            self._report(f"protocol.{what}() failed", error)

    def _report(self, message: str, error: Exception) -> None:
        self._loop.call_exception_handler(
            {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
        )

    def _over(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._link.ended(self)


class MemorySocket:
    """What ``get_extra_info("socket")`` answers: addresses, and options that do nothing."""

    type = socket.SOCK_STREAM
    proto = socket.IPPROTO_TCP

    def __init__(self, own: Address, peer: Address | None = None) -> None:
        self.family = socket.AF_INET6 if ":" in own[0] else socket.AF_INET
        self._own = own
        self._peer = peer

    def __repr__(self) -> str:
        return f"<MemorySocket {self._own} to {self._peer}>"

    def getsockname(self) -> tuple[Any, ...]:
        """Return this side's address, as long a tuple as its family has."""
        return self._spelled(self._own)

    def getpeername(self) -> tuple[Any, ...]:
        """Return the other side's address; a listening socket has none and raises OSError."""
        if self._peer is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self._spelled(self._peer)

    def fileno(self) -> int:
        """Return -1: there is no file behind it."""
        return -1

    def setsockopt(self, *_option: object) -> None:
        """Do nothing: no option changes how memory behaves."""

    def getsockopt(self, *_option: object) -> int:
        """Return 0 for every option."""
        return 0

    def _spelled(self, address: Address) -> tuple[Any, ...]:
        return (*address, 0, 0) if self.family == socket.AF_INET6 else address


class _Wire:
    """One direction of a connection: pieces in order, each with the instant it arrives."""

    def __init__(self, link: Link, direction: Direction) -> None:
        self.size = 0
        self._link = link
        self._loop = link.loop
        self._direction: Direction = direction
        self._pieces: deque[tuple[float, Piece]] = deque()
        self._last = 0.0
        self._scheduled = False

    def send(self, piece: Piece) -> None:
        at = self._loop.time() + self._link.network.delay(self._direction)
        self._last = max(at, self._last)
        self._pieces.append((self._last, piece))
        self.size += _weight(piece)
        self.schedule()

    def schedule(self) -> None:
        receiver = self._link.receiver(self._direction)
        if self._scheduled or not self._pieces or not (receiver.is_reading() or receiver.is_lost()):
            return
        self._scheduled = True
        at = self._pieces[0][0]
        if at > self._loop.time():
            self._loop.call_at(at, self._deliver)
        else:
            self._loop.call_soon(self._deliver)

    def clear(self) -> None:
        self._pieces.clear()
        self.size = 0

    def _deliver(self) -> None:
        self._scheduled = False
        receiver, sender = self._link.receiver(self._direction), self._link.sender(self._direction)
        while self._has_arrived() and receiver.is_reading():
            receiver.take(self._pop())
        if receiver.is_lost():
            self._discard(sender, receiver)
        sender.drained()
        self.schedule()

    def _discard(self, sender: MemoryTransport, receiver: MemoryTransport) -> None:
        unread = False
        while self._has_arrived():
            unread |= isinstance(self._pop(), bytes)
        # Who sends to a socket that is closed is answered with a reset (RFC 9293, 3.10.7.1).
        if unread and not sender.is_lost():
            self._link.outbound(receiver).send("reset")

    def _has_arrived(self) -> bool:
        return bool(self._pieces) and self._pieces[0][0] <= self._loop.time()

    def _pop(self) -> Piece:
        _, piece = self._pieces.popleft()
        self.size -= _weight(piece)
        return piece


def _weight(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else 0


def _reset() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
