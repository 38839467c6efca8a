"""Other clients, each ready to make one request of the lean server and read its answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
from yarl import URL

PATH = "/2/users/me"
TOKEN = "AAAAAAAAAAAAAAAAAAAAAMLheAAAAAAA0%2BuSeid%2BULvsea4JtiGRiSDSJSI%3DEUifiRBkKG5E2XzM"
KEYS = (
    "xvz1evFS4wEEPTGEFPHBog",
    "kAcSOqF21Fu85e7zjz7ZN2U4ZRhfV3WpwPAoE3Z7kBw",
    "370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb",
    "LswwdoUaIvS8ltyTt5jkRh4J50vUPVVHtR2YPi5kE",
)

#: One request, its answer read.
Call = Callable[[], Awaitable[object]]


@asynccontextmanager
async def aiohttp_retry(base: str) -> AsyncIterator[Call]:
    from aiohttp_retry import RetryClient

    async with RetryClient(headers={"Authorization": f"Bearer {TOKEN}"}) as session:

        async def call() -> object:
            async with session.get(base + PATH) as response:
                return await response.read()

        yield call


@asynccontextmanager
async def gidgethub(base: str) -> AsyncIterator[Call]:
    from gidgethub.aiohttp import GitHubAPI

    async with aiohttp.ClientSession() as session:
        api = GitHubAPI(session, "aiotwhelp", oauth_token=TOKEN, base_url=base)
        yield lambda: api.getitem(PATH)


class AtHome:
    """What tweepy uses of a session: it knows one address, and ours is another."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = base

    def request(self, method: str, url: str | URL, **options: object) -> object:
        path = str(url).removeprefix("https://api.twitter.com")
        return self._session.request(method, self._base + path, **options)  # type: ignore[arg-type]


@asynccontextmanager
async def tweepy(base: str, *, signed: bool = False) -> AsyncIterator[Call]:
    from tweepy.asynchronous import AsyncClient

    client = AsyncClient(TOKEN, *KEYS)
    async with aiohttp.ClientSession() as session:
        client.session = AtHome(session, base)
        yield lambda: client.request("GET", PATH, params={}, user_auth=signed)


def tweepy_signed(base: str) -> AbstractAsyncContextManager[Call]:
    return tweepy(base, signed=True)


@asynccontextmanager
async def peony_signed(base: str) -> AsyncIterator[Call]:
    from peony import BasePeonyClient

    async with aiohttp.ClientSession() as session:
        keys = dict(zip(("consumer_key", "consumer_secret"), KEYS[:2], strict=True))
        client = BasePeonyClient(
            **keys,
            access_token=KEYS[2],
            access_token_secret=KEYS[3],
            base_url=base,
            api_version="",
            suffix="",
            session=session,
        )
        endpoint = client.api["2"].users.me
        yield lambda: endpoint.get()
        client._session = None  # it is not the client's to close


@asynccontextmanager
async def httpx(base: str) -> AsyncIterator[Call]:
    import httpx as library

    # Its own default of 20 kept connections would have the others made anew each time.
    limits = library.Limits(max_connections=100, max_keepalive_connections=100)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    # Nor its timeout of 5 s, which 100 at once may run into on a slow machine.
    async with library.AsyncClient(headers=headers, limits=limits, timeout=None) as client:
        yield lambda: client.get(base + PATH)


PEERS: Mapping[str, Callable[[str], AbstractAsyncContextManager[Call]]] = {
    "aiohttp-retry": aiohttp_retry,
    "gidgethub (reads JSON)": gidgethub,
    "tweepy": tweepy,
    "tweepy, OAuth 1.0a": tweepy_signed,
    "peony, OAuth 1.0a (reads JSON)": peony_signed,
    "httpx": httpx,
}
