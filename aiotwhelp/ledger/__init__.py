"""Quotas shared beyond one process: the port, the rule over all processes, and the engines."""

from __future__ import annotations

from aiotwhelp.ledger.memory import MemoryLedger
from aiotwhelp.ledger.port import Lease, Ledger, Note, Report
from aiotwhelp.ledger.redis import RedisLedger
from aiotwhelp.ledger.sqlite import SQLiteLedger

__all__ = [
    "Lease",
    "Ledger",
    "MemoryLedger",
    "Note",
    "RedisLedger",
    "Report",
    "SQLiteLedger",
    "from_url",
]

_FILE = "sqlite:///"
_SERVERS = ("redis://", "rediss://", "valkey://", "valkeys://", "unix://")


def from_url(url: str) -> Ledger:
    """Return the ledger that a URL names; raises ValueError for none, ImportError without redis-py.

    ``sqlite:///relative.db`` and ``sqlite:////absolute.db``, the path as it is; ``redis://``,
    ``rediss://`` (TLS), ``valkey://``, ``valkeys://`` and ``unix://`` (a socket) as redis-py
    reads them.
    """
    if url.startswith(_SERVERS):
        return RedisLedger(url)
    if url.startswith(_FILE) and len(url) > len(_FILE):
        return SQLiteLedger(url.removeprefix(_FILE))
    # No more is shown: a password may follow.
    scheme, separator, _ = url.partition("://")
    given = f", not a URL that begins with {scheme[:32]!r}" if separator else ""
    raise ValueError(f"a ledger is sqlite:///path, redis://host or valkey://host{given}")
