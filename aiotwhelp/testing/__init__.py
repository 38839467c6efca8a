"""Virtual time, an in-memory network and pytest fixtures: for our tests and for users'.

A quota window of fifteen minutes takes milliseconds here, and the same test takes the same
course each time. Without pytest::

    from aiotwhelp import testing

    testing.run(main())  # on a VirtualTimeLoop of its own

With pytest nothing need be installed or imported: the fixtures are an entry point.

A plain test drives coroutines, on one loop, with the clock and the server going on between::

    def test_a_bot(aiotwhelp_clock, aiotwhelp_emulator):
        aiotwhelp_clock.run(bot(aiotwhelp_emulator.url))
        assert aiotwhelp_clock.elapsed < 900

A coroutine without any mark is run in virtual time, too, with no async plugin needed::

    async def test_a_bot(aiotwhelp_clock, aiotwhelp_emulator):
        await bot(aiotwhelp_emulator.url)

pytest-asyncio runs the tests that it is told to run (its mark, or its auto mode). There the
emulator is started on that test's loop, also for the test's async fixtures. For virtual time
give pytest-asyncio (1.4 or newer) the loop, in ``conftest.py``::

    from aiotwhelp.testing import VirtualTimeLoop

    def pytest_asyncio_loop_factories(config, item):
        return {"virtual": VirtualTimeLoop}

``@pytest.mark.aiotwhelp_emulator(window=5)`` passes options to the emulator.
"""

from importlib.util import find_spec

from aiotwhelp.testing.loop import DeadlockError, VirtualTimeLoop, run
from aiotwhelp.testing.network import Network

__all__ = ["DeadlockError", "Network", "VirtualTimeLoop", "run"]

# The loop serves without pytest as well.
if find_spec("pytest"):
    from aiotwhelp.testing.fixtures import (
        Clock,
        aiotwhelp_clock,
        aiotwhelp_emulator,
        pytest_configure,
        pytest_pyfunc_call,
    )

    __all__ += [
        "Clock",
        "aiotwhelp_clock",
        "aiotwhelp_emulator",
        "pytest_configure",
        "pytest_pyfunc_call",
    ]
