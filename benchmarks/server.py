"""A lean server for measuring clients: one answer for everything, with headers of a quota.

    python -m benchmarks.server      # prints its port; ends when its input does

It parses no more of a request than where it ends, so that what is measured is the client.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate

from benchmarks.common import pin

BODY = b'{"data":{"id":"2244994945","name":"A User","username":"a_user"}}'
LIMIT, WINDOW = 10_000_000, 900

_ANSWER = b"""HTTP/1.1 200 OK\r
Content-Type: application/json; charset=utf-8\r
Content-Length: %d\r
Date: %s\r
x-rate-limit-limit: %d\r
x-rate-limit-remaining: %d\r
x-rate-limit-reset: %d\r
\r
%s"""


class Window:
    """The numbers of the one quota that everybody spends."""

    def __init__(self) -> None:
        self._remaining = LIMIT
        self._second = self._reset = 0
        self._date = b""

    def answer(self) -> bytes:
        now = int(time.time())
        if now != self._second:
            self._second, self._date = now, formatdate(now, usegmt=True).encode()
        if now >= self._reset:
            self._reset, self._remaining = now + WINDOW, LIMIT
        self._remaining -= 1
        return _ANSWER % (len(BODY), self._date, LIMIT, self._remaining, self._reset, BODY)


class Connection(asyncio.Protocol):
    def __init__(self, window: Window) -> None:
        self._window = window
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        # Requests have no body here, and clients send one at a time.
        self._head += data
        if self._head.endswith(b"\r\n\r\n"):
            self._head = b""
            self._transport.write(self._window.answer())


async def serve() -> None:
    loop, window = asyncio.get_running_loop(), Window()
    server = await loop.create_server(lambda: Connection(window), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@asynccontextmanager
async def running() -> AsyncIterator[str]:
    """Run it in a process of its own; gives its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.server"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    pin(-1)
    asyncio.run(serve())
