"""A web service whose handlers share one session, and say 503 rather than wait too long.

    python examples/service.py                      an emulator behind it, some clients in front
    python examples/service.py --serve              the same, and it stays up
    python examples/service.py --live --serve       the real API behind it

Upstream the quota is 5 calls per 4 s. A client of ours is kept waiting for 2 s at most: `max_wait`
fails as soon as it is known that the wait will not fit, and that becomes a 503 with Retry-After.
Both are options: `--window`, `--patience`.
"""

import argparse
import asyncio
import math
import os
import time
from collections.abc import AsyncIterator
from contextlib import nullcontext

import aiohttp
import command
from aiohttp import web

import aiotwhelp

UPSTREAM = web.AppKey("upstream", aiotwhelp.Session)
PATIENCE = web.AppKey("patience", float)
ROUTES = web.RouteTableDef()


@ROUTES.get("/me")
async def me(request: web.Request) -> web.Response:
    try:
        patience = request.app[PATIENCE]
        user = await request.app[UPSTREAM].fetch("/2/users/me", max_wait=patience)
    except aiotwhelp.QuotaTimeoutError as error:
        seconds = max(1, math.ceil(error.retry_after or 1))
        # Where nobody has been answered yet, nothing is known of a limit.
        why = "busy" if error.limit else "no answer from the API yet"
        return web.Response(status=503, headers={"Retry-After": str(seconds)}, text=why)
    except (aiotwhelp.AiotwhelpError, aiohttp.ClientError) as error:
        # What it says, the API's address for one, is for our log and not for our clients.
        request.app.logger.warning("upstream: %s", error)
        return web.Response(status=502, text="the API has failed")
    return web.json_response({"username": user["data"]["username"]})


def application(session: aiotwhelp.Session, patience: float) -> web.Application:
    async def life(app: web.Application) -> AsyncIterator[None]:
        async with session:
            app[UPSTREAM] = session
            yield

    app = web.Application()
    app[PATIENCE] = patience
    app.cleanup_ctx.append(life)
    app.add_routes(ROUTES)
    return app


async def run(options: argparse.Namespace) -> None:
    api = aiotwhelp.Emulator(window=options.window, limits={"/2/users/me": 5}, jitter=0.1)
    async with nullcontext() if options.live else api:
        session = aiotwhelp.Session.from_env(os.environ if options.live else api.env)
        runner = web.AppRunner(application(session, options.patience), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", options.port).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/me"
            print(f"serving {url}\n", flush=True)
            if options.serve:
                await asyncio.Event().wait()
            await play(url)
        finally:
            await runner.cleanup()
        stats = session.limiter.stats()
        print(f"\nupstream: {stats.granted} requests sent, {stats.refused} refused")


async def play(url: str) -> None:
    """Be eight clients, and one that comes back when it was told to."""
    async with aiohttp.ClientSession() as clients:
        print("client  status  after  answer")
        retry_after = max(await asyncio.gather(*(client(clients, url, n) for n in range(1, 9))))
        await asyncio.sleep(retry_after)
        await client(clients, url, 9)


async def client(session: aiohttp.ClientSession, url: str, number: int) -> int:
    started = time.monotonic()
    async with session.get(url) as response:
        answer, after = await response.text(), time.monotonic() - started
        retry_after = response.headers.get("Retry-After", "0")
    hint = f", try again in {retry_after} s" if response.status == 503 else ""
    print(f"{number:>6} {response.status:>7} {after:>4.1f} s  {answer}{hint}", flush=True)
    return int(retry_after)


def main() -> None:
    parser = command.parser("A service with one session for all handlers.")
    parser.add_argument(
        "--port", type=command.port, default=0, help="to serve on (default: a free one)"
    )
    seconds = command.seconds
    parser.add_argument(
        "--window", type=seconds, default=4.0, help="the emulator's, in seconds (4)"
    )
    parser.add_argument(
        "--patience", type=seconds, default=2.0, help="a client waits so many seconds at most (2)"
    )
    parser.add_argument("--serve", action="store_true", help="stay up until Ctrl-C")
    command.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
