"""The event loop that a limiter belongs to, and its clocks."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from threading import get_ident
from weakref import WeakSet

from aiotwhelp.errors import SessionClosedError, WrongLoopError

#: All of this process.
_homes: WeakSet[Home] = WeakSet()


def _leave_home() -> None:
    """Have a process that was forked look anew: its thread and its task are its parent's, too."""
    for home in _homes:
        home.thread = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_home)


class Home:
    """The loop in which a limiter was first used, until it is closed."""

    #: Callers granted, failed or looked at between two breaths of the loop: 1 to 4 ms.
    SLICE = 64

    __slots__ = ("__weakref__", "_loop", "is_closed", "now", "open_in", "thread", "wall")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        #: The same until the limiter is closed.
        self.open_in: asyncio.AbstractEventLoop | None = None
        #: Where that loop was seen last. Whoever is in this thread, in a task of the loop, is at
        #: home; to ask for the running loop is a system call on CPython 3.11.
        self.thread: int | None = None
        self.is_closed = False
        #: Monotonic seconds, and POSIX time. On the way of each call they are read first and called
        #: by a name: CPython 3.11 takes 200 instructions more to call what stands in a slot.
        self.now: Callable[[], float] = time.monotonic
        self.wall: Callable[[], float] = time.time
        _homes.add(self)

    def bind(self) -> None:
        """Belong to the loop that runs, or raise `WrongLoopError` or `SessionClosedError`."""
        loop = asyncio.get_running_loop()
        if self.is_closed:
            raise SessionClosedError("this limiter is closed: make a new one")
        if loop is self._loop:
            self.thread = get_ident()
            return
        if self._loop is not None:
            raise WrongLoopError(
                "this limiter belongs to another event loop: make a session, or limiter, for each "
                "loop, inside the coroutine that asyncio.run gets"
            )
        self._loop = self.open_in = loop
        self.thread = get_ident()
        self.now = _clock_of(loop)
        # A loop that keeps its own wall clock (the testing loop) is asked for it.
        self.wall = getattr(loop, "wall_time", time.time)

    def close(self) -> None:
        """Let nobody in any more."""
        self.is_closed = True
        self.open_in = self.thread = None

    @property
    def is_open(self) -> bool:
        """Whether there is a loop in which somebody may still come in."""
        return self.open_in is not None and not self.open_in.is_closed()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, which whoever has come in has bound."""
        assert self._loop is not None  # noqa: S101 - for the type checker
        return self._loop

    def soon(self, function: Callable[..., object], *args: object) -> asyncio.Handle:
        """Have a function called with the next breath of the loop."""
        return self.loop.call_soon(function, *args)


def _clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return a loop's clock; of those that stand still while a laptop sleeps, one that goes on.

    Windows go on, too. Loops that keep a time of their own are left to it.
    """
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    kind = type(loop)
    is_plain = kind.time is asyncio.BaseEventLoop.time or kind is _uvloop()
    if boottime is None or not is_plain:
        return loop.time
    try:
        time.clock_gettime(boottime)
    except OSError:  # the name is there, and a sandbox does without the clock
        return loop.time
    return partial(time.clock_gettime, boottime)


def _uvloop() -> object:
    """Return uvloop's kind of loop, if it has been imported."""
    return getattr(sys.modules.get("uvloop"), "Loop", None)
