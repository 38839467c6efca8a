"""Which of the limits that no server announces are for which routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiotwhelp.rates import LocalLimit
from aiotwhelp.routes import generic_template


class Rates:
    """Limits that no server announces, by the routes that they are for."""

    __slots__ = ("_by_route", "limits", "wide")

    def __init__(self, rates: Mapping[str, LocalLimit | Sequence[LocalLimit]]) -> None:
        limits = {_plain(name): _as_limits(name, rate) for name, rate in rates.items()}
        self.limits = limits
        #: Those that many routes share: ``"*"``, and ``"POST *"``.
        self.wide = [(n, each) for n, some in limits.items() if _is_wide(n) for each in some]
        self._by_route = {name: some for name, some in limits.items() if not _is_wide(name)}

    def of(self, route: str) -> tuple[LocalLimit, ...]:
        """Return those of one route."""
        plain = _plain(route)
        return self._by_route.get(plain) or self._by_route.get(plain.partition(" ")[2]) or ()


def covers(pattern: str, route: str) -> bool:
    """Whether a limit of many routes is for this one, whose method is its first word."""
    return pattern == "*" or pattern.partition(" ")[0] == route.partition(" ")[0]


def _plain(route: str) -> str:
    """Return a route by which templates are compared: the names of placeholders do not matter."""
    method, space, path = route.rpartition(" ")
    if not path.startswith("/"):
        return route
    return method.strip().upper() + space + generic_template(path)


def _as_limits(name: str, rate: LocalLimit | Sequence[LocalLimit]) -> tuple[LocalLimit, ...]:
    limits = tuple(rate) if isinstance(rate, Sequence) else (rate,)
    if not all(isinstance(each, LocalLimit) for each in limits):
        raise TypeError(f"rates[{name!r}] is a Rate, a Concurrency, or several, not {rate!r}")
    return limits


def _is_wide(pattern: str) -> bool:
    return pattern == "*" or pattern.endswith(" *")
