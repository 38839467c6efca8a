"""What is told of quotas: events to handlers, warnings to the log, snapshots to who asks."""

from __future__ import annotations

import logging
from weakref import WeakKeyDictionary, WeakSet

from aiotwhelp import events
from aiotwhelp.clock import ServerClock
from aiotwhelp.headers import Reading
from aiotwhelp.home import Home
from aiotwhelp.queues import Line
from aiotwhelp.sharing import shares_of
from aiotwhelp.views import Quota, WindowQuota, left_text, tightness
from aiotwhelp.windows import INF, Window

logger = logging.getLogger("aiotwhelp")

#: An API speaks one dialect, or two where a proxy adds its own; a server that changes it with each
#: answer is told of so often.
_MOST_DIALECTS = 8

_UNKNOWN = WindowQuota("", None, None, None, None)

#: Callers that will wait longer than this are announced.
WORTH_A_WARNING = 5.0

#: While nobody answers, they are announced again after so many seconds.
_SAID_AGAIN = 900.0


class Telling:
    """Whom one limiter tells what happens, and what they have been told already."""

    __slots__ = ("_assumed", "_dialects", "_home", "handlers")

    def __init__(self, home: Home, handler: events.Handler | None) -> None:
        self._home = home
        self.handlers: list[events.Handler] = [] if handler is None else [handler]
        #: By the clock of an API: the dialects that were recognised.
        self._dialects: WeakKeyDictionary[ServerClock, set[str]] = WeakKeyDictionary()
        self._assumed: WeakSet[ServerClock] = WeakSet()

    def tell(self, event: events.Event) -> None:
        """Hand an event to the handlers; what they raise is logged and goes no further."""
        for handler in self.handlers:
            try:
                handler(event)
            except Exception:
                logger.exception("an event handler failed")

    def observed(self, line: Line, reading: Reading, now: float) -> None:
        """Say what an answer said of the windows that it told of."""
        key, identity = str(line.key), line.key.identity
        for window in line.bucket.windows:
            for said in reading.windows:
                if said.kind.name == window.kind.name:
                    resets_in = None if window.reset is None else window.ends - now
                    self.tell(
                        events.Observed(
                            key, identity, said.kind.name, said.limit, said.remaining, resets_in
                        )
                    )

    def refused(self, line: Line, status: int, now: float) -> None:
        """Say that a call was refused."""
        expected = max(0.0, line.bucket.expect(now, 0) - now)
        self.tell(events.Refused(str(line.key), line.key.identity, status, expected))

    def recognized(self, line: Line, dialect: str) -> None:
        """Say which dialect an API speaks, when it is heard first."""
        known = self._dialects.setdefault(line.clock, set())
        if dialect not in known and len(known) < _MOST_DIALECTS:
            known.add(dialect)
            logger.debug("%s announces its limits as %s", line.key.api or "the server", dialect)
            self.tell(events.DialectRecognized(str(line.key), line.key.identity, dialect))

    def assumed(self, line: Line) -> None:
        """Say, once for an API, that the local wall clock is taken for the server's."""
        key, clock = line.key, line.clock
        if clock not in self._assumed:
            self._assumed.add(clock)
            logger.warning(
                "answers from %s have no usable Date header: resets are measured "
                "with the local clock, which had better be right",
                key.api or "the server",
            )
            self.tell(events.ClockAssumed(str(key), key.identity))

    def waited(self, line: Line, seconds: float) -> None:
        """Say that a caller has got its permit."""
        self.tell(events.Waited(str(line.key), line.key.identity, seconds))

    def announce_soon(self, line: Line) -> None:
        """Say that callers wait, once everyone of this tick has joined the queue."""
        if (
            line.timer < INF
            and line.timer != line.warned
            and (line.timer - self._home.now() > WORTH_A_WARNING)
        ):
            self._home.soon(self.announce, line)

    def announce(self, line: Line) -> None:
        """Say that callers wait, if they will for long and nobody has said so."""
        now = self._home.now()
        callers = len(line)
        wait = line.timer - now
        if not callers or not WORTH_A_WARNING < wait < INF or self._is_announced(line):
            return
        if any(share.may_ask_sooner(now) for share in shares_of(line.bucket)):
            return  # how long they wait is told when calls of their own have ended
        quota = describe(line, self._home)
        # At an even or a learned pace the head waits for one slot after the other.
        line.warned = max(line.timer, now + (quota.resets_in or 0.0))
        logger.warning("%s for %s: %s", how_many_wait(callers), line.key, left_text(quota))
        if self.handlers:
            key = line.key
            self.tell(
                events.Waiting(
                    str(key), key.identity, callers, quota.limit, quota.remaining, quota.resets_in
                )
            )

    def _is_announced(self, line: Line) -> bool:
        """Whether a wait in this window was announced; its end moves as the clock gets better.

        While nobody answers one back-off follows the other, and all are one wait.
        """
        if line.warned is None:
            return False
        span = WORTH_A_WARNING if line.bucket.patience == INF else _SAID_AGAIN
        return line.timer < line.warned + span


def describe(line: Line, home: Home) -> Quota:
    """Return what is believed of a quota now."""
    now = home.now()
    windows = tuple(_describe_window(line, window, now, home) for window in line.bucket.windows)
    known = [window for window in windows if window.remaining is not None]
    tightest = min(known, key=tightness, default=(*windows, _UNKNOWN)[0])
    return Quota(
        key=str(line.key),
        limit=tightest.limit,
        remaining=tightest.remaining,
        resets_in=tightest.resets_in,
        resets_at=tightest.resets_at,
        waiting=len(line),
        in_flight=line.bucket.calls,
        windows=windows,
    )


def _describe_window(line: Line, window: Window, now: float, home: Home) -> WindowQuota:
    name, limit = window.kind.name, window.limit
    if not window.is_confirmed or now >= window.ends:
        return WindowQuota(name, limit, None, None, None)
    if window.reset is None:
        return WindowQuota(name, limit, window.available, None, None)
    resets_at = window.reset
    if window.counts_down:
        clock = line.clock
        resets_at = clock.epoch(window.ends) if clock.is_known else home.wall() + window.ends - now
    return WindowQuota(name, limit, window.available, window.ends - now, resets_at)


def how_many_wait(callers: int) -> str:
    """Return the beginning of a sentence on so many callers."""
    return "1 caller waits" if callers == 1 else f"{callers} callers wait"
