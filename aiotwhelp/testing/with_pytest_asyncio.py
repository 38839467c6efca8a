"""The fixture that needs pytest-asyncio; imported only where that plugin is in use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from aiotwhelp.testing.fixtures import new_emulator

if TYPE_CHECKING:
    from aiotwhelp.emulator import Emulator


@pytest_asyncio.fixture
async def _aiotwhelp_emulator_of_pytest_asyncio(
    request: pytest.FixtureRequest,
) -> AsyncIterator[Emulator]:
    async with new_emulator(request) as emulator:
        yield emulator
