"""Equal requests in flight become one; each caller may leave without taking the others along."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from aiotwhelp.errors import SessionClosedError

T = TypeVar("T")


class Coalescer(Generic[T]):
    """Shares the result of one coroutine among all who ask for the same while it runs."""

    __slots__ = ("_flights",)

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    def __repr__(self) -> str:
        return f"<Coalescer {len(self._flights)} in flight>"

    async def join(self, key: Hashable, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of the one flight with this key, which the first caller begins.

        Cancelling a caller cancels the flight only if nobody else is aboard. If it fails, each
        caller gets a copy of the error.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(begin())
            flight.task.add_done_callback(lambda _: self._landed(key, flight))
        try:
            return await flight.aboard()
        finally:
            if flight.is_deserted:
                self._forget(key, flight)
                flight.task.cancel()

    def _landed(self, key: Hashable, flight: _Flight[T]) -> None:
        self._forget(key, flight)
        flight.land()

    def _forget(self, key: Hashable, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


class _Flight(Generic[T]):
    """A task, and those who wait for it."""

    __slots__ = ("_waiters", "task")

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.task = asyncio.ensure_future(work)
        # A future for each: leaving is O(1), which it is not among a task's callbacks.
        # In the order in which they came: they wake in it, too.
        self._waiters: dict[asyncio.Future[None], None] = {}

    @property
    def is_deserted(self) -> bool:
        return not self._waiters and not self.task.done()

    async def aboard(self) -> T:
        waiter: asyncio.Future[None] = self.task.get_loop().create_future()
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            del self._waiters[waiter]
        if self.task.cancelled():
            raise SessionClosedError("closed while a call shared with others was in flight")
        error = self.task.exception()
        if error is not None:
            raise _copied(error) from error.__cause__
        return self.task.result()

    def land(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        if not self.task.cancelled():
            self.task.exception()  # looked at, though everyone may have left


def _copied(error: BaseException) -> BaseException:
    """Return an error of one caller's own: tracebacks and notes are added to it as it rises."""
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001 - others' exceptions copy as they please
        return error
    return twin if type(twin) is type(error) else error
