"""For tests in real time: what they say must be so on a machine that is slow, or busy."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from aiotwhelp import sharing
from aiotwhelp.ledger import sqlite


def wait_for_ledgers(put: Callable[[object, str, float], None]) -> None:
    """Have limiters wait for a ledger, and a ledger for its file, as long as it takes.

    Where it is what they keep that is tested, and not how long they may take.
    """
    put(sharing, "BOUND", 60.0)
    put(sqlite, "_PATIENCE", 50.0)


class Pulse:
    """Seconds that were lived through: none pass while the machine does something else.

    They are made of short sleeps. On a machine that has the time, a second is one; on another it
    takes longer.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.seconds = 0.0

    @property
    def lost(self) -> float:
        """Seconds of the clock on the wall that were none here."""
        return time.monotonic() - self._began - self.seconds


@asynccontextmanager
async def pulse_of_loop(beat: float) -> AsyncIterator[Pulse]:
    """Count the running loop's seconds, by sleeps of so many: one that has too much to do loses."""
    pulse = Pulse()

    async def go_on() -> None:
        while True:
            await asyncio.sleep(beat)
            pulse.seconds += beat

    beating = asyncio.create_task(go_on())
    try:
        yield pulse
    finally:
        beating.cancel()


@contextmanager
def pulse_of_process(beat: float) -> Iterator[Pulse]:
    """Count this process's seconds: they pass where a loop is blocked, by itself or by others."""
    pulse, over = Pulse(), threading.Event()

    def go_on() -> None:
        while not over.wait(beat):
            pulse.seconds += beat

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield pulse
    finally:
        over.set()
        thread.join()
