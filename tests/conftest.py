"""What all tests share: our own pytest plugin, whether or not the package is installed."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

import aiotwhelp.testing

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


def pytest_configure(config: pytest.Config) -> None:
    # Installed, the entry point has registered it already.
    if not config.pluginmanager.is_registered(aiotwhelp.testing):
        config.pluginmanager.register(aiotwhelp.testing, "aiotwhelp")
