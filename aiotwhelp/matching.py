"""Which of the limits that no server announces are for which routes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from aiotwhelp import checks
from aiotwhelp.rates import LocalLimit
from aiotwhelp.routes import generic_template

_Limits = tuple[LocalLimit, ...]

#: A URL, or what looks like one without its scheme.
_HOST = re.compile(r"(?:\S+ )?(?:https?://|(?:[\w-]+\.)+[a-z]{2,}(?::\d+)?/)", re.IGNORECASE)


class Rates:
    """Limits that no server announces, by the routes that they are for."""

    __slots__ = ("_by_path", "_by_route", "limits", "wide")

    def __init__(self, rates: Mapping[str, LocalLimit | Sequence[LocalLimit]]) -> None:
        for name in rates:
            _check(name)
        limits = _gathered((_plain(name), _as_limits(name, rate)) for name, rate in rates.items())
        self.limits = limits
        #: Those that many routes share: ``"*"``, and ``"POST *"``.
        self.wide = [(n, each) for n, some in limits.items() if _is_wide(n) for each in some]
        self._by_route = {name: some for name, some in limits.items() if not _is_wide(name)}
        #: What is written without its slash is the quota of that name, or else the path.
        self._by_path = _gathered((_slashed(name), some) for name, some in self._by_route.items())

    def of(self, route: str) -> _Limits:
        """Return those of one route."""
        plain = _plain(route)
        path = plain.partition(" ")[2]
        for limits in (self._by_route, self._by_path):
            if found := limits.get(plain) or limits.get(path):
                return found
        return ()


def covers(pattern: str, route: str) -> bool:
    """Whether a limit of many routes is for this one, whose method is its first word."""
    return pattern == "*" or pattern.partition(" ")[0] == route.partition(" ")[0]


def _check(name: str) -> None:
    """Refuse a name that no quota has: it would limit nothing, and nobody would know."""
    checks.instance("each key of rates", name, str, "a route such as '/orders' or 'POST /orders'")
    if _HOST.match(name):
        raise ValueError(
            f"rates[{name!r}] has a host, which no route has: write the path below the API's base "
            'URL, such as "/orders" or "POST /orders"'
        )


def _gathered(limits: Iterable[tuple[str, _Limits]]) -> dict[str, _Limits]:
    """Return limits by name, each once; where names mean the same, the limits of all hold."""
    found: dict[str, _Limits] = {}
    for name, some in limits:
        found[name] = tuple(dict.fromkeys((*found.get(name, ()), *some)))
    return found


def _slashed(name: str) -> str:
    method, space, path = name.strip().rpartition(" ")
    return _plain(f"{method}{space}/{path}")


def _plain(route: str) -> str:
    """Return a route by which templates are compared: the names of placeholders do not matter."""
    method, _, path = route.strip().rpartition(" ")
    if path != "*":
        if not path.startswith("/"):
            return route
        path = generic_template(path)
    return f"{method.strip().upper()} {path}".lstrip()


def _as_limits(name: str, rate: LocalLimit | Sequence[LocalLimit]) -> _Limits:
    limits = tuple(rate) if isinstance(rate, Sequence) else (rate,)
    if not all(isinstance(each, LocalLimit) for each in limits):
        raise TypeError(f"rates[{name!r}] is a Rate, a Concurrency, or several, not {rate!r}")
    return limits


def _is_wide(pattern: str) -> bool:
    return pattern == "*" or pattern.endswith(" *")
