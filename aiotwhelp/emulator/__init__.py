"""A local server that counts, refuses and fails as the X API does, for tests and demos.

It is an independent reading of the API and shares no code with the client: its windows start
at the first request, users and apps have pools of their own, OAuth 1.0a signatures are checked
by oauthlib's server side, and what can go wrong on a network goes wrong on request::

    async with Emulator(window=5, limits={"help/privacy": 15}) as api:
        api.faults.jitter = 0.2
        api.fail_next(status=503)
        ...
        assert api.refused == 0

From a shell, ``python -m aiotwhelp.emulator --port 8080 --window 60`` prints the address and
credentials as environment variables.
"""

from .accounts import App, Grant, User
from .clock import ServerClock
from .faults import Faults
from .journal import Request, Tally
from .judge import Reply
from .server import Emulator
from .windows import WindowReport

__all__ = [
    "App",
    "Emulator",
    "Faults",
    "Grant",
    "Reply",
    "Request",
    "ServerClock",
    "Tally",
    "User",
    "WindowReport",
]
