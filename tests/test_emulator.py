"""The emulated API without faults: windows, pools, answers, pages, the journal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest
from oauthlib import oauth1

from aiotwhelp import testing
from aiotwhelp.emulator import Emulator, User
from aiotwhelp.emulator.__main__ import _emulator, _options
from aiotwhelp.emulator.__main__ import main as shell

PRIVACY = "/1.1/help/privacy.json"


class Client:
    """Calls one emulator; knows nothing of limits."""

    def __init__(self, api: Emulator, session: aiohttp.ClientSession) -> None:
        self.api = api
        self._session = session

    async def get(self, path: str, **options: Any) -> tuple[int, Any, Any]:
        return await self.send("GET", path, **options)

    async def send(
        self, method: str, path: str, *, by: User | str | None = None, **options: Any
    ) -> tuple[int, Any, Any]:
        """Return status, headers and the body, decoded where it is JSON."""
        url = self.api.url + path
        headers = {**signed(by or self.api.token, method, url), **options.pop("headers", {})}
        async with self._session.request(method, url, headers=headers, **options) as answer:
            text = await answer.text()
            with contextlib.suppress(ValueError):
                return answer.status, answer.headers, json.loads(text)
            return answer.status, answer.headers, text


def signed(by: User | str, method: str, url: str) -> dict[str, str]:
    if isinstance(by, str):
        return {"Authorization": f"Bearer {by}"} if by else {}
    signer = oauth1.Client(
        by.consumer_key,
        by.consumer_secret,
        by.access_token,
        by.access_token_secret,
    )
    return dict(signer.sign(url, method)[1])  # type: ignore[arg-type]  # any method


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Client]:
    async with Emulator(**options) as api, aiohttp.ClientSession() as session:
        yield Client(api, session)


def left(headers: Any) -> int:
    return int(headers["x-rate-limit-remaining"])


@pytest.mark.asyncio
async def test_the_policy_is_one_string_with_the_escapes_of_the_real_one() -> None:
    async with (
        Emulator() as api,
        aiohttp.ClientSession() as session,
        session.get(api.url + PRIVACY, headers=signed(api.token, "GET", api.url)) as answer,
    ):
        raw = await answer.read()
        assert answer.status == 200
        assert answer.content_type == "application/json"
    assert len(raw) > 3000
    assert b"\\n\\n" in raw
    assert b"\\u2019" in raw
    assert b"\\/" in raw
    policy = json.loads(raw)["privacy"]
    assert policy.startswith("Emulator Privacy Policy\n\n")
    assert "can’t" in policy
    assert "and/or" in policy


@pytest.mark.asyncio
async def test_the_help_family_answers_in_its_real_shapes() -> None:
    async with serving() as client:
        _, _, tos = await client.get("/1.1/help/tos.json")
        _, _, languages = await client.get("/1.1/help/languages.json")
        _, _, configuration = await client.get("/1.1/help/configuration.json")
    assert tos["tos"].startswith("Terms of Service\n\n")
    assert {"name": "Portuguese", "status": "production", "code": "pt"} in languages
    assert configuration["short_url_length"] == 23
    assert configuration["photo_sizes"]["thumb"] == {"w": 150, "h": 150, "resize": "crop"}


@pytest.mark.asyncio
async def test_a_window_counts_down_and_then_refuses_with_code_88() -> None:
    async with serving(limits={"help/privacy": 3}) as client:
        answers = [await client.get(PRIVACY) for _ in range(5)]
    assert [status for status, _, _ in answers] == [200, 200, 200, 429, 429]
    assert [left(headers) for _, headers, _ in answers] == [2, 1, 0, 0, 0]
    assert {headers["x-rate-limit-limit"] for _, headers, _ in answers} == {"3"}
    assert len({headers["x-rate-limit-reset"] for _, headers, _ in answers}) == 1
    assert answers[-1][2] == {"errors": [{"message": "Rate limit exceeded", "code": 88}]}
    assert "Retry-After" not in answers[-1][1]
    assert client.api.refused == 2


@pytest.mark.asyncio
async def test_a_window_starts_at_the_first_request_and_ends_on_a_whole_second() -> None:
    async with serving(window=900) as client:
        client.api.clock.step(1234.5)
        before = client.api.clock.now()
        _, headers, _ = await client.get(PRIVACY)
        reset = int(headers["x-rate-limit-reset"])
        assert before + 899 <= reset <= client.api.clock.now() + 900
        assert reset == int(client.api.windows[0].opened_at) + 900
        client.api.clock.step(reset - client.api.clock.now() + 0.001)
        _, headers, _ = await client.get(PRIVACY)
        assert left(headers) == 14
        assert int(headers["x-rate-limit-reset"]) >= reset + 900


@pytest.mark.asyncio
async def test_two_users_and_the_app_have_pools_of_their_own() -> None:
    async with serving(limit=5, users=2) as client:
        one, two = client.api.users
        for _ in range(3):
            await client.get(PRIVACY, by=one)
        seen = [left((await client.get(PRIVACY, by=by))[1]) for by in (one, two, client.api.token)]
        _, other, _ = await client.get("/1.1/help/tos.json", by=one)
    assert seen == [1, 4, 4]
    assert left(other) == 4


@pytest.mark.asyncio
async def test_apps_do_not_share_a_quota() -> None:
    async with serving(limit=5) as client:
        other = client.api.add_app("other")
        await client.get(PRIVACY)
        _, headers, _ = await client.get(PRIVACY, by=client.api.bearer(other))
    assert left(headers) == 4


@pytest.mark.asyncio
async def test_a_refused_request_is_not_counted() -> None:
    async with serving(limits={"help/privacy": 2}) as client:
        for _ in range(6):
            await client.get(PRIVACY)
        [window] = client.api.windows
    assert (window.counted, window.refused, window.limit) == (2, 4, 2)
    assert client.api.tally.most_refused == 4
    assert client.api.tally.peak_refused == 4


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "name", ["help/privacy", "/help/privacy", "/1.1/help/privacy.json", "GET help/privacy"]
)
async def test_limits_are_found_under_every_name_of_an_endpoint(name: str) -> None:
    async with serving(limit=9, limits={name: 4}) as client:
        _, headers, _ = await client.get(PRIVACY)
    assert headers["x-rate-limit-limit"] == "4"


@pytest.mark.asyncio
async def test_limits_of_users_and_of_the_app_may_differ_and_may_change() -> None:
    async with serving(limits={"users/lookup": (7, 2)}) as client:
        _, by_user, _ = await client.get("/1.1/users/lookup.json", by=client.api.user)
        _, by_app, _ = await client.get("/1.1/users/lookup.json")
        client.api.set_limit("users/lookup", {"app": 1})
        status, shrunk, _ = await client.get("/1.1/users/lookup.json")
    assert by_user["x-rate-limit-limit"] == "7"
    assert by_app["x-rate-limit-limit"] == "2"
    assert (status, shrunk["x-rate-limit-limit"], left(shrunk)) == (429, "1", 0)


@pytest.mark.parametrize("limits", [{"help/nothing": 1}, {"help/privacy": {"month": 1}}])
def test_a_limit_of_something_unknown_is_an_error(limits: Any) -> None:
    with pytest.raises(ValueError, match=r"no endpoint|no such limit"):
        Emulator(limits=limits)


def test_a_misspelt_fault_is_an_error() -> None:
    with pytest.raises(TypeError, match="latenci"):
        Emulator(latenci=1)
    with pytest.raises(AttributeError):
        Emulator().faults.latenci = 1  # type: ignore[attr-defined]  # that is the point


@pytest.mark.asyncio
async def test_rate_limit_status_speaks_in_templates_and_of_its_caller() -> None:
    async with serving() as client:
        await client.get("/1.1/statuses/show/12.json")
        path = "/1.1/application/rate_limit_status.json?resources=help,statuses,application"
        _, _, app = await client.get(path)
        _, _, user = await client.get(path.split("?")[0], by=client.api.user)
    assert set(app["resources"]) == {"help", "statuses", "application"}
    shown = app["resources"]["statuses"]["/statuses/show/:id"]
    assert (shown["limit"], shown["remaining"]) == (900, 899)
    assert app["resources"]["application"]["/application/rate_limit_status"]["remaining"] == 179
    assert "/statuses/home_timeline" not in app["resources"]["statuses"]
    assert app["rate_limit_context"] == {"application": client.api.app.consumer_key}
    assert user["rate_limit_context"] == {"access_token": client.api.user.access_token}
    assert user["resources"]["statuses"]["/statuses/home_timeline"]["limit"] == 15
    assert "/users/show/:id" in user["resources"]["users"]
    assert user["resources"]["account"]["/account/settings&POST"]["limit"] == 15


@pytest.mark.asyncio
async def test_an_untouched_window_is_described_but_not_begun() -> None:
    async with serving() as client:
        await client.get("/1.1/application/rate_limit_status.json?resources=help")
        assert [w.pool.split()[1] for w in client.api.windows] == ["/application/rate_limit_status"]


@pytest.mark.asyncio
async def test_cursors_lead_through_all_followers_and_back() -> None:
    async with serving(followers=25, limit=100) as client:
        ids, cursor, pages = [], -1, []
        while cursor:
            path = f"/1.1/followers/ids.json?screen_name=a&count=10&cursor={cursor}"
            _, _, page = await client.get(path)
            ids += page["ids"]
            cursor = page["next_cursor"]
            pages.append(page)
        previous = pages[2]["previous_cursor"]
        _, _, back = await client.get(f"/1.1/followers/ids.json?count=10&cursor={previous}")
        status, _, wrong = await client.get("/1.1/followers/ids.json?cursor=12")
        _, _, text = await client.get("/1.1/friends/ids.json?count=1&stringify_ids=true")
    assert ids == list(range(1, 26))
    assert pages[0]["previous_cursor"] == 0
    assert all(page["next_cursor_str"] == str(page["next_cursor"]) for page in pages)
    assert back["ids"] == pages[1]["ids"]
    assert (status, wrong["errors"][0]["code"]) == (403, 44)
    assert text["ids"] == ["1"]


@pytest.mark.asyncio
async def test_every_endpoint_of_the_index_answers_with_its_own_template() -> None:
    async with serving(limit=1000) as client:
        endpoints = list(client.api._catalogue)
        assert len([e for e in endpoints if not e.is_v2]) == 93
        for endpoint in endpoints:
            path = endpoint.path
            for name in ("{id}", ":id", ":place_id", ":slug", "{username}"):
                path = path.replace(name, "12")
            status, headers, _ = await client.send(
                endpoint.method,
                f"{path}?query=a",
                by=client.api.user,
                **({"json": {"text": "x"}} if endpoint.template == "/2/tweets" else {}),
            )
            assert client.api.requests[-1].template == endpoint.template
            assert status in (200, 201) or path == "/1.1/statuses/update.json", path
            assert headers["x-rate-limit-limit"] == "1000"


@pytest.mark.asyncio
async def test_an_echo_tells_what_was_understood() -> None:
    async with serving() as client:
        _, _, read = await client.get("/1.1/geo/id/df51.json?a=%C3%A9+1", by=client.api.user)
        status, headers, json_echo = await client.send(
            "POST", "/2/users/12/likes", by=client.api.user, json={"tweet_id": "9"}
        )
    assert read["template"] == "/geo/id/:place_id"
    assert read["parameters"] == {"place_id": "df51"}
    assert read["query"] == {"a": "é 1"}
    assert read["identity"] == f"user:{client.api.user.id}"
    assert status == 200
    assert json_echo["json"] == {"tweet_id": "9"}
    assert headers["x-user-limit-24hour-limit"] == "1000"


@pytest.mark.asyncio
async def test_writes_of_v1_have_no_headers_and_an_unannounced_cap() -> None:
    async with serving() as client:
        for number in range(300):
            status, headers, _ = await client.send(
                "POST", f"/1.1/statuses/update.json?status={number}", by=client.api.user
            )
            assert status == 200
        assert not [name for name in headers if "limit" in name.lower()]
        status, _, body = await client.send(
            "POST", "/1.1/statuses/retweet/1.json", by=client.api.user
        )
    assert (status, body["errors"][0]["code"]) == (403, 185)


@pytest.mark.asyncio
async def test_the_same_words_twice_are_a_duplicate() -> None:
    async with serving() as client:
        update = "/1.1/statuses/update.json?status=hello"
        first, _, _ = await client.send("POST", update, by=client.api.user)
        second, _, body = await client.send("POST", update, by=client.api.user)
        third, _, _ = await client.send(
            "POST", "/2/tweets", by=client.api.user, json={"text": "hello"}
        )
    assert (first, second, third) == (200, 403, 403)
    assert body["errors"][0]["code"] == 187


@pytest.mark.asyncio
async def test_v2_knows_its_user_and_pages_by_token() -> None:
    async with serving(tweets=25) as client:
        _, headers, me = await client.get("/2/users/me", by=client.api.user)
        _, _, other = await client.get("/2/users/77")
        texts, token = [], ""
        while token is not None:
            path = f"/2/users/77/tweets?max_results=10{token and '&pagination_token=' + token}"
            _, _, page = await client.get(path)
            texts += [post["text"] for post in page["data"]]
            assert page["meta"]["result_count"] == len(page["data"])
            token = page["meta"].get("next_token")
        bad, _, problem = await client.get("/2/users/77/tweets?max_results=1000")
    assert me["data"]["id"] == client.api.user.id
    assert headers["x-rate-limit-limit"] == "75"
    assert other["data"]["id"] == "77"
    assert len(set(texts)) == 25
    assert bad == 400
    assert problem["type"].endswith("/problems/invalid-request")


@pytest.mark.asyncio
async def test_recent_search_pages_and_wants_a_query() -> None:
    async with serving(tweets=15) as client:
        _, _, first = await client.get("/2/tweets/search/recent?query=cats")
        token = first["meta"]["next_token"]
        path = f"/2/tweets/search/recent?query=cats&next_token={token}"
        _, _, second = await client.get(path)
        status, _, _ = await client.get("/2/tweets/search/recent")
    assert first["meta"]["result_count"] == 10
    assert second["meta"]["result_count"] == 5
    assert "next_token" not in second["meta"]
    assert "cats" in second["data"][0]["text"]
    assert status == 400


@pytest.mark.asyncio
async def test_full_search_refuses_the_second_call_of_a_second_with_quota_left() -> None:
    async with serving() as client:
        path = "/2/tweets/search/all?query=cats"
        calls = await asyncio.gather(client.get(path), client.get(path))
        (first, _, _), (second, headers, body) = sorted(calls, key=lambda call: call[0])
        recent, _, _ = await client.get("/2/tweets/search/recent?query=cats")
    assert (first, second, recent) == (200, 429, 200)
    assert left(headers) == 299
    assert body == {
        "title": "Too Many Requests",
        "type": "about:blank",
        "status": 429,
        "detail": "Too Many Requests",
    }


@pytest.mark.asyncio
async def test_posts_of_all_users_share_the_apps_24_hours() -> None:
    limits = {"POST /2/tweets": {"user_24h": 2, "app_24h": 3}}
    async with serving(limits=limits, users=3) as client:

        async def post(user: User, text: str) -> tuple[int, Any, Any]:
            return await client.send("POST", "/2/tweets", by=user, json={"text": text})

        one, two, three = client.api.users
        done = [await post(one, "a"), await post(one, "b"), await post(one, "c")]
        done += [await post(two, "a"), await post(three, "a")]
    assert [status for status, _, _ in done] == [201, 201, 429, 201, 429]
    assert [h["x-app-limit-24hour-remaining"] for _, h, _ in done] == ["2", "1", "1", "0", "0"]
    assert [h["x-user-limit-24hour-remaining"] for _, h, _ in done] == ["1", "0", "0", "1", "2"]
    # The 15 minutes of the refused users are not spent, and nothing was taken from them.
    assert [left(headers) for _, headers, _ in done] == [99, 98, 98, 99, 100]
    assert int(done[0][1]["x-app-limit-24hour-reset"]) > client.api.clock.now() + 80_000


@pytest.mark.asyncio
async def test_unknown_paths_are_empty_in_v2_and_code_34_in_v1() -> None:
    async with serving() as client:
        v2, v2_headers, v2_body = await client.get("/2/nothing")
        v1, v1_headers, v1_body = await client.get("/1.1/help/nothing.json")
        bare, _, _ = await client.get("/1.1/help/privacy")
        suffixed, _, _ = await client.get("/2/users/me.jsonx")
    assert (v2, v2_body) == (404, "")
    assert (v1, v1_body["errors"][0]["code"]) == (404, 34)
    assert bare == 404
    assert suffixed == 400
    assert not [name for name in (*v2_headers, *v1_headers) if "limit" in name.lower()]


@pytest.mark.asyncio
async def test_a_wrong_method_is_not_found_in_v1_and_not_allowed_in_v2() -> None:
    async with serving() as client:
        v1, _, _ = await client.send("POST", PRIVACY)
        v2, headers, _ = await client.send("DELETE", "/2/tweets")
    assert v1 == 404
    assert (v2, headers["Allow"]) == (405, "GET, POST")


@pytest.mark.asyncio
async def test_retired_endpoints_answer_410_if_asked_to() -> None:
    async with serving(retired=True) as client:
        status, _, body = await client.get(PRIVACY)
        alive, _, _ = await client.get("/1.1/help/languages.json")
    assert (status, body["errors"][0]["code"]) == (410, 251)
    assert alive == 200


@pytest.mark.asyncio
async def test_a_canned_answer_replaces_the_endpoints_own_and_is_still_counted() -> None:
    async with serving() as client:
        lasting = client.api.reply("GET", "/2/users/{id}", json={"data": {"id": "canned"}})
        client.api.reply("GET", "/2/users/5", status=404, json={"errors": []}, times=1)
        first = await client.get("/2/users/5")
        second = await client.get("/2/users/5")
    assert (first[0], left(first[1])) == (404, 299)
    assert second[2] == {"data": {"id": "canned"}}
    assert left(second[1]) == 298
    assert lasting.used == 1


@pytest.mark.asyncio
async def test_a_canned_answers_own_headers_win() -> None:
    async with serving() as client:
        client.api.reply(
            "*",
            "help/privacy",
            status=429,
            body="Rate limit exceeded\n",
            headers={"X-Rate-Limit-Remaining": "39999", "Content-Type": "text/plain"},
        )
        status, headers, body = await client.get(PRIVACY)
    assert (status, body) == (429, "Rate limit exceeded\n")
    assert headers.getall("x-rate-limit-remaining") == ["39999"]
    assert headers["x-rate-limit-limit"] == "15"
    assert client.api.refused == 1


@pytest.mark.asyncio
async def test_other_paths_and_uncounted_answers_need_no_credentials() -> None:
    async with serving() as client:
        client.api.reply("POST", "/any/thing", status=201, body=b"done")
        client.api.reply("GET", PRIVACY, json={"privacy": "short"}, counted=False)
        elsewhere, _, text = await client.send("POST", "/any/thing", by="")
        here, headers, body = await client.get(PRIVACY, by="none")
    assert (elsewhere, text) == (201, "done")
    assert (here, body) == (200, {"privacy": "short"})
    assert "x-rate-limit-limit" not in headers
    assert not client.api.windows


@pytest.mark.asyncio
async def test_the_journal_has_what_was_sent_and_hides_it_from_its_repr() -> None:
    async with serving() as client:
        await client.send(
            "POST",
            "/1.1/lists/create.json?a=1&b=",
            by=client.api.user,
            json={"secret": "sesame"},
            headers={"X-Mine": "here"},
        )
        [entry] = client.api.requests
    assert (entry.number, entry.method, entry.path) == (1, "POST", "/1.1/lists/create.json")
    assert entry.params == {"a": "1", "b": ""}
    assert entry.json == {"secret": "sesame"}
    assert entry.headers["x-mine"] == "here"
    assert entry.headers["authorization"].startswith("OAuth ")
    assert (entry.template, entry.status, entry.counted) == ("/lists/create", 200, True)
    assert entry.identity == f"user:{client.api.user.id}"
    assert "sesame" not in repr(entry)
    assert "OAuth" not in repr(entry)


@pytest.mark.asyncio
async def test_the_journal_is_bounded_and_its_counts_are_exact() -> None:
    async with serving(keep=5, limit=4) as client:
        for _ in range(10):
            await client.get(PRIVACY)
        tally = client.api.tally
        assert [entry.number for entry in client.api.requests] == [6, 7, 8, 9, 10]
        assert (tally.received, tally.counted, tally.refused) == (10, 4, 6)
        client.api.clear()
        assert client.api.requests == []
        assert client.api.tally.received == 0


@pytest.mark.asyncio
async def test_somebody_else_may_spend_a_quota_and_windows_can_be_ended() -> None:
    async with serving(limit=10) as client:
        client.api.spend("help/privacy", 4, caller=client.api.app)
        _, headers, _ = await client.get(PRIVACY)
        client.api.end_windows()
        _, fresh, _ = await client.get(PRIVACY)
    assert left(headers) == 5
    assert left(fresh) == 9
    assert [window.counted for window in client.api.windows] == [1, 1]


@pytest.mark.asyncio
async def test_the_date_comes_from_the_servers_clock_on_every_answer() -> None:
    async with serving(skew=-300) as client:
        client.api.clock.step(-700)
        for path in (PRIVACY, "/2/nothing", "/elsewhere"):
            _, headers, _ = await client.get(path)
            date = parsedate_to_datetime(headers["Date"]).timestamp()
            assert client.api.clock.now() - 5 < date <= client.api.clock.now()
        assert client.api.clock.skew == -1000
        client.api.clock.skew = 0


@pytest.mark.asyncio
async def test_a_loop_with_its_own_wall_clock_is_asked_for_it() -> None:
    loop = asyncio.get_running_loop()
    loop.wall_time = lambda: 1_500_000_000.0  # type: ignore[attr-defined]  # a virtual-time loop
    async with serving() as client:
        assert 0 <= client.api.clock.now() - 1_500_000_000 < 60


def test_equal_seeds_make_equal_credentials_and_no_repr_shows_a_secret() -> None:
    one, same, other = Emulator(seed=4), Emulator(seed=4), Emulator(seed=5)
    assert (one.user, one.token) == (same.user, same.token)
    assert one.token != other.token
    shown = f"{one!r} {one.user!r} {one.app!r}"
    for secret in (
        one.token,
        one.user.access_token_secret,
        one.app.consumer_secret,
        one.app.client_secret,
    ):
        assert secret not in shown


@pytest.mark.asyncio
async def test_it_starts_once_stops_twice_and_may_start_again() -> None:
    api = Emulator()
    assert repr(api) == "<Emulator stopped, 0 requests, 0 refused>"
    with pytest.raises(RuntimeError, match="while it runs"):
        _ = api.url
    await api.start()
    with pytest.raises(RuntimeError, match="already"):
        await api.start()
    assert api.url.startswith("http://127.0.0.1:")
    await api.close()
    await api.close()
    async with api:
        assert api.url


@pytest.mark.asyncio
async def test_a_taken_port_is_an_error_that_leaves_nothing_behind() -> None:
    async with Emulator() as api:
        other = Emulator(port=int(api.url.rpartition(":")[2]))
        with pytest.raises(OSError, match="address"):
            await other.start()
        await other.close()


@pytest.mark.asyncio
async def test_closing_breaks_off_what_is_in_flight() -> None:
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as session:
        async with Emulator(latency=600) as api:
            headers = {"Authorization": f"Bearer {api.token}"}
            call = asyncio.create_task(session.get(api.url + PRIVACY, headers=headers))
            await asyncio.sleep(0.02)
        with pytest.raises(aiohttp.ClientError):
            await call
    assert asyncio.all_tasks() == before


def test_a_client_that_hangs_up_is_counted_all_the_same() -> None:
    async def main() -> None:
        async with serving(latency=0.2) as client:
            with pytest.raises(TimeoutError):
                await client.get(PRIVACY, timeout=aiohttp.ClientTimeout(total=0.02))
            # Its second half of the way begins later, so this one is counted after it.
            _, headers, _ = await client.get(PRIVACY)
        assert left(headers) == 13
        assert [entry.status for entry in client.api.requests] == [200, 200]

    # A machine that is busy for 20 ms would let the request not even be sent.
    testing.run(main)


def test_the_command_has_what_the_class_has() -> None:
    text = "--day 9 --users 3 --buckets help/tos=a --buckets help/privacy=a --retired"
    faults = "--fault reset_rounding=down --fault errors=0.5 --fault backends=[0,3]"
    api = _emulator(_options().parse_args(f"{text} {faults}".split()))
    assert len(api.users) == 3
    assert {
        end.bucket for name in ("tos", "privacy") for end in api._catalogue.named(f"help/{name}")
    } == {"a"}
    assert (api.faults.reset_rounding, api.faults.errors) == ("down", 0.5)
    assert list(api.faults.backends) == [0, 3]


@pytest.mark.asyncio
async def test_the_command_prints_its_credentials_and_stops_on_ctrl_c() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aiotwhelp.emulator", "--port", "0", "--set", "help/privacy=7"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDEVMODE": ""},
    )
    assert process.stdout is not None
    env = {}
    while not (line := (await process.stdout.readline()).decode()).startswith("#"):
        name, _, value = line.removeprefix("export ").strip().partition("=")
        env[name] = value.strip("'")
    headers = {"Authorization": f"Bearer {env['AIOTWHELP_BEARER_TOKEN']}"}
    url = env["AIOTWHELP_BASE_URL"] + PRIVACY
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        assert answer.headers["x-rate-limit-limit"] == "7"
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert b"1 requests, 0 refused" in out
    assert set(env) == {
        "AIOTWHELP_BASE_URL",
        "AIOTWHELP_BEARER_TOKEN",
        "AIOTWHELP_CONSUMER_KEY",
        "AIOTWHELP_CONSUMER_SECRET",
        "AIOTWHELP_ACCESS_TOKEN",
        "AIOTWHELP_ACCESS_TOKEN_SECRET",
    }


# Arguments that make no sense ------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": NAN}, "window is a number of seconds above 0, not nan"),
        ({"window": 0}, "window is a number of seconds above 0, not 0"),
        ({"window": "5"}, "window is a number of seconds above 0, not '5'"),
        ({"day": INF}, "day is a number of seconds above 0, not inf"),
        ({"limit": -1}, "limit is a whole number from 0 on, not -1"),
        ({"limit": 1.5}, "limit is a whole number from 0 on, not 1.5"),
        ({"limits": 5}, "limits is a mapping such as"),
        ({"limits": {"help/tos": "9"}}, "the limit of 'help/tos' is a whole number from 0 on, not"),
        ({"limits": {"help/tos": (1, 2, 3)}}, "the limits of 'help/tos' are a pair (user, app), n"),
        ({"limits": {"help/tos": {"user": -1}}}, "the limit of 'help/tos' is a whole number from "),
        ({"limits": {"help/tos": None}}, "the limit of 'help/tos' is a number; (None, None) is no"),
        ({"port": 65_536}, "port is a whole number from 0 to 65535, not 65536"),
        ({"port": -1}, "port is a whole number from 0 to 65535, not -1"),
        ({"users": 0}, "users is a whole number from 1 on, not 0"),
        ({"followers": -1}, "followers is a whole number from 0 on, not -1"),
        ({"keep": -1}, "keep is a whole number from 0 on, not -1"),
        ({"skew": NAN}, "skew is a number of seconds, not nan"),
        ({"token_lifetime": 0}, "token_lifetime is a number of seconds above 0, not 0"),
        ({"latency": -1}, "latency is a number of seconds from 0 on, not -1"),
        ({"jitter": INF}, "jitter is a number of seconds from 0 on, not inf"),
        ({"drop_before": 1.1}, "drop_before is a probability from 0 to 1, not 1.1"),
        ({"missing_headers": NAN}, "missing_headers is a probability from 0 to 1, not nan"),
        ({"error_status": 42}, "error_status is a whole number from 200 to 599, not 42"),
        ({"backends": 3}, "backends is a tuple of seconds such as (0, 3), not 3"),
        ({"backends": (0, NAN)}, "each of backends is a number of seconds, not nan"),
        ({"hidden_limit": 0}, "hidden_limit is a whole number from 1 on, not 0"),
        ({"competitor": -1}, "competitor is a number from 0 on, not -1"),
        ({"date": "never"}, "date is 'on', 'off' or 'garbled', not 'never'"),
        ({"reset_rounding": "half"}, "reset_rounding is 'down', 'up' or 'exact', not 'half'"),
    ],
)
def test_an_emulator_refuses_what_it_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r"is|are") as caught:
        Emulator(**options)
    assert str(caught.value).startswith(words), str(caught.value)


def test_a_misspelt_option_is_an_error_that_names_the_right_one() -> None:
    with pytest.raises(
        TypeError, match=r"^the emulator has no option 'jiter': did you mean jitter"
    ):
        Emulator(jiter=1)


@pytest.mark.parametrize(
    ("misuse", "words"),
    [
        (lambda api: setattr(api.faults, "latency", NAN), "latency is a number of seconds from 0 "),
        (lambda api: setattr(api.clock, "skew", INF), "skew is a number of seconds, not inf"),
        (lambda api: api.clock.step(NAN), "a step is a number of seconds, not nan"),
        (lambda api: api.set_limit("help/tos", -1), "the limit of 'help/tos' is a whole number fr"),
        (lambda api: api.spend("help/tos", -1), "number is a whole number from 0 on, not -1"),
        (lambda api: api.fail_next(0), "n is a whole number from 1 on, not 0"),
        (lambda api: api.fail_next(status=99), "status is a whole number from 200 to 599, not 99"),
        (lambda api: api.fail_next(drop="now"), "drop is 'before', 'after' or None, not 'now'"),
        (lambda api: api.fail_next(headers=3), "headers is a mapping such as"),
        (lambda api: api.fail_next(path="help/x"), "the emulator knows no endpoint 'help/x'"),
        (lambda api: api.reply("GET", "/x", status=0), "status is a whole number from 200 to 599,"),
        (lambda api: api.reply("GET", "/x", times=0), "times is a whole number from 1 on, not 0"),
        (lambda api: api.reply("GET", "/x", json={}, body=""), "an answer has json= or body=, not"),
        (lambda api: api.grant(expires_in=NAN), "expires_in is a number of seconds from 0 on, not"),
    ],
)
def test_what_a_test_arranges_is_checked_where_it_is_arranged(
    misuse: Callable[[Emulator], object], words: str
) -> None:
    with pytest.raises(ValueError, match=r"is|has|knows") as caught:
        misuse(Emulator())
    assert str(caught.value).startswith(words), str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "99999"], "port is a whole number from 0 to 65535, not 99999"),
        (["--window", "nan"], "window is a number of seconds above 0, not nan"),
        (["--jitter", "-1"], "jitter is a number of seconds from 0 on, not -1.0"),
        (["--limit", "-1"], "limit is a whole number from 0 on, not -1"),
        (
            ["--set", "help/privacy"],
            "write ENDPOINT=N, such as help/privacy=15, not 'help/privacy'",
        ),
        (["--set", "help/tos=x"], "write ENDPOINT=N, such as help/privacy=15, not 'help/tos=x'"),
        (["--set", "help/x=1"], "the emulator knows no endpoint 'help/x'"),
        (["--host", "a" * 70], "cannot listen: "),
        (["--dialect", "klingon"], "argument --dialect: invalid choice: 'klingon'"),
        (["--dialect", "github", "--refusal-status", "404"], "refusal_status is None, 403, 429 or"),
        (["--tokens", "-1"], "tokens is a whole number from 0 on, not -1"),
        (["--buckets", "help/tos"], "write ENDPOINT=NAME, such as help/tos=help, not 'help/tos'"),
        (["--buckets", "help/x=a"], "the emulator knows no endpoint 'help/x'"),
        (["--fault", "errors"], "write NAME=VALUE, such as errors=0.1, not 'errors'"),
        (["--fault", "errors=2"], "errors is a probability"),
        (["--fault", "latency=2"], "latency is an option of its own: write --latency"),
        (["--fault", "rounding=up"], "rounding"),
        (["--day", "0"], "day"),
    ],
)
def test_the_command_ends_in_one_line_that_says_what_is_wrong(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = shell(arguments)
    except SystemExit as ending:  # argparse's own
        code = int(str(ending.code))
    assert code in (1, 2)
    last = capsys.readouterr().err.splitlines()[-1]
    assert words in last
