"""What all tests share: our own pytest plugin, whether or not the package is installed."""

from __future__ import annotations

import pytest

import aiotwhelp.testing


def pytest_configure(config: pytest.Config) -> None:
    # Installed, the entry point has registered it already.
    if not config.pluginmanager.is_registered(aiotwhelp.testing):
        config.pluginmanager.register(aiotwhelp.testing, "aiotwhelp")
