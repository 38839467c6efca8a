"""Equal requests in flight become one; each caller may leave without taking the others along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any


class Coalescer:
    """Shares the result of one coroutine among all who ask for the same while it runs."""

    __slots__ = ("_flights",)

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight] = {}

    async def join(self, key: Hashable, begin: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """Return the result of the one flight with this key, which the first caller begins.

        Cancelling a caller cancels the flight only if nobody else is aboard.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.ensure_future(begin()))
            flight.task.add_done_callback(lambda _: self._landed(key, flight))
        flight.aboard += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.aboard -= 1
            if flight.aboard == 0 and not flight.task.done():
                self._landed(key, flight)
                flight.task.cancel()

    def _landed(self, key: Hashable, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


class _Flight:
    """A task and how many wait for it."""

    __slots__ = ("aboard", "task")

    def __init__(self, task: asyncio.Future[bytes]) -> None:
        self.task = task
        self.aboard = 0
