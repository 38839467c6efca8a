"""A connection that redis-py has made, spoken to without its help: one packet, one answer.

Its client takes three times as long over an exchange as the exchange itself, most of it when a
process has just woken. It connects, logs in and keeps up with TLS as nobody else does; what is said
from then on is a command and its answer in RESP 2, and takes this much.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from typing import Any, Self

_END = b"\r\n"


class AnswerError(Exception):
    """What an engine says in place of an answer, in its own words."""


class Wire(asyncio.Protocol):
    """One connection; commands are answered in their order."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        #: Kept for as long as its transport is used: it would close that when it is collected.
        self._writer = writer
        self._transport: Any = writer.transport
        self._transport.set_protocol(self)
        self._said = b""
        self._awaited: deque[asyncio.Future[Any]] = deque()
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: Whether another command may be sent.
        self.is_open = True
        self._end: AsyncGenerator[None] = self._until_the_loop_ends()

    @classmethod
    async def of(cls, connection: Any) -> Self | None:
        """Take over a connection of redis-py; None if it keeps its stream to itself."""
        writer = getattr(connection, "_writer", None)
        if not isinstance(writer, asyncio.StreamWriter):
            return None
        connection._reader = connection._writer = None  # noqa: SLF001 - it is ours now
        wire = cls(writer)
        await anext(wire._end)
        return wire

    async def run(self, *command: bytes | str | int) -> Any:
        """Send a command and return what it answers; raises AnswerError, ConnectionError.

        Cancelling is safe: the connection is given up, since nobody knows what has become of it.
        """
        answer = asyncio.get_running_loop().create_future()
        self._awaited.append(answer)
        self._transport.write(packed(command))
        try:
            return await answer
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        """Send no more, and let go of it once nobody waits for an answer."""
        self.is_open = False
        if all(answer.done() for answer in self._awaited):
            self._transport.abort()
            with contextlib.suppress(StopIteration):
                self._end.aclose().send(None)

    async def closed(self) -> None:
        """Wait until it is closed, which takes the loop a moment; safe to cancel."""
        self.close()
        await asyncio.wait([self._lost])

    async def _until_the_loop_ends(self) -> AsyncGenerator[None]:
        """Close it with the loop, whose end nobody but a generator is told of."""
        try:
            yield
        finally:
            self._transport.abort()

    # As a protocol -----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand out the answers that are complete."""
        self._said += data
        while self._awaited:
            try:
                found = parsed(self._said, 0)
            except ConnectionError as error:
                self.connection_lost(error)
                return
            if found is None:
                return
            answer, at = found
            self._said = self._said[at:]
            awaited = self._awaited.popleft()
            if awaited.done():
                continue
            if isinstance(answer, Exception):
                awaited.set_exception(answer)
            else:
                awaited.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell those who wait that no answer will come."""
        while self._awaited:
            awaited = self._awaited.popleft()
            if not awaited.done():
                awaited.set_exception(ConnectionError(str(exc or "it closed the connection")))
        self.close()
        if not self._lost.done():
            self._lost.set_result(None)


def packed(command: Iterable[bytes | str | int]) -> bytes:
    """Return a command as RESP has it."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
    said = [b"*%d\r\n" % len(words)]
    said += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(said)


def parsed(said: bytes, at: int) -> tuple[Any, int] | None:
    """Return the answer that begins there, and where the next one does; None if more is to come.

    What is an error is returned as one. Raises ConnectionError for what is no RESP 2.
    """
    end = said.find(_END, at)
    if end < 0:
        return None
    kind, line, at = said[at : at + 1], said[at + 1 : end], end + len(_END)
    if kind == b"+":
        return line, at
    if kind == b"-":
        return AnswerError(line.decode("utf-8", "replace")), at
    try:
        number = int(line)
    except ValueError:
        raise ConnectionError("what it says is no RESP") from None
    if kind == b":":
        return number, at
    if kind == b"$":
        return _bulk(said, at, number)
    if kind == b"*":
        return _array(said, at, number)
    raise ConnectionError("what it says is no RESP")


def _bulk(said: bytes, at: int, length: int) -> tuple[bytes | None, int] | None:
    if length < 0:
        return None, at
    end = at + length
    return (said[at:end], end + len(_END)) if len(said) >= end + len(_END) else None


def _array(said: bytes, at: int, length: int) -> tuple[list[Any] | None, int] | None:
    if length < 0:
        return None, at
    answers = []
    for _ in range(length):
        found = parsed(said, at)
        if found is None:
            return None
        answer, at = found
        answers.append(answer)
    return answers, at
