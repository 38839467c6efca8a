"""An event loop whose time is virtual: it jumps to the next timer instead of sleeping."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import selectors
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Executor
from typing import Any, Final, TypeVar, TypeVarTuple
from weakref import WeakKeyDictionary

from aiotwhelp.testing.network import MemoryServer, Network
from aiotwhelp.testing.transports import Address

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: What ``loop.time()`` says at the start: not 0, which is too easily taken for "never".
START: Final = 1000.0
#: What ``loop.wall_time()`` says at the start, in POSIX seconds: 2027-01-15 08:00:00 UTC.
WALL_START: Final = 1_800_000_000.0

# Often enough to notice bytes that other threads leave in the wake-up pipe; a system call in
# every iteration would double the cost of a jump.
_POLL_EVERY: Final = 64
# The loop's own wake-up pipe is the one file that is always watched.
_OWN_FILES: Final = 1


class DeadlockError(AssertionError):
    """Every task waits for something that will never come; the message names the tasks."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop with a virtual clock and an in-memory network.

    ``time()`` begins at 1000.0 and moves only when no callback is ready: to the next timer, at
    once and exactly. The same program runs in the same order each time. TCP servers and
    connections stay in memory (``network``): no port is bound, no other machine is reached, and
    TLS is not spoken.

    Real work holds time: while a job runs in an executor, or inside ``hold_time()``, the clock
    stands still and the loop waits for it. While a real file is watched (``add_reader``, pipes
    of a subprocess) timers take their real time.

    ``max_iterations`` bounds the iterations without time passing, ``max_elapsed`` the virtual
    seconds: past either, and when nothing is left that could wake a task, ``DeadlockError`` is
    raised from whatever runs the loop. None lifts the bound.
    """

    # asyncio's own, in every version from 3.11 to 3.14.
    _scheduled: list[asyncio.TimerHandle]
    _ready: deque[asyncio.Handle]
    _clock_resolution: float

    def __init__(
        self,
        *,
        wall_start: float = WALL_START,
        max_iterations: int | None = 5_000_000,
        max_elapsed: float | None = 366 * 86_400.0,
    ) -> None:
        self._now = START
        self._wall_start = wall_start
        self._max_iterations = math.inf if max_iterations is None else max_iterations
        self._latest = math.inf if max_elapsed is None else START + max_elapsed
        self._iterations = 0
        self._moved_at = 0
        self._outside_work = 0
        self._connecting: WeakKeyDictionary[socket.socket, Address] = WeakKeyDictionary()
        #: Seconds by which the local wall clock is wrong; set it to skew or step that clock.
        self.wall_offset = 0.0
        self.network = Network()
        self._files = _Selector(self._wait)
        super().__init__(self._files)
        self._clock_resolution = math.ulp(self._now)

    def __repr__(self) -> str:
        return f"<VirtualTimeLoop elapsed={self.elapsed:g} {self.network!r}>"

    def time(self) -> float:
        """Return the virtual instant, in seconds."""
        return self._now

    @property
    def elapsed(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now - START

    def wall_time(self) -> float:
        """Return what the local wall clock says, in POSIX seconds: ``time.time`` of this loop."""
        return self._wall_start + self.elapsed + self.wall_offset

    @contextlib.contextmanager
    def hold_time(self) -> Iterator[None]:
        """Let no time pass inside: the loop waits for threads to call it, however long."""
        self._outside_work += 1
        try:
            yield
        finally:
            self._outside_work -= 1

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run ``func`` in an executor; no virtual time passes until its future is done."""
        future = super().run_in_executor(executor, func, *args)
        self._outside_work += 1
        future.add_done_callback(self._outside_work_done)
        return future

    async def shutdown_default_executor(self, *timeout: Any, **named: Any) -> None:
        """Wait for the default executor's threads, in real time."""
        with self.hold_time():
            await super().shutdown_default_executor(*timeout, **named)

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,  # noqa: A002 # asyncio's name
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """Answer literal addresses and the names in ``network.hosts``; all else is unknown."""
        if isinstance(host, bytes):
            host = host.decode("idna")
        numeric = self.network.hosts.get(host, host)
        kept = flags & socket.AI_PASSIVE
        return socket.getaddrinfo(numeric, port, family, type, proto, kept | socket.AI_NUMERICHOST)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Find the in-memory server at ``address``; the socket itself stays unconnected."""
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            await super().sock_connect(sock, address)
            return
        await self._handshake(address)
        self._connecting[sock] = address[:2]

    async def create_connection(
        self,
        protocol_factory: Callable[[], Any],
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: Any = None,
        sock: socket.socket | None = None,
        **options: Any,
    ) -> Any:
        """Connect to an in-memory server; raises ``ConnectionRefusedError`` where none listens."""
        if sock is not None and sock not in self._connecting:
            # Connected elsewhere: a socket pair, or a family that is not ours.
            return await super().create_connection(protocol_factory, sock=sock, ssl=ssl, **options)
        if sock is not None:
            address = self._connecting.pop(sock)
            # It was only a name; kept open, it would cost a file per connection.
            sock.close()
        else:
            address = await self._reach(host, port, options.get("family", 0))
        _refuse_tls(ssl)
        return await self._join(protocol_factory(), address)

    async def create_server(
        self,
        protocol_factory: Callable[[], Any],
        host: str | Iterable[str] | None = None,
        port: int | None = None,
        *,
        sock: socket.socket | None = None,
        ssl: Any = None,
        start_serving: bool = True,
        **_options: Any,
    ) -> Any:
        """Listen in memory; port 0 becomes a free one, and a given socket is only a name."""
        _refuse_tls(ssl)
        hosts = [host] if isinstance(host, str) else list(host or ["0.0.0.0"])  # noqa: S104
        if sock is not None:
            hosts, port = [sock.getsockname()[0]], sock.getsockname()[1]
        named = [self.network.hosts.get(name, name) for name in hosts]
        server = MemoryServer(self, self.network, protocol_factory, named, port or 0, sock)
        if start_serving:
            await server.start_serving()
        return server

    def _outside_work_done(self, _future: object) -> None:
        self._outside_work -= 1

    async def _handshake(self, address: Address) -> None:
        await asyncio.sleep(self.network.delay("up") + self.network.delay("down"))
        self.network.server_at(address)

    async def _reach(self, host: str | None, port: int | None, family: int) -> Address:
        infos = await self.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        address: Address = infos[0][4][:2]
        await self._handshake(address)
        return address

    async def _join(self, protocol: Any, address: Address) -> Any:
        transport = self.network.connect(self, protocol, address)
        try:
            # Both sides' connection_made go before this goes on.
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            transport.close()
            raise
        return transport, protocol

    def _wait(self, timeout: float | None, poll: Callable[[float | None], Any]) -> Any:
        """Stand in for the selector: look at real files as little as possible, or move time."""
        self._iterations += 1
        if self._iterations - self._moved_at > self._max_iterations:
            # Whoever cleans up after this gets as many again.
            self._moved_at = self._iterations
            raise self._deadlock(f"no time has passed for {self._max_iterations} iterations")
        if timeout == 0:
            return poll(0) if self._must_poll() else []
        if self._outside_work:
            return poll(None)
        events = self._look(timeout, poll)
        # Another thread may have called in since asyncio looked.
        if not (events or self._ready):
            self._move_on()
        return events

    def _look(self, timeout: float | None, poll: Callable[[float | None], Any]) -> Any:
        if self._watches_files():
            return poll(timeout)
        return poll(0) if timeout is None else []

    def _must_poll(self) -> bool:
        return self._iterations % _POLL_EVERY == 0 or self._watches_files()

    def _watches_files(self) -> bool:
        return len(self._files.get_map()) > _OWN_FILES

    def _move_on(self) -> None:
        if not self._scheduled:
            raise self._deadlock("nothing is left that could wake them")
        at = self._scheduled[0].when()
        if at > self._latest:
            raise self._deadlock(f"the next timer is later than {self._latest - START:g} s")
        self._now = at
        self._moved_at = self._iterations
        # One step of the float: timers due now run, none runs early.
        self._clock_resolution = math.ulp(self._now)

    def _deadlock(self, why: str) -> DeadlockError:
        names = sorted(_described(task) for task in asyncio.all_tasks(self))
        listed = "".join(f"\n  {name}" for name in names) or " none"
        return DeadlockError(f"{why} (after {self.elapsed:g} s); pending tasks:{listed}")


class _Selector(selectors.DefaultSelector):
    """Real files, asked only when the loop says so."""

    def __init__(self, wait: Callable[[float | None, Callable[[float | None], Any]], Any]) -> None:
        super().__init__()
        self._wait = wait
        self._poll = super().select

    def select(self, timeout: float | None = None) -> Any:
        return self._wait(timeout, self._poll)


def run(
    main: Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]],
    *,
    seed: int | None = None,
    debug: bool | None = None,
    loop_factory: Callable[[], VirtualTimeLoop] = VirtualTimeLoop,
) -> T:
    """Run ``main`` in virtual time on a loop of its own, and return what it returns.

    Tasks that are left are cancelled, asynchronous generators and executors shut down. With
    ``seed``, the ``random`` module is seeded for the run and put back afterwards. Raises what
    ``main`` raises, and ``DeadlockError`` instead of hanging.
    """
    with _seeded(seed), asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(as_coroutine(main))


def as_coroutine(
    main: Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]],
) -> Coroutine[Any, Any, T]:
    """Return the coroutine that ``main`` is, or makes."""
    return main() if callable(main) else main


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def _described(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack(limit=1)
    where = f" at {frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else ""
    name = getattr(task.get_coro(), "__qualname__", "?")
    return f"{task.get_name()}: {name}{where}"


def _refuse_tls(ssl: Any) -> None:
    if ssl:
        raise NotImplementedError("the in-memory network speaks no TLS: use http:// addresses")
