"""What a test or a shell passes, checked where it passes it: a server with a NaN helps nobody."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any


def seconds(name: str, value: Any, *, positive: bool = False, signed: bool = False) -> None:
    """Accept a finite time span: from 0 on, above 0, or of either sign."""
    allowed = "a number of seconds"
    if positive:
        allowed += " above 0"
    elif not signed:
        allowed += " from 0 on"
    is_in_range = _is_finite(value) and (signed or value > 0 or (value == 0 and not positive))
    _accept(name, value, allowed, is_in_range)


def amount(name: str, value: Any) -> None:
    """Accept a finite number from 0 on."""
    _accept(name, value, "a number from 0 on", _is_finite(value) and value >= 0)


def probability(name: str, value: Any) -> None:
    """Accept a number from 0 to 1."""
    _accept(name, value, "a probability from 0 to 1", _is_finite(value) and 0 <= value <= 1)


def whole(name: str, value: Any, *, least: int = 0, most: int | None = None) -> None:
    """Accept a whole number within bounds."""
    bounds = f"from {least} on" if most is None else f"from {least} to {most}"
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    is_in_range = is_whole and value >= least and (most is None or value <= most)
    _accept(name, value, f"a whole number {bounds}", is_in_range)


def status(name: str, value: Any) -> None:
    """Accept the status of a final answer."""
    whole(name, value, least=200, most=599)


def choice(name: str, value: Any, choices: Iterable[object]) -> None:
    """Accept one of a few words."""
    listed = list(choices)
    words = ", ".join(map(repr, listed[:-1])) + " or " * (len(listed) > 1) + repr(listed[-1])
    _accept(name, value, words, any(value == each for each in listed))


def mapping(name: str, value: Any, example: str) -> None:
    """Accept a mapping."""
    _accept(name, value, f"a mapping such as {example}", isinstance(value, Mapping))


def tokens(name: str, value: Any, units: Collection[str]) -> None:
    """Accept a limit for tokens: a number, one for each of some units, or None."""
    numbers = value.values() if isinstance(value, Mapping) else [value]
    if isinstance(value, Mapping):
        for unit in value:
            _accept(
                f"each of {name}", unit, f"among {', '.join(units) or 'no unit'}", unit in units
            )
    for number in numbers:
        if number is not None:
            whole(name, number)


def known(given: Iterable[str], allowed: Collection[str]) -> None:
    """Refuse an option that does not exist, and say which was meant."""
    for name in given:
        if name not in allowed:
            meant = get_close_matches(name, sorted(allowed), n=1)
            hint = f": did you mean {meant[0]}?" if meant else ""
            raise TypeError(f"the emulator has no option {name!r}{hint}")


def _accept(name: str, value: Any, allowed: str, is_accepted: bool) -> None:
    if not is_accepted:
        raise ValueError(f"{name} is {allowed}, not {value!r}")


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
