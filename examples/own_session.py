"""Your own aiohttp.ClientSession, with the quota looked after by a middleware.

    python examples/own_session.py                  on an emulator, offline
    python examples/own_session.py --live           the real API, with AIOTWHELP_BEARER_TOKEN

Everything else about the session stays yours: connector, cookies, tracing, other middlewares,
other hosts. The wait happens inside aiohttp, so the session's timeout must leave room for it.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import nullcontext

import aiohttp
import command

import aiotwhelp

PATH = "/2/tweets/search/recent"
TIMEOUT = aiohttp.ClientTimeout(total=30)


async def run(options: argparse.Namespace) -> None:
    server = aiotwhelp.Emulator(window=3, limits={PATH: 10}, jitter=0.1)
    async with nullcontext() if options.live else server:
        environ = os.environ if options.live else server.env
        api = api_from(environ)
        auth = auth_from(environ)
        limiter = aiotwhelp.Limiter()
        limited = aiotwhelp.RateLimitMiddleware(limiter, apis={api: auth})
        async with aiohttp.ClientSession(
            api.base_url, middlewares=[limited], timeout=TIMEOUT, raise_for_status=True
        ) as session:
            print("page  status  after")
            started = time.monotonic()
            await asyncio.gather(*(page(session, n, started) for n in range(1, options.calls + 1)))
        stats = limiter.stats()
        print(f"\n{stats.granted} requests sent, {stats.refused} refused")
        for key, quota in limiter.quotas().items():
            left = "?" if quota.remaining is None else quota.remaining  # its window may have ended
            print(f"{key}: {left} of {quota.limit} left")


def api_from(environ: Mapping[str, str]) -> aiotwhelp.Api:
    try:
        return aiotwhelp.X.at(environ.get("AIOTWHELP_BASE_URL") or aiotwhelp.X.base_url)
    except ValueError as error:
        raise ValueError(f"AIOTWHELP_BASE_URL: {error}") from None


def auth_from(environ: Mapping[str, str]) -> aiotwhelp.Bearer:
    token = environ.get("AIOTWHELP_BEARER_TOKEN")
    if not token:
        raise ValueError("no credentials in the environment: set AIOTWHELP_BEARER_TOKEN")
    return aiotwhelp.Bearer(token)


async def page(session: aiohttp.ClientSession, number: int, started: float) -> None:
    # Nothing here knows of a quota.
    params = {"query": f"page {number}", "max_results": "10"}
    async with session.get(PATH, params=params) as response:
        await response.json()
        print(f"{number:>4} {response.status:>7} {time.monotonic() - started:>5.1f} s", flush=True)


def main() -> None:
    parser = command.parser("A quota for your own aiohttp.ClientSession.")
    parser.add_argument("--calls", type=command.whole, default=25, help="how many (default: 25)")
    command.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
