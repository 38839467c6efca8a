"""What the server has seen: a bounded journal of requests, and counts that stay exact."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

#: Bytes of a request's body that are kept.
BODY_KEPT = 65_536


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the server took it, and what it decided.

    ``at`` is the server's POSIX time of the decision. ``status`` is None where the connection
    was closed without an answer. ``identity`` is ``user:ID`` or ``app:NAME``; ``template`` and
    ``identity`` are empty where there is none. ``remaining`` is what the 15-minute window had
    left afterwards. ``refused`` tells whether a limit turned it away. ``fault`` names what went
    wrong on purpose. Headers and body may hold secrets and are in no repr; of a body the first
    64 KiB are kept.
    """

    number: int
    at: float
    method: str
    path: str
    query: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    template: str = ""
    identity: str = ""
    status: int | None = None
    remaining: int | None = None
    counted: bool = False
    fault: str = ""
    refused: bool = False

    @property
    def params(self) -> dict[str, str]:
        """The query, decoded; of a repeated name the last value."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def form(self) -> dict[str, str]:
        """The body as a form, decoded."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    @property
    def json(self) -> Any:
        """The body as JSON; ``ValueError`` if it is none."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts since the start, or since they were cleared; exact whatever the journal keeps.

    ``refused`` are answers with 429, or with another status that the dialect has for it;
    ``dropped`` are connections closed without an answer. ``peak`` and ``peak_refused`` are the
    most requests, and the most refusals, within any one second; ``most_refused`` the most
    refusals of any one window.
    """

    received: int
    counted: int
    refused: int
    dropped: int
    peak: int
    peak_refused: int
    most_refused: int


class Journal:
    """The last requests, and counts of all of them."""

    def __init__(self, keep: int) -> None:
        self.entries: deque[Request] = deque(maxlen=keep)
        self.clear()

    def clear(self) -> None:
        """Forget the requests and start to count anew."""
        self.entries.clear()
        self.received = self.counted = self.refused = self.dropped = 0
        self._all = _Peak()
        self._refusals = _Peak()

    def add(self, entry: Request, at: float) -> None:
        """Write a request down; ``at`` is a steady instant."""
        self.entries.append(entry)
        self.received += 1
        self.counted += entry.counted
        self.dropped += entry.status is None
        self._all.add(at)
        if entry.refused:
            self.refused += 1
            self._refusals.add(at)

    def tally(self, most_refused: int) -> Tally:
        """Return the counts as they are now."""
        return Tally(
            self.received,
            self.counted,
            self.refused,
            self.dropped,
            self._all.highest,
            self._refusals.highest,
            most_refused,
        )


@dataclass(slots=True)
class _Peak:
    highest: int = 0
    _recent: deque[float] = field(default_factory=deque)

    def add(self, at: float) -> None:
        self._recent.append(at)
        while self._recent[0] <= at - 1:
            self._recent.popleft()
        self.highest = max(self.highest, len(self._recent))
