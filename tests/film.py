"""A film strip of the rule: rows of (at, event, expectation), played on a bucket without a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from aiotwhelp.clock import ServerClock
from aiotwhelp.headers import DAY_OF_APP, FIFTEEN_MINUTES, Reading, WindowKind, WindowReading
from aiotwhelp.quota import Bucket, Granted, NotUntil
from aiotwhelp.windows import Foreign, Numbering, Window

#: The server's clock shows this at the instant 0 of a film.
EPOCH = 1_700_000_000.0


@dataclass(frozen=True)
class Ask:
    """Someone asks; a name keeps the permit."""

    name: str = ""
    cost: int = 1
    reserve: float = 0.0


@dataclass(frozen=True)
class Answer:
    """The call of that name is answered; ``reset`` counts from the instant 0 of the film."""

    name: str
    remaining: int | None = None
    limit: int | None = 15
    reset: float | None = 900.0
    status: int = 200
    retry_after: float | None = None
    date: float | None = None
    cached: bool = False
    kind: WindowKind = FIFTEEN_MINUTES
    day: int | None = None
    bucket: str = ""
    everywhere: bool = False
    resets_in: float | None = None

    def reading(self) -> Reading:
        windows = []
        counts_down = self.resets_in is not None
        reset = None if self.reset is None or counts_down else EPOCH + self.reset
        if self.remaining is not None:
            windows.append(
                WindowReading(
                    self.kind, self.remaining, self.limit, reset, self.resets_in, self.bucket
                )
            )
        if self.day is not None:
            windows.append(WindowReading(DAY_OF_APP, self.day, 1000, EPOCH + 86_400.0))
        date = None if self.date is None else EPOCH + self.date
        return Reading(
            tuple(windows),
            self.retry_after,
            date,
            self.cached,
            refused=self.status in (429, 420),
            everywhere=self.everywhere,
        )


@dataclass(frozen=True)
class Lost:
    name: str


@dataclass(frozen=True)
class Unsent:
    name: str
    failed: bool = False


@dataclass(frozen=True)
class Until:
    """Not now, but at about that instant."""

    at: float


GO = "go"
WAIT = "wait"  # only a call in flight can tell, or nothing is expected of the instant
Row = tuple[float, Any, Any]


class Film:
    """Plays rows on buckets that share a clock and windows.

    Their quotas are known to be used by nobody else, unless others are ``presumed``.
    """

    def __init__(
        self, *, clock: ServerClock | None = None, random: float = 0.0, presumed: float = 0.0
    ) -> None:
        self.presumed = presumed
        self.numbering = Numbering()
        self.clock = clock or ServerClock()
        if clock is None:
            self.clock.assume(EPOCH)
        self.windows: dict[tuple[str, str], Window] = {}
        self.shared: list[Window] = []
        self.buckets: list[Bucket] = []
        self.granted: dict[str, Granted] = {}
        self.random = random
        self.bucket = self.new_bucket("one")

    def new_bucket(self, user: str, **options: Any) -> Bucket:
        def find(reading: WindowReading, known: Window | None) -> Window:
            kind = reading.kind
            place = reading.bucket or ("app" if kind.scope == "app" else user), kind.name
            window = self.windows.get(place)
            if window is None:
                window = Window(kind, self.clock, self.numbering, place)
                window.bucket = reading.bucket
                window.foreign = Foreign(self.presumed)
                self.windows[place] = window
                if kind.scope == "app":
                    self.shared.append(window)
                    for bucket in self.buckets:
                        bucket.presume(window)
            if known is not None and not known.bucket:
                window.absorb(known)
            return window

        bucket = Bucket(find, self.numbering, key=user, random=lambda: self.random, **options)
        for window in self.shared:
            bucket.presume(window)
        self.buckets.append(bucket)
        return bucket

    def ask(self, now: float, ask: Ask = Ask()) -> Granted | NotUntil:
        answer = self.bucket.ask(now, ask.cost, reserve=ask.reserve)
        if isinstance(answer, Granted):
            self.granted[ask.name] = answer
        return answer

    def answer(self, now: float, answer: Answer) -> None:
        granted = self.granted.pop(answer.name)
        reading = answer.reading()
        if reading.date is not None:
            self.clock.observe(reading.date, granted.sent, now)
        granted.bucket.observed(granted, now, reading, status=answer.status)

    def play(self, rows: Iterable[Row]) -> Film:
        for number, (now, event, expected) in enumerate(rows):
            where = f"row {number} at {now:g}: {event}"
            outcome = self.step(now, event)
            if expected is None:
                continue
            if isinstance(expected, int):
                assert self.window.available == expected, (where, self.window)
            else:
                assert_outcome(outcome, expected, where)
        return self

    def step(self, now: float, event: Any) -> Granted | NotUntil | None:
        if isinstance(event, Ask):
            return self.ask(now, event)
        if isinstance(event, Answer):
            self.answer(now, event)
        elif isinstance(event, Lost):
            granted = self.granted.pop(event.name)
            granted.bucket.lost(granted, now)
        elif isinstance(event, Unsent):
            granted = self.granted.pop(event.name)
            granted.bucket.unsent(granted, now, failed=event.failed)
        else:
            event(now)
        return None

    @property
    def window(self) -> Window:
        return self.bucket.windows[0]

    def take_all(self, now: float, most: int = 10_000) -> list[Granted]:
        """Ask until something blocks."""
        taken: list[Granted] = []
        while len(taken) < most:
            answer = self.bucket.ask(now)
            if isinstance(answer, NotUntil):
                return taken
            taken.append(answer)
        return taken


def assert_outcome(outcome: Granted | NotUntil | None, expected: Any, where: str) -> None:
    if expected == GO:
        assert isinstance(outcome, Granted), (where, outcome)
        return
    assert isinstance(outcome, NotUntil), (where, "was granted")
    if isinstance(expected, Until):
        assert abs(outcome.at - expected.at) < 0.05, (where, outcome.at)


def opened(
    remaining: int = 15,
    *,
    limit: int = 15,
    reset: float = 900.0,
    now: float = 0.0,
    presumed: float = 0.0,
) -> Film:
    """Return a film whose window was opened by a probe, and whose slow start is over."""
    film = Film(presumed=presumed)
    film.step(now, Ask("probe"))
    film.step(now, Answer("probe", remaining, limit, reset))
    film.bucket.answered = 1000
    return film


def reading(remaining: int, reset: float | None, limit: int | None = 15) -> WindowReading:
    return WindowReading(
        FIFTEEN_MINUTES, remaining, limit, None if reset is None else EPOCH + reset
    )


def again(answer: Answer, **changes: Any) -> Answer:
    return replace(answer, **changes)


Check = Callable[[], None]
