"""Overhead of a request over a plain aiohttp session, ours and that of others.

    python -m benchmarks.overhead
    python -m benchmarks.overhead --quick
    python -m benchmarks.overhead --only aiotwhelp     # without the peers

Each gets and reads a small JSON answer with the headers of a quota, from a lean server in a process
of its own; 1, 10 and 100 at once. CPU is the client's processor time per request; "over aiohttp"
are the median differences and ratios within a round. The bounds for ours: with a bearer token
+10 µs, and 0.95 of aiohttp's throughput at 1 and 10, 0.93 at 100; with OAuth 1.0a +60 µs. "All
granted unseen" leaves out the rule: neither is a permit counted nor a header of an answer read.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from math import inf
from typing import Any

import aiohttp

import aiotwhelp
from benchmarks import server
from benchmarks.clients import KEYS, PATH, PEERS, TOKEN, Call
from benchmarks.common import Series, Work, footer, micro, pin, print_table, rounds

RAW = "aiohttp"


# Ours ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def raw(base: str, *, json: bool = False) -> AsyncIterator[Call]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def call() -> object:
            async with session.get(base + PATH) as response:
                return await (response.json() if json else response.read())

        yield call


def raw_json(base: str) -> AbstractAsyncContextManager[Call]:
    return raw(base, json=True)


@asynccontextmanager
async def ours(base: str, auth: aiotwhelp.Auth | None = None) -> AsyncIterator[Call]:
    async with aiotwhelp.Session(
        aiotwhelp.X.at(base), auth=auth or aiotwhelp.Bearer(TOKEN)
    ) as session:

        async def call() -> object:
            async with session.get(PATH) as response:
                return await response.read()

        yield call


@asynccontextmanager
async def ours_fetch(base: str) -> AsyncIterator[Call]:
    async with aiotwhelp.Session(aiotwhelp.X.at(base), auth=aiotwhelp.Bearer(TOKEN)) as session:
        yield lambda: session.fetch(PATH)


NOTHING = aiotwhelp.Reading()


class Free:
    """A permit that nobody counts."""

    __slots__ = ("is_settled", "sent")

    waited = 0.0

    def __init__(self) -> None:
        self.is_settled = False
        self.sent = inf

    def observed(
        self, headers: Mapping[str, str], *, status: int = 200, cost: object = None
    ) -> aiotwhelp.Reading:
        self.is_settled = True
        return NOTHING

    unsent = lost = observed

    def observed_again(self, headers: Mapping[str, str]) -> int:
        self.is_settled = True
        return 0


class Granting(aiotwhelp.Limiter):
    """Grants every call without a look: what is left is the rest of the stack."""

    def at_once(self, *options: object) -> Any:
        return Free()


@asynccontextmanager
async def without_the_rule(base: str, auth: aiotwhelp.Auth | None = None) -> AsyncIterator[Call]:
    api, auth = aiotwhelp.X.at(base), auth or aiotwhelp.Bearer(TOKEN)
    async with aiotwhelp.Session(api, auth=auth, limiter=Granting()) as session:

        async def call() -> object:
            async with session.get(PATH) as response:
                return await response.read()

        yield call


@asynccontextmanager
async def fetch_without_the_rule(base: str) -> AsyncIterator[Call]:
    api, auth = aiotwhelp.X.at(base), aiotwhelp.Bearer(TOKEN)
    async with aiotwhelp.Session(api, auth=auth, limiter=Granting()) as session:
        yield lambda: session.fetch(PATH)


def signed_without_the_rule(base: str) -> AbstractAsyncContextManager[Call]:
    return without_the_rule(base, aiotwhelp.OAuth1(*KEYS))


def ours_signed(base: str) -> AbstractAsyncContextManager[Call]:
    return ours(base, aiotwhelp.OAuth1(*KEYS))


# The comparison -----------------------------------------------------------------------------------

OURS: Mapping[str, Callable[[str], AbstractAsyncContextManager[Call]]] = {
    "**aiotwhelp, get**": ours,
    "**aiotwhelp, fetch** (reads JSON)": ours_fetch,
    "**aiotwhelp, get, OAuth 1.0a**": ours_signed,
    "aiotwhelp, get, all granted unseen": without_the_rule,
    "aiotwhelp, fetch, all granted unseen": fetch_without_the_rule,
    "aiotwhelp, get, OAuth 1.0a, all granted unseen": signed_without_the_rule,
}


def in_parallel(call: Call, concurrency: int) -> Work:
    """Have so many workers make the calls, one after the other each."""

    async def work(count: int) -> None:
        async def worker(calls: int) -> None:
            for _ in range(calls):
                await call()

        whole, more = divmod(count, concurrency)
        shares = [whole + (number < more) for number in range(concurrency)]
        await asyncio.gather(*map(worker, shares))

    return work


def row(name: str, series: Series, base: Series) -> list[str]:
    return [
        name,
        micro(series.cpu),
        micro(series.cpu_over(base), sign=True) if series is not base else "",
        f"{1 / series.wall:,.0f}",
        f"{series.throughput_ratio(base):.3f}" if series is not base else "1",
    ]


async def compare(clients: Mapping[str, Call], concurrency: int, *, quick: bool) -> None:
    works = {name: in_parallel(call, concurrency) for name, call in clients.items()}
    number, seconds = (5, 0.04) if quick else (25, 0.08)
    results = await rounds(works, number=number, seconds=seconds, least=2 * concurrency)
    print_table(
        (f"{concurrency} at once", "CPU µs", "over aiohttp", "requests/s", "of aiohttp's"),
        [row(name, series, results[RAW]) for name, series in results.items()],
    )


async def main(*, quick: bool, peers: bool) -> None:
    contestants = {RAW: raw, "aiohttp, JSON": raw_json, **OURS, **(PEERS if peers else {})}
    async with server.running() as base, AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(make(base)) for name, make in contestants.items()
        }
        for concurrency in (1, 10, 100):
            await compare(clients, concurrency, quick=quick)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--only", choices=["aiotwhelp"], help="leave out the peers")
    options = parser.parse_args()
    pin(0)
    asyncio.run(main(quick=options.quick, peers=options.only is None))
    packages = ("aiohttp", "oauthlib")
    peers = ("aiohttp-retry", "gidgethub", "tweepy", "peony-twitter", "httpx")
    footer(*packages, *(() if options.only else peers))
