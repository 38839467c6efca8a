"""The emulator's dialects, to the letter, and its kinds of windows, to the call."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from fractions import Fraction
from typing import Any

import aiohttp
import pytest

from aiotwhelp.emulator import Emulator
from aiotwhelp.emulator.dialects import DIALECTS, Announcement, go_duration
from aiotwhelp.emulator.kinds import KINDS
from aiotwhelp.emulator.windows import Book, Rounding, Rule, Shape
from tests.stack import in_virtual_time

PRIVACY = "/1.1/help/privacy.json"
TOS = "/1.1/help/tos.json"

#: 2023-11-14T22:13:20Z and a quarter of a second; a window that begins here ends at 22:28:20.
START = 1_700_000_000.25

#: What aiohttp writes by itself.
_OTHERS = {"date", "content-type", "content-length", "server"}


class Anyone:
    """Calls one emulator without credentials."""

    def __init__(self, api: Emulator, session: aiohttp.ClientSession) -> None:
        self.api = api
        self._session = session

    async def get(self, path: str = PRIVACY, **options: Any) -> tuple[int, dict[str, str], bytes]:
        """Return the status, the quota's headers as they were spelled, and the body."""
        async with self._session.get(self.api.url + path, **options) as answer:
            headers = {
                name.decode(): value.decode()
                for name, value in answer.raw_headers
                if name.decode().lower() not in _OTHERS
            }
            return answer.status, headers, await answer.read()

    async def post(self, status: int = 201) -> dict[str, str]:
        """Post as the first user, under three windows; return the headers."""
        grant = self.api.grant()
        headers = {"Authorization": f"Bearer {grant.access_token}"}
        async with self._session.post(
            self.api.url + "/2/tweets", headers=headers, json={"text": "hello"}
        ) as answer:
            assert answer.status == status
            return dict(answer.headers)


@contextlib.asynccontextmanager
async def serving(dialect: str = "x", **options: Any) -> AsyncIterator[Anyone]:
    options = {"limit": 2, "anonymous": True, **options}
    async with Emulator(dialect=dialect, **options) as api, aiohttp.ClientSession() as session:
        api.clock.step(START - api.clock.now())
        yield Anyone(api, session)


def three(names: str, values: str) -> dict[str, str]:
    return dict(zip(names.split(), values.split(), strict=True))


_LOWER = "x-ratelimit-limit x-ratelimit-remaining x-ratelimit-reset"
_PLAIN = "X-RateLimit-Limit X-RateLimit-Remaining X-RateLimit-Reset"
_IETF = "RateLimit-Limit RateLimit-Remaining RateLimit-Reset"


def _by_unit(unit: str) -> str:
    return f"x-ratelimit-limit-{unit} x-ratelimit-remaining-{unit} x-ratelimit-reset-{unit}"


def _anthropic(unit: str) -> str:
    return " ".join(
        f"anthropic-ratelimit-{unit}-{each}" for each in ("limit", "remaining", "reset")
    )


#: On the first of two calls that the window has, with 1000 tokens of each kind.
ACCEPTED: dict[str, dict[str, str]] = {
    "x": three("x-rate-limit-limit x-rate-limit-remaining x-rate-limit-reset", "2 1 1700000900"),
    "x-ads": three(
        "x-account-rate-limit-limit x-account-rate-limit-remaining x-account-rate-limit-reset",
        "2 1 1700000900",
    ),
    "ietf-03": {
        "RateLimit-Limit": "2, 2;w=900",
        "RateLimit-Remaining": "1",
        "RateLimit-Reset": "900",
    },
    "ietf-06": three(f"{_IETF} RateLimit-Policy", "2 1 900 2;w=900"),
    "ietf-07": {"RateLimit": "limit=2, remaining=1, reset=900", "RateLimit-Policy": "2;w=900"},
    "ietf-10": {"RateLimit": '"default";r=1;t=900', "RateLimit-Policy": '"default";q=2;w=900'},
    "ietf-10-token": {"RateLimit": "default;r=1;t=900", "RateLimit-Policy": "default;q=2;w=900"},
    "ietf-10-pk": {
        "RateLimit": '"default";r=1;t=900;pk=:YXBwOmFwcDE=:',
        "RateLimit-Policy": '"default";q=2;w=900;pk=:YXBwOmFwcDE=:',
    },
    "github": three(
        f"{_LOWER} x-ratelimit-used x-ratelimit-resource", "2 1 1700000900 1 help-privacy-get"
    ),
    "gitlab": {
        **three(_IETF, "2 1 1700000900"),
        **three("RateLimit-Name RateLimit-Observed", "help-privacy-get 1"),
        "RateLimit-ResetTime": "Tue, 14 Nov 2023 22:28:20 GMT",
    },
    "reddit": three("x-ratelimit-used x-ratelimit-remaining x-ratelimit-reset", "1 1.0 900"),
    "discord": three(
        f"{_LOWER} x-ratelimit-reset-after x-ratelimit-bucket",
        "2 1 1700000900.000 899.750 help-privacy-get",
    ),
    "openai": {
        **three(_by_unit("requests"), "2 1 14m59.75s"),
        **three(_by_unit("tokens"), "1000 999 14m59.75s"),
    },
    "groq": {
        **three(_by_unit("requests"), "2 1 14m59.75s"),
        **three(_by_unit("tokens"), "1000 999 14m59.75s"),
    },
    "azure": {
        **three(_by_unit("requests"), "2 1 900"),
        **three(_by_unit("tokens"), "1000 999 900"),
    },
    "anthropic": {
        **three(_anthropic("requests"), "2 1 2023-11-14T22:28:20Z"),
        **three(_anthropic("tokens"), "1000 999 2023-11-14T22:28:20Z"),
        **three(_anthropic("input-tokens"), "1000 999 2023-11-14T22:28:20Z"),
        **three(_anthropic("output-tokens"), "1000 999 2023-11-14T22:28:20Z"),
    },
    "mastodon": three(_PLAIN, "2 1 2023-11-14T22:28:20.000000Z"),
    "mastodon-offset": three(_PLAIN, "2 1 2023-11-14T22:28:20+00:00"),
    "gotosocial": three(_PLAIN, "2 1 1700000900"),
    "bluesky": three(
        "ratelimit-limit ratelimit-remaining ratelimit-reset ratelimit-policy",
        "2 1 1700000900 2;w=900",
    ),
    "plain": three(_PLAIN, "2 1 900"),
    "milliseconds": three(_PLAIN, "2 1 1700000900000"),
    "retry-after": {},
    "none": {},
}

#: What a refusal at the same instant adds.
REFUSED: dict[str, dict[str, str]] = {
    "gitlab": {"Retry-After": "900"},
    "discord": {"x-ratelimit-scope": "user", "retry-after": "900"},
    "groq": {"retry-after": "900"},
    "anthropic": {"retry-after": "900"},
    "retry-after": {"Retry-After": "900"},
}

#: Fields that hold more than the remaining calls, once these are gone.
_SPENT = {
    "ietf-07": {"RateLimit": "limit=2, remaining=0, reset=900"},
    "ietf-10": {"RateLimit": '"default";r=0;t=900'},
    "ietf-10-token": {"RateLimit": "default;r=0;t=900"},
    "ietf-10-pk": {"RateLimit": '"default";r=0;t=900;pk=:YXBwOmFwcDE=:'},
}


def spent(dialect: str) -> dict[str, str]:
    """Return the fields of a refusal: those of the first answer, with two calls gone."""
    fields = dict(ACCEPTED[dialect])
    for name in fields:
        if "remaining" in name.lower():
            fields[name] = {"1": "0", "1.0": "0.0", "999": "998"}[fields[name]]
        if name.endswith(("-used", "-Observed")):
            fields[name] = "2"
    return fields | _SPENT.get(dialect, {}) | REFUSED.get(dialect, {})


def test_every_dialect_has_its_rows() -> None:
    assert set(ACCEPTED) == set(DIALECTS)


@pytest.mark.parametrize("dialect", DIALECTS)
@in_virtual_time
async def test_a_dialect_is_announced_to_the_letter(dialect: str) -> None:
    async with serving(dialect, tokens=1000) as client:
        status, accepted, _ = await client.get()
        assert (status, accepted) == (200, ACCEPTED[dialect])
        await client.get()
        status, refused, _ = await client.get()
    assert (status, refused) == (403 if dialect == "github" else 429, spent(dialect))
    assert (client.api.refused, client.api.tally.counted) == (1, 2)
    assert [entry.refused for entry in client.api.requests] == [False, False, True]


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("x", {"errors": [{"message": "Rate limit exceeded", "code": 88}]}),
        ("x-ads", {"errors": [{"message": "Rate limit exceeded", "code": 88}]}),
        (
            "ietf-10",
            {
                "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
                "title": "Request cannot be satisfied as assigned quota has been exceeded",
                "violated-policies": ["default"],
            },
        ),
        (
            "github",
            {
                "message": "API rate limit exceeded",
                "documentation_url": "https://docs.github.com/rest/using-the-rest-api/"
                "rate-limits-for-the-rest-api",
            },
        ),
        ("reddit", {"message": "Too Many Requests", "error": 429}),
        (
            "discord",
            {"message": "You are being rate limited.", "retry_after": 899.75, "global": False},
        ),
        (
            "groq",
            {
                "error": {
                    "message": "Rate limit reached on requests per min. "
                    "Please try again in 14m59.75s.",
                    "type": "requests",
                    "param": None,
                    "code": "rate_limit_exceeded",
                }
            },
        ),
        ("mastodon", {"error": "Too many requests"}),
        ("bluesky", {"error": "RateLimitExceeded", "message": "Rate Limit Exceeded"}),
    ],
)
@in_virtual_time
async def test_a_refusal_has_the_services_body(dialect: str, body: Any) -> None:
    async with serving(dialect, limit=0) as client:
        _, _, said = await client.get()
    assert json.loads(said) == body


@pytest.mark.parametrize("rounding", ["down", "up", "exact"])
@pytest.mark.parametrize(
    ("dialect", "name", "said"),
    [
        # Of a window from ….25 on, a quarter of a second later.
        ("x", "x-rate-limit-reset", ("1700000900", "1700000901", "1700000900.250")),
        ("plain", "X-RateLimit-Reset", ("899", "900", "900")),
        ("github", "x-ratelimit-reset", ("1700000900", "1700000901", "1700000901")),
        ("discord", "x-ratelimit-reset", ("1700000900", "1700000901", "1700000900.250")),
        ("discord", "x-ratelimit-reset-after", ("899", "900", "899.750")),
        ("openai", "x-ratelimit-reset-requests", ("14m59s", "15m0s", "14m59.75s")),
        ("milliseconds", "X-RateLimit-Reset", ("1700000900000", "1700000901000", "1700000900250")),
        ("mastodon", "X-RateLimit-Reset", ("20.000000Z", "21.000000Z", "20.250000Z")),
        ("ietf-07", "RateLimit", ("reset=899", "reset=900", "reset=900")),
    ],
)
@in_virtual_time
async def test_resets_are_rounded_as_asked(
    dialect: str, name: str, said: tuple[str, str, str], rounding: str
) -> None:
    async with serving(dialect, reset_rounding=rounding, whole_seconds=False) as client:
        await client.get()
        client.api.clock.step(0.25)
        _, headers, _ = await client.get()
    assert headers[name].endswith(said[("down", "up", "exact").index(rounding)])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.012, "12ms"),
        (1, "1s"),
        (7.66, "7.66s"),
        (59.9996, "1m0s"),
        (179.56, "2m59.56s"),
        (360, "6m0s"),
        (86_400.5, "24h0m0.5s"),
    ],
)
def test_a_length_is_written_as_go_writes_it(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


@in_virtual_time
async def test_several_windows_are_one_list_where_the_dialect_has_lists() -> None:
    limits = {"POST /2/tweets": {"user": 5, "user_24h": 7, "app_24h": 9}}
    async with serving("ietf-10", limits=limits) as client:
        headers = await client.post()
    policies = '"default";q=5;w=900, "user-day";q=7;w=86400, "app-day";q=9;w=86400'
    assert headers["RateLimit-Policy"] == policies
    quota = '"default";r=4;t=900, "user-day";r=6;t=86400, "app-day";r=8;t=86400'
    assert headers["RateLimit"] == quota


@pytest.mark.parametrize(("user", "day"), [(5, 3), (3, 5), (3, 3)])
@in_virtual_time
async def test_of_several_windows_the_closest_is_told_where_there_is_room_for_one(
    user: int, day: int
) -> None:
    limits = {"POST /2/tweets": {"user": user, "user_24h": day, "app_24h": 9}}
    async with serving("ietf-06", limits=limits) as client:
        headers = await client.post()
    assert headers["RateLimit-Limit"] == "3"
    assert headers["RateLimit-Reset"] == ("900" if user < day else "86400")
    assert headers["RateLimit-Policy"] == f"{user};w=900, {day};w=86400, 9;w=86400"


@pytest.mark.parametrize(
    ("rounding", "seconds", "text"),
    [("exact", 900.0000002, "900"), ("up", 900.0000002, "900"), ("down", 899.9999998, "900")],
)
def test_what_a_float_loses_of_an_instant_is_no_second(
    rounding: Rounding, seconds: float, text: str
) -> None:
    assert Announcement((), 0, rounding).seconds(seconds) == text


@pytest.mark.parametrize("status", [403, 429])
@in_virtual_time
async def test_githubs_secondary_limit_leaves_calls_and_says_when(status: int) -> None:
    options = {"limit": 30, "hidden_limit": 2, "hidden_span": 60.0}
    async with serving("github", refusal_status=status, **options) as client:
        answers = [await client.get() for _ in range(3)]
    [_, _, (seen, headers, body)] = answers
    assert seen == status
    assert headers["x-ratelimit-remaining"] == "28"
    assert headers["retry-after"] == "60"
    assert b"You have exceeded a secondary rate limit" in body
    assert client.api.refused == 1


@in_virtual_time
async def test_discord_says_whose_limit_it_was() -> None:
    async with serving("discord", limit=30, hidden_limit=1, hidden_span=2.5) as client:
        await client.get()
        _, headers, body = await client.get()
    assert (headers["x-ratelimit-scope"], headers["x-ratelimit-global"]) == ("global", "true")
    assert (headers["x-ratelimit-remaining"], headers["retry-after"]) == ("29", "3")
    assert json.loads(body)["retry_after"] == 2.5
    assert json.loads(body)["global"] is True
    async with serving("discord", limits={"help/privacy": {"per_second": 1}}) as client:
        await client.get()
        _, headers, _ = await client.get()
    assert (headers["x-ratelimit-scope"], headers["x-ratelimit-remaining"]) == ("shared", "1")
    assert "x-ratelimit-global" not in headers
    async with serving("discord", limits={"POST /2/tweets": {"app_24h": 0}}) as client:
        assert (await client.post(status=429))["x-ratelimit-scope"] == "shared"


@in_virtual_time
async def test_a_call_costs_the_tokens_that_it_names_and_is_refused_when_either_is_short() -> None:
    async with serving("openai", limit=3, tokens=100) as client:
        left = []
        for cost in ("60", "41", "40"):
            status, headers, _ = await client.get(params={"tokens": cost})
            left.append((status, headers["x-ratelimit-remaining-tokens"]))
        status, headers, body = await client.get(headers={"x-tokens": "1"})
    assert left == [(200, "40"), (429, "40"), (200, "0")]
    assert (status, headers["x-ratelimit-remaining-requests"]) == (429, "1")
    assert json.loads(body)["error"]["type"] == "tokens"
    counted = {window.header: window.counted for window in client.api.windows}
    assert counted == {"x-rate-limit": 2, "tokens": 100}


@in_virtual_time
async def test_a_refused_call_takes_tokens_only_where_there_are_enough() -> None:
    async with serving("openai", limit=1, tokens=10, count_refused=True) as client:
        for cost in ("6", "6", "3"):
            await client.get(params={"tokens": cost})
    counted = {window.header: window.counted for window in client.api.windows}
    assert counted == {"x-rate-limit": 1, "tokens": 9}


@in_virtual_time
async def test_kinds_of_tokens_have_limits_and_costs_of_their_own() -> None:
    limits = {"input-tokens": 500, "output-tokens": 50}
    async with serving("anthropic", tokens=limits) as client:
        _, headers, _ = await client.get(params={"tokens": "20", "output-tokens": "50"})
        status, _, _ = await client.get(params={"tokens": "1"})
    assert headers["anthropic-ratelimit-input-tokens-remaining"] == "480"
    assert headers["anthropic-ratelimit-output-tokens-remaining"] == "0"
    assert "anthropic-ratelimit-tokens-limit" not in headers
    assert status == 429


@in_virtual_time
async def test_somebody_else_may_spend_tokens() -> None:
    async with serving("openai", tokens=1000) as client:
        client.api.spend("help/privacy", 300, caller=client.api.app, unit="tokens")
        _, headers, _ = await client.get()
    assert headers["x-ratelimit-remaining-tokens"] == "699"
    assert headers["x-ratelimit-remaining-requests"] == "1"


@in_virtual_time
async def test_azure_says_minus_one_of_what_it_does_not_limit() -> None:
    async with serving("azure", limits={"help/privacy": {"app": None}}, tokens=10) as client:
        _, headers, _ = await client.get()
    assert headers == {
        **three(_by_unit("requests"), "-1 -1 0"),
        **three(_by_unit("tokens"), "10 9 900"),
    }


@pytest.mark.parametrize(
    ("dialect", "name"), [("github", "x-ratelimit-resource"), ("discord", "x-ratelimit-bucket")]
)
@in_virtual_time
async def test_endpoints_of_one_bucket_share_its_window_and_its_name(
    dialect: str, name: str
) -> None:
    buckets = {"help/privacy": "help", "help/tos": "help"}
    limits = {"help/privacy": 5, "help/tos": 3}
    async with serving(dialect, buckets=buckets, limits=limits) as client:
        seen = [await client.get(path) for path in (PRIVACY, TOS, PRIVACY, TOS)]
        _, other, _ = await client.get("/1.1/help/languages.json")
    assert [headers["x-ratelimit-remaining"] for _, headers, _ in seen] == ["2", "1", "0", "0"]
    assert {headers[name] for _, headers, _ in seen} == {"help"}
    assert (other[name], other["x-ratelimit-remaining"]) == ("help-languages-get", "1")
    assert client.api.refused == 1


@in_virtual_time
async def test_a_new_limit_is_one_for_the_whole_bucket() -> None:
    async with serving(buckets={"help/privacy": "help", "help/tos": "help"}) as client:
        client.api.set_limit("help/tos", 9)
        _, headers, _ = await client.get()
    assert headers["x-rate-limit-limit"] == "9"


@in_virtual_time
async def test_anyone_is_let_in_only_where_that_was_asked_for() -> None:
    async with serving(anonymous=False) as client:
        assert (await client.get())[0] == 400
    async with serving() as client:
        assert (await client.get())[0] == 200
        status, _, _ = await client.get(headers={"Authorization": "Bearer wrong"})
        assert status == 401
        assert (await client.get("/2/users/me"))[0] == 403
    assert client.api.requests[0].identity == "app:app1"


@in_virtual_time
async def test_faults_of_headers_are_those_of_every_dialect() -> None:
    async with serving("mastodon", missing_headers=1) as client:
        assert (await client.get())[1] == {}
    async with serving("mastodon", garbled_headers=1, retry_after="seconds", limit=0) as client:
        _, headers, _ = await client.get()
    assert headers.pop("retry-after") == "900"
    assert list(headers) == _PLAIN.split()
    assert not any(value.endswith("Z") for value in headers.values())


@in_virtual_time
async def test_a_canned_answer_replaces_a_field_however_it_is_spelled() -> None:
    async with serving("plain") as client:
        client.api.reply("GET", "help/privacy", headers={"x-ratelimit-remaining": "77"})
        _, headers, _ = await client.get()
    assert headers == {
        "X-RateLimit-Limit": "2",
        "X-RateLimit-Reset": "900",
        "x-ratelimit-remaining": "77",
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dialect": "klingon"}, "dialect is 'x', 'x-ads', "),
        ({"refusal_status": 404}, "refusal_status is None, 403, 429 or 503, not 404"),
        ({"tokens": -1}, "tokens is a whole number from 0 on, not -1"),
        ({"tokens": {"tokens": 1}}, "each of tokens is among no unit, not 'tokens'"),
        (
            {"dialect": "groq", "tokens": {"cents": 1}},
            "each of tokens is among tokens, not 'cents'",
        ),
        ({"buckets": ["help/tos"]}, "buckets is a mapping such as"),
        ({"buckets": {"help/tos": ""}}, "the bucket of 'help/tos' is a name, not ''"),
        ({"buckets": {"help/x": "a"}}, "the emulator knows no endpoint 'help/x'"),
    ],
)
def test_a_dialect_refuses_options_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r"is|knows") as caught:
        Emulator(**options)
    assert str(caught.value).startswith(words), str(caught.value)


@in_virtual_time
async def test_only_what_the_dialect_counts_can_be_spent() -> None:
    async with serving() as client:
        with pytest.raises(ValueError, match=r"^unit is 'requests', not 'tokens'"):
            client.api.spend("help/tos", 1, unit="tokens")


# Kinds of windows ------------------------------------------------------------------------------

#: At 100 and on, of three calls in 30 seconds: (at, whether it is let in, remaining, reset).
Film = list[tuple[float, bool, int, float]]
FILMS: dict[str, Film] = {
    "fixed": [
        (100, True, 2, 130),
        (110, True, 1, 130),
        (129, True, 0, 130),
        (129, False, 0, 130),
        (130, True, 2, 160),
    ],
    "sliding": [
        (100, True, 2, 130),
        (110, True, 1, 130),
        (129, True, 0, 130),
        (129, False, 0, 130),
        (130, True, 0, 140),
        (139, False, 0, 140),
        (140, True, 0, 159),
        (200, True, 2, 230),
    ],
    "token-bucket": [
        (100, True, 2, 110),
        (100, True, 1, 120),
        (105, True, 0, 130),
        (109, False, 0, 130),
        (110, True, 0, 140),
        (119, False, 0, 140),
        (131, True, 1, 150),
        (200, True, 2, 210),
    ],
    "leaky": [
        (100, True, 2, 110),
        (100, True, 1, 120),
        (105, True, 0, 110),
        (109, False, 0, 110),
        (110, True, 0, 120),
        (119, False, 0, 120),
        (131, True, 1, 150),
        (200, True, 2, 210),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_window_counts_and_announces_as_its_film_shows(kind: str) -> None:
    book = Book(kind=KINDS[kind], shape=Shape(whole_seconds=False))
    film = []
    for at, *_ in FILMS[kind]:
        is_let_in = called(book, at)
        window = book.find(THREE, at)
        film.append((at, is_let_in, window.remaining, window.resets_at))
    assert film == FILMS[kind]
    let_in = sum(is_let_in for _, is_let_in, *_ in film)
    assert sum(report.counted for report in book.reports()) == let_in
    assert sum(report.refused for report in book.reports()) == len(film) - let_in


THREE = Rule("pool", limit=3, length=30)


def called(book: Book, at: float, rule: Rule = THREE, cost: int = 1) -> bool:
    """Make a call as the gate does; tell whether it was let in."""
    window = book.find(rule, at)
    if window.remaining < cost:
        book.refuse(window, at)
        return False
    book.count([window], at, cost=lambda _: cost)
    return True


# What a window of each kind lets in, said once more: times are whole eighths of a second, which
# a float holds without an error.


class Fixed:
    """From the first call to the end."""

    def __init__(self, limit: int, length: int) -> None:
        self.limit, self.length = limit, length
        self.ends = 0
        self.used = 0

    def lets_in(self, at: int, cost: int) -> bool:
        if at >= self.ends:
            self.used = 0
        if self.used + cost > self.limit:
            return False
        if not self.used:
            self.ends = at + self.length
        self.used += cost
        return True


class Sliding:
    """Every call there ever was is looked at."""

    def __init__(self, limit: int, length: int) -> None:
        self.limit, self.length = limit, length
        self.calls: list[tuple[int, int]] = []

    def lets_in(self, at: int, cost: int) -> bool:
        used = sum(taken for when, taken in self.calls if when > at - self.length)
        if used + cost > self.limit:
            return False
        self.calls.append((at, cost))
        return True


class Bucket:
    """It refills in fractions."""

    def __init__(self, limit: int, length: int) -> None:
        self.limit, self.rate = limit, Fraction(limit, length)
        self.tokens, self.at = Fraction(limit), 0

    def lets_in(self, at: int, cost: int) -> bool:
        self.tokens = min(self.limit, self.tokens + (at - self.at) * self.rate)
        self.at = at
        if self.tokens < cost:
            return False
        self.tokens -= cost
        return True


SAID_AGAIN = {"fixed": Fixed, "sliding": Sliding, "token-bucket": Bucket, "leaky": Bucket}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("limit", "length"), [(15, 900), (7, 10), (100, 60), (1, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_window_lets_in_exactly_what_it_should(
    kind: str, limit: int, length: int, seed: int
) -> None:
    dice = random.Random(seed)
    book = Book(kind=KINDS[kind], shape=Shape(whole_seconds=False))
    model = SAID_AGAIN[kind](limit, 8 * length)
    rule = Rule("pool", limit, length)
    at = 8 * 1_700_000_000
    seen, wanted = [], []
    for _ in range(1000):
        # Often several calls come at once.
        steps = int(dice.expovariate(1.1 * limit / length) * 8)
        at += dice.choice((0, steps, 2 * steps))
        cost = dice.choice((1, 1, min(3, limit)))
        seen.append(called(book, at / 8, rule, cost))
        wanted.append(model.lets_in(at, cost))
    assert seen == wanted
    assert 0 < sum(seen) < len(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_given_back_was_never_there(kind: str) -> None:
    book = Book(kind=KINDS[kind], shape=Shape(whole_seconds=False))
    called(book, 100)
    window = book.find(THREE, 110)
    before = (window.remaining, window.resets_at)
    book.count([window], 110, others=0.5, cost=lambda _: 2)
    assert window.remaining == 0
    book.give_back([window], cost=lambda _: 2)
    assert (window.remaining, window.resets_at, window.counted) == (*before, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_what_others_take_is_never_more_than_there_is(kind: str) -> None:
    book = Book(kind=KINDS[kind], shape=Shape(whole_seconds=False))
    book.spend(THREE, 2, 100)
    book.count([book.find(THREE, 100)], 100, others=9)
    book.spend(THREE, 9, 100)
    assert not called(book, 129 if kind in ("fixed", "sliding") else 109)
    assert called(book, 130 if kind in ("fixed", "sliding") else 110)


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_of_zero_lets_nobody_in(kind: str) -> None:
    book = Book(kind=KINDS[kind])
    assert not any(called(book, at, Rule("pool", 0, 10)) for at in (100, 100.5, 105, 109))
    assert book.most_refused == 4
    assert len(book.reports()) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("late", "early"), [(2.5, 0.0), (0.0, 2.5)])
def test_what_is_announced_is_off_by_what_was_asked_for(
    kind: str, late: float, early: float
) -> None:
    book = Book(kind=KINDS[kind], shape=Shape(whole_seconds=False, late=late, early=early))
    while called(book, 100):
        pass
    said = book.find(THREE, 100).free_at(1)
    true = said + late - early
    assert not called(book, true - 0.01)
    assert called(book, true)


def test_windows_with_nothing_to_remember_are_swept() -> None:
    for kind in KINDS.values():
        book = Book(keep=10, kind=kind)
        for number in range(5000):
            called(book, 100.0 + 20 * number, Rule(f"user {number}", 1, 10))
        assert len(book.reports()) < 1000 + 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dialect", ["plain", "discord", "openai", "ietf-10"])
@in_virtual_time
async def test_who_waits_for_the_announced_reset_is_never_refused(dialect: str, kind: str) -> None:
    remaining = {
        "plain": lambda said: (said["X-RateLimit-Remaining"], said["X-RateLimit-Reset"]),
        "discord": lambda said: (said["x-ratelimit-remaining"], said["x-ratelimit-reset-after"]),
        "openai": lambda said: (said["x-ratelimit-remaining-requests"], "0"),
        "ietf-10": lambda said: said["RateLimit"].removeprefix('"default";r=').split(";t="),
    }[dialect]
    async with serving(dialect, kind=kind, limit=7, window=10, whole_seconds=False) as client:
        for _ in range(60):
            status, said, body = await client.get()
            assert status == 200, body
            left, reset = remaining(said)
            if left == "0":
                await asyncio.sleep(float(reset) or 10)
    assert client.api.tally.counted == 60


@pytest.mark.parametrize("kind", KINDS)
@in_virtual_time
async def test_the_server_of_a_kind_counts_calls_that_come_at_random(kind: str) -> None:
    dice = random.Random(kind)
    async with serving(kind=kind, limit=5, window=8, whole_seconds=False) as client:
        model, at = SAID_AGAIN[kind](5, 64), 0
        for _ in range(150):
            eighths = dice.randrange(16)
            await asyncio.sleep(eighths / 8)
            at += eighths
            status, _, _ = await client.get()
            assert (status == 200) == model.lets_in(at, 1), at
    counted = [window.counted for window in client.api.windows]
    assert sum(counted) == client.api.tally.counted == 150 - client.api.refused
    assert client.api.refused > 20


def test_a_big_call_is_free_when_enough_small_ones_have_left() -> None:
    book = Book(kind=KINDS["sliding"])
    assert [called(book, at) for at in (100, 110)] == [True, True]
    window = book.find(THREE, 120)
    assert [window.free_at(number) for number in (2, 3, 4)] == [130, 140, 150]


@pytest.mark.parametrize(
    ("kind", "delay"), [("fixed", "60"), ("sliding", "60"), ("token-bucket", "15"), ("leaky", "15")]
)
@in_virtual_time
async def test_a_refusal_hints_at_the_next_call_and_not_at_the_reset(kind: str, delay: str) -> None:
    async with serving("retry-after", kind=kind, limit=4, window=60) as client:
        *_, (_, headers, _) = [await client.get() for _ in range(5)]
    assert headers["Retry-After"] == delay


@pytest.mark.parametrize("kind", KINDS)
@in_virtual_time
async def test_a_refusal_says_when_a_call_will_be_let_in(kind: str) -> None:
    async with serving("retry-after", kind=kind, limit=4, window=60) as client:
        for _ in range(4):
            await client.get()
            await asyncio.sleep(3)
        status, headers, _ = await client.get()
        assert status == 429
        await asyncio.sleep(int(headers["Retry-After"]))
        assert (await client.get())[0] == 200


def test_whole_seconds_are_for_fixed_windows() -> None:
    with pytest.raises(
        ValueError, match=r"^whole_seconds is for fixed windows, not for kind='slid"
    ):
        Emulator(kind="sliding", whole_seconds=True)
    with pytest.raises(ValueError, match=r"^kind is 'fixed', 'sliding', 'token-bucket' or 'leaky'"):
        Emulator(kind="hopping")
