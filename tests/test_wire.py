"""A connection to an engine, once redis-py has made it: answers in their order, and its end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from aiotwhelp.ledger.wire import AnswerError, Wire, packed, parsed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def test_a_command_is_written_as_the_protocol_has_it():
    assert packed(("GET", b"\xff", 7)) == b"*3\r\n$3\r\nGET\r\n$1\r\n\xff\r\n$1\r\n7\r\n"
    assert packed(("é",)) == b"*1\r\n$2\r\n\xc3\xa9\r\n"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"+OK\r\n", b"OK"),
        (b":-7\r\n", -7),
        (b"$-1\r\n", None),
        (b"$0\r\n\r\n", b""),
        (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
        (b"*-1\r\n", None),
        (b"*0\r\n", []),
        (b"*3\r\n:1\r\n$1\r\nx\r\n*1\r\n$-1\r\n", [1, b"x", [None]]),
    ],
)
def test_an_answer_is_read_once_all_of_it_is_there(said: bytes, answer: object):
    for end in range(len(said)):
        assert parsed(said[:end], 0) is None
    assert parsed(said, 0) == (answer, len(said))
    assert parsed(b"before" + said + b"after", 6) == (answer, 6 + len(said))


def test_what_an_engine_refuses_with_is_an_answer():
    found = parsed(b"-ERR no\xff\r\n", 0)
    assert found is not None
    assert isinstance(found[0], AnswerError)
    assert (str(found[0]), found[1]) == ("ERR no\ufffd", 10)


@pytest.mark.parametrize("said", [b"_\r\n", b"$x\r\n", b"HTTP/1.1 400\r\n", b"\r\n"])
def test_what_is_no_answer_is_an_error(said: bytes):
    with pytest.raises(ConnectionError, match="no RESP"):
        parsed(said, 0)


class Engine:
    """Says what it is told to, when it is told to."""

    def __init__(self) -> None:
        self.writer: Any = None
        self.heard = b""
        self.over = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        try:
            while data := await reader.read(1000):
                self.heard += data
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.over.set()

    async def say(self, said: bytes) -> None:
        self.writer.write(said)
        await asyncio.sleep(0.01)


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[Engine, Wire]]:
    engine = Engine()
    async with await asyncio.start_server(engine.serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        connection = SimpleNamespace(_reader=reader, _writer=writer)
        wire = await Wire.of(connection)
        assert wire is not None
        assert connection._reader is connection._writer is None
        try:
            yield engine, wire
        finally:
            await wire.closed()
            await asyncio.wait_for(engine.over.wait(), 5)


async def run(wire: Wire, *command: bytes | str | int) -> asyncio.Task[Any]:
    task = asyncio.ensure_future(wire.run(*command))
    await asyncio.sleep(0.01)
    return task


@pytest.mark.asyncio
async def test_answers_go_to_who_asked_in_their_order_whatever_pieces_they_come_in():
    async with wired() as (engine, wire):
        tasks = [await run(wire, "GET", number) for number in range(3)]
        assert engine.heard.count(b"GET") == 3
        await engine.say(b"+one\r\n-WRONG two\r\n$5\r\nth")
        assert [task.done() for task in tasks] == [True, True, False]
        await engine.say(b"ree\r\n")
        assert (await tasks[0], await tasks[2]) == (b"one", b"three")
        with pytest.raises(AnswerError, match="WRONG two"):
            await tasks[1]
        assert wire.is_open


@pytest.mark.asyncio
async def test_who_gives_up_gives_the_connection_up_and_leaves_others_their_answers():
    async with wired() as (engine, wire):
        first, second = await run(wire, "FIRST"), await run(wire, "SECOND")
        first.cancel()
        await asyncio.wait([first])
        assert (first.cancelled(), wire.is_open, second.done()) == (True, False, False)
        await engine.say(b"+to the first\r\n+to the second\r\n")
        assert await second == b"to the second"
        third = await run(wire, "THIRD")
        third.cancel()
        await asyncio.wait([third])
        await asyncio.wait_for(engine.over.wait(), 5)


@pytest.mark.asyncio
@pytest.mark.parametrize("said", [b"", b"+half an ans", b"HTTP/1.1 400\r\n"])
async def test_a_connection_that_ends_answers_nobody(said: bytes):
    async with wired() as (engine, wire):
        tasks = [await run(wire, "GET"), await run(wire, "GET")]
        await engine.say(said)
        engine.writer.close()
        for task in tasks:
            with pytest.raises(ConnectionError, match=r"no RESP|closed the connection"):
                await task
        assert not wire.is_open


@pytest.mark.asyncio
async def test_a_redis_py_that_keeps_its_stream_keeps_it():
    connection = SimpleNamespace(_reader=1, _writer=2)
    assert await Wire.of(connection) is None
    assert (connection._reader, connection._writer) == (1, 2)
    assert await Wire.of(SimpleNamespace()) is None


PROGRAM = """
import asyncio, socket
from types import SimpleNamespace
from aiotwhelp.ledger.wire import Wire

async def main():
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    return await Wire.of(SimpleNamespace(_reader=reader, _writer=writer))

with socket.create_server(("127.0.0.1", 0)) as listening:
    wire = asyncio.run(main())
print(wire._transport.is_closing(), wire._lost.done())
"""


def test_one_that_nobody_closes_is_closed_with_its_loop_and_says_nothing():
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("True True\n", "")
