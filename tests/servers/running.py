"""Start one of the servers, read what it counted, and leave nothing of it behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).parent
#: Where `make servers` puts what they need.
BUILT = HERE.parents[1] / "build" / "servers"
#: A path of each server, outside its limit, where it shows what it has answered.
JOURNAL = "/-/journal"


@dataclass(frozen=True, slots=True)
class Server:
    """A program of this folder, and its settings in the words of its limiter."""

    program: str
    settings: Mapping[str, Any]

    @property
    def interpreter(self) -> str:
        return "node" if self.program.endswith(".js") else str(BUILT / "venv/bin/python")

    def missing(self) -> str | None:
        """Say what to type before this server can run, or None."""
        if not all((BUILT / stamp).exists() for stamp in (".node", ".python")):
            return "make servers"
        if self.program == "with_nginx.py" and shutil.which("nginx") is None:
            return "apt-get install nginx-light"
        return None


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer by the server's own account, in POSIX seconds of its clock."""

    at: float
    status: int


class Running:
    """A server that answers, until `running` ends; its processes are the group ``group``."""

    def __init__(self, url: str, group: int) -> None:
        self.url = url
        self.group = group

    async def journal(self) -> list[Answered]:
        async with aiohttp.request("GET", self.url + JOURNAL, raise_for_status=True) as answer:
            fields = [line.split() for line in (await answer.text()).splitlines()]
        return [Answered(float(at), int(status)) for at, status in fields]


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[Running]:
    """Start a server on a free port of 127.0.0.1; raise what it wrote if it does not start."""
    with tempfile.TemporaryDirectory() as folder:
        process, url = _start(server, Path(folder))
        try:
            there = Running(url, process.pid)
            try:
                await there.journal()
            except (aiohttp.ClientError, TimeoutError) as error:
                raise RuntimeError(_complaints(Path(folder))) from error
            yield there
        finally:
            await _stop(process)


def _start(server: Server, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    # It listens already, so nobody else takes the port, and a call that comes early waits.
    with socket.create_server(("127.0.0.1", 0)) as listening, (folder / "log").open("wb") as log:
        descriptor = listening.fileno()
        process = subprocess.Popen(
            [
                server.interpreter,
                str(HERE / server.program),
                str(descriptor),
                json.dumps(dict(server.settings)),
            ],
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, "NODE_PATH": str(BUILT / "node_modules")},
            start_new_session=True,
        )
        return process, "http://{}:{}".format(*listening.getsockname())


def _complaints(folder: Path) -> str:
    return (folder / "log").read_text("utf-8") or "it wrote nothing"


async def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, 5)
    finally:
        # It leads a group of its own, and nothing of that is left.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
