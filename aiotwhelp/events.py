"""What happened, as frozen values for hooks, logs and metrics.

A handler is called synchronously, on the event loop, and should be quick. What it raises is
logged and goes no further. No event carries a credential.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


# What a dataclass writes for itself takes a tenth of a millisecond per method and class: the
# events share theirs.
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Event:
    """The base of all events; ``key`` names the quota, such as ``GET /1.1/help/privacy.json``."""

    key: str
    identity: str

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event) or type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__name__}({', '.join(shown)})"

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Observed(Event):
    """An answer's headers were read. ``resets_in`` is in seconds, None if unknown."""

    window: str
    limit: int | None
    remaining: int
    resets_in: float | None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Waiting(Event):
    """Callers will wait more than a few seconds; told once per quota and window."""

    callers: int
    limit: int | None
    remaining: int | None
    resets_in: float | None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Waited(Event):
    """A caller got its permit after waiting for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Refused(Event):
    """The server refused a call for its rate; ``retry_in`` is how long nobody will go."""

    status: int
    retry_in: float | None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Lost(Event):
    """A call may have been counted, and its answer will not come."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Retrying(Event):
    """A call goes again: its attempt so far, why, and after how many seconds of back-off."""

    attempt: int
    reason: str
    delay: float


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class DialectRecognized(Event):
    """An answer announced its limits in a dialect; told once per API and dialect."""

    dialect: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ClockAssumed(Event):
    """Answers carry no usable Date, so resets are measured with the local wall clock."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LedgerAway(Event):
    """The ledger does not answer: until it does, a share of what it knew last is used."""

    reason: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LedgerBack(Event):
    """The ledger answers again."""


Handler = Callable[[Event], object]
