"""An in-memory network: servers that listen in memory, connections to them, and faults."""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
from collections.abc import Callable, Iterable
from typing import Final

from aiotwhelp.testing.transports import Address, Direction, Link, MemorySocket, MemoryTransport

_FIRST_SERVER_PORT: Final = 20_000
_FIRST_CLIENT_PORT: Final = 40_000
_EVERY_HOST: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 # compared, never bound


class Network:
    """The servers and connections of one loop, and the faults they are to suffer.

    ``latency`` is in seconds, one way, or a function of the direction (``"up"`` or ``"down"``)
    that is asked for each piece; a later piece never overtakes an earlier one. ``hosts`` maps
    names to literal addresses; every other name is unknown. ``opened`` counts the connections
    ever made: it stays put while a client reuses one.
    """

    def __init__(self) -> None:
        self.latency: float | Callable[[Direction], float] = 0.0
        self.hosts: dict[str, str] = {"localhost": "127.0.0.1"}
        self.opened = 0
        self._servers: dict[Address, MemoryServer] = {}
        # A dict keeps the order of arrival, a set would not.
        self._links: dict[Link, None] = {}
        self._refused: set[Address] = set()
        self._server_ports = itertools.count(_FIRST_SERVER_PORT)
        self._client_ports = itertools.count(_FIRST_CLIENT_PORT)

    def __repr__(self) -> str:
        return f"<Network {len(self._servers)} listening, {self.connections} open>"

    @property
    def connections(self) -> int:
        """Connections of which at least one side is still open."""
        return len(self._links)

    def refuse(self, address: Address) -> None:
        """Refuse new connections to ``address``, as if nobody listened there."""
        self._refused.add(address)

    def allow(self, address: Address) -> None:
        """Take back ``refuse``."""
        self._refused.discard(address)

    def cut(self, address: Address | None = None) -> int:
        """Reset every connection, or those to the server at ``address``; return how many.

        Both sides see ``ConnectionResetError``; what was under way is lost.
        """
        doomed = [link for link in self._links if address in (None, link.server.address)]
        for link in doomed:
            link.cut()
        return len(doomed)

    def delay(self, direction: Direction) -> float:
        """Return the seconds that a piece sent now is under way."""
        latency = self.latency
        return latency(direction) if callable(latency) else latency

    def listen(self, server: MemoryServer, host: str, port: int) -> Address:
        """Give ``server`` its address; port 0 becomes a free one. Raises OSError if taken."""
        address = (host, port or self._free_port(host))
        if address in self._servers:
            raise OSError(errno.EADDRINUSE, f"address {address} is already in use")
        self._servers[address] = server
        return address

    def forget(self, server: MemoryServer) -> None:
        """Let nobody connect to ``server`` any more; open connections stay."""
        self._servers = {at: other for at, other in self._servers.items() if other is not server}

    def server_at(self, address: Address) -> MemoryServer:
        """Return who listens at ``address``, or raise ``ConnectionRefusedError``."""
        host, port = address[:2]
        candidates = [self._servers.get((name, port)) for name in (host, *sorted(_EVERY_HOST))]
        found = [server for server in candidates if server is not None and server.is_serving()]
        if (host, port) in self._refused or not found:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed {address}")
        return found[0]

    def connect(
        self, loop: asyncio.AbstractEventLoop, client: asyncio.BaseProtocol, address: Address
    ) -> MemoryTransport:
        """Join ``client`` to the server at ``address``; return the client's end."""
        link = Link(loop, self, client, self.server_at(address), address[:2])
        self._links[link] = None
        self.opened += 1
        return link.client_end

    def client_address(self, host: str) -> Address:
        """Return the made-up address that a client of ``host`` speaks from."""
        return (host, next(self._client_ports))

    def unlink(self, link: Link) -> None:
        """Drop a connection whose two sides are closed."""
        self._links.pop(link, None)

    def _free_port(self, host: str) -> int:
        return next(port for port in self._server_ports if (host, port) not in self._servers)


class MemoryServer(asyncio.AbstractServer):
    """A listening server of a ``Network``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        network: Network,
        factory: Callable[[], asyncio.BaseProtocol],
        hosts: Iterable[str],
        port: int,
        sock: socket.socket | None = None,
    ) -> None:
        self.factory = factory
        self._loop = loop
        self._network = network
        # A socket given to listen on is only a name here, and is closed with the server.
        self._given = sock
        self._ends: dict[MemoryTransport, None] = {}
        self._idle = loop.create_future()
        self._forever: asyncio.Future[None] | None = None
        self._serving = False
        self._closed = False
        self._addresses: list[Address] = []
        self._wanted = [(host, port) for host in hosts]
        self._listen()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "serving" if self._serving else "idle"
        return f"<MemoryServer {state} {self._addresses}>"

    @property
    def address(self) -> Address:
        """The first address that it listens on."""
        return self._addresses[0]

    @property
    def sockets(self) -> tuple[MemorySocket, ...]:
        """One stand-in per address; empty once closed."""
        return () if self._closed else tuple(MemorySocket(at) for at in self._addresses)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop it was made on."""
        return self._loop

    def is_serving(self) -> bool:
        """Return whether it takes connections."""
        return self._serving

    async def start_serving(self) -> None:
        """Begin to take connections."""
        self._serving = not self._closed
        await asyncio.sleep(0)

    async def serve_forever(self) -> None:
        """Take connections until cancelled, then close."""
        if self._closed or self._forever is not None:
            raise RuntimeError(f"server {self!r} cannot serve again")
        await self.start_serving()
        self._forever = self._loop.create_future()
        try:
            await self._forever
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise
        finally:
            self._forever = None

    def close(self) -> None:
        """Take no more connections; those that are open stay."""
        if self._closed:
            return
        self._closed = True
        self._serving = False
        self._network.forget(self)
        if self._given is not None:
            self._given.close()
        if self._forever is not None:
            self._forever.cancel()
        self._settle()

    def close_clients(self) -> None:
        """Close every open connection."""
        for end in list(self._ends):
            end.close()

    def abort_clients(self) -> None:
        """Reset every open connection."""
        for end in list(self._ends):
            end.abort()

    async def wait_closed(self) -> None:
        """Wait until it is closed and its last connection has ended."""
        await asyncio.shield(self._idle)

    def attach(self, end: MemoryTransport) -> None:
        """Note a connection's server side."""
        self._ends[end] = None

    def detach(self, end: MemoryTransport) -> None:
        """Note that a connection's server side has ended."""
        self._ends.pop(end, None)
        self._settle()

    def _listen(self) -> None:
        try:
            for host, port in self._wanted:
                self._addresses.append(self._network.listen(self, host, port))
        except OSError:
            self._network.forget(self)
            raise

    def _settle(self) -> None:
        if self._closed and not self._ends and not self._idle.done():
            self._idle.set_result(None)
