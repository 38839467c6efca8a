"""Quotas shared beyond one process: the port, the rule over all processes, and the engines."""

from __future__ import annotations

from aiotwhelp.ledger.memory import MemoryLedger
from aiotwhelp.ledger.port import Lease, Ledger, Note, Report

__all__ = ["Lease", "Ledger", "MemoryLedger", "Note", "Report", "from_url"]


def from_url(url: str) -> Ledger:
    """Return the ledger that a URL names; raises ValueError for none."""
    raise ValueError(f"a ledger is sqlite:///path, redis://host or valkey://host, not {url!r}")
