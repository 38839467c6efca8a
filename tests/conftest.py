"""What all tests share: our own pytest plugin, whether or not the package is installed."""

from __future__ import annotations

import asyncio.constants
import os
import traceback
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import aiotwhelp.testing
from aiotwhelp import turns
from aiotwhelp.permits import Permit, handed_out
from tests.unhurried import wait_for_ledgers

# The same examples in every run. Another profile explores: HYPOTHESIS_PROFILE=default make test
# How slow the machine is just then is no fault of a strategy.
settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# In debug mode asyncio keeps the stack of whoever made a task, a future or a handle: all of it,
# read from files, which is a quarter of what the tests cost. So many frames say who it was.
DEPTH = 4
asyncio.constants.DEBUG_STACK_DEPTH = DEPTH
traceback.extract_stack.__defaults__ = (None, DEPTH)  # asyncio, in C, asks for no number of them


def pytest_configure(config: pytest.Config) -> None:
    # Installed, the entry point has registered it already.
    if not config.pluginmanager.is_registered(aiotwhelp.testing):
        config.pluginmanager.register(aiotwhelp.testing, "aiotwhelp")


@pytest.fixture
def calls_in_flight(monkeypatch: pytest.MonkeyPatch) -> list[Permit]:
    """Keep each permit that a test does not settle, as that of a call without an answer so far."""
    kept: list[Permit] = []

    def keeping(*given: Any) -> Permit:
        kept.append(handed_out(*given))
        return kept[-1]

    monkeypatch.setattr(turns, "handed_out", keeping)
    return kept


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """In real time, be patient with ledgers: it is what they keep that is tested."""
    wait_for_ledgers(monkeypatch.setattr)
