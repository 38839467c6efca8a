"""How long an attempt may take, its answer's body included: one timer for all of them.

aiohttp's ``ClientTimeout.total`` makes, enters and cancels a timer for each request, which is a
tenth of what the request takes in all (aiohttp 3.14), and takes cancellations in the same tick for
its own.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from math import inf
from typing import Protocol

import aiohttp

#: What an attempt that took too long is cancelled with, and its error says: aiohttp's says nothing.
OUT_OF_TIME = "no answer within the timeout of an attempt"


class Timed(Protocol):
    """What has only so long."""

    def expire(self) -> None:
        """Be told that the time is over, once."""


class Deadlines(dict[Timed, float]):
    """Tells those who are still in it at their instant, in seconds of the limiter's clock.

    Whoever comes sets the timer if his instant is earlier than `rings`. It stays when he leaves:
    most are done long before, and the next one comes with a later instant.
    """

    __slots__ = ("_now", "_timer", "rings")

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        #: A permit knows when it was granted: no attempt asks for the time.
        self._now = now
        self._timer: asyncio.TimerHandle | None = None
        #: When the timer rings.
        self.rings = inf

    def set(self, at: float) -> None:
        """Ring at this instant."""
        if self._timer is not None:
            self._timer.cancel()
        self.rings = at
        self._timer = None
        if at < inf:
            self._timer = asyncio.get_running_loop().call_later(at - self._now(), self._ring)

    def read_by(self, at: float, response: aiohttp.ClientResponse) -> None:
        """Have whoever reads a body told, unless its connection is given back by then."""
        connection = response.connection
        if connection is not None:
            reading = _Reading(self, response)
            connection.add_callback(reading.end)
            self[reading] = at
            if at < self.rings:
                self.set(at)

    def close(self) -> None:
        """Tell nobody any more."""
        self.clear()
        self.set(inf)

    def _ring(self) -> None:
        # A loop rings early, by less than its clock can tell.
        now = max(self.rings, self._now())
        # Of a copy: an answer may be collected as garbage, and leave, at any allocation.
        for one, at in self.copy().items():
            if at <= now and self.pop(one, None) is not None:
                one.expire()
        self.set(min(self.values(), default=inf))


class _Reading:
    """An answer whose body is read; it may be dropped without being read to the end."""

    __slots__ = ("_deadlines", "_response")

    def __init__(self, deadlines: Deadlines, response: aiohttp.ClientResponse) -> None:
        self._deadlines = deadlines
        self._response = weakref.ref(response)

    def end(self) -> None:
        self._deadlines.pop(self, None)

    def expire(self) -> None:
        """Have whoever reads, or comes to read, end with TimeoutError."""
        response = self._response()
        if response is not None:
            response.content.set_exception(TimeoutError(OUT_OF_TIME))
