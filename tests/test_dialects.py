"""What known APIs and servers announce: recorded answers, and what is recognised in them."""

from __future__ import annotations

import email.message
import pickle
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from aiotwhelp import DIALECTS, Dialect, Family, WindowKind, WindowReading
from aiotwhelp.dialects import AUTO, DISCORD, GITHUB, OPENAI, PLAIN, REDDIT, _spoken_by
from aiotwhelp.headers import X_DIALECT
from aiotwhelp.ietf import parse_dictionary, parse_list

Said = tuple[str, int, int | None, float | None, float | None, str]

#: Name, remaining, limit, reset (epoch), resets in (seconds), the server's own name.
RECORDED: list[tuple[str, Mapping[str, str], list[Said]]] = [
    (
        "x",
        {"x-rate-limit-limit": "180", "x-rate-limit-remaining": "175", "x-rate-limit-reset": "9e8"},
        [("15min", 175, 180, 9e8, None, "")],
    ),
    (
        "x",  # of the Ads API, beside which the other one does not count
        {
            "x-rate-limit-remaining": "3",
            "x-account-rate-limit-limit": "450",
            "x-account-rate-limit-remaining": "449",
            "x-account-rate-limit-reset": "1358098325",
        },
        [("ads-account", 449, 450, 1358098325.0, None, "")],
    ),
    (
        "ietf",  # drafts 08 to 10
        {
            "RateLimit-Policy": '"burst";q=100;w=60,"daily";q=1000;w=86400',
            "RateLimit": '"burst";r=50;t=30, "daily";r=900',
        },
        [("burst", 50, 100, None, 30.0, ""), ("daily", 900, 1000, None, None, "")],
    ),
    (
        "ietf",
        {"RateLimit": '"peruser";r=999;pk=:dHJpYWwxMjEzMjM=:'},
        [("peruser", 999, None, None, None, "dHJpYWwxMjEzMjM=")],
    ),
    (
        "ietf",  # express-rate-limit, which tells the partition with the policy
        {
            "RateLimit": '"4-in-3sec"; r=3; t=3',
            "RateLimit-Policy": '"4-in-3sec"; q=4; w=3; pk=:MTJjYTE3YjQ5YWYy:',
        },
        [("4-in-3sec", 3, 4, None, 3.0, "MTJjYTE3YjQ5YWYy")],
    ),
    (
        "ietf",  # one name for two partitions
        {
            "RateLimit": '"peruser";r=9;t=3;pk=:YQ==:, "peruser";r=99;pk=:Yg==:',
            "RateLimit-Policy": '"peruser";q=10;w=60;pk=:YQ==:, "peruser";q=100;w=9;pk=:Yg==:',
        },
        [
            ("peruser YQ==", 9, 10, None, 3.0, "YQ=="),
            ("peruser Yg==", 99, 100, None, None, "Yg=="),
        ],
    ),
    (
        "plain",  # Revolt's Reset-After is in milliseconds, so it is none of Discord's
        {
            "X-RateLimit-Limit": "20",
            "X-RateLimit-Bucket": "a",
            "X-RateLimit-Remaining": "19",
            "X-RateLimit-Reset-After": "9870",
        },
        [("x-ratelimit of 20", 19, 20, None, None, "")],
    ),
    (
        "ietf",  # names as tokens, which the group has not decided about
        {"RateLimit-Policy": "burst;q=100;w=60", "RateLimit": "burst;r=50;t=0"},
        [("burst", 50, 100, None, 0.0, "")],
    ),
    (
        "ietf",  # Hugging Face, whose policy is not well formed, and therefore ignored
        {
            "RateLimit": '"api";r=472;t=235',
            "RateLimit-Policy": '"fixed window";"api";q=500;w=300',
        },
        [("api", 472, None, None, 235.0, "")],
    ),
    (
        "ietf",  # draft 07
        {"RateLimit": "limit=100, remaining=50, reset=5", "RateLimit-Policy": "100;w=10"},
        [("ratelimit: 100 per 10 s", 50, 100, None, 5.0, "")],
    ),
    (
        "ietf-separate",  # drafts 04 to 06
        {
            "RateLimit-Limit": "100",
            "RateLimit-Remaining": "50",
            "RateLimit-Reset": "50",
            "RateLimit-Policy": "100;w=60, 5000;w=86400",
        },
        [("ratelimit: 100 per 60 s", 50, 100, None, 50.0, "")],
    ),
    (
        "ietf-separate",  # drafts 00 to 03
        {
            "RateLimit-Limit": '100, 100;w=60;burst=1000;comment="sliding window", 5000;w=3600',
            "RateLimit-Remaining": "50",
            "RateLimit-Reset": "50",
        },
        [("ratelimit: 100 per 60 s", 50, 100, None, 50.0, "")],
    ),
    (
        "ietf-separate",  # GitLab
        {
            "RateLimit-Limit": "600",
            "RateLimit-Observed": "5",
            "RateLimit-Remaining": "595",
            "RateLimit-Reset": "1580393717",
            "RateLimit-Name": "throttle_authenticated_web",
        },
        [("ratelimit of 600", 595, 600, 1580393717.0, None, "throttle_authenticated_web")],
    ),
    (
        "github",
        {
            "x-ratelimit-limit": "30",
            "x-ratelimit-remaining": "14",
            "x-ratelimit-used": "16",
            "x-ratelimit-reset": "1655120964",
            "x-ratelimit-resource": "search",
        },
        [("primary", 14, 30, 1655120964.0, None, "search")],
    ),
    (
        "reddit",
        {
            "x-ratelimit-used": "1",
            "x-ratelimit-remaining": "599.0",
            "x-ratelimit-reset": "583",
        },
        [("10min", 599, 600, None, 583.0, "")],
    ),
    (
        "discord",
        {
            "X-RateLimit-Limit": "10",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": "1470173023.123",
            "X-RateLimit-Reset-After": "64.57",
            "X-RateLimit-Bucket": "abcd1234",
        },
        [("bucket", 0, 10, None, 64.57, "abcd1234")],
    ),
    (
        "openai",
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-requests": "12ms",
            "x-ratelimit-limit-tokens": "150000",
            "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        [("requests", 59, 60, None, 0.012, ""), ("tokens", 149984, 150000, None, 360.0, "")],
    ),
    (
        "openai",  # Azure does not know of its requests
        {
            "x-ratelimit-limit-requests": "-1",
            "x-ratelimit-remaining-requests": "-1",
            "x-ratelimit-reset-requests": "0",
            "x-ratelimit-remaining-tokens": "9",
            "x-ratelimit-reset-tokens": "7",
        },
        [("tokens", 9, None, None, 7.0, "")],
    ),
    (
        "anthropic",
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2025-10-25T12:00:00Z",
            "anthropic-ratelimit-output-tokens-remaining": "7000",
        },
        [
            ("requests", 49, 50, 1761393600.0, None, ""),
            ("output-tokens", 7000, None, None, None, ""),
        ],
    ),
    (
        "plain",  # Mastodon; of several limits it shows the closest
        {
            "X-RateLimit-Limit": "300",
            "X-RateLimit-Remaining": "299",
            "X-RateLimit-Reset": "2023-08-17T08:42:22.500000+00:00",
        },
        [("x-ratelimit of 300", 299, 300, 1692261742.5, None, "")],
    ),
    (
        "plain",  # fastify
        {"x-ratelimit-limit": "4", "x-ratelimit-remaining": "3", "x-ratelimit-reset": "3"},
        [("x-ratelimit of 4", 3, 4, None, 3.0, "")],
    ),
    (
        "plain",  # slowapi
        {"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "1795613048.2311232"},
        [("x-ratelimit", 3, None, 1795613048.2311232, None, "")],
    ),
    (
        "plain",  # Rocket.Chat
        {"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "1562287945706"},
        [("x-ratelimit", 3, None, 1562287945.706, None, "")],
    ),
    (
        "plain",  # lemlist, as JavaScript writes a date
        {
            "X-RateLimit-Remaining": "3",
            "X-RateLimit-Reset": "Tue Feb 16 2021 09:02:42 GMT+0100 (Central European Time)",
        },
        [("x-ratelimit", 3, None, 1613462562.0, None, "")],
    ),
    (
        "plain",  # neither seconds from now nor an epoch: three years to 2001
        {"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "500000000"},
        [("x-ratelimit", 3, None, None, None, "")],
    ),
    (
        "plain",  # X's names, seconds from now
        {"X-Rate-Limit-Limit": "9", "X-Rate-Limit-Remaining": "3", "X-Rate-Limit-Reset": "42"},
        [("x-rate-limit of 9", 3, 9, None, 42.0, "")],
    ),
    (
        "plain",  # the same, milliseconds
        {"X-Rate-Limit-Remaining": "3", "X-Rate-Limit-Reset": "1562287945706"},
        [("x-rate-limit", 3, None, 1562287945.706, None, "")],
    ),
    (
        "plain",  # Brave Search
        {
            "X-RateLimit-Limit": "1, 15000",
            "X-RateLimit-Policy": "1;w=1, 15000;w=2592000",
            "X-RateLimit-Remaining": "1, 14523",
            "X-RateLimit-Reset": "1, 1419704",
        },
        [
            ("x-ratelimit: 1 per 1 s", 1, 1, None, 1.0, ""),
            ("x-ratelimit: 15000 per 2592000 s", 14523, 15000, None, 1419704.0, ""),
        ],
    ),
    (
        "plain",  # the same, where the month has no limit
        {
            "X-RateLimit-Limit": "50, 0",
            "X-RateLimit-Remaining": "49, 0",
            "X-RateLimit-Reset": "1, 0",
        },
        [("x-ratelimit of 50", 49, 50, None, 1.0, "")],
    ),
    (
        "plain",  # equal limits, without a policy or a reset
        {"X-RateLimit-Limit": "9,9,9", "X-RateLimit-Remaining": "5,6,7"},
        [
            ("x-ratelimit of 9", 5, 9, None, None, ""),
            ("x-ratelimit of 9 (2)", 6, 9, None, None, ""),
            ("x-ratelimit of 9 (3)", 7, 9, None, None, ""),
        ],
    ),
    (
        "ietf-separate",
        {"RateLimit-Limit": "5, 100", "RateLimit-Remaining": "4, 99", "RateLimit-Reset": "1, 60"},
        [
            ("ratelimit of 5", 4, 5, None, 1.0, ""),
            ("ratelimit of 100", 99, 100, None, 60.0, ""),
        ],
    ),
    (
        "ietf-separate + plain",  # two limits that are alike but for who holds them
        {
            "RateLimit-Limit": "100",
            "RateLimit-Remaining": "50",
            "X-RateLimit-Limit": "100",
            "X-RateLimit-Remaining": "70",
        },
        [
            ("ratelimit of 100", 50, 100, None, None, ""),
            ("x-ratelimit of 100", 70, 100, None, None, ""),
        ],
    ),
    (
        "ietf + openai",  # whose policies have the names of other windows
        {"RateLimit": '"requests";r=5;t=9', "x-ratelimit-remaining-requests": "3"},
        [
            ("requests", 5, None, None, 9.0, ""),
            ("openai: requests", 3, None, None, None, ""),
        ],
    ),
    (
        "ietf + plain",  # a proxy's own, beside the server's
        {"RateLimit": '"default";r=5;t=9', "X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "7"},
        [("default", 5, None, None, 9.0, ""), ("x-ratelimit", 3, None, None, 7.0, "")],
    ),
]


def said(windows: tuple[WindowReading, ...]) -> list[Said]:
    return [(w.kind.name, w.remaining, w.limit, w.reset, w.resets_in, w.bucket) for w in windows]


@pytest.mark.parametrize(("name", "headers", "expected"), RECORDED)
def test_a_recorded_answer_is_recognised_and_read(
    name: str, headers: Mapping[str, str], expected: list[Said]
):
    for fields in (headers, CIMultiDictProxy(CIMultiDict(headers))):
        reading = AUTO.read(fields)
        assert (reading.dialect, said(reading.windows)) == (name, expected)


@pytest.mark.parametrize(("name", "headers", "expected"), RECORDED)
def test_the_dialect_alone_reads_the_same(
    name: str, headers: Mapping[str, str], expected: list[Said]
):
    if " + " not in name:
        assert said(DIALECTS[name].read(headers).windows) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Retry-After": "3"},
        {"x-ratelimit-limit": "30", "x-ratelimit-reset": "3"},
        {"RateLimit-Policy": '"burst";q=100;w=60'},
        {"RateLimit": '"burst";q=100;t=60'},
        {"RateLimit": '"burst";r=-1'},
        {"RateLimit": '"burst";r=1.5'},
        {"RateLimit": '"burst;r=1'},
        {"RateLimit": '"burst";r=1,'},
        {"RateLimit": "(1 2);r=1"},
        {"RateLimit": "limit=1, reset=5"},
        {"RateLimit": "remaining=x"},
        {"RateLimit": "42;r=1"},
        {"RateLimit": '"a";r=1,' * 400},
        {"X-RateLimit-Limit": "1, 2", "X-RateLimit-Remaining": "1, 2, 3"},
        {"X-RateLimit-Limit": "1, 2", "X-RateLimit-Remaining": "1, 2", "X-RateLimit-Reset": "1"},
        {"X-RateLimit-Limit": "9", "X-RateLimit-Remaining": "1, 2"},
        {"X-RateLimit-Limit": ",9" * 99, "X-RateLimit-Remaining": ",9" * 99},
        {"X-RateLimit-Limit": "-1", "X-RateLimit-Remaining": "-1"},
    ],
)
def test_what_says_nothing_of_what_is_left_says_nothing(headers: Mapping[str, str]):
    assert AUTO.read(headers).windows == ()


def test_lists_may_come_in_several_lines():
    fields = CIMultiDictProxy(
        CIMultiDict([("RateLimit", '"a"; r=2; t=2'), ("RateLimit", '"b"; r=3; t=4')])
    )
    assert [window.kind.name for window in AUTO.read(fields).windows] == ["a", "b"]


def test_of_policies_with_equal_limits_the_shortest_that_the_reset_fits_into_is_meant():
    fields = {"RateLimit": "limit=9, remaining=1, reset=20", "RateLimit-Policy": "9;w=10, 9;w=60"}
    (window,) = AUTO.read(fields).windows
    assert (window.kind.name, window.kind.length) == ("ratelimit: 9 per 60 s", 60.0)


# --- the IETF's drafts ---------------------------------------------------------------------

POLICIES = "9;w=10, 9;w=60, 9;w=60, 5000;w=86400, 70"


@pytest.mark.parametrize(
    ("limit", "reset", "name", "length"),
    [
        ("9", "10", "ratelimit: 9 per 10 s", 10.0),
        ("9", "11", "ratelimit: 9 per 60 s", 60.0),
        ("9", "99", "ratelimit: 9 per 60 s", 60.0),
        ("9", None, "ratelimit: 9 per 10 s", 10.0),
        ("5000", "11", "ratelimit: 5000 per 86400 s", 86_400.0),
        ("70", "11", "ratelimit of 70", 0.0),
        ("8", "11", "ratelimit of 8", 0.0),
        (None, "11", "ratelimit", 0.0),
    ],
)
def test_the_policy_of_the_limit_that_is_shown_tells_the_window(
    limit: str | None, reset: str | None, name: str, length: float
):
    told = {"limit": limit, "remaining": "3", "reset": reset}
    told = {field: value for field, value in told.items() if value is not None}
    together = {"ratelimit": ", ".join(f"{field}={value}" for field, value in told.items())}
    for fields in (together, {f"ratelimit-{field}": value for field, value in told.items()}):
        (window,) = AUTO.read(fields | {"ratelimit-policy": POLICIES}).windows
        kind = window.kind
        assert (kind.name, kind.length, kind.turns) == (name, length, "ratelimit")
        assert (kind.unit, kind.refills) == ("requests", True)
        assert window.resets_in == (None if reset is None else float(reset))


@pytest.mark.parametrize(
    ("limit", "remaining", "expected"),
    [
        ("100, 5000", "3", (3, 100)),
        ("100;w=60", "3", (3, 100)),
        ("1e3", "3", (3, 1000)),
        ("9007199254740991", "3", (3, 2**53 - 1)),
        ("(1), 5", "3", (3, None)),
        ("9", "0", (0, 9)),
        ("9", "-1", (0, 9)),
        ("-1", "5", (5, None)),
        ("-1", "0", (0, None)),
        ("0", "-1", (0, None)),
    ],
)
def test_a_limit_and_what_is_left_of_it_are_read_each_for_itself(
    limit: str, remaining: str, expected: tuple[int, int | None]
):
    (window,) = AUTO.read({"RateLimit-Limit": limit, "RateLimit-Remaining": remaining}).windows
    assert (window.remaining, window.limit) == expected


def test_of_listed_limits_each_that_is_readable_counts():
    fields = {"X-RateLimit-Limit": "0, 9, 10, 11", "X-RateLimit-Remaining": "0, 5X, 6\xa0, 7"}
    assert said(AUTO.read(fields).windows) == [("x-ratelimit of 11", 7, 11, None, None, "")]
    for places, read in ((16, 16), (17, 0)):
        numbers = ", ".join(str(each) for each in range(1, places + 1))
        fields = {"X-RateLimit-Limit": numbers, "X-RateLimit-Remaining": numbers}
        assert len(AUTO.read(fields).windows) == read


def test_a_named_policy_tells_length_unit_and_partition():
    fields = {
        "RateLimit-Policy": '"a";q=9;w=60;qu="content-bytes", "b";q=8;qu="request", "c";q=7',
        "RateLimit": '"0";t=5, "a";r=3;pk=:YQ==:, "b";r=2, "c";r=1;t=0',
    }
    windows = AUTO.read(fields).windows
    assert said(windows) == [
        ("a", 3, 9, None, None, "YQ=="),
        ("b", 2, 8, None, None, ""),
        ("c", 1, 7, None, 0.0, ""),
    ]
    assert [(w.kind.length, w.kind.unit, w.kind.turns, w.kind.refills) for w in windows] == [
        (60.0, "content-bytes", "", True),
        (0.0, "requests", "", True),
        (0.0, "requests", "", True),
    ]


def test_lines_of_a_field_are_joined_for_any_client():
    message = email.message.Message()
    for value in ('"a"; r=2', '"b"; r=3'):
        message["RateLimit"] = value
    assert [window.kind.name for window in AUTO.read(message).windows] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("", []),
        ('"a";x', [("a", {"x": "1"})]),
        ('"a";x=?1;y=?0', [("a", {"x": "1", "y": "0"})]),
        (r'"a\"b\\c";r=1', [('a"b\\c', {"r": 1.0})]),
        ('"a" , b;t=:YQ==: ,\t1.5', [("a", {}), ("b", {"t": "YQ=="}), (1.5, {})]),
        ("@1659578233", [("1659578233", {})]),
        ('X"a";r=1', None),
        ('"a" "b"', None),
        ('"a",', None),
        ('"a";=1', None),
        ('"a";r=', None),
        (",".join("a" * 16), [("a", {})] * 16),
        (",".join("a" * 17), None),
        ("a".ljust(2048), [("a", {})]),
        ("a".ljust(2049), None),
    ],
)
def test_a_structured_list_is_read_as_its_rfc_says(text: str, members: list[object] | None):
    parsed = parse_list(text)
    found = None if parsed is None else [(each.value, dict(each.params)) for each in parsed]
    assert found == members


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("limit=100;w=10=x, remaining=0,\treset=5 ", {"limit": 100, "remaining": 0, "reset": 5}),
        ("limit=1".ljust(2048), {"limit": 1}),
        ("limit=1".ljust(2049), None),
        ("limit=1X", None),
        ("limit=1\xa0", None),
        ("limit=-1", None),
        ("Limit=1", None),
        ("limit", None),
    ],
)
def test_a_structured_dictionary_is_read_or_not_at_all(text: str, numbers: dict[str, int] | None):
    assert parse_dictionary(text) == numbers


def test_a_parameter_without_a_number_is_none():
    assert AUTO.read({"RateLimit": '"a";r;t=5'}).windows == ()


# --- waits and refusals --------------------------------------------------------------------


def test_a_window_is_waited_for_a_little_longer_than_its_length_and_never_for_ever():
    lengths = {0.0: 90_000, 10.0: 70, 900.0: 960, 86_400.0: 90_000}
    for length, ceiling in lengths.items():
        assert WindowKind("any", length=length).ceiling == ceiling


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (("1358098325", "15"), "15min"),
        (("", "15"), "15min"),
        (("soon", "15"), "15min"),
        (("12", "15"), "x-rate-limit of 15"),
        (("1358098325123", "15"), "x-rate-limit of 15"),
        (("2013-01-13T17:32:05Z", "15"), "x-rate-limit of 15"),
    ],
)
def test_only_an_epoch_in_seconds_is_taken_for_one_of_x(told: tuple[str, str], kind: str):
    reset, limit = told
    fields = {"X-Rate-Limit-Remaining": "3", "X-Rate-Limit-Limit": limit}
    (window,) = AUTO.read(fields | {"X-Rate-Limit-Reset": reset}).windows
    assert window.kind.name == kind
    (window,) = X_DIALECT.read(fields | {"X-Rate-Limit-Reset": reset}).windows
    assert (window.kind.name, window.resets_in) == ("15min", None)


@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        ({"X-Rate-Limit-Retry-After-Seconds": "17"}, 17.0),
        ({"X-Rate-Limit-Retry-After-Seconds": "17", "Retry-After": "3"}, 3.0),
        ({"X-Rate-Limit-Retry-After-Seconds": "-1"}, None),
        ({"Retry-After-Ms": "1500", "x-ratelimit-remaining-tokens": "0"}, 1.5),
        ({"Retry-After-Ms": "1500"}, None),
    ],
)
def test_other_fields_may_stand_for_retry_after(headers: Mapping[str, str], delay: float | None):
    assert AUTO.read(headers, 429).retry_after == delay
    assert AUTO.read(headers).retry_after in (None, 3.0)


def test_an_epoch_is_of_x_whatever_tells_how_long_to_wait():
    fields = {"X-Rate-Limit-Remaining": "3", "X-Rate-Limit-Reset": "1358098325"}
    reading = AUTO.read(fields | {"X-Rate-Limit-Retry-After-Seconds": "17"}, 429)
    assert (reading.dialect, len(reading.windows)) == ("x", 1)


@pytest.mark.parametrize(
    ("names", "remembered"),
    [
        ([f"a-{number}" for number in range(64)], 1),
        ([f"b-{number}" for number in range(65)], 0),
        (["c" * 2048], 1),
        (["d" * 2049], 0),
    ],
    ids=["many", "too many", "long", "too long"],
)
def test_names_of_fields_that_are_too_many_or_too_long_are_not_remembered(
    names: list[str], remembered: int
):
    _spoken_by.cache_clear()
    assert AUTO.read(dict.fromkeys(names, "1")).windows == ()
    assert _spoken_by.cache_info().currsize == remembered


def test_of_two_dialects_the_longer_wait_counts():
    fields = {"X-Rate-Limit-Retry-After-Seconds": "17", "RateLimit": '"a";r=0;t=20'}
    reading = AUTO.read(fields, 429)
    assert (reading.dialect, reading.retry_after) == ("ietf + plain", 17.0)


def test_of_two_dialects_what_refuses_in_one_refuses():
    fields = {"RateLimit": '"a";r=7', **CORE, "x-ratelimit-used": "9"}
    several = AUTO.read(fields, 403)
    assert (several.dialect, several.refused, several.everywhere) == ("ietf + github", True, False)
    assert AUTO.read(fields).refused is False
    hidden = AUTO.read(fields | {"x-ratelimit-remaining": "9"}, 429)
    assert (hidden.refused, hidden.everywhere, hidden.pause) == (True, True, 60.0)
    asked = AUTO.read(fields | {"Retry-After": "7"}, 403)
    assert (asked.refused, asked.everywhere, asked.pause) == (True, True, 0.0)


def test_what_was_recognised_is_what_reads_the_body():
    for fields, names in [
        ({}, []),
        (CORE | {"x-ratelimit-used": "9"}, ["github"]),
        ({"RateLimit": '"a";r=7', "x-ratelimit-remaining": "3"}, ["ietf", "plain"]),
    ]:
        reading = AUTO.read(fields)
        assert AUTO.spoken(reading) == tuple(DIALECTS[name] for name in names)


CORE = {"x-ratelimit-remaining": "0", "x-ratelimit-resource": "core"}


@pytest.mark.parametrize(
    ("dialect", "status", "headers", "refused", "everywhere"),
    [
        (GITHUB, 429, {}, True, True),
        (GITHUB, 429, {"x-ratelimit-remaining": "0"}, True, False),
        (GITHUB, 403, {}, False, False),
        (GITHUB, 403, {"x-ratelimit-remaining": "9"}, False, False),
        (GITHUB, 403, {"x-ratelimit-remaining": "0"}, True, False),
        (GITHUB, 403, {"x-ratelimit-remaining": "9", "retry-after": "60"}, True, True),
        (GITHUB, 200, {"x-ratelimit-remaining": "0", "retry-after": "60"}, False, False),
        (DISCORD, 429, {"x-ratelimit-global": "true"}, True, True),
        (DISCORD, 429, {"x-ratelimit-scope": "shared"}, True, False),
        (DISCORD, 200, {"x-ratelimit-global": "true"}, False, False),
        (AUTO, 403, {"retry-after": "60"}, False, False),
        (AUTO, 403, {**CORE, "x-ratelimit-used": "60"}, True, False),
        (AUTO, 403, CORE, False, False),  # of Azure DevOps
        (AUTO, 420, {}, True, False),
        (PLAIN, 403, {"x-ratelimit-remaining": "0"}, False, False),
    ],
)
def test_which_answers_refuse_a_call_for_its_rate(
    dialect: Dialect, status: int, headers: Mapping[str, str], refused: bool, everywhere: bool
):
    reading = dialect.read(headers, status)
    assert (reading.refused, reading.everywhere) == (refused, everywhere)


def test_an_answer_of_a_cache_says_nothing_in_any_dialect():
    for dialect in DIALECTS.values():
        reading = dialect.read({"RateLimit": '"a";r=1', "x-ratelimit-remaining": "1", "Age": "3"})
        assert (reading.windows, reading.cached) == ((), True)


# --- a dialect of one's own ----------------------------------------------------------------


def test_a_field_with_both_numbers():
    field = "X-Shopify-Shop-Api-Call-Limit"
    shopify = Dialect("shopify", (Family(WindowKind("leaky"), limit=field, used=field),))
    assert said(shopify.read({field: "32/40"}).windows) == [("leaky", 8, 40, None, None, "")]
    for garbage in ("", "32", "/", "a/b", "-1/-1"):
        assert shopify.read({field: garbage}).windows == ()


def test_what_was_used_in_place_of_what_is_left():
    family = Family(WindowKind("hour"), limit="Quota", used="Used", reset="Ends", resets="duration")
    dialect = Dialect("mine", (family,))
    headers = {"QUOTA": "40", "used": "41", "ends": "1h2m3s"}
    assert said(dialect.read(headers).windows) == [("hour", 0, 40, None, 3723.0, "")]


@pytest.mark.parametrize("said", ["9870", "-1", "soon"])
def test_milliseconds_from_now(said: str):
    family = Family(WindowKind("a"), remaining="Left", reset="In", resets="delta-milliseconds")
    (window,) = Dialect("mine", (family,)).read({"Left": "3", "In": said}).windows
    assert window.resets_in == (9.87 if said == "9870" else None)


def test_a_family_says_what_it_needs():
    with pytest.raises(ValueError, match="needs the header of remaining or of used"):
        Family(WindowKind("hour"), limit="Quota")
    with pytest.raises(ValueError, match="resets is one of epoch, milliseconds, delta, delta-"):
        Family(WindowKind("hour"), remaining="Left", resets="soon")  # type: ignore[arg-type]


def test_dialects_are_values():
    for dialect in DIALECTS.values():
        assert pickle.loads(pickle.dumps(dialect)) == dialect
        hash(dialect)
    assert OPENAI != REDDIT


# --- whatever a server sends ---------------------------------------------------------------

NAMES = sorted(
    {
        name
        for dialect in DIALECTS.values()
        for family in dialect.families
        if isinstance(family, Family)
        for name in (family.limit, family.remaining, family.reset, family.used, family.bucket)
        if name
    }
    | {"ratelimit", "ratelimit-policy", "ratelimit-limit", "ratelimit-remaining", "retry-after"}
    | {"ratelimit-reset", "x-ratelimit-global", "ratelimit-name", "x-ratelimit-policy"}
    | {"x-rate-limit-retry-after-seconds", "retry-after-ms"}
    | {f"x-ratelimit-{name}" for name in ("limit", "remaining", "reset")}
)
values = st.one_of(
    st.sampled_from(
        ["0", "-1", "15", "1, 2", "1e308", "nan", "6m0s", "9" * 400, '"a";r=1;t=2', "limit=1"]
    ),
    st.text(max_size=30),
    st.text(alphabet='"\\;,=:?@*abrtqw019. \t', max_size=60),
)


@given(st.dictionaries(st.sampled_from(NAMES), values), st.sampled_from([200, 403, 429, 503]))
def test_whatever_is_sent_the_outcome_is_a_reading_of_finite_numbers(
    headers: dict[str, str], status: int
):
    for dialect in DIALECTS.values():
        reading = dialect.read(headers, status)
        for window in reading.windows:
            assert 0 <= window.remaining < 2**53
            assert window.reset is None or 0 <= window.reset < 1e300
            assert window.resets_in is None or 0 <= window.resets_in < float("inf")
            assert len(window.bucket) <= 64
            assert len(window.kind.name) <= 100
        assert len(reading.windows) <= 64


@given(st.text(alphabet='"\\;,=:?@*abrtqw019. \t()', max_size=80))
def test_lists_are_parsed_or_not_at_all(text: str):
    members = parse_list(text)
    assert members is None or all(isinstance(each.value, (str, float)) for each in members)
    numbers = parse_dictionary(text)
    assert numbers is None or all(number >= 0 for number in numbers.values())
