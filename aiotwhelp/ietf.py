"""The RateLimit fields of the IETF drafts (draft-ietf-httpapi-ratelimit-headers-00 to -10).

Drafts 00 to 06 have a field for each number, ``RateLimit-Limit``, ``-Remaining`` and ``-Reset``,
and list policies in the first or in ``RateLimit-Policy``; many servers do so under the older names
``X-RateLimit-*``. Draft 07 puts them into a dictionary, ``RateLimit``. Drafts 08 to 10 have lists
of named policies, and of what is left of each. Whatever is malformed is ignored, as the drafts
demand.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from aiotwhelp.headers import WindowKind, WindowReading
from aiotwhelp.values import RESETS, Resets, count

#: Longest field that is looked at, and the most policies in it: honest ones have two or three.
_LONGEST_FIELD = 2048
_MOST_MEMBERS = 16

#: A policy's name, or its partition, is told apart by so many characters.
_LONGEST_NAME = 64

#: Structured fields (RFC 9651): what a bare item may be, and a parameter.
_ITEM = re.compile(
    r'"(?P<string>(?:[ !#-\[\]-~]|\\["\\])*)"'
    r"|(?P<number>-?\d{1,15}(?:\.\d{1,3})?)"
    r"|(?P<token>[A-Za-z*][\w!#$%&'*+\-.^`|~:/]*)"
    r"|:(?P<bytes>[A-Za-z0-9+/=]*):"
    r"|\?(?P<flag>[01])"
    r"|@(?P<date>-?\d{1,15})",
    re.ASCII,
)
_KEY = re.compile(r"[a-z*][a-z0-9_\-.*]*")

#: What the drafts call their fields, and the windows of which nobody told a name.
_PREFIX = "ratelimit"

_Bare = str | float


@dataclass(frozen=True, slots=True)
class Member:
    """An item of a structured list: its value, and its parameters."""

    value: _Bare
    params: Mapping[str, _Bare]

    def whole(self, name: str) -> int | None:
        """Return a parameter that is a whole number from 0 on."""
        value = self.params.get(name)
        if isinstance(value, float) and value >= 0 and value.is_integer():
            return int(value)
        return None

    def text(self, name: str) -> str:
        """Return a parameter that is a string, a token or bytes."""
        value = self.params.get(name)
        return value[:_LONGEST_NAME] if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class PolicyList:
    """``RateLimit: "burst";r=9;t=5, "daily";r=900;t=8000``, or draft 07's dictionary."""

    def read(self, fields: Mapping[str, str]) -> Iterable[WindowReading]:
        """Return a window for each policy of which the server said what is left."""
        said = _whole_field(fields, "ratelimit")
        if not said:
            return ()
        policies = parse_list(_whole_field(fields, "ratelimit-policy")) or ()
        members = parse_list(said)
        if members is None:
            return _from_dictionary(parse_dictionary(said) or {}, policies)
        return tuple(_windows(members, policies))


@dataclass(frozen=True, slots=True)
class SeparateFields:
    """``RateLimit-Limit``, ``RateLimit-Remaining`` and ``RateLimit-Reset`` (drafts 00 to 06).

    The draft's reset is in seconds from the answer; servers that write an epoch there are told
    by its size. ``prefix`` is what comes before the last part of each name, in lower case;
    ``bucket`` the field in which the server names what it counts. Where each field is a list, as
    in ``1, 15000``, every place in it is a window.
    """

    prefix: str = _PREFIX
    resets: Resets = "any"
    bucket: str = ""

    def read(self, fields: Mapping[str, str]) -> Iterable[WindowReading]:
        """Return the window that is announced, or all of a list."""
        said = _whole_field(fields, f"{self.prefix}-remaining")
        if not said:
            return ()
        limit = _whole_field(fields, f"{self.prefix}-limit")
        reset = _whole_field(fields, f"{self.prefix}-reset")
        policies = parse_list(_whole_field(fields, f"{self.prefix}-policy")) or ()
        if "," in said:
            return self._several(_split(said), _split(limit), _split(reset), policies)
        if "," in limit or ";" in limit:
            first, *more = parse_list(limit) or (None,)
            policies = (*(each for each in more if each is not None), *policies)
            limit = f"{first.value}" if first is not None else ""
        bucket = (fields.get(self.bucket) or "")[:_LONGEST_NAME] if self.bucket else ""
        told = self._window(said, limit, reset, policies, bucket)
        return () if told is None else (told,)

    def _several(
        self,
        remaining: Sequence[str],
        limits: Sequence[str],
        resets: Sequence[str],
        policies: Iterable[Member],
    ) -> tuple[WindowReading, ...]:
        """Return a window for each place in lists; none if one list is shorter than another."""
        places = len(remaining)
        if not len(limits) == places <= _MOST_MEMBERS or len(resets) not in (0, places):
            return ()
        told: dict[str, WindowReading] = {}
        resets = resets or [""] * places
        for said, limit, reset in zip(remaining, limits, resets, strict=True):
            window = self._window(said, limit, reset, policies)
            # A limit of nothing is how some servers say that there is none.
            if window is None or window.limit is None:
                continue
            same = sum(each.limit == window.limit for each in told.values())
            if window.kind.name in told:
                kind = replace(window.kind, name=f"{window.kind.name} ({same + 1})")
                window = window._replace(kind=kind)
            told[window.kind.name] = window
        return tuple(told.values())

    def _window(
        self, said: str, limit: str, reset: str, policies: Iterable[Member], bucket: str = ""
    ) -> WindowReading | None:
        remaining, most = count(said), count(limit)
        if remaining is None or (remaining < 0 and most is not None and most < 0):
            return None  # -1 of -1 is how some servers say that they do not know
        most = most if most is not None and most > 0 else None
        at, resets_in = RESETS[self.resets](reset or None)
        kind = _kind_of(self.prefix, most, resets_in, policies)
        return WindowReading(kind, max(0, remaining), most, at, resets_in, bucket)


def parse_list(text: str) -> tuple[Member, ...] | None:
    """Parse a structured list of items (RFC 9651, 4.2.1); None if it is malformed or too long."""
    if len(text) > _LONGEST_FIELD:
        return None
    return _parse_list(text)


# Policies are the same in every answer.
@lru_cache(maxsize=64)
def _parse_list(text: str) -> tuple[Member, ...] | None:
    members: list[Member] = []
    at = _skip(text, 0)
    while at < len(text):
        item = _bare_item(text, at)
        if item is None or len(members) >= _MOST_MEMBERS:
            return None
        value, at = item
        params: dict[str, _Bare] = {}
        while at < len(text) and text[at] == ";":
            key = _KEY.match(text, _skip(text, at + 1))
            if key is None:
                return None
            at = key.end()
            params[key[0]] = "1"  # true, as ?1 is: no number
            if at < len(text) and text[at] == "=":
                item = _bare_item(text, at + 1)
                if item is None:
                    return None
                params[key[0]], at = item
        members.append(Member(value, params))
        at = _skip(text, at)
        if at < len(text):
            following = _skip(text, at + 1)
            if text[at] != "," or following >= len(text):
                return None
            at = following
    return tuple(members)


def parse_dictionary(text: str) -> dict[str, int] | None:
    """Parse ``limit=100, remaining=50, reset=5``; None if it is malformed."""
    numbers: dict[str, int] = {}
    if len(text) > _LONGEST_FIELD:
        return None
    for part in text.split(","):
        name, _, said = part.strip(" \t").partition("=")
        whole = count(said.partition(";")[0])
        if not _KEY.fullmatch(name) or whole is None or whole < 0:
            return None
        numbers[name] = whole
    return numbers


def _bare_item(text: str, at: int) -> tuple[_Bare, int] | None:
    found = _ITEM.match(text, at)
    if found is None:
        return None
    if found["number"] is not None:
        return float(found["number"]), found.end()
    if found["string"] is not None:
        return re.sub(r"\\(.)", r"\1", found["string"]), found.end()
    return found[found.lastgroup or 0], found.end()


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t":
        at += 1
    return at


def _windows(members: Sequence[Member], policies: Sequence[Member]) -> Iterator[WindowReading]:
    # One name may stand for several partitions.
    known = {(policy.value, policy.text("pk")): policy for policy in policies}
    known |= {(policy.value, ""): policy for policy in policies}
    names = Counter(member.value for member in members)
    for member in members:
        remaining = member.whole("r")
        if remaining is None or not isinstance(member.value, str):
            continue
        by_name = known.get((member.value, ""), member)
        policy = known.get((member.value, member.text("pk")), by_name)
        unit = _unit(policy.text("qu"))
        seconds = member.whole("t")
        name = member.value[:_LONGEST_NAME] or _PREFIX
        if names[member.value] > 1:
            name = f"{name} {member.text('pk') or unit}"
        yield WindowReading(
            _kind(name, policy.whole("w") or 0, unit),
            remaining,
            policy.whole("q") or None,
            None,
            None if seconds is None else float(seconds),
            # Servers put it into either field.
            member.text("pk") or policy.text("pk"),
        )


def _from_dictionary(
    numbers: Mapping[str, int], policies: Iterable[Member]
) -> tuple[WindowReading, ...]:
    remaining = numbers.get("remaining")
    if remaining is None:
        return ()
    limit = numbers.get("limit") or None
    seconds = numbers.get("reset")
    resets_in = None if seconds is None else float(seconds)
    kind = _kind_of(_PREFIX, limit, resets_in, policies)
    return (WindowReading(kind, remaining, limit, None, resets_in),)


def _kind_of(
    prefix: str, limit: int | None, resets_in: float | None, policies: Iterable[Member]
) -> WindowKind:
    """Return which of the policies is announced, where several take turns in one set of fields.

    The draft shows the one that is closest to its limit; its limit tells which, and of equal
    limits the shortest window in which the reset fits.
    """
    listed = (policy.whole("w") for policy in policies if policy.value == limit)
    spans = sorted(span for span in listed if span)
    if not spans:
        return _kind(f"{prefix} of {limit}" if limit else prefix, 0, turns=prefix)
    span = next((each for each in spans if each >= (resets_in or 0)), spans[-1])
    return _kind(f"{prefix}: {limit} per {span} s", span, turns=prefix)


def _unit(said: str) -> str:
    # The draft's registry and its examples differ in the plural.
    return "requests" if said in ("", "request") else said


@lru_cache(maxsize=256)
def _kind(name: str, length: int, unit: str = "requests", turns: str = "") -> WindowKind:
    # The drafts' reset is when more is there, not all; and Retry-After takes precedence over it.
    return WindowKind(name, length=float(length), unit=unit, turns=turns, refills=True)


def _split(text: str) -> list[str]:
    return [part.strip(" \t") for part in text[:_LONGEST_FIELD].split(",")] if text else []


def _whole_field(fields: Mapping[str, str], name: str) -> str:
    """Return a field that may be split over several lines (RFC 9110, 5.3)."""
    first = fields.get(name)
    if first is None:
        return ""
    # What HTTP clients call it: multidict, and the standard library.
    get_lines = getattr(fields, "getall", None) or getattr(fields, "get_all", None)
    lines = get_lines(name) if get_lines is not None else None
    return ", ".join(lines) if lines else first
