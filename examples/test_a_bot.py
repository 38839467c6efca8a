"""A bot, tested against the emulator: an hour of waiting takes milliseconds.

    pytest examples/test_a_bot.py
    python examples/test_a_bot.py

Both fixtures come with the package; nothing is imported for them. `aiotwhelp_clock` runs the test
in virtual time, `aiotwhelp_emulator` is the server. Always offline, as tests should be.
"""

import argparse
import subprocess
import sys

try:
    import pytest
except ModuleNotFoundError:
    sys.exit("this example is a test: pip install pytest")

import aiotwhelp
from aiotwhelp.testing import Clock


async def follower_ids(x: aiotwhelp.Session) -> list[int]:
    """Collect the ids of all followers: the bot under test. Nothing here waits or retries."""
    ids: list[int] = []
    cursor = -1
    while cursor:
        page = await x.fetch("/1.1/followers/ids.json", params={"cursor": cursor, "count": 5000})
        ids += page["ids"]
        cursor = page["next_cursor"]
    return ids


def session_at(api: aiotwhelp.Emulator) -> aiotwhelp.Session:
    return aiotwhelp.Session.from_env(api.env)


@pytest.mark.aiotwhelp_emulator(followers=100_000)
async def test_twenty_pages_take_two_windows(
    aiotwhelp_clock: Clock, aiotwhelp_emulator: aiotwhelp.Emulator
) -> None:
    async with session_at(aiotwhelp_emulator) as x:
        ids = await follower_ids(x)
    assert len(set(ids)) == 100_000
    assert len(aiotwhelp_emulator.requests) == 20  # 15 of them fit into a window
    assert aiotwhelp_emulator.refused == 0
    assert 890 < aiotwhelp_clock.elapsed < 910


async def test_a_broken_page_is_fetched_again(
    aiotwhelp_clock: Clock, aiotwhelp_emulator: aiotwhelp.Emulator
) -> None:
    aiotwhelp_emulator.fail_next(status=503)
    aiotwhelp_emulator.fail_next(drop="after")
    async with session_at(aiotwhelp_emulator) as x:
        assert len(await follower_ids(x)) == 12_000
    assert [request.status for request in aiotwhelp_emulator.requests].count(200) == 3


async def test_a_revoked_user_is_an_error_that_says_so(
    aiotwhelp_clock: Clock, aiotwhelp_emulator: aiotwhelp.Emulator
) -> None:
    aiotwhelp_emulator.revoke(aiotwhelp_emulator.user.access_token)
    async with session_at(aiotwhelp_emulator) as x:
        with pytest.raises(aiotwhelp.AuthError) as caught:
            await follower_ids(x)
    assert caught.value.codes == (89,)


if __name__ == "__main__":
    argparse.ArgumentParser(
        description="A bot, tested by pytest; it takes no options."
    ).parse_args()
    try:
        # A process of its own, since pytest wants to load its plugins itself.
        sys.exit(subprocess.call([sys.executable, "-m", "pytest", "-v", "--no-header", __file__]))
    except KeyboardInterrupt:
        sys.exit(130)
