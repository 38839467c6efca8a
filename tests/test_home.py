"""The loop that a limiter belongs to, and the clock that it goes by."""

from __future__ import annotations

import asyncio
import sys
from threading import get_ident

import pytest

from aiotwhelp.home import Home, _leave_home
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


def test_a_home_is_open_from_its_first_use_until_it_or_its_loop_is_closed() -> None:
    async def use(*, closes: bool) -> Home:
        home = Home()
        assert not home.is_open
        home.bind()
        assert home.is_open
        if closes:
            home.close()
            assert not home.is_open
        return home

    for closes in (True, False):
        assert not run(use(closes=closes)).is_open


def test_a_home_has_the_thread_that_its_loop_was_seen_in_last() -> None:
    async def use() -> None:
        home, other = Home(), Home()
        assert home.thread is None
        for _ in range(2):  # a fork has it look anew
            home.bind()
            assert (home.thread, other.thread) == (get_ident(), None)
            _leave_home()
            assert home.thread is None
        home.bind()
        home.close()
        assert home.thread is None

    run(use())
