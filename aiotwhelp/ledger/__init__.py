"""Quotas shared beyond one process: the port, the rule over all processes, and the engines."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aiotwhelp.ledger.port import Lease, Ledger, Note, Report

if TYPE_CHECKING:
    from aiotwhelp.ledger.memory import MemoryLedger
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


#: The engines are loaded on first use: most programs use none.
_ENGINES = {
    "MemoryLedger": "aiotwhelp.ledger.memory",
    "RedisLedger": "aiotwhelp.ledger.redis",
    "SQLiteLedger": "aiotwhelp.ledger.sqlite",
}


def __getattr__(name: str) -> Any:
    if name not in _ENGINES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_ENGINES[name]), name)
    return found


def from_url(url: str) -> Ledger:
    """Return the ledger that a URL names; raises ValueError for none, ImportError without redis-py.

    ``sqlite:///relative.db`` and ``sqlite:////absolute.db``, the path as it is; ``redis://``,
    ``rediss://`` (TLS), ``valkey://``, ``valkeys://`` and ``unix://`` (a socket) as redis-py
    reads them.
    """
    if url.startswith(_SERVERS):
        from aiotwhelp.ledger.redis import RedisLedger

        return RedisLedger(url)
    if url.startswith(_FILE) and len(url) > len(_FILE):
        from aiotwhelp.ledger.sqlite import SQLiteLedger

        return SQLiteLedger(url.removeprefix(_FILE))
    # No more is shown: a password may follow.
    scheme, separator, _ = url.partition("://")
    given = f", not a URL that begins with {scheme[:32]!r}" if separator else ""
    if url.startswith("sqlite:"):
        given = ": a path follows three slashes, and four where it is absolute"
    raise ValueError(f"a ledger is sqlite:///path, redis://host or valkey://host{given}")
