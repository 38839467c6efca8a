"""The pytest fixtures. How to use them is told in ``aiotwhelp.testing``."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from aiotwhelp.testing.loop import VirtualTimeLoop, as_coroutine
from aiotwhelp.testing.network import Network

if TYPE_CHECKING:
    from aiotwhelp.emulator import Emulator

T = TypeVar("T")

_REAL_TIME = (
    "aiotwhelp_clock: another plugin runs this test on {loop!r}, in real time. Take its mark off "
    "the test, or have conftest.py's pytest_asyncio_loop_factories return "
    '{{"virtual": aiotwhelp.testing.VirtualTimeLoop}}.'
)


class Clock:
    """A test's virtual time: the running loop's, else that of a loop of its own."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=VirtualTimeLoop)

    def __repr__(self) -> str:
        return f"<Clock {self.elapsed:g} s>"

    @property
    def loop(self) -> VirtualTimeLoop:
        """The virtual loop: its ``time``, ``wall_time``, ``wall_offset`` and ``network``."""
        loop = _running_loop() or self._runner.get_loop()
        if not isinstance(loop, VirtualTimeLoop):
            raise TypeError(_REAL_TIME.format(loop=loop))
        return loop

    @property
    def elapsed(self) -> float:
        """Virtual seconds since the start of the loop."""
        return self.loop.elapsed

    @property
    def network(self) -> Network:
        """The loop's network, to make it slow or to break it."""
        return self.loop.network

    def run(self, main: Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``main`` in virtual time and return its result; to be called from a plain test.

        Call it as often as you like: loop, time and background tasks go on where they were.
        """
        return self._runner.run(as_coroutine(main))

    def close(self) -> None:
        """Cancel the tasks that are left and close the loop."""
        self._runner.close()


_CLOCK = pytest.StashKey[Clock]()


@pytest.fixture
def aiotwhelp_clock(request: pytest.FixtureRequest) -> Iterator[Clock]:
    """Virtual time for this test: sleeping costs nothing and is exact.

    A plain test drives coroutines with ``aiotwhelp_clock.run(main())``. A coroutine test runs in
    virtual time itself. If another plugin runs it in real time, the test fails and says so.
    """
    clock = Clock()
    request.node.stash[_CLOCK] = clock
    _guard(request.node)
    yield clock
    clock.close()


@pytest.fixture
def aiotwhelp_emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """Yield a started ``aiotwhelp.Emulator``, on the test's loop.

    That is pytest-asyncio's loop if that plugin runs the test, else the virtual clock's.
    ``@pytest.mark.aiotwhelp_emulator(window=5)`` passes options.
    """
    if _belongs_to_pytest_asyncio(request):
        yield request.getfixturevalue("_aiotwhelp_emulator_of_pytest_asyncio")
        return
    clock: Clock = request.getfixturevalue("aiotwhelp_clock")
    emulator = new_emulator(request)
    clock.run(emulator.start())
    yield emulator
    clock.run(emulator.close())


def pytest_configure(config: pytest.Config) -> None:
    """Announce the mark, and add the fixture that needs pytest-asyncio where that is in use."""
    config.addinivalue_line(
        "markers", "aiotwhelp_emulator(**options): options of the aiotwhelp_emulator fixture"
    )
    if config.pluginmanager.hasplugin("asyncio"):
        from aiotwhelp.testing import with_pytest_asyncio

        config.pluginmanager.register(with_pytest_asyncio, "aiotwhelp_with_pytest_asyncio")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Run a coroutine test that has our clock and no async plugin of its own."""
    clock = pyfuncitem.stash.get(_CLOCK, None)
    if clock is None or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    given = pyfuncitem.funcargs
    named = inspect.signature(pyfuncitem.obj).parameters
    clock.run(pyfuncitem.obj(**{name: given[name] for name in named if name in given}))
    return True


def new_emulator(request: pytest.FixtureRequest) -> Emulator:
    """Return an emulator, not started, with the options of the test's mark."""
    # Here, since the plugin is imported in every pytest run of whoever has us installed.
    from aiotwhelp.emulator import Emulator

    mark = request.node.get_closest_marker("aiotwhelp_emulator")
    return Emulator(**(mark.kwargs if mark else {}))


def _belongs_to_pytest_asyncio(request: pytest.FixtureRequest) -> bool:
    return (
        request.config.pluginmanager.hasplugin("asyncio")
        and request.node.get_closest_marker("asyncio") is not None
        and _is_coroutine_test(request.node)
    )


def _is_coroutine_test(item: Any) -> bool:
    return inspect.iscoroutinefunction(getattr(item, "obj", None))


def _guard(item: Any) -> None:
    """Let a coroutine test fail rather than really sleep for minutes."""
    if not _is_coroutine_test(item):
        return
    test = item.obj

    @functools.wraps(test)
    async def guarded(**arguments: Any) -> None:
        loop = _running_loop()
        if not isinstance(loop, VirtualTimeLoop):
            pytest.fail(_REAL_TIME.format(loop=loop), pytrace=False)
        await test(**arguments)

    item.obj = guarded


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
