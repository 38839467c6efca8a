"""Values of header fields, each alone: what is read, what is not, and where one becomes another."""

from __future__ import annotations

import time

import pytest

from aiotwhelp.values import NEVER, RESETS, Reset, count, duration, number, timestamp

#: As JavaScript writes a date, before the name of its zone.
JAVASCRIPT = "Tue Feb 16 2021 16:47:42 GMT+0845"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2023-08-17T08:42:22Z", 1692261742.0),
        ("2023-08-17T09:42:22.5+01:00", 1692261742.5),
        (" 2023-08-17 08:42:22 ", 1692261742.0),
        ("1970-01-01T00:00:00Z", 0.0),
        ("1970-01-01T00:00:00.5Z", 0.5),
        ("1969-12-31T23:59:59Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("2023-13-17T08:42:22Z", None),
        ("Thu, 17 Aug 2023 08:42:22 GMT", 1692261742.0),
        ("Thu Aug 17 2023 10:42:22 GMT+0200 (Central European Summer Time)", 1692261742.0),
        (f"{JAVASCRIPT} (Australian Central Western Standard Time)", 1613462562.0),
        ("Thu Aug 17 2023 01:42:22 GMT-0700 (Pacific Daylight Saving Time)", 1692261742.0),
        ("1692261742", None),
        ("", None),
        (None, None),
    ],
)
def test_a_time_is_read_as_people_and_programs_write_it(value: object, seconds: float | None):
    assert timestamp(value) == seconds


def test_the_longest_time_that_is_looked_at_has_80_characters():
    assert timestamp("2023-08-17T08:42:22Z".ljust(80)) == 1692261742.0
    assert timestamp("2023-08-17T08:42:22Z".ljust(81)) is None


def test_a_time_without_a_zone_does_not_depend_on_where_we_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        assert timestamp("2023-08-17T08:42:22") == 1692261742.0
        assert timestamp("2023-08-17T09:42:22+01:00") == 1692261742.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("6m0s", 360.0),
        ("6m", 360.0),
        ("1h", 3600.0),
        ("1h2m3.5s", 3723.5),
        ("12ms", 0.012),
        ("7us", 7e-6),
        ("7µs", 7e-6),
        ("7ns", 7e-9),
        ("42", 42.0),
        ("-1", -1.0),
        ("", None),
        ("s", None),
        ("3s2m", None),
        ("3 s", None),
        ("9999999h", None),
        ("1s" * 1000, None),
        (None, None),
        (b"6m0s", None),
    ],
)
def test_a_length_of_time_is_read_as_go_writes_it(value: object, seconds: float | None):
    assert duration(value) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("resets", "value", "reset"),
    [
        ("epoch", "1358098325", (1358098325.0, None)),
        ("epoch", "0", NEVER),
        ("epoch", "1", (1.0, None)),
        ("epoch", "99999999999", (99999999999.0, None)),
        ("epoch", "100000000000", NEVER),
        ("epoch", "1358098325".zfill(64), (1358098325.0, None)),
        ("epoch", "1358098325".zfill(65), NEVER),
        ("milliseconds", "1358098325500", (1358098325.5, None)),
        ("milliseconds", "1", (0.001, None)),
        ("milliseconds", "0", NEVER),
        ("milliseconds", "-1", NEVER),
        ("milliseconds", "soon", NEVER),
        ("delta", "42.5", (None, 42.5)),
        ("delta", "0", (None, 0.0)),
        ("delta", "-1", NEVER),
        ("delta", "soon", NEVER),
        ("delta-milliseconds", "42500", (None, 42.5)),
        ("delta-milliseconds", "0", (None, 0.0)),
        ("delta-milliseconds", "-1", NEVER),
        ("delta-milliseconds", "soon", NEVER),
        ("duration", "6m0s", (None, 360.0)),
        ("duration", "0s", (None, 0.0)),
        ("duration", "-1", NEVER),
        ("duration", "soon", NEVER),
        ("timestamp", "2023-08-17T08:42:22Z", (1692261742.0, None)),
        ("timestamp", "1692261742", (1692261742.0, None)),
        ("timestamp", "soon", NEVER),
        ("any", "2023-08-17T08:42:22Z", (1692261742.0, None)),
        ("any", "6m0s", (None, 360.0)),
        ("any", "soon", NEVER),
        # What is neither: the doubt begins and ends at these.
        ("any", "-0.5", NEVER),
        ("any", "0", (None, 0.0)),
        ("any", "0.5", (None, 0.5)),
        ("any", "99999999", (None, 99999999.0)),
        ("any", "100000000", NEVER),
        ("any", "999999999", NEVER),
        ("any", "1000000000", (1000000000.0, None)),
        ("any", "99999999999", (99999999999.0, None)),
        ("any", "100000000000", (100000000.0, None)),
    ],
)
def test_a_reset_is_read_as_it_is_written(resets: str, value: str, reset: Reset):
    assert RESETS[resets](value) == reset
    assert RESETS[resets](None) == NEVER


def test_numbers_are_plain():
    assert [number(each) for each in ("14", "1e2", "-0.5")] == [14.0, 100.0, -0.5]
    assert [number(each) for each in ("1_0", "١", "nan", "inf", "", None, 14)] == [None] * 7
    assert [count(each) for each in ("14", "14.9", str(2**53), "x", None)] == [14, 14, *[None] * 3]
