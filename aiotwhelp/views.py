"""What a user sees of quotas: their keys, and snapshots of what is believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from aiotwhelp import checks


class QuotaKey(NamedTuple):
    """What a quota belongs to: an API, whoever calls, and a route or category.

    ``identity`` and ``app`` are names or keyed digests, never credentials. ``partition`` tells
    apart quotas that have the server's own name in common, such as those of two channels.
    """

    route: str
    api: str = ""
    identity: str = ""
    app: str = ""
    partition: str = ""

    def __str__(self) -> str:
        return self.route


@dataclass(frozen=True, slots=True)
class WindowQuota:
    """One window of a quota, as believed now. None means unknown; times are in seconds."""

    name: str
    limit: int | None
    remaining: int | None
    resets_in: float | None
    resets_at: float | None


@dataclass(frozen=True, slots=True, repr=False)
class Quota:
    """What is left of a quota: of its tightest window, with all of them in ``windows``.

    ``remaining`` counts calls in flight as made. ``resets_in`` is in seconds, ``resets_at`` is
    POSIX time of the server's clock. ``published`` is the documented limit, for display only.
    """

    key: str
    limit: int | None = None
    remaining: int | None = None
    resets_in: float | None = None
    resets_at: float | None = None
    waiting: int = 0
    in_flight: int = 0
    published: int | None = None
    windows: tuple[WindowQuota, ...] = ()

    def __repr__(self) -> str:
        limit = self.limit if self.limit is not None else self.published
        text = f"{_or_unknown(self.remaining)}/{_or_unknown(limit)}"
        if self.resets_in is not None:
            text += f", resets in {clock_face(self.resets_in)}"
        return f"<Quota {text}>"


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the limiter was made; ``waited`` is in seconds, over all callers."""

    granted: int
    waited: float
    refused: int
    lost: int
    waiting: int
    in_flight: int
    quotas: int


def clock_face(seconds: float) -> str:
    """Write a time span as ``14:31`` or ``23:59:00``."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def left_text(quota: Quota) -> str:
    """Write what is left as ``0 of 15 left, resets in 14:31``."""
    if quota.limit is None and quota.remaining is None:
        return "what is left is unknown, since no answer has told yet"
    text = f"{_or_unknown(quota.remaining)} of {_or_unknown(quota.limit)} left"
    if quota.resets_in is not None:
        text += f", resets in {clock_face(quota.resets_in)}"
    return text


def _or_unknown(number: int | None) -> str:
    return "?" if number is None else str(number)


def tightness(window: WindowQuota) -> float:
    """Return the share of a window that is left."""
    return (window.remaining or 0) / (window.limit or 1)


def as_key(key: QuotaKey | str) -> QuotaKey:
    """Return a key, made of its route if it is a string."""
    if isinstance(key, QuotaKey):
        return key
    return QuotaKey(checks.instance("key", key, str, "a QuotaKey, or a name such as 'GET /orders'"))
