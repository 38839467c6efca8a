"""Limits that no server announces, as facts: so many calls per time, or so many at once."""

from __future__ import annotations

from dataclasses import dataclass

from aiotwhelp import checks

_UNIT = "what is counted, such as 'requests' or 'tokens'"


@dataclass(frozen=True, slots=True)
class Rate:
    """A local rate: ``limit`` calls per ``per`` seconds, at most ``burst`` of them at once.

    With the default burst of 1 calls are evenly spaced, which no server can mistake for too many,
    whatever kind of window it counts in. A server that counts in windows never sees more than
    ``limit`` plus ``burst`` in one. ``unit`` is what is counted: "requests", or what a call's
    ``cost`` names, such as "tokens".
    """

    limit: float
    per: float
    burst: int = 1
    unit: str = "requests"

    def __post_init__(self) -> None:
        for name, what in (("limit", "calls"), ("per", "seconds"), ("burst", "calls")):
            number = checks.positive(f"a rate's {name}", getattr(self, name), what)
            object.__setattr__(self, name, number)
        if self.burst < 1:
            raise ValueError(f"a rate's burst is at least 1, not {self.burst!r}")
        checks.instance("unit", self.unit, str, _UNIT)

    @property
    def gap(self) -> float:
        """Seconds from call to call."""
        return self.per / self.limit


@dataclass(frozen=True, slots=True)
class Concurrency:
    """A local limit on calls in flight: at most ``limit`` at once, however long each takes."""

    limit: int
    unit: str = "requests"

    def __post_init__(self) -> None:
        number = checks.plain(self.limit)
        if type(number) is not int or number < 1:
            raise ValueError(f"a concurrency needs a whole limit from 1 on, not {self.limit!r}")
        object.__setattr__(self, "limit", number)
        checks.instance("unit", self.unit, str, _UNIT)


#: A limit that no server announces.
LocalLimit = Rate | Concurrency
