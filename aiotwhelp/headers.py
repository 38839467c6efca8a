"""What the headers of an answer say about quota: header fields in, a Reading out.

A Reading keeps to what was said. Whether a number is believed, and how long anyone waits for
it, is decided by the rule, not here. Whatever a server sends, reading it never raises, takes
time in proportion to its length, and gives finite numbers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_tz
from functools import lru_cache
from math import isfinite

#: Longest value that is looked at. The longest honest one is a date of some 40 characters.
_LONGEST = 64
#: Counts from here on are no counts: 2**64 - 1 is a server's own -1 in an unsigned integer.
_NO_COUNT = 2**53
#: No zone is a day or more away from GMT.
_DAY = 24 * 3600
#: Epoch seconds reach 1e11 in the year 5138; epoch milliseconds have passed it since 1973.
_MILLISECONDS = 1e11


@dataclass(frozen=True, slots=True)
class WindowKind:
    """What a family of headers counts.

    ``scope`` is "identity" for a window of one route and one identity, "app" for one that all
    users of an app share on that route. ``length`` in seconds is the documented one and serves
    estimates only. No header makes anyone wait longer than ``ceiling`` seconds.
    """

    name: str
    scope: str
    length: float
    ceiling: float


@dataclass(frozen=True, slots=True)
class WindowReading:
    """What an answer said about one window.

    ``remaining`` is never negative and may exceed ``limit``. ``reset`` is in POSIX seconds of
    the server's clock; it may lie in the past or far ahead. None means that nothing usable was
    said.
    """

    kind: WindowKind
    remaining: int
    limit: int | None
    reset: float | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What one answer said about quota and time.

    ``retry_after`` is in seconds from the answer, ``date`` in POSIX seconds of the server's
    clock. An answer that a cache gave is ``cached``: its windows and its date are those of an
    older answer, so neither is reported.
    """

    windows: tuple[WindowReading, ...] = ()
    retry_after: float | None = None
    date: float | None = None
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """The three header fields of one window, named in lower case; ``reset`` is epoch seconds."""

    kind: WindowKind
    limit: str
    remaining: str
    reset: str


@dataclass(frozen=True, slots=True)
class Dialect:
    """The header families by which one API announces its windows."""

    name: str
    families: tuple[Family, ...]

    def read(self, headers: Mapping[str, str]) -> Reading:
        """Return what the headers of one answer say.

        Any mapping will do, whether its look-ups mind case or not; where a field came in
        several lines, the first counts. Malformed values count as missing. Never raises for
        anything that a server sent.
        """
        fields = _caseless(headers)
        date = parse_date(fields.get("date"))
        retry_after = parse_retry_after(fields.get("retry-after"), date)
        if _from_cache(fields):
            return Reading(retry_after=retry_after, cached=True)
        windows = []
        for family in self.families:
            remaining = fields.get(family.remaining)
            # Most answers show one family only: one look-up is all that the others cost.
            if remaining is not None:
                window = _read_window(family, remaining, fields)
                if window is not None:
                    windows.append(window)
        return Reading(tuple(windows), retry_after, date)


#: Twitter's 15 minutes. Users saw waits of almost 16 where clocks disagreed; 960 s is the most.
FIFTEEN_MINUTES = WindowKind("15min", "identity", 900.0, 960.0)
#: The 24-hour write limits of v2, one for the whole app and one for each of its users.
DAY_OF_APP = WindowKind("24h-app", "app", 24 * 3600.0, 25 * 3600.0)
DAY_OF_USER = WindowKind("24h-user", "identity", 24 * 3600.0, 25 * 3600.0)


def _family(kind: WindowKind, prefix: str) -> Family:
    return Family(kind, f"{prefix}-limit", f"{prefix}-remaining", f"{prefix}-reset")


#: How the X API speaks: lower-case names on the wire since 2017, resets in epoch seconds.
X_DIALECT = Dialect(
    "x",
    (
        _family(FIFTEEN_MINUTES, "x-rate-limit"),
        _family(DAY_OF_APP, "x-app-limit-24hour"),
        _family(DAY_OF_USER, "x-user-limit-24hour"),
    ),
)


def parse_retry_after(value: object, date: float | None) -> float | None:
    """Return the seconds that a Retry-After asks for (RFC 9110, 10.2.3; floats are accepted).

    An HTTP-date is taken relative to ``date``, the Date of the same answer in POSIX seconds;
    without one it says nothing, since the local clock may be minutes off. Negative delays,
    dates in the past and garbage give None. Absurdly long delays are returned as they are.
    """
    if value is None:
        return None
    delay = _number(value)
    if delay is None and date is not None:
        until = parse_date(value)
        delay = None if until is None else until - date
    return delay if delay is not None and delay >= 0 else None


def parse_date(value: object) -> float | None:
    """Return the POSIX seconds of an HTTP-date in any of its three forms (RFC 9110, 5.6.7).

    Garbage, and dates before 1970, give None.
    """
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    return _parse_date(value)


# Answers of one second share one Date: nearly every look finds the last parsed string here.
@lru_cache(maxsize=16)
def _parse_date(text: str) -> float | None:
    if not text.isascii():
        return None
    try:
        return _posix(text)
    except (ValueError, IndexError, TypeError, OverflowError):
        # A day that does not exist; or email.utils, which promises None for garbage and in
        # several releases raised one of these.
        return None


def _posix(text: str) -> float | None:
    fields = parsedate_tz(text)
    if fields is None or fields[5] > 60 or abs(fields[9] or 0) >= _DAY:
        return None
    # datetime knows no leap second, which RFC 9110 allows: 23:59:60 is one after 23:59:59.
    whole = datetime(*fields[:5], min(fields[5], 59), tzinfo=UTC)
    seconds = whole.timestamp() + (fields[5] == 60) - (fields[9] or 0)
    return seconds if seconds >= 0 else None


def _read_window(
    family: Family, remaining_field: object, fields: Mapping[str, str]
) -> WindowReading | None:
    remaining = _count(remaining_field)
    if remaining is None:
        return None
    limit = _count(fields.get(family.limit))
    if remaining < 0:
        # -1 of -1 is how some servers say that they do not know.
        if limit is not None and limit < 0:
            return None
        remaining = 0
    if limit is not None and limit <= 0:
        limit = None
    return WindowReading(family.kind, remaining, limit, _epoch(fields.get(family.reset)))


def _epoch(value: object) -> float | None:
    seconds: float | None = _digits(value)
    if seconds is None:
        seconds = _number(value)
    return float(seconds) if seconds is not None and 0 < seconds < _MILLISECONDS else None


def _count(value: object) -> int | None:
    count = _digits(value)
    if count is not None:
        return count
    number = _number(value)
    if number is None or abs(number) >= _NO_COUNT:
        return None
    # Part of a call cannot be made: 14.9 left are 14.
    return int(number)


def _digits(value: object) -> int | None:
    """Read what nearly every answer says, in a third of the time that any number takes."""
    if isinstance(value, str) and len(value) < 16 and value.isdigit() and value.isascii():
        return int(value)
    return None


def _number(value: object) -> float | None:
    """Return a plain finite number, or None; underscores and other alphabets are not plain."""
    if not isinstance(value, str) or len(value) > _LONGEST or not value.isascii():
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if isfinite(number) and "_" not in value else None


def _from_cache(fields: Mapping[str, str]) -> bool:
    """Tell whether a cache gave this answer (RFC 9111, 5.1, and what came before it).

    ``Age: 0`` is no sign: content networks put it on answers fresh from the origin. Caches that
    send the newer Cache-Status send Age as well.
    """
    age = fields.get("age")
    if age is not None and (_number(age) or 0) > 0:
        return True
    marker = fields.get("x-from-cache")
    if marker is not None and _is_true(marker):
        return True
    verdict = fields.get("x-cache")
    return verdict is not None and _is_hit(verdict)


def _is_true(value: object) -> bool:
    return isinstance(value, str) and value.strip().lower() not in ("", "0", "false", "no")


def _is_hit(value: object) -> bool:
    """Tell whether an X-Cache names a hit: ``HIT``, ``MISS, HIT``, ``Hit from cloudfront``."""
    if not isinstance(value, str):
        return False
    # Only the first word of each layer is its verdict; a host name may follow.
    verdicts = [layer.lower().split() for layer in value[:_LONGEST].split(",")]
    return any(words and _served_stored(words[0]) for words in verdicts)


def _served_stored(verdict: str) -> bool:
    # Varnish calls it "hit for pass" or "hit for miss" when it remembers not to cache.
    return "hit" in verdict and "pass" not in verdict and "miss" not in verdict


def _caseless(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return headers whose look-ups by lower-case name find any case.

    The headers of HTTP clients do so by themselves and are used as they are.
    """
    if not isinstance(headers, dict):
        name = next(iter(headers), None)
        if isinstance(name, str):
            swapped = name.swapcase()
            if swapped != name and swapped in headers:
                return headers
    fields: dict[str, str] = {}
    for name, value in headers.items():
        if isinstance(name, str):
            fields.setdefault(name.lower(), value)
    return fields
