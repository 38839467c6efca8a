"""The loop that a limiter belongs to, and the clock that it goes by."""

from __future__ import annotations

import asyncio
import sys

import pytest

from aiotwhelp.home import Home
from aiotwhelp.testing import run


def test_a_loop_with_a_time_of_its_own_is_left_to_it_also_where_uvloop_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "uvloop", raising=False)

    async def ahead() -> float:
        home = Home()
        home.bind()
        return home.now() - asyncio.get_running_loop().time()

    assert run(ahead()) == 0.0
