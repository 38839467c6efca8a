"""Many users and an app: one pool of connections, one limiter, and a quota for each.

    python examples/many_users.py                   on an emulator, offline
    python examples/many_users.py --live            your user and your app, from the environment

The API gives every user a quota of its own, and the app another one. `Session.as_user` does the
same on this side: Ann's burst does not make Ben wait, and nobody needs a second pool.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import nullcontext

import command

import aiotwhelp

#: Who makes how many calls; the emulator allows 10 per 3 s to a user, and 20 to the app.
OFFLINE = {"ann": 25, "ben": 10, "cleo": 4, "the app": 40}
LIVE = {"user": 3, "the app": 3}
PATHS = {"the app": "/2/tweets/search/recent?query=quota"}


async def run(options: argparse.Namespace) -> None:
    server = aiotwhelp.Emulator(
        window=3,
        limits={"/2/users/me": 10, "/2/tweets/search/recent": {"app": 20}},
        users=3,
        jitter=0.1,
    )
    async with nullcontext() if options.live else server:
        environ = os.environ if options.live else server.env
        async with aiotwhelp.Session.from_env(app_of(environ)) as pool:
            sessions = {"the app": pool}
            if options.live:
                sessions["user"] = pool.as_user("user", auth=user_of(environ))
            else:
                for name, user in zip(OFFLINE, server.users, strict=False):
                    keys = user.consumer_key, user.consumer_secret
                    tokens = user.access_token, user.access_token_secret
                    sessions[name] = pool.as_user(name, auth=aiotwhelp.OAuth1(*keys, *tokens))
            print(f"{'caller':<8} {'calls':>6} {'took':>8}   quota left")
            calls = LIVE if options.live else OFFLINE
            await asyncio.gather(*(use(sessions[name], name, calls[name]) for name in calls))
            stats = pool.limiter.stats()
            print(f"\n{stats.granted} requests sent, {stats.refused} refused, one pool")


async def use(session: aiotwhelp.Session, name: str, calls: int) -> None:
    started = time.monotonic()
    path = PATHS.get(name, "/2/users/me")
    await asyncio.gather(*(session.fetch(path) for _ in range(calls)))
    took = time.monotonic() - started
    quota = session.quota(path)
    left = "?" if quota.remaining is None else quota.remaining  # its window may have ended
    print(f"{name:<8} {calls:>6} {took:>6.1f} s   {left} of {quota.limit}", flush=True)


def app_of(environ: Mapping[str, str]) -> Mapping[str, str]:
    # Without the user's tokens: the calls of the pool itself are the app's.
    names = ("AIOTWHELP_BASE_URL", "AIOTWHELP_BEARER_TOKEN")
    return {name: environ[name] for name in names if name in environ}


def user_of(environ: Mapping[str, str]) -> aiotwhelp.Auth:
    parts = ("CONSUMER_KEY", "CONSUMER_SECRET", "ACCESS_TOKEN", "ACCESS_TOKEN_SECRET")
    names = [f"AIOTWHELP_{part}" for part in parts]
    missing = [name for name in names if not environ.get(name)]
    if missing:
        raise ValueError(f"no credentials in the environment: set {', '.join(missing)}")
    return aiotwhelp.OAuth1(*(environ[name] for name in names))


def main() -> None:
    command.run(run(command.parser("A quota for each user, on one pool.").parse_args()))


if __name__ == "__main__":
    main()
