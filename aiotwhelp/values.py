"""Values of header fields: numbers, counts, dates, lengths of time, and resets.

Whatever a server sends, reading it never raises, takes time in proportion to its length, and gives
finite numbers only; garbage gives None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_tz
from functools import lru_cache
from math import isfinite
from typing import Literal

#: Longest value that is looked at. The longest honest one is a date of some 40 characters.
_LONGEST = 64
#: Longer is only how JavaScript writes a date, with the name of the zone.
_LONGEST_TIMESTAMP = 80
#: Counts from here on are no counts: 2**64 - 1 is a server's own -1 in an unsigned integer.
_NO_COUNT = 2**53
#: No zone is a day or more away from GMT.
_DAY = 24 * 3600

#: Epoch seconds reach 1e11 in the year 5138; epoch milliseconds have passed it since 1973.
_MILLISECONDS = 1e11
#: Numbers below are lengths of time (three years), and from 2001 on epoch seconds are above.
_LONGEST_DELTA = 1e8
_EARLIEST_EPOCH = 1e9
#: As Go writes a time.Duration: ``6m0s``, ``2m59.56s``, ``12ms``.
_DURATION = re.compile(
    r"(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)(ms|us|µs|ns|s))?"
)
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}

#: How a reset is written:
#:
#: - ``"epoch"``: POSIX seconds of the server's clock, also with decimals
#: - ``"milliseconds"``: the same in milliseconds
#: - ``"delta"``: seconds from the answer
#: - ``"delta-milliseconds"``: the same in milliseconds
#: - ``"duration"``: a length of time as Go writes it (``6m0s``), or seconds
#: - ``"timestamp"``: a date (RFC 3339, ISO 8601, HTTP-date), or epoch seconds
#: - ``"any"``: whichever of these it looks like, where that leaves no doubt
Resets = Literal[
    "epoch", "milliseconds", "delta", "delta-milliseconds", "duration", "timestamp", "any"
]


#: A reset as an epoch, or as seconds from the answer: the other one is None.
Reset = tuple[float | None, float | None]

NEVER: Reset = (None, None)


def number(value: object) -> float | None:
    """Return a plain finite number, or None; underscores and other alphabets are not plain."""
    if not isinstance(value, str) or len(value) > _LONGEST or not value.isascii():
        return None
    try:
        parsed = float(value)
    except ValueError:
        return None
    return parsed if isfinite(parsed) and "_" not in value else None


def count(value: object) -> int | None:
    """Return a whole number of calls: part of a call cannot be made, so 14.9 left are 14."""
    # What nearly every answer says, in a third of the time that any number takes.
    if isinstance(value, str) and len(value) < 16 and value.isdigit() and value.isascii():
        return int(value)
    parsed = number(value)
    if parsed is None or abs(parsed) >= _NO_COUNT:
        return None
    return int(parsed)


def http_date(value: object) -> float | None:
    """Return the POSIX seconds of an HTTP-date in any of its three forms (RFC 9110, 5.6.7).

    Garbage, and dates before 1970, give None.
    """
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    return _http_date(value)


def timestamp(value: object) -> float | None:
    """Return the POSIX seconds of a time as RFC 3339 and ISO 8601 write it, or an HTTP-date.

    Without a zone it is taken for UTC. A name of the zone in brackets at its end is left out.
    """
    if not isinstance(value, str) or len(value) > _LONGEST_TIMESTAMP or not value.isascii():
        return None
    # JavaScript's "GMT+0100 (Central European Standard Time)" is read without its words.
    text = value.partition("(")[0].strip().replace("GMT+", "+").replace("GMT-", "-")
    if text[:4].isdigit():
        return _iso(text)
    return http_date(text)


def duration(value: object) -> float | None:
    """Return the seconds of a length of time as Go writes it; a plain number is seconds, too."""
    plain = number(value)
    if plain is not None:
        return plain
    found = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if found is None:
        return None
    hours, minutes, rest, unit = found.groups()
    seconds = float(rest) * _UNITS[unit] if rest else 0.0
    return 3600.0 * int(hours or 0) + 60.0 * int(minutes or 0) + seconds


# Answers of one second share one Date: nearly every look finds the last parsed string here.
@lru_cache(maxsize=16)
def _http_date(text: str) -> float | None:
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


def _iso(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if seconds >= 0 else None


def _epoch(value: object) -> Reset:
    if not isinstance(value, str) or len(value) > _LONGEST:
        return NEVER
    return _read_epoch(value)


# Answer after answer tells the same one.
@lru_cache(maxsize=64)
def _read_epoch(text: str) -> Reset:
    seconds = number(text)
    if seconds is None or not 0 < seconds < _MILLISECONDS:
        return NEVER
    return float(seconds), None


def _milliseconds(value: object) -> Reset:
    seconds = number(value)
    return (seconds / 1000, None) if seconds is not None and seconds > 0 else NEVER


def _delta(value: object) -> Reset:
    seconds = number(value)
    return (None, seconds) if seconds is not None and seconds >= 0 else NEVER


def _delta_milliseconds(value: object) -> Reset:
    seconds = number(value)
    return (None, seconds / 1000) if seconds is not None and seconds >= 0 else NEVER


def _duration(value: object) -> Reset:
    seconds = duration(value)
    return (None, seconds) if seconds is not None and seconds >= 0 else NEVER


def _timestamp(value: object) -> Reset:
    seconds = timestamp(value)
    return (seconds, None) if seconds is not None else _epoch(value)


def _any(value: object) -> Reset:
    seconds = number(value)
    if seconds is None:
        moment = timestamp(value)
        return (moment, None) if moment is not None else _duration(value)
    if 0 <= seconds < _LONGEST_DELTA:
        return None, seconds
    if seconds >= _MILLISECONDS:
        return seconds / 1000, None
    return (seconds, None) if seconds >= _EARLIEST_EPOCH else NEVER


#: How to read a reset, by the way it is written.
RESETS: Mapping[str, Callable[[object], Reset]] = {
    "epoch": _epoch,
    "milliseconds": _milliseconds,
    "delta": _delta,
    "delta-milliseconds": _delta_milliseconds,
    "duration": _duration,
    "timestamp": _timestamp,
    "any": _any,
}
