"""The emulator's switches: each goes wrong as it says, and only when asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from aiotwhelp.emulator import Emulator
from aiotwhelp.testing import VirtualTimeLoop

PRIVACY = "/1.1/help/privacy.json"


class Client:
    """Calls one emulator as its app."""

    def __init__(self, api: Emulator, session: aiohttp.ClientSession) -> None:
        self.api = api
        self._session = session

    async def get(self, path: str = PRIVACY) -> aiohttp.ClientResponse:
        headers = {"Authorization": f"Bearer {self.api.token}"}
        async with self._session.get(self.api.url + path, headers=headers) as answer:
            await answer.read()
            return answer

    async def outcomes(self, number: int) -> list[int | None]:
        """Make that many calls; None stands for one without an answer."""
        outcomes: list[int | None] = []
        for _ in range(number):
            try:
                outcomes.append((await self.get()).status)
            except aiohttp.ClientError:
                outcomes.append(None)
        return outcomes


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Client]:
    options.setdefault("limit", 1000)
    async with Emulator(**options) as api, aiohttp.ClientSession() as session:
        yield Client(api, session)


def left(answer: aiohttp.ClientResponse) -> int:
    return int(answer.headers["x-rate-limit-remaining"])


def reset(answer: aiohttp.ClientResponse) -> float:
    return float(answer.headers["x-rate-limit-reset"])


def date(answer: aiohttp.ClientResponse) -> float:
    return parsedate_to_datetime(answer.headers["Date"]).timestamp()


@pytest.mark.asyncio
async def test_answers_take_their_latency_and_overtake_each_other() -> None:
    async with serving(latency=0.01, jitter=0.1) as client:
        loop = asyncio.get_running_loop()
        start = loop.time()
        done: list[int] = []

        async def call() -> None:
            done.append(left(await client.get()))

        await asyncio.gather(*(call() for _ in range(20)))
        assert loop.time() - start >= 0.01
    assert sorted(done, reverse=True) == list(range(999, 979, -1))
    assert done != sorted(done, reverse=True)


@pytest.mark.asyncio
async def test_a_connection_dropped_before_counting_costs_nothing() -> None:
    async with serving(drop_before=1) as client:
        assert await client.outcomes(2) == [None, None]
        client.api.faults.drop_before = 0
        assert left(await client.get()) == 999
    assert {entry.fault for entry in client.api.requests} == {"dropped before counting", ""}
    assert client.api.tally.dropped == client.api.tally.received - 1
    assert client.api.tally.counted == 1


@pytest.mark.asyncio
async def test_a_connection_dropped_after_counting_has_cost_a_call() -> None:
    async with serving(drop_after=1) as client:
        assert await client.outcomes(1) == [None]
        client.api.faults.drop_after = 0
        received = client.api.tally.received
        assert left(await client.get()) == 999 - received
    assert client.api.tally.counted == received + 1
    assert client.api.requests[0].status is None


@pytest.mark.asyncio
async def test_errors_are_counted_or_not_and_come_without_headers() -> None:
    async with serving(errors=1, error_status=502) as client:
        answer = await client.get()
        assert (answer.status, answer.content_type) == (502, "text/html")
        assert "x-rate-limit-limit" not in answer.headers
        client.api.faults.error_headers = True
        assert left(await client.get()) == 998
        client.api.faults.errors_counted = False
        assert left(await client.get()) == 998
        client.api.faults.errors = 0
        assert left(await client.get()) == 997


@pytest.mark.asyncio
async def test_probabilities_come_from_the_seed() -> None:
    runs = []
    for seed in (1, 1, 2):
        async with serving(seed=seed, errors=0.3) as client:
            runs.append(await client.outcomes(40))
    assert runs[0] == runs[1] != runs[2]
    assert 4 <= runs[0].count(503) <= 22


@pytest.mark.asyncio
async def test_headers_go_missing() -> None:
    async with serving(missing_headers=1) as client:
        answer = await client.get()
        assert answer.status == 200
        assert not [name for name in answer.headers if "limit" in name.lower()]
        client.api.faults.missing_headers = 0
        assert left(await client.get()) == 998


@pytest.mark.asyncio
async def test_headers_are_garbled() -> None:
    async with serving(garbled_headers=1) as client:
        answers = [await client.get() for _ in range(30)]
    seen = {
        value
        for answer in answers
        for name, value in answer.headers.items()
        if name.startswith("x-rate-limit")
    }
    assert seen == {"abc", "-5", "1e999", "", "1764000000000"}
    assert client.api.requests[-1].remaining == 970


@pytest.mark.asyncio
async def test_a_truncated_body_ends_before_its_length() -> None:
    async with serving(truncated=1) as client:
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.get()
        client.api.faults.truncated = 0
        assert (await client.get()).status == 200
    assert client.api.requests[0].fault == "truncated"
    assert client.api.requests[0].status == 200


@pytest.mark.asyncio
async def test_resets_are_rounded_as_asked() -> None:
    seen = {}
    for rounding in ("down", "up", "exact"):
        async with serving(window=900.25, whole_seconds=False, reset_rounding=rounding) as client:
            client.api.clock.step(0.5 - client.api.clock.now() % 1)
            answer = await client.get()
            [window] = client.api.windows
            seen[rounding] = reset(answer) - window.resets_at
            assert ("." in answer.headers["x-rate-limit-reset"]) is (rounding == "exact")
    assert -1 < seen["down"] < 0 < seen["up"] < 1
    assert abs(seen["exact"]) < 0.001


@pytest.mark.asyncio
async def test_rounding_down_lets_windows_end_between_seconds() -> None:
    async with serving(reset_rounding="down") as client:
        client.api.clock.step(0.5 - client.api.clock.now() % 1)
        await client.get()
        [window] = client.api.windows
    assert window.resets_at == window.opened_at + 900


@pytest.mark.asyncio
async def test_a_late_rollover_keeps_refusing_and_announces_the_old_reset() -> None:
    async with serving(limit=1, late=250) as client:
        first = await client.get()
        client.api.clock.step(reset(first) - client.api.clock.now() + 0.1)
        late = await client.get()
        client.api.clock.step(250)
        after = await client.get()
    assert (late.status, left(late), reset(late)) == (429, 0, reset(first))
    assert date(late) >= reset(first)
    assert (after.status, left(after)) == (200, 0)
    assert reset(after) > reset(first)


@pytest.mark.asyncio
async def test_an_early_rollover_gives_a_new_window_before_the_reset() -> None:
    async with serving(limit=5, early=10) as client:
        for _ in range(4):
            first = await client.get()
        client.api.clock.step(reset(first) - client.api.clock.now() - 9)
        second = await client.get()
    assert left(second) == 4
    assert date(second) < reset(first) < reset(second)


@pytest.mark.asyncio
async def test_two_back_ends_announce_their_resets_in_turn() -> None:
    async with serving(backends=(0, 3)) as client:
        resets = [reset(await client.get()) for _ in range(4)]
        assert left(await client.get()) == 995
    assert [at - resets[0] for at in resets] == [0, 3, 0, 3]


@pytest.mark.asyncio
async def test_a_hidden_limit_refuses_with_quota_left_for_each_caller_alone() -> None:
    async with serving(hidden_limit=2, hidden_span=600) as client:
        answers = [await client.get() for _ in range(4)]
        other = client.api.grant()
        client.api.faults.hidden_limit = 3
        third = await client.get()
    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    assert left(answers[-1]) == 998
    assert third.status == 200
    assert other.user is client.api.user


@pytest.mark.asyncio
async def test_a_call_refused_by_one_limit_is_counted_by_the_others_if_asked() -> None:
    async with serving(hidden_limit=1, hidden_span=600, count_refused=True) as client:
        answers = [await client.get() for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 429, 429]
    assert [left(answer) for answer in answers] == [999, 998, 997]


@pytest.mark.asyncio
async def test_failed_calls_are_counted_unless_told_otherwise() -> None:
    async with serving() as client:
        path = "/2/tweets/search/recent"
        counted = await client.get(path)
        client.api.faults.count_failures = False
        uncounted = await client.get(path)
    assert (counted.status, uncounted.status) == (400, 400)
    assert left(counted) == left(uncounted) == 999


@pytest.mark.asyncio
async def test_a_competitor_takes_its_share() -> None:
    async with serving(limit=10, competitor=1.5) as client:
        answers = [await client.get() for _ in range(5)]
    assert [left(answer) for answer in answers] == [8, 5, 3, 0, 0]
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 429]


@pytest.mark.asyncio
async def test_retry_after_comes_in_seconds_or_as_a_date() -> None:
    async with serving(limit=1, retry_after="seconds") as client:
        first = await client.get()
        seconds = await client.get()
        client.api.faults.retry_after = "date"
        dated = await client.get()
    assert "Retry-After" not in first.headers
    assert 890 <= int(seconds.headers["Retry-After"]) <= 900
    hint = parsedate_to_datetime(dated.headers["Retry-After"]).timestamp()
    assert abs(hint - reset(first)) <= 2


@pytest.mark.asyncio
async def test_an_edge_dates_answers_by_a_clock_of_its_own() -> None:
    async with serving(edge_skew=-40, window=100) as client:
        answer = await client.get()
    assert 130 <= reset(answer) - date(answer) <= 141


@pytest.mark.asyncio
async def test_the_date_is_left_out_or_garbled() -> None:
    async with serving(date="off") as client:
        missing = await client.get()
        client.api.faults.date = "garbled"
        garbled = await client.get()
    assert "Date" not in missing.headers
    assert garbled.headers["Date"] == "some day"


@pytest.mark.asyncio
async def test_a_step_of_the_clock_moves_the_date_and_keeps_the_reset() -> None:
    async with serving() as client:
        before = await client.get()
        client.api.clock.step(60)
        after = await client.get()
        client.api.clock.step(-300)
        back = await client.get()
    assert reset(before) == reset(after) == reset(back)
    assert 59 <= date(after) - date(before) <= 70
    assert 290 <= date(after) - date(back) <= 301


@pytest.mark.asyncio
async def test_the_next_requests_fail_as_arranged() -> None:
    async with serving() as client:
        client.api.fail_next(2, status=500)
        client.api.fail_next(status=503, json={"errors": [{"code": 130}]}, counted=False)
        assert await client.outcomes(4) == [500, 500, 503, 200]
    assert [entry.counted for entry in client.api.requests] == [True, True, False, True]


@pytest.mark.asyncio
async def test_the_next_connection_drops_before_or_after_counting() -> None:
    async with serving() as client:
        # aiohttp sends a GET whose connection broke once more by itself.
        client.api.fail_next(2, drop="before")
        client.api.fail_next(2, drop="after")
        assert await client.outcomes(3) == [None, None, 200]
        assert left(await client.get()) == 996
    assert [entry.counted for entry in client.api.requests] == [False] * 2 + [True] * 4


@pytest.mark.asyncio
async def test_a_failure_for_one_path_leaves_the_others_alone() -> None:
    async with serving() as client:
        client.api.fail_next(path="help/tos")
        assert (await client.get()).status == 200
        assert (await client.get("/1.1/help/tos.json")).status == 503
        assert (await client.get("/1.1/help/tos.json")).status == 200
        client.api.fail_next(path="/elsewhere", headers={"Retry-After": "7"})
        failed = await client.get("/elsewhere")
        assert (failed.status, failed.headers["Retry-After"]) == (503, "7")
        assert (await client.get("/elsewhere")).status == 404


@pytest.mark.asyncio
async def test_a_refused_request_does_not_use_up_a_failure() -> None:
    async with serving(limit=1) as client:
        await client.get()
        client.api.fail_next()
        assert (await client.get()).status == 429
        client.api.end_windows()
        assert (await client.get()).status == 503


@pytest.mark.asyncio
async def test_without_faults_nothing_goes_wrong() -> None:
    async with serving() as client:
        assert await client.outcomes(50) == [200] * 50
    assert {entry.fault for entry in client.api.requests} == {""}
    assert client.api.tally.dropped == client.api.refused == 0


def test_in_virtual_time_a_troubled_hour_takes_the_same_course_twice() -> None:
    async def hour() -> tuple[float, list[Any], list[Any]]:
        loop = asyncio.get_running_loop()
        faults = {"drop_before": 0.1, "drop_after": 0.1, "errors": 0.1, "truncated": 0.1}
        async with serving(limit=15, seed=7, latency=0.2, jitter=3, **faults) as client:
            start = loop.time()

            async def call(number: int) -> int | None:
                await asyncio.sleep(36 * number)
                return (await client.outcomes(1))[0]

            outcomes = await asyncio.gather(*(call(number) for number in range(100)))
            windows = [(window.counted, window.refused) for window in client.api.windows]
            return loop.time() - start, outcomes, windows

    courses = []
    for _ in range(2):
        loop = VirtualTimeLoop()
        courses.append(loop.run_until_complete(hour()))
        loop.close()
    elapsed, outcomes, windows = courses[0]
    assert courses[0] == courses[1]
    assert 3560 < elapsed < 3600
    assert {200, 429, 503, None} == set(outcomes)
    assert [counted for counted, _ in windows] == [15] * len(windows)
