"""A heap that each of its entries can leave at any time, wherever it stands in it.

`heapq` can only leave the dead where they are: behind a caller who waits for a day they would
pile up, and be cleared away all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar


class Entry:
    """Something that can stand in one heap at a time, by its rank."""

    __slots__ = ("place", "rank")

    def __init__(self, rank: Any) -> None:
        self.rank = rank
        #: Where it stands in its heap; -1 while it is in none.
        self.place = -1


E = TypeVar("E", bound=Entry)


class Heap(Generic[E]):
    """Entries, the one of the lowest rank first; nothing costs more than log n."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[E] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[E]:
        return iter(self._entries)

    @property
    def first(self) -> E | None:
        """The entry of the lowest rank."""
        return self._entries[0] if self._entries else None

    def add(self, entry: E) -> None:
        """Take an entry in; it must be in no heap."""
        self._entries.append(entry)
        self._rise(entry, len(self._entries) - 1)

    def discard(self, entry: E) -> None:
        """Let an entry go, if it is in this heap."""
        at, entry.place = entry.place, -1
        if at < 0:
            return
        last = self._entries.pop()
        if last is not entry:
            self._rise(last, self._sink(last, at))

    def _rise(self, entry: E, at: int) -> None:
        """Put an entry to its place, at or above a hole."""
        entries, rank = self._entries, entry.rank
        while at > 0:
            above = entries[(at - 1) // 2]
            if above.rank <= rank:
                break
            entries[at], above.place, at = above, at, (at - 1) // 2
        entries[at], entry.place = entry, at

    def _sink(self, entry: E, at: int) -> int:
        """Move a hole down to where an entry may stand; return its place."""
        entries, rank = self._entries, entry.rank
        while (below := 2 * at + 1) < len(entries):
            if below + 1 < len(entries) and entries[below + 1].rank < entries[below].rank:
                below += 1
            child = entries[below]
            if rank <= child.rank:
                break
            entries[at], child.place, at = child, at, below
        return at
