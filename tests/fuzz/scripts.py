"""Scripts of calls and answers, played on the pure rule and on the limiter.

A line is an event: the seconds before it, what happens, and an answer's header fields::

    0    ask
    0.2  429 | x-rate-limit-remaining: 0 | x-rate-limit-reset: now+900 | date: now
    1    ask user=1 even
    30   lost

``ask``, with ``even``, ``reserve``, ``cost=3`` and ``user=1``, may be granted; ``lost``,
``unsent`` and every status settle the call that has waited longest, or the one that ``call=2``
counts to. ``now+900`` is an epoch or a date by the server's clock. Other fields stand as they are.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import cycle, islice

from aiotwhelp.errors import QuotaTimeoutError
from aiotwhelp.headers import X_DIALECT
from aiotwhelp.limiter import Limiter
from aiotwhelp.permits import Permit
from aiotwhelp.quota import Bucket, Granted, NotUntil
from aiotwhelp.testing import VirtualTimeLoop, run
from aiotwhelp.windows import INF, LONGEST_BACKOFF, Window
from tests.film import EPOCH, Film
from tests.simulation import KEY, at_rest

#: Nobody waits longer for a bucket whose windows are of 15 minutes, nor for one that shows none.
_CEILING = 960.0

#: The widest learned pace, with its jitter.
_WIDEST_GAP = 1.1 * LONGEST_BACKOFF

#: After the last window has opened there may be a back-off, and the span of a lost call.
_SLACK = 2 * LONGEST_BACKOFF + _WIDEST_GAP

#: So often somebody asks, at most, until a call goes.
_MOST_ASKS = 12

_MOST_EVENTS = 200
_MOST_IN_FLIGHT = 50


@dataclass(frozen=True)
class Event:
    """One line of a script."""

    delay: float
    verb: str
    options: dict[str, str] = field(default_factory=dict)
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def status(self) -> int:
        """The status of an answer; whatever is no number is 200."""
        return int(self.verb) if len(self.verb) == 3 and _is_number(self.verb) else 200

    def headers(self, epoch: float) -> dict[str, str]:
        """Return the fields of an answer that is given at this instant of the server's clock."""
        return {name: _said(name, value, epoch) for name, value in self.fields}

    def number(self, option: str, most: int) -> int:
        """Return an option's number below a bound, 0 without one."""
        text = self.options.get(option, "")
        return int(text) % most if _is_number(text) else 0


def read(script: str) -> Iterator[Event]:
    """Read a script, whatever it is."""
    for line in script.split("\n")[:_MOST_EVENTS]:
        head, *fields = line.split("|")
        words = head.split()
        if len(words) < 2:
            continue
        options = {name: value for name, _, value in (word.partition("=") for word in words[2:])}
        pairs = [(name.strip(), value.strip()) for name, _, value in map(_partition, fields)]
        yield Event(_seconds(words[0]), words[1], options, tuple(pairs))


def _partition(text: str) -> tuple[str, str, str]:
    return text.partition(":")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _seconds(word: str) -> float:
    """Return a span of at most some days: longer ones show nothing new."""
    try:
        seconds = float(word)
    except ValueError:
        return 0.0
    return min(seconds, 1e6) if seconds >= 0 else 0.0


def _said(name: str, value: str, epoch: float) -> str:
    if not value.startswith("now"):
        return value
    try:
        at = epoch + float(value[3:] or 0)
    except ValueError:
        return value
    if not 0 <= at < 1e11:
        return value
    return formatdate(at, usegmt=True) if name.lower() == "date" else f"{at:.3f}"


# The rule ----------------------------------------------------------------------------------------


def play_on_the_rule(script: str) -> None:
    """Play a script: no answer makes anyone wait longer than a ceiling, nor spin."""
    play = _Play()
    for event in read(script):
        play.step(event)
    play.end()


class _Play:
    """Two users of one app, the calls that are under way, and how long anyone may be told to wait.

    The server's clock is right unless an answer's Date says otherwise.
    """

    def __init__(self) -> None:
        self.film = Film(random=1.0)
        self.users = [self.film.bucket, self.film.new_bucket("two")]
        self.now = 0.0
        self.calls: list[Granted] = []
        #: The longest Retry-After that was heard.
        self.longest_delay = 0.0

    @property
    def ceiling(self) -> float:
        kinds = [window.kind.ceiling for window in self.film.windows.values()]
        return max([_CEILING, *kinds])

    def step(self, event: Event) -> None:
        self.now += event.delay
        if event.verb == "ask":
            if len(self.calls) < _MOST_IN_FLIGHT:
                self.ask(event)
        elif self.calls:
            self.settle(self.calls.pop(event.number("call", len(self.calls))), event)

    def ask(self, event: Event) -> None:
        user = self.users[event.number("user", 2)]
        try:
            answer = user.ask(
                self.now,
                1 + event.number("cost", 4),
                reserve=0.5 if "reserve" in event.options else 0.0,
                even="even" in event.options,
            )
        except ValueError:
            return  # a cost that never fits
        if isinstance(answer, Granted):
            self.calls.append(answer)
        else:
            self.check(answer)

    def settle(self, granted: Granted, event: Event) -> None:
        bucket = granted.bucket
        if event.verb == "lost":
            bucket.lost(granted, self.now)
        elif event.verb == "unsent":
            bucket.unsent(granted, self.now, failed="failed" in event.options)
        else:
            reading = X_DIALECT.read(event.headers(EPOCH + self.now), event.status)
            if reading.date is not None and not reading.cached:
                self.film.clock.observe(reading.date, granted.sent, self.now)
            bucket.observed(granted, self.now, reading, status=event.status)
            self.longest_delay = max(self.longest_delay, reading.retry_after or 0.0)

    def check(self, answer: NotUntil) -> None:
        """A wait lies ahead, ends within its ceiling, or ends with a call in flight."""
        assert answer.at > self.now
        if answer.at == INF:
            assert _is_busy(answer)
            return
        wait = answer.at - self.now
        if isinstance(answer.by, Window):
            assert wait <= answer.by.kind.ceiling + 1e-3, answer
        else:
            longest = max(_WIDEST_GAP, 90.0, min(self.longest_delay, self.ceiling))
            assert wait <= longest + 1e-3, answer

    def end(self) -> None:
        """Nothing is under way any more: each user gets through in a few asks, within a ceiling."""
        for call in self.calls:
            call.bucket.lost(call, self.now)
        ended = self.now
        for user in self.users:
            self.get_through(user)
            assert self.now - ended <= 2 * (self.ceiling + _SLACK)

    def get_through(self, user: Bucket) -> None:
        began = self.now
        for _ in range(_MOST_ASKS):
            answer = user.ask(self.now)
            if isinstance(answer, Granted):
                user.lost(answer, self.now)
                assert self.now - began <= self.ceiling + _SLACK
                return
            self.check(answer)
            assert answer.at < INF
            self.now = answer.at
        raise AssertionError(f"{_MOST_ASKS} asks, and no call has gone: {user}")


def _is_busy(answer: NotUntil) -> bool:
    by = answer.by
    return bool(by.calls if isinstance(by, Bucket) else by.in_flight)


# The limiter -------------------------------------------------------------------------------------

_CALLERS = 3
_ATTEMPTS = 2

#: Iterations of the loop for each grant, and for each time that the timer looks again.
_PER_GRANT = 40
_LONGEST_TIMER = 30.0


def play_on_the_limiter(script: str) -> None:
    """Let callers wait for calls whose answers are the script's, over and over."""
    answers = [event for event in read(script) if event.verb != "ask"]
    if answers:
        run(_crowd(answers), seed=1, debug=False)


async def _crowd(answers: list[Event]) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    limiter, script = Limiter(), islice(cycle(answers), _CALLERS * _ATTEMPTS)
    before = loop._iterations
    async with asyncio.TaskGroup() as callers:
        for _ in range(_CALLERS):
            callers.create_task(_call(limiter, script))
    assert at_rest(limiter)
    grants = limiter.stats().granted
    slowest = sum(min(event.delay, 100.0) for event in answers) * _ATTEMPTS * _CALLERS
    ceiling = max([_CEILING, *(w.kind.ceiling for w in limiter._registry.windows.values())])
    assert loop.elapsed <= grants * (ceiling + _SLACK) + slowest, loop.elapsed
    looks = loop.elapsed / _LONGEST_TIMER
    assert loop._iterations - before <= _PER_GRANT * (_CALLERS + grants) + 4 * looks


async def _call(limiter: Limiter, script: Iterator[Event]) -> None:
    """Call until answered, a few times, with one ticket; the last loss may fail it."""
    ticket = limiter.ticket()
    for _ in range(_ATTEMPTS):
        try:
            permit = await limiter.acquire(KEY, ticket=ticket)
        except QuotaTimeoutError:
            return
        event = next(script)
        await asyncio.sleep(min(event.delay, 100.0))
        _settle(permit, event)
        if event.verb not in ("lost", "unsent") and event.status < 400:
            return


def _settle(permit: Permit, event: Event) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    if event.verb == "lost":
        permit.lost()
    elif event.verb == "unsent":
        permit.unsent(failed="failed" in event.options)
    else:
        permit.observed(event.headers(loop.wall_time()), status=event.status)
    assert math.isfinite(loop.time())
