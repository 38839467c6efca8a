"""Tools of the tests above the limiter: small servers, virtual time, and what must be left over."""

from __future__ import annotations

import asyncio
import functools
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import aiohttp
from aiohttp import web

from aiotwhelp import Api, Bearer, OAuth1, Session, testing
from aiotwhelp.emulator import Emulator, User

PRIVACY = "/1.1/help/privacy.json"
TOS = "/1.1/help/tos.json"
LANGUAGES = "/1.1/help/languages.json"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a coroutine test on a loop of its own whose time is virtual."""

    @functools.wraps(test)
    def run(*args: Any, **named: Any) -> None:
        testing.run(test(*args, **named), seed=7)

    return run


def in_a_crowd(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The same without asyncio's debug mode, which makes ten thousand tasks slow."""

    @functools.wraps(test)
    def run(*args: Any, **named: Any) -> None:
        testing.run(test(*args, **named), seed=7, debug=False)

    return run


def elapsed() -> float:
    """Virtual seconds since the test began."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, testing.VirtualTimeLoop)
    return loop.elapsed


class Web:
    """A server of one handler, where the emulator would not misbehave enough."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.seen: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        self.seen.append(request)
        return await self._handler(request)

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.seen]


@asynccontextmanager
async def serving(handler: Handler, host: str = "127.0.0.1") -> AsyncIterator[Web]:
    server = Web(handler)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, 0).start()
        server.url = f"http://{host}:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


def scripted(*script: Callable[[web.Request], web.StreamResponse] | int) -> Handler:
    """Answer by a script, one entry per request; the last one stays. A number is a status."""
    left = list(script)

    async def handle(request: web.Request) -> web.StreamResponse:
        step = left.pop(0) if len(left) > 1 else left[0]
        return web.json_response({}, status=step) if isinstance(step, int) else step(request)

    return handle


def drop(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


def quota_headers(remaining: int, *, limit: int = 900, resets_in: float = 900.0) -> dict[str, str]:
    """Rate-limit headers of a window, by the loop's own wall clock, with the Date to them."""
    loop = asyncio.get_running_loop()
    now = loop.wall_time() if isinstance(loop, testing.VirtualTimeLoop) else time.time()
    return {
        "Date": formatdate(now, usegmt=True),
        "x-rate-limit-limit": str(limit),
        "x-rate-limit-remaining": str(remaining),
        "x-rate-limit-reset": str(int(now + resets_in)),
    }


def oauth1_of(user: User) -> OAuth1:
    return OAuth1(
        user.consumer_key, user.consumer_secret, user.access_token, user.access_token_secret
    )


def session_of(api: Emulator, **options: Any) -> Session:
    options.setdefault("auth", Bearer(api.token))
    return Session(api.url, **options)


def plain_api(url: str, **facts: Any) -> Api:
    return Api("plain", url, **facts)


def client_of(session: Session) -> aiohttp.ClientSession:
    return session._settings.pool.connect()


def connections_in_use(session: Session) -> int:
    connector = client_of(session).connector
    assert connector is not None
    return len(connector._acquired)


async def ticks(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def assert_at_rest(session: Session) -> None:
    """Nothing waits, nothing is in flight, no connection is held."""
    await ticks()
    gc.collect()
    stats = session.limiter.stats()
    assert (stats.in_flight, stats.waiting) == (0, 0), stats
    pool = session._settings.pool
    assert (pool.active, len(pool._sleepers), pool.room.in_flight) == (0, 0, 0)
    if not session.closed:
        assert connections_in_use(session) == 0


async def assert_nothing_is_left() -> None:
    """After all is closed: no task but ours, no connection."""
    await asyncio.sleep(1)  # virtual: the server's side ends, too
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    # A server's handler does not notice that its caller has gone.
    others = [task for task in tasks if "RequestHandler" not in repr(task.get_coro())]
    assert not others, others
    loop = asyncio.get_running_loop()
    assert isinstance(loop, testing.VirtualTimeLoop)
    assert loop.network.connections == 0
