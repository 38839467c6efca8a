"""What all tests share: our own pytest plugin, whether or not the package is installed."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

import aiotwhelp.testing

# The same examples in every run. Another profile explores: HYPOTHESIS_PROFILE=default make test
settings.register_profile("repeatable", derandomize=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_configure(config: pytest.Config) -> None:
    # Installed, the entry point has registered it already.
    if not config.pluginmanager.is_registered(aiotwhelp.testing):
        config.pluginmanager.register(aiotwhelp.testing, "aiotwhelp")
