"""What answers say: from header fields to a Reading."""

from __future__ import annotations

import calendar
import datetime
import email.message
import email.utils
import math
import time
import types
import wsgiref.headers
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from aiotwhelp.headers import (
    DAY_OF_APP,
    DAY_OF_USER,
    FIFTEEN_MINUTES,
    X_DIALECT,
    Dialect,
    Family,
    Reading,
    WindowKind,
    WindowReading,
    family,
    limited,
    parse_date,
    parse_retry_after,
)

DATE = "Sun, 13 Jan 2013 17:29:54 GMT"
DATE_SECONDS = 1358098194.0

#: What a real answer carried in 2013.
RECORDED = {
    "x-access-level": "read-write",
    "date": DATE,
    "x-rate-limit-limit": "180",
    "x-rate-limit-remaining": "175",
    "x-rate-limit-reset": "1358098325",
}


def windows(**changes: str | None) -> tuple[WindowReading, ...]:
    """The windows of a recorded answer, with limit, remaining or reset changed or left out."""
    named = {f"x-rate-limit-{name}": value for name, value in changes.items()}
    headers = {name: value for name, value in (RECORDED | named).items() if value is not None}
    return X_DIALECT.read(headers).windows


def only(**changes: str | None) -> WindowReading:
    (window,) = windows(**changes)
    return window


def test_a_recorded_answer_is_read_whole():
    reading = X_DIALECT.read(RECORDED)
    window = WindowReading(FIFTEEN_MINUTES, remaining=175, limit=180, reset=1358098325.0)
    assert reading == Reading((window,), retry_after=None, date=DATE_SECONDS, cached=False)
    assert reading.windows[0].reset - reading.date == 131


def test_an_answer_without_any_header_says_nothing():
    assert X_DIALECT.read({}) == Reading()
    assert X_DIALECT.read(CIMultiDict()) == Reading()


def test_a_dialect_is_shown_by_its_name():
    assert repr(X_DIALECT) == "<Dialect x>"


def test_an_answer_may_announce_three_windows_at_once():
    reading = X_DIALECT.read(
        RECORDED
        | {
            "x-app-limit-24hour-limit": "5000",
            "x-app-limit-24hour-remaining": "4999",
            "x-app-limit-24hour-reset": "1358184594",
            "x-user-limit-24hour-limit": "100",
            "x-user-limit-24hour-remaining": "0",
            "x-user-limit-24hour-reset": "1358184500",
        }
    )
    assert [window.kind for window in reading.windows] == [FIFTEEN_MINUTES, DAY_OF_APP, DAY_OF_USER]
    assert [window.remaining for window in reading.windows] == [175, 4999, 0]


def test_a_day_window_may_stand_alone():
    reading = X_DIALECT.read({"x-user-limit-24hour-remaining": "3"})
    assert reading.windows == (WindowReading(DAY_OF_USER, 3, None, None),)


def test_the_kinds_say_whose_they_are_and_how_long_anyone_waits():
    kinds = [(k.name, k.scope, k.length, k.ceiling) for k in (f.kind for f in X_DIALECT.families)]
    assert kinds == [
        ("15min", "identity", 900, 960),
        ("24h-app", "app", 86400, 90000),
        ("24h-user", "identity", 86400, 90000),
        ("ads-account", "identity", 900, 960),
        ("24h-media", "identity", 86400, 90000),
    ]


def test_another_dialect_is_a_value():
    minute = WindowKind("minute", "identity", 60, 90)
    dialect = Dialect("other", (Family(minute, "q-limit", "q-left", "q-reset"),))
    reading = dialect.read({"Q-Left": "4", "X-Rate-Limit-Remaining": "9"})
    assert reading.windows == (WindowReading(minute, 4, None, None),)


# --- any mapping ---------------------------------------------------------------------------


class Insensitive(dict):
    """A mapping of another client's kind, whose look-ups ignore case."""


def message(headers: Mapping[str, str]) -> email.message.Message:
    """Headers as the standard library has them, found in any case: no Mapping by type."""
    fields = email.message.Message()
    for name, value in headers.items():
        fields[name.title()] = value
    return fields


@pytest.mark.parametrize(
    "headers",
    [
        RECORDED,
        {name.title(): value for name, value in RECORDED.items()},
        {name.upper(): value for name, value in RECORDED.items()},
        Insensitive({name.upper(): value for name, value in RECORDED.items()}),
        types.MappingProxyType({name.title(): value for name, value in RECORDED.items()}),
        CIMultiDict(RECORDED),
        CIMultiDictProxy(CIMultiDict({n.upper(): v for n, v in RECORDED.items()})),
        message(RECORDED),
        wsgiref.headers.Headers(list(RECORDED.items())),
        {"1": "a header without letters comes first", **RECORDED},
    ],
    ids=lambda headers: type(headers).__name__,
)
def test_names_are_found_in_any_case_in_any_mapping(headers):
    assert X_DIALECT.read(headers) == X_DIALECT.read(RECORDED)


@pytest.mark.parametrize("mapping", [dict, types.MappingProxyType, CIMultiDict])
@pytest.mark.parametrize("before", [{}, {"1": "a header without letters comes first"}], ids=len)
def test_of_a_field_in_several_lines_the_first_counts(mapping, before):
    headers = mapping({**before, "X-Rate-Limit-Remaining": "4", "x-rate-limit-remaining": "5"})
    assert X_DIALECT.read(headers).windows[0].remaining == 4


def test_the_headers_of_aiohttp_are_not_copied():
    class Watched(CIMultiDict):
        def items(self):
            raise AssertionError("a copy on the hot path")

    assert X_DIALECT.read(Watched(RECORDED)).windows[0].remaining == 175


def test_bytes_and_other_things_that_are_no_text_are_ignored():
    headers = {
        b"x-rate-limit-remaining": b"3",
        "x-rate-limit-remaining": b"4",
        "x-rate-limit-limit": 180,
        "date": None,
        "age": 7,
        "x-cache": [b"HIT"],
        7: "seven",
    }
    assert X_DIALECT.read(headers) == Reading()


# --- numbers -------------------------------------------------------------------------------

GARBAGE = [
    "",
    " ",
    "garbage",
    "nan",
    "-nan",
    "inf",
    "-inf",
    "infinity",
    "1e999",
    "-1e999",
    "12, 13",
    "12,13",
    "1_000",
    "0x10",
    "١٤",
    "１４",
    "²",
    "14 apples",
    "--1",
    "9" * 400,
    "9" * 65,
    "1" + "0" * 70,
    "18446744073709551615",
    "\x00",
    "None",
]


@pytest.mark.parametrize("value", GARBAGE)
def test_a_window_without_a_usable_remaining_is_no_window(value):
    assert windows(remaining=value) == ()


def test_a_window_without_remaining_is_no_window():
    assert windows(remaining=None) == ()


@pytest.mark.parametrize("value", GARBAGE)
def test_a_garbled_limit_or_reset_leaves_the_rest_readable(value):
    assert only(limit=value, reset=value) == WindowReading(FIFTEEN_MINUTES, 175, None, None)


@pytest.mark.parametrize(
    ("value", "count"),
    [("14", 14), ("14.0", 14), ("14.9", 14), (" 14 ", 14), ("+14", 14), ("0", 0), ("1e2", 100)],
)
def test_a_count_may_be_written_as_a_float(value, count):
    assert only(remaining=value, limit=None).remaining == count


@pytest.mark.parametrize("value", ["-1", "-1.5", "-0.2", "-100000"])
def test_case_10_a_negative_remaining_is_none_left(value):
    assert only(remaining=value).remaining == 0


@pytest.mark.parametrize("limit", ["-1", "-5.0"])
def test_minus_one_of_minus_one_means_unknown(limit):
    assert windows(remaining="-1", limit=limit) == ()


def test_a_negative_limit_alone_only_hides_the_limit():
    assert only(limit="-1") == WindowReading(FIFTEEN_MINUTES, 175, None, 1358098325.0)


def test_a_limit_of_zero_is_no_limit():
    assert only(remaining="0", limit="0").limit is None


def test_none_left_of_an_unknown_limit_is_none_left():
    assert only(remaining="0", limit="-1") == WindowReading(FIFTEEN_MINUTES, 0, None, 1358098325.0)
    assert only(remaining="-1", limit="0") == WindowReading(FIFTEEN_MINUTES, 0, None, 1358098325.0)


@pytest.mark.parametrize(("value", "count"), [(2**53 - 1, 2**53 - 1), (2**53, None)])
def test_what_a_float_cannot_count_is_no_count(value, count):
    assert only(limit=str(value)).limit == count


def test_the_longest_value_that_is_looked_at_has_64_characters():
    assert only(remaining="14".zfill(64)).remaining == 14
    assert windows(remaining="14".zfill(65)) == ()
    assert parse_date(DATE.ljust(64)) == DATE_SECONDS
    assert parse_date(DATE.ljust(65)) is None


def test_case_10_remaining_above_the_limit_is_kept():
    assert only(remaining="900", limit="300") == WindowReading(
        FIFTEEN_MINUTES, 900, 300, 1358098325.0
    )


@pytest.mark.parametrize(
    ("value", "reset"),
    [
        ("1358098325", 1358098325.0),
        ("1358098325.25", 1358098325.25),
        ("1", 1.0),  # long past: the rule judges
        ("99999999999", 99999999999.0),  # the year 5138: the rule judges
        ("0", None),
        ("-1358098325", None),
        ("1358098325000", None),  # milliseconds
        ("100000000000", None),
        ("1562287945706.5", None),
    ],
)
def test_case_19_a_reset_is_epoch_seconds_or_unusable(value, reset):
    assert only(reset=value).reset == reset


def test_case_47_remaining_0_without_a_usable_reset_is_still_a_reading():
    assert only(remaining="0", reset=None) == WindowReading(FIFTEEN_MINUTES, 0, 180, None)


# --- Date ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (DATE, DATE_SECONDS),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777.0),
        ("Sun Nov  6 08:49:37 1994", 784111777.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Sat, 31 Dec 2016 23:59:60 GMT", 1483228800.0),
        ("Thu, 29 Feb 2024 12:00:00 GMT", 1709208000.0),
        ("Sun, 06 Nov 1994 09:49:37 +0100", 784111777.0),
    ],
)
def test_a_date_is_read_in_each_of_its_forms(value, seconds):
    assert parse_date(value) == seconds


def test_a_date_without_a_zone_does_not_depend_on_where_we_are(monkeypatch):
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        assert parse_date("Sun Nov  6 08:49:37 2011") == 1320569377.0
        assert parse_date("Mon, 07 Nov 2011 08:49:37 GMT") == 1320655777.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"Sun, 13 Jan 2013 17:29:54 GMT",
        "",
        " ",
        ",",
        "Sun,",
        "garbage",
        "1358098194",
        "2013-01-13T17:29:54Z",
        "Sun, 13 Jan 2013",
        "Sun, 31 Feb 2013 17:29:54 GMT",
        "Sun, 13 Foo 2013 17:29:54 GMT",
        "Sun, 13 Jan 2013 25:29:54 GMT",
        "Sun, 13 Jan 2013 17:60:54 GMT",
        "Sun, 13 Jan 2013 17:29:61 GMT",
        "Sun, 13 Jan 1913 17:29:54 GMT",
        "Wed, 31 Dec 1969 23:59:59 GMT",
        "Sun, ١٣ Jan 2013 17:29:54 GMT",
        "Sun, 13 Jan 2013 17:29:54 +9999",
        "Sun, 13 Jan 2013 17:29:54 -2400",
        "Sun, 13 Jan 2013 17:29:54 -9999999999999999999999999999999999",
        DATE + " " * 64,
        DATE * 1000,
    ],
)
def test_case_18_a_garbled_date_is_no_date(value):
    assert parse_date(value) is None


@pytest.mark.parametrize("value", ["(" * 500_000, "Sun, " * 100_000, "1" * 1_000_000, "," * 10**6])
def test_a_huge_value_is_not_looked_into(value):
    headers = dict.fromkeys([*RECORDED, "retry-after", "age", "x-cache", "x-from-cache"], value)
    started = time.process_time()
    reading = X_DIALECT.read(headers)
    assert time.process_time() - started < 1  # quadratic work would take minutes
    assert reading.windows == ()
    assert reading.date is None
    assert reading.retry_after is None


# --- Retry-After ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "delay"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("2.0", 2.0),
        ("0.5", 0.5),
        (" 65 ", 65.0),
        ("1e6", 1e6),
        ("31536000000", 31536000000.0),  # a thousand years: the rule caps
        ("Sun, 13 Jan 2013 17:31:54 GMT", 120.0),
        ("Sunday, 13-Jan-13 17:31:54 GMT", 120.0),
        ("Sun Jan 13 17:31:54 2013", 120.0),
        (DATE, 0.0),
        ("Sun, 13 Jan 2013 17:29:53 GMT", None),  # past
        ("Fri, 31 Dec 9999 23:59:59 GMT", 252044202605.0),
        ("-1", None),
        ("-0.5", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("120, 130", None),
        ("soon", None),
        ("", None),
    ],
)
def test_case_24_retry_after_is_seconds_or_a_date(value, delay):
    assert parse_retry_after(value, DATE_SECONDS) == delay
    assert X_DIALECT.read({"Retry-After": value, "Date": DATE}).retry_after == delay


def test_case_24_a_retry_after_date_says_nothing_without_the_date_of_its_answer():
    assert parse_retry_after("Sun, 13 Jan 2013 17:31:54 GMT", None) is None
    assert parse_retry_after("120", None) == 120


def test_no_retry_after_is_none():
    assert parse_retry_after(None, DATE_SECONDS) is None
    assert X_DIALECT.read(RECORDED).retry_after is None


# --- caches --------------------------------------------------------------------------------

FROM_A_CACHE = [
    {"age": "1"},
    {"age": "86400"},
    {"age": "0.5"},
    {"x-from-cache": "1"},
    {"x-from-cache": "True"},
    {"x-cache": "HIT"},
    {"x-cache": "Hit from cloudfront"},
    {"x-cache": "RefreshHit from cloudfront"},
    {"x-cache": "TCP_MEM_HIT"},
    {"x-cache": "MISS, HIT", "age": "0"},
    {"x-cache": "HIT from proxy.example"},
]


@pytest.mark.parametrize("sign", FROM_A_CACHE, ids=str)
def test_case_13_an_answer_from_a_cache_is_not_observed(sign):
    reading = X_DIALECT.read(RECORDED | sign)
    assert reading == Reading(cached=True)


def test_case_13_a_cached_refusal_still_asks_for_a_delay():
    reading = X_DIALECT.read(RECORDED | {"age": "4", "retry-after": "30"})
    assert reading == Reading(retry_after=30.0, cached=True)


FROM_THE_ORIGIN = [
    {"age": "0"},
    {"age": "-3"},
    {"age": "garbage"},
    {"age": ""},
    {"x-from-cache": "0"},
    {"x-from-cache": "false"},
    {"x-from-cache": "no"},
    {"x-from-cache": ""},
    {"x-cache": "MISS"},
    {"x-cache": "Miss from cloudfront"},
    {"x-cache": "MISS from hitachi.example"},
    {"x-cache": "MISS, MISS"},
    {"x-cache": "Error from cloudfront"},
    {"x-cache": "HITPASS"},
    {"x-cache": "hit-for-miss"},
    {"x-cache": ""},
    {"x-cache": ", ,"},
]


@pytest.mark.parametrize("sign", FROM_THE_ORIGIN, ids=str)
def test_case_13_an_answer_that_passed_a_cache_is_observed(sign):
    assert X_DIALECT.read(RECORDED | sign) == X_DIALECT.read(RECORDED)


# --- whatever comes ------------------------------------------------------------------------

NAMES = [
    *(name for f in X_DIALECT.families for name in (f.limit, f.remaining, f.reset)),
    "date",
    "retry-after",
    "age",
    "x-cache",
    "x-from-cache",
]
NUMBERS = st.one_of(st.integers(), st.floats()).map(str)
NEAR_DATES = st.text(alphabet="SunMondayJan 0123456789:,-+GMTEST()", max_size=70)
VALUES = st.one_of(st.text(max_size=80), NUMBERS, NEAR_DATES, st.sampled_from([*GARBAGE, DATE]))
CASED = st.sampled_from(NAMES).flatmap(lambda name: st.sampled_from([name, name.title()]))
HEADERS = st.dictionaries(st.one_of(CASED, st.text(max_size=20)), VALUES)


def numbers(reading: Reading) -> list[float]:
    """Every number of a reading."""
    found = [reading.retry_after, reading.date]
    for window in reading.windows:
        found += [window.remaining, window.limit, window.reset]
    return [number for number in found if number is not None]


@given(HEADERS)
@example({"date": "Sun, 13 Jan 2013 17:29:54 -99999999"})
@example({"retry-after": "1e308", "date": DATE})
def test_whatever_the_headers_the_reading_is_finite(headers):
    for mapping in (headers, CIMultiDict(headers)):
        reading = X_DIALECT.read(mapping)
        assert all(math.isfinite(number) and number >= 0 for number in numbers(reading))
        assert all(w.limit is None or w.limit > 0 for w in reading.windows)
        assert not (reading.cached and reading.windows)


@given(st.integers(0, 2**40), st.integers(1, 2**40), st.integers(1, 10**11 - 1))
def test_honest_numbers_are_read_as_they_stand(remaining, limit, reset):
    window = only(remaining=str(remaining), limit=str(limit), reset=str(reset))
    assert window == WindowReading(FIFTEEN_MINUTES, remaining, limit, float(reset))


@given(st.datetimes(min_value=datetime.datetime(1970, 1, 1)))
def test_every_second_can_be_said_as_a_date(moment):
    seconds = calendar.timegm(moment.timetuple())
    assert parse_date(email.utils.formatdate(seconds, usegmt=True)) == seconds


# Nearly every answer tells of one window ---------------------------------------------------------

WORDS = st.sampled_from(
    ["0", "15", "-1", "9" * 15, "9" * 16, "1.5", "", " 7", "1_0", "²", "1358098325", "nan", DATE]
)
OTHERS = st.sampled_from(
    ["retry-after", "age", "x-cache", "x-user-limit-24hour-remaining", "x-user-limit-24hour-limit"]
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "date": st.sampled_from([DATE, "garbage"]),
        "x-rate-limit-limit": WORDS,
        "x-rate-limit-remaining": WORDS,
        "x-rate-limit-reset": WORDS,
    },
)


@given(FIELDS, st.dictionaries(OTHERS, WORDS, max_size=1), st.sampled_from([200, 201, 429]))
def test_the_quick_way_reads_what_the_long_one_does(
    fields: dict[str, str], others: dict[str, str], status: int
):
    slow = replace(X_DIALECT)
    object.__setattr__(slow, "_main", None)
    assert X_DIALECT.read(fields | others, status) == slow.read(fields | others, status)


def test_the_quick_way_is_taken_by_plain_answers_only():
    dialect = replace(X_DIALECT)
    assert dialect._read_plainly(RECORDED) == dialect.read(RECORDED)
    for name in ("retry-after", "age", "x-cache", "x-user-limit-24hour-remaining"):
        assert dialect._read_plainly(RECORDED | {name: "1"}) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"limit": "remaining"},
        {"remaining": "", "used": "used"},
        {"by_limit": True},
        {"reset": ""},
    ],
)
def test_families_whose_numbers_share_a_field_or_have_none_are_read_the_long_way(
    changes: dict[str, str],
):
    family = Family(WindowKind("w"), "limit", "remaining", "reset")
    assert Dialect("d", (family,))._main is family
    assert Dialect("d", (replace(family, **changes),))._main is None
    assert Dialect("d", (family,), refusals=frozenset({200}))._main is None


def test_fields_that_are_no_text_are_read_the_long_way():
    garbled = message(RECORDED)
    garbled.replace_header("date", "\udcff")
    assert X_DIALECT.read(garbled).windows == X_DIALECT.read(RECORDED).windows


@pytest.mark.parametrize("status", [200, 201], ids=["quick", "long"])
def test_a_number_of_more_digits_than_a_float_counts_is_none_in_either_way(status: int):
    for said, left in (("9" * 15, [10**15 - 1]), ("9" * 16, []), ("0" * 15 + "1", [1])):
        reading = X_DIALECT.read(RECORDED | {"x-rate-limit-remaining": said}, status)
        assert [window.remaining for window in reading.windows] == left


def titled(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.title(): value for name, value in headers.items()}


@pytest.mark.parametrize(
    "kept_as", [dict, titled, message, Insensitive, CIMultiDict, types.MappingProxyType]
)
@pytest.mark.parametrize("left", ["0", "1", "174"])
def test_the_next_answers_of_a_second_are_read_at_a_glance_in_any_mapping(kept_as: Any, left: str):
    dialect = Dialect("d", (family(FIFTEEN_MINUTES, "x-rate-limit", bucket="x-bucket"),))
    frame = dialect.frame(kept_as(RECORDED | {"x-rate-limit-remaining": left}))
    assert frame is not None
    assert frame.dialect is dialect
    for said, number in (("173", 173), ("9" * 15, 10**15 - 1), ("9" * 16, -1), ("-1", -1)):
        headers = kept_as(RECORDED | {"x-rate-limit-remaining": said})
        assert frame.left(headers) == number
        assert number < 0 or frame.reading(number) == dialect.read(headers, 201)
    for name in ("age", "x-bucket"):
        assert frame.left(kept_as(RECORDED | {name: "9"})) == -1
    for name in ("date", "x-rate-limit-limit", "x-rate-limit-remaining", "x-rate-limit-reset"):
        fewer = {other: said for other, said in RECORDED.items() if other != name}
        assert len(fewer) == len(RECORDED) - 1
        assert frame.left(kept_as(fewer)) == -1


class Getting:
    """Headers that can be asked for one by one, and gone through, and no more."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = CIMultiDict(headers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._headers)

    def __contains__(self, name: str) -> bool:
        return name in self._headers

    def get(self, name: str) -> str | None:
        return self._headers.get(name)

    def items(self) -> Iterable[tuple[str, str]]:
        return self._headers.items()


class Numbered(Getting):
    """Headers of which one that is missing is out of range."""

    def __getitem__(self, name: str) -> str:
        if name not in self:
            raise IndexError(name)
        return self._headers[name]


def test_headers_that_can_be_asked_by_get_only_are_read_as_any_others():
    assert X_DIALECT.frame(Getting(RECORDED)) is None  # type: ignore[arg-type]
    frame = X_DIALECT.frame(RECORDED)
    assert frame is not None
    assert frame.left(Getting(RECORDED)) == -1  # type: ignore[arg-type]


def test_an_answer_without_a_field_is_no_such_answer_whatever_its_headers_raise():
    frame = X_DIALECT.frame(Numbered(RECORDED))  # type: ignore[arg-type]
    assert frame is not None
    assert frame.left(Numbered(RECORDED)) == 175  # type: ignore[arg-type]
    fewer = RECORDED.copy()
    del fewer["x-rate-limit-reset"]
    assert frame.left(Numbered(fewer)) == -1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes", [{"date": "soon"}, {"age": "9"}, {"x-rate-limit-remaining": "many"}], ids=str
)
def test_an_answer_that_is_not_plain_or_tells_no_time_is_no_pattern(changes: dict[str, str]):
    assert X_DIALECT.frame(RECORDED | changes) is None
    assert Dialect("d").frame(RECORDED) is None


KIND = WindowKind("k", length=60.0)
ALL = Family(KIND, "l", "r", "e", used="u", bucket="b", by_limit=False)
BY_USE = Family(KIND, "l", "", "e", used="u")
PAIR = Family(KIND, "r", "r", "e")


@pytest.mark.parametrize(
    ("place", "fields", "told"),
    [
        (ALL, {"l": "9", "r": "4", "b": "name"}, (4, 9, "name")),
        (ALL, {"r": "4", "u": "3"}, (4, 7, "")),
        (ALL, {"r": "4", "u": "0"}, (4, 4, "")),
        (ALL, {"r": "4", "u": "-1"}, (4, None, "")),
        (ALL, {"r": "4", "u": "many"}, (4, None, "")),
        (ALL, {"l": "9", "r": "4", "u": "3"}, (4, 9, "")),
        (ALL, {"l": "1", "r": "1"}, (1, 1, "")),
        (ALL, {"l": "0", "r": "0"}, (0, None, "")),
        (ALL, {"l": "9", "r": "-2"}, (0, 9, "")),
        (ALL, {"l": "-1", "r": "-1"}, None),
        (ALL, {"l": "9", "r": "0"}, (0, 9, "")),
        (ALL, {"l": "-1", "r": "0"}, (0, None, "")),
        (BY_USE, {"l": "9", "u": "4", "b": "name"}, (5, 9, "")),
        (BY_USE, {"l": "9", "u": "12"}, (0, 9, "")),
        (BY_USE, {"l": "0", "u": "0"}, (0, None, "")),
        (BY_USE, {"l": "-1", "u": "4"}, None),
        (BY_USE, {"u": "4"}, None),
        (PAIR, {"r": "4/9"}, (4, 9, "")),
        (PAIR, {"r": "4"}, (4, None, "")),
        (PAIR, {"r": "4/9/x"}, (4, None, "")),
    ],
)
def test_what_a_place_says_of_what_is_left(
    place: Family, fields: dict[str, str], told: tuple[int, int | None, str] | None
):
    read = list(place.read(fields))
    assert [(each.remaining, each.limit, each.bucket) for each in read] == ([told] if told else [])
    assert all(each.kind is KIND for each in read)


def test_windows_of_several_limits_are_told_apart_by_them():
    place = Family(KIND, "l", "r", "e", by_limit=True)
    (told,) = place.read({"l": "9", "r": "4"})
    assert told.kind == limited(KIND, 9) == replace(KIND, name="k of 9", turns="k")
    (told,) = place.read({"r": "4"})
    assert told.kind is KIND


def test_a_window_of_an_app_or_an_identity_has_lengths_that_end():
    assert WindowKind("k", "app").scope == "app"
    for scope, length, ceiling in (
        ("all", 1.0, 1.0),
        ("app", math.inf, 1.0),
        ("app", 1.0, math.inf),
    ):
        with pytest.raises(ValueError, match=r"scope is|length and ceiling are"):
            WindowKind("k", scope, length, ceiling)


def test_a_refusal_that_says_no_time_holds_every_route_for_a_while():
    pausing = Dialect("d", (ALL,), pause=0.5)
    told = pausing.read({"r": "4", "date": DATE}, 429)
    assert (told.refused, told.everywhere, told.pause, told.date) == (True, True, 0.5, DATE_SECONDS)
    told = Dialect("d", (ALL,)).read({"r": "4"}, 429)
    assert (told.refused, told.everywhere, told.pause) == (True, False, 0.0)
    assert X_DIALECT.read({"age": "9", "date": DATE}, 429)[3:5] == (True, True)


def test_a_wait_of_no_time_in_a_field_of_its_own_is_one():
    waits = Dialect("d", (ALL,), retry_after=(("x-wait", 2.0),))
    for said, delay in (("0", 0.0), ("1", 2.0), ("-1", None)):
        assert waits.read({"x-wait": said}, 429).retry_after == delay


def test_words_refuse_where_the_status_may_mean_so():
    words = Dialect(
        "d", (ALL,), refusals_if_told=frozenset({403}), refusal_words=("too many",), pause=0.5
    )
    assert [words.refuses_by_words(status) for status in (403, 200)] == [True, False]
    assert not Dialect("d", (ALL,), refusals_if_told=frozenset({403})).refuses_by_words(403)
    told = words.with_body(Reading(), 403, "Too MANY calls")
    assert told == Reading(refused=True, everywhere=True, pause=0.5)
    told = replace(words, pause=0.0).with_body(Reading(), 403, "too many")
    assert told == Reading(refused=True)
    assert words.with_body(Reading(), 403, "forbidden") == Reading()


def test_fields_of_one_prefix_are_a_place():
    assert family(KIND, "x") == Family(KIND, "x-limit", "x-remaining", "x-reset")
    told = {"bucket": "b", "hides": ("h",), "by_limit": True}
    place = family(KIND, "x", "delta", **told)  # type: ignore[arg-type]
    assert place == Family(KIND, "x-limit", "x-remaining", "x-reset", "delta", **told)  # type: ignore[arg-type]


def test_a_source_without_a_sign_is_read_in_any_case():
    class Unsigned:
        def read(self, fields: Mapping[str, str]) -> tuple[WindowReading, ...]:
            return (WindowReading(KIND, len(fields), None, None),)

    assert Dialect("d", (ALL, Unsigned())).read({"r": "4"}).windows[1].remaining == 1
    plain = family(KIND, "x")
    said = {"X-Limit": "9", "X-Remaining": "4", "X-Reset": "60"}
    assert Dialect("d", (plain, Unsigned())).read(said).windows[1].remaining == 3


def test_a_field_that_a_place_has_not_is_none_even_where_one_has_no_name():
    said = {"l": "9", "r": "4", "e": "60", "": "60"}
    (told,) = Family(KIND, "l", "r").read(said)
    assert (told.reset, told.bucket) == (None, "")
    (told,) = Dialect("d", (Family(KIND, "l", "r", "e"),)).read(said).windows
    assert (told.reset, told.bucket) == (60.0, "")


def test_nothing_is_found_where_there_is_nothing():
    assert X_DIALECT.read(email.message.Message()) == Reading()  # type: ignore[arg-type]
