"""Servers that mean harm, and everything that may show a secret afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import pickle
import re
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from aiohttp import web

from aiotwhelp import testing

#: Answers a request, of which it gets the head.
Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


# Servers -----------------------------------------------------------------------------------


class Hostile:
    """A server that writes what it likes: ``heads`` are the requests that it was sent."""

    connections = 0

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.heads: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                await self._answer(self.heads[-1], writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has closed it, or the test has ended
        finally:
            writer.close()

    @property
    def token_requests(self) -> int:
        return sum(head.partition(b"?")[0].split()[1].endswith(b"/token") for head in self.heads)


@asynccontextmanager
async def hostile(answer: Answer) -> AsyncIterator[Hostile]:
    serving = Hostile(answer)
    server = await asyncio.start_server(serving.serve, "127.0.0.1", 0)
    try:
        serving.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield serving
    finally:
        server.close()


def says(data: bytes) -> Answer:
    """Answer with these bytes, whatever was asked."""

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return answer


def answers(status: int, *headers: str, body: bytes = b"{}", reason: str = "X") -> Answer:
    head = [f"HTTP/1.1 {status} {reason}", *headers, f"Content-Length: {len(body)}", "", ""]
    return says("\r\n".join(head).encode() + body)


def token(**fields: Any) -> Answer:
    """Answer with a token, as a token endpoint does."""
    said = {"token_type": "bearer", "access_token": "a-token", **fields}
    return answers(200, "Content-Type: application/json", body=json.dumps(said).encode())


def drips(start: bytes, piece: bytes, pause: float) -> Answer:
    """Begin an answer and never end it."""

    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return answer


def falls_silent(start: bytes = b"") -> Answer:
    return drips(start, b"", 1e6)


async def resets(_: bytes, writer: asyncio.StreamWriter) -> None:
    """Break the connection off."""
    writer.transport.abort()
    raise ConnectionResetError


def echoes(status: int) -> Answer:
    """Give back the request's own credential, wherever an answer has room for it."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        found = re.search(r"(?i)\r\nauthorization: (.*)\r\n", head.decode())
        told = found[1] if found else "nothing"
        said = {"errors": [{"code": 32, "message": f"{told} is wrong"}], "type": f"x/{told}"}
        headers = f"X-Echo: {told}", f"WWW-Authenticate: {told}"
        await answers(status, *headers, body=json.dumps(said).encode(), reason=told)(head, writer)

    return answer


def echoes_as_text(status: int, *, is_nested: bool, is_delimited: bool) -> Answer:
    """Give back the request's own credential in a body that is no JSON, or too deep for a stack."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        found = re.search(rb"(?i)\r\nauthorization: (.*)\r\n", head)
        told = found[1] if found else b"nothing"
        body = b'["' + told + b'",' + b"[" * 100_000 if is_nested else told + b" is wrong"
        length = b"Content-Length: %d" % len(body) if is_delimited else b"Connection: close"
        await says(b"HTTP/1.1 %d X\r\n%s\r\n\r\n" % (status, length) + body)(head, writer)
        if not is_delimited:
            writer.close()

    return answer


def _body(*headers: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *headers, b"Content-Length: 3", b"", b"{}x"))


#: Answers that aiohttp quotes in errors of its own, or that are seen in the locals of its frames,
#: with ``%s`` for the credential; where there is a second part, it comes later.
QUOTED: dict[str, tuple[bytes, ...]] = {
    "no answer": (b"%s\r\n\r\n",),
    "status": (b"HTTP/1.1 %s\r\n\r\n",),
    "version": (b"HTTP/%s 200 OK\r\n\r\n",),
    "reason": (b"HTTP/1.1 400 %s\r\nContent-Length: 2\r\n\r\n{}",),
    "name of a header": (_body(b"X %s: 1"),),
    "no header": (_body(b"%s"),),
    "zero byte": (_body(b"X: %s\0"),),
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n{}",),
    "chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",),
    "later chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"%s\r\n"),
    "chunk of a 503": (b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"%s\r\n"),
    "coding": (_body(b"Content-Encoding: %s"),),
    "packed": (_body(b"Content-Encoding: gzip", b"X: %s"),),
    "cut": (_body(b"X: %s")[:-2], b""),
    "charset": (_body(b"Content-Type: application/json; charset=%s"),),
    "cookie": (_body(b"Set-Cookie: %s/@=1"),),
    "times": (b"HTTP/1.1 429 No\r\nDate: %s\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n",),
    "redirect to another scheme": (b"HTTP/1.1 302 X\r\nLocation: ftp://%s/\r\n\r\n",),
    "redirect to nowhere": (b"HTTP/1.1 302 X\r\nLocation: http://[%s/\r\n\r\n",),
    "redirects": (b"HTTP/1.1 302 X\r\nX: %s\r\nLocation: ?a\r\nContent-Length: 0\r\n\r\n",),
    "redirect to another host": (b"HTTP/1.1 302 X\r\nX: %s\r\nLocation: http://%s.x/\r\n\r\n",),
    "text": (b"HTTP/1.1 401 No\r\nContent-Length: 100\r\n\r\n%s", b""),
}


def quotes(parts: tuple[bytes, ...], also: bytes = b"") -> Answer:
    """Give back the request's own credential, or another one, where aiohttp may quote it."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        found = re.search(rb"(?i)\r\nauthorization: (\w+ )?(.*)\r\n", head)
        told = also or (found[2] if found else b"nothing")
        for part in parts:
            writer.write(part.replace(b"%s", told))
            await writer.drain()
            await asyncio.sleep(0.1)  # each part arrives by itself, whatever the kernel joins
        if parts[-1] == b"" or b"Location: http" in parts[0]:
            writer.close()

    return answer


def by_path(paths: Mapping[bytes, Answer], otherwise: Answer) -> Answer:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        path = head.split()[1].partition(b"?")[0]
        await paths.get(path, otherwise)(head, writer)

    return answer


# Hosts -------------------------------------------------------------------------------------


def redirect(to: str, status: int = 302) -> Callable[[web.Request], web.StreamResponse]:
    return lambda _: web.Response(status=status, headers={"Location": to})


@dataclass
class Asked:
    """A request that some host got."""

    url: str
    method: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def secrets(self) -> set[str]:
        """The names of what it carried that may be a secret."""
        names = {name.lower() for name in self.headers}
        return names & {"authorization", "cookie", "proxy-authorization", "x-api-key"}


class Internet:
    """Named hosts on the ports of http and https, whose answers are ``routes``, by URL."""

    def __init__(self) -> None:
        self.routes: dict[str, Callable[[web.Request], web.StreamResponse]] = {}
        self.asked: list[Asked] = []

    @property
    def urls(self) -> list[str]:
        return [each.url for each in self.asked]

    async def listen(self, name: str, address: str, port: int) -> web.ServerRunner:
        async def handle(request: web.Request) -> web.StreamResponse:
            url = f"{'https' if port == 443 else 'http'}://{name}{request.path_qs}"
            self.asked.append(Asked(url, request.method, request.headers, await request.read()))
            return self.routes.get(url, lambda _: web.json_response({"from": url}))(request)

        runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.05)
        await runner.setup()
        await web.TCPSite(runner, address, port).start()
        return runner


@asynccontextmanager
async def internet(*names: str) -> AsyncIterator[Internet]:
    """Have these hosts, each at an address of its own. TLS is taken as done."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, testing.VirtualTimeLoop)
    network, runners = Internet(), []
    with mock.patch("aiotwhelp.testing.loop._refuse_tls"):
        try:
            for number, name in enumerate(names, start=1):
                address = name if name[0].isdigit() else f"198.51.100.{number}"
                loop.network.hosts |= {name: address, f"{name}.": address}
                runners += [await network.listen(name, address, port) for port in (80, 443)]
            yield network
        finally:
            for runner in runners:
                await runner.cleanup()


# What is shown -----------------------------------------------------------------------------


class _Everything(logging.Handler):
    """Keeps every record of every logger as it would be printed."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record) + repr(record.args))


@contextlib.contextmanager
def all_logs() -> Iterator[list[str]]:
    """Have the lines of all loggers, of other libraries too, at DEBUG."""
    root, handler = logging.getLogger(), _Everything()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield handler.lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def shown(error: BaseException) -> list[str]:
    """Everything that an exception and its causes show: by themselves, pickled, and traced."""
    texts = traceback.format_exception(error)
    for each in causes(error):
        texts += [str(each), repr(each), repr(each.args), *getattr(each, "__notes__", ())]
        with contextlib.suppress(TypeError):
            texts.append(repr(vars(each)))
        with contextlib.suppress(TypeError, AttributeError, pickle.PicklingError):
            texts.append(pickle.dumps(each).decode("latin-1"))
    return texts


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error itself, and what it was raised from or during."""
    left, seen = [error], set()
    while left:
        each = left.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            left += [more for more in (each.__cause__, each.__context__) if more is not None]


def frame_locals(error: BaseException) -> str:
    """The traceback as tools print it that show the locals of each frame, ours and aiohttp's."""
    printed = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    frames = re.split(r'(?=^  File ")', "".join(printed), flags=re.MULTILINE)
    return "".join(frame for frame in frames if not re.match(r'  File ".*[/\\]tests[/\\]', frame))
