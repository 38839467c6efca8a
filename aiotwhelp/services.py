"""APIs that are known beside X, as data: where they live, how they speak, what they do not tell.

Numbers are those of each API's own pages in November 2026. Where a page gives a limit per window
without saying how its windows run, the local rate is that limit less its burst: then no window,
wherever it begins, has more calls than the limit.
"""

from __future__ import annotations

from aiotwhelp.apis import Api
from aiotwhelp.dialects import BLUESKY, DISCORD, GITHUB, REDDIT
from aiotwhelp.rates import Concurrency, Rate

#: The GitHub REST API. Its primary limits, by resource, are announced. Its secondary ones are not:
#: 100 calls in flight; 900 points a minute, of which a write takes 5; 80 writes a minute that
#: create content, and 500 an hour (docs.github.com, rate limits for the REST API). Which writes
#: create content is not published, so every POST counts as one.
GitHub = Api(
    "GitHub",
    "https://api.github.com",
    GITHUB,
    rates={
        "*": (Concurrency(100), Rate(800, per=60, burst=100, unit="points")),
        "POST *": (Rate(70, per=60, burst=10), Rate(450, per=3600, burst=50)),
    },
    costs={method: {"points": 5} for method in ("POST", "PATCH", "PUT", "DELETE")},
)

#: Reddit's API for OAuth clients: one quota for all routes, announced without its limit.
Reddit = Api(
    "Reddit",
    "https://oauth.reddit.com",
    REDDIT,
    categories={"*": "every route"},
)

#: Discord's API for bots. Routes tell the name of their bucket, which is counted apart for each
#: channel, guild and webhook; all routes together may have 50 calls a second (discord.com, topics:
#: rate limits), which is not announced.
Discord = Api(
    "Discord",
    "https://discord.com/api/v10",
    DISCORD,
    partitions=("/channels/{id}", "/guilds/{id}", "/webhooks/{id}"),
    rates={"*": Rate(40, per=1, burst=10)},
)

#: A Bluesky server. All routes have one quota per address, which is announced, with an epoch under
#: the draft's names for seconds. Records written are counted in points, 5000 an hour and 35 000 a
#: day for an account, which are not (docs.bsky.app, rate limits): 3 to create, 2 to update, 1 to
#: delete.
Bluesky = Api(
    "Bluesky",
    "https://bsky.social",
    BLUESKY,
    categories={
        "*": "every route",
        "POST /xrpc/com.atproto.server.createSession": "createSession",
        "POST /xrpc/com.atproto.identity.updateHandle": "updateHandle",
        # A line of their own: whoever reads does not wait behind those who have no points left.
        "POST /xrpc/com.atproto.repo.createRecord": "records",
        "POST /xrpc/com.atproto.repo.putRecord": "records",
        "POST /xrpc/com.atproto.repo.deleteRecord": "records",
    },
    rates={
        "*": (
            Rate(4500, per=3600, burst=500, unit="points"),
            Rate(34_000, per=86_400, burst=1000, unit="points"),
        )
    },
    costs={
        "*": {"points": 0},
        "POST /xrpc/com.atproto.repo.createRecord": {"points": 3},
        "POST /xrpc/com.atproto.repo.putRecord": {"points": 2},
        "POST /xrpc/com.atproto.repo.deleteRecord": {"points": 1},
    },
)
