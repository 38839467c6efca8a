"""What callers pass, checked where they pass it: each error names the option and what it takes.

Types are told rather than values where a value may be a secret.
"""

from __future__ import annotations

import enum
import math
import operator
import re
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from inspect import iscoroutinefunction
from itertools import chain
from typing import Any, SupportsIndex, TypeVar

#: So many seconds are as good as no bound.
AGES = 1e15

#: A word of HTTP (RFC 9110, 5.6.2).
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch

#: What cannot be read as a name or a value of a header.
_NO_TEXT = (bytes, bytearray, int, float, list, tuple)

T = TypeVar("T")
E = TypeVar("E", bound=enum.IntEnum)


def seconds(name: str, value: float | None) -> float | None:
    """Return a time span, or None where there is no bound."""
    if value is None:
        return None
    number = plain(value)
    if number is None or not number >= 0:
        raise ValueError(f"{name} is a number of seconds from 0 on, or None, not {value!r}")
    # An int may be greater than any float.
    return float(number) if number <= AGES else math.inf


def flag(name: str, value: bool) -> bool:
    """Return True or False, which nothing else stands for: "no" would be true."""
    return instance(name, value, bool, "True or False")


def positive(name: str, value: float, what: str) -> float:
    """Return a number above 0 that has an end; ``what`` says what it is a number of."""
    number = plain(value)
    if number is None or not 0 < number < AGES:
        raise ValueError(f"{name} is a number of {what} above 0, not {value!r}")
    return number


def whole(name: str, value: int, *, least: int = 0, of: str = "") -> int:
    """Return a whole number; ``of`` says what is counted, as in `` of calls``."""
    number = plain(value)
    if type(number) is not int or number < least:
        raise ValueError(f"{name} is a whole number{of} from {least} on, not {value!r}")
    return number


def plain(value: object) -> int | float | None:
    """Return a number as an int or a float, also one of an enumeration, or of another library.

    None for what is none, as True is.
    """
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return None if isinstance(value, bool) else int(value)
    try:
        return operator.index(value) if isinstance(value, SupportsIndex) else None
    except TypeError:  # an array, of several
        return None


def choice(name: str, value: str, choices: Mapping[str, T]) -> T:
    """Return what one of a few names stands for."""
    if value not in choices:
        raise ValueError(f"{name} is one of {', '.join(map(repr, choices))}; not {value!r}")
    return choices[value]


def instance(name: str, value: T, kind: type | tuple[type, ...], meaning: str) -> T:
    """Return what is an instance of a type, or of one of several."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {meaning}, not {described(value)}")
    return value


def member(name: str, value: int, kind: type[E]) -> E:
    """Return a member of an enumeration, also where its number was passed."""
    if isinstance(value, kind):
        return value
    try:
        return kind(value)
    except ValueError:
        names = ", ".join(f"{each.name} ({each.value})" for each in kind)
        raise ValueError(f"{name} is a {kind.__name__}: {names}; not {value!r}") from None


def method(value: str) -> str:
    """Return a method of HTTP, which is a token (RFC 9110, 9.1)."""
    meaning = "a word such as 'GET'"
    if not _TOKEN(instance("method", value, str, meaning)):
        raise ValueError(f"method is {meaning}, not {value!r}")
    return value


def instances(name: str, values: Iterable[T], kind: type[T], meaning: str) -> tuple[T, ...]:
    """Return several values of one kind, of which ``meaning`` is the plural."""
    listed = _listed(name, values, meaning)
    for each in listed:
        instance(f"each of {name}", each, kind, f"one of {meaning}")
    return listed


def _listed(name: str, values: Iterable[T], meaning: str) -> tuple[T, ...]:
    if not isinstance(values, Iterable):
        raise TypeError(f"{name} is a list of {meaning}, not {described(values)}")
    return tuple(values)


def function(name: str, value: T, meaning: str) -> T:
    """Return what can be called, and is no class."""
    if not callable(value) or isinstance(value, type):
        raise TypeError(f"{name} is {meaning}, not {described(value)}")
    return value


def listener(name: str, value: T) -> T:
    """Return a function that events are told; an async one would be called and never run."""
    function(name, value, "a function of one event")
    called: Any = value
    while isinstance(called, partial):
        called = called.func
    if any(map(iscoroutinefunction, (called, getattr(called, "__call__", None)))):  # noqa: B004
        raise TypeError(f"{name} is a function of one event that returns at once, not an async one")
    return value


def texts(name: str, values: Iterable[str], meaning: str) -> tuple[str, ...]:
    """Return several texts, which one text is not, though it has letters."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} is a tuple of {meaning}, not {described(values)}")
    listed = tuple(values)
    for each in listed:
        instance(f"each of {name}", each, str, f"one of {meaning}")
    return listed


def methods(name: str, value: T, wanted: Iterable[str], meaning: str) -> T:
    """Return an object that has some methods, as a protocol has it."""
    if isinstance(value, type) or not all(callable(getattr(value, m, None)) for m in wanted):
        raise TypeError(f"{name} is {meaning}, not {described(value)}")
    return value


def functions(name: str, values: Iterable[T], meaning: str) -> tuple[T, ...]:
    """Return several of those."""
    listed = _listed(name, values, meaning)
    for each in listed:
        function(f"each of {name}", each, f"one of {meaning}")
    return listed


def pairs(name: str, value: Any) -> Any:
    """Return a mapping, or a list of pairs, also where they came one by one; None is none."""
    if value is None or isinstance(value, Mapping):
        return value
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is a mapping, or a list of pairs, not {described(value)}")
    listed = list(value)
    for each in listed:
        if not isinstance(each, (tuple, list)) or len(each) != 2:
            raise TypeError(f"each of {name} is a pair of a name and a value")
    return listed


def fields(name: str, headers: Mapping[str, str]) -> None:
    """Refuse headers that some libraries have as bytes, or in lists, before they say nothing.

    A value that a server has garbled may be of a type that the standard library has for it.
    """
    for each in chain.from_iterable(headers.items()):
        if isinstance(each, _NO_TEXT):
            raise TypeError(f"each name and value of {name} is a str, not {described(each)}")


def known(
    given: Iterable[str], allowed: Collection[str], elsewhere: Mapping[str, str] | None = None
) -> None:
    """Refuse an option that does not exist, and say which was meant, or where it belongs."""
    for name in given:
        if name in allowed:
            continue
        if elsewhere and name in elsewhere:
            raise TypeError(f"unknown option {name!r}: {elsewhere[name]}")
        from difflib import get_close_matches  # for this error alone

        meant = get_close_matches(name, sorted(allowed), n=1)
        hint = f": did you mean {meant[0]}?" if meant else ""
        raise TypeError(f"unknown option {name!r}{hint}")


def described(value: object) -> str:
    """Say what kind of thing was passed, and nothing of what is in it."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"
