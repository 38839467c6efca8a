"""Parsers and the rule, whatever a server or a caller hands them: see `tests.fuzz.targets`.

Here the kept corpus is replayed, hypothesis makes inputs of its own, and time is compared with
size. `make fuzz` lets atheris search for longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiotwhelp import (
    alarm,
    answers,
    apis,
    auth,
    clock,
    headers,
    quota,
    routes,
    values,
    windows,
)
from aiotwhelp.headers import X_DIALECT
from aiotwhelp.windows import INF, Probing, Window
from tests.fuzz.targets import TARGETS
from tests.test_headers import NAMES

CORPUS = Path(__file__).parent / "fuzz" / "corpus"

some = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
few = settings(some, max_examples=40)
many = settings(some, max_examples=300)


# The kept corpus ---------------------------------------------------------------------------------


def replay(target: str) -> None:
    for path in sorted((CORPUS / target).iterdir()):
        try:
            TARGETS[target](path.read_bytes())
        except Exception as error:
            error.add_note(f"input: {path.relative_to(CORPUS)}")
            raise


@pytest.mark.parametrize("target", TARGETS)
def test_no_kept_input_breaks_a_promise(target: str):
    replay(target)


def test_each_target_has_a_few_dozen_small_kept_inputs():
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    for target in TARGETS:
        sizes = [path.stat().st_size for path in (CORPUS / target).iterdir()]
        assert 12 <= len(sizes) <= 120, target
        assert max(sizes) < 10_000, target


def shadow(module: Any, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Let a module's ``except`` clauses no longer catch what has this name."""
    return lambda patch: patch.setattr(module, name, ZeroDivisionError, raising=False)


def change(owner: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(owner, name, value)


def keep_wrong_dates(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(clock, "_STEPPED", 10**9)
    patch.setattr(clock, "_LEAST_TRUST", 0.0)


def let_the_last_line_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(headers, "caseless", lambda read: {n.lower(): v for n, v in read.items()})


def obey_any_retry_after(patch: pytest.MonkeyPatch) -> None:
    def keep_shut(window: Window, now: float, delay: float) -> None:
        window.shut = max(window.shut, now + delay)

    patch.setattr(Window, "keep_shut", keep_shut)


def believe_any_reset(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Window, "_is_usable", lambda window, told, now: True)
    patch.setattr(Window, "_set_end", lambda window: setattr(window, "ends", end(window)))


def end(window: Window) -> float:
    return INF if window.reset is None else window.clock.local(window.reset)


def widen_the_pace_without_end(patch: pytest.MonkeyPatch) -> None:
    least = property(lambda pace: 1.1 * pace._refused[0][1] if pace._refused else 0.0)
    patch.setattr(quota.Pace, "least", least)


def never_probe_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Probing, "opens", lambda probing, now, trip: INF if probing.turn else -INF)


def hesitate_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Probing, "opens", lambda probing, now, trip: now + 0.5)


SABOTAGED: list[tuple[str, str, Callable[[pytest.MonkeyPatch], None]]] = [
    ("headers", "numbers that are not finite", change(values, "isfinite", lambda number: True)),
    ("headers", "counts that are none", change(values, "_NO_COUNT", 2.0**80)),
    ("headers", "the last line counts", let_the_last_line_count),
    ("headers", "milliseconds", change(values, "_MILLISECONDS", 1e15)),
    ("dates", "values of any length", change(values, "_LONGEST", 10**9)),
    ("dates", "zones of years", change(values, "_DAY", 10**60)),
    ("dates", "days that do not exist", shadow(values, "ValueError")),
    ("clocks", "a wrong Date stays", keep_wrong_dates),
    ("bodies", "nesting", shadow(answers, "RecursionError")),
    ("bodies", "texts as they are", change(answers, "one_line", lambda text: text)),
    ("bodies", "codes of any length", change(answers, "_NO_CODE", 10**5000)),
    ("tokens", "nesting", shadow(auth, "RecursionError")),
    ("tokens", "lifetimes of any length", shadow(auth, "OverflowError")),
    ("tokens", "any token", change(auth, "_is_token", lambda value: True)),
    ("tokens", "any number of codes", change(auth, "_MOST_CODES", 10**9)),
    ("paths", "any segment", change(routes, "_LONGEST_SEGMENT", 10**9)),
    ("paths", "any number of segments", change(routes, "_MOST_SEGMENTS", 10**9)),
    ("paths", "values as they are", change(routes, "quote", lambda text, safe: text)),
    ("urls", "what yarl raises", change(apis, "_parsed", apis.URL)),
    ("urls", "any host", change(apis, "_origin", lambda url: "https://api.x.com:443")),
    ("urls", "a user in a URL", change(apis, "_shown", repr)),
    ("rule", "any Retry-After", obey_any_retry_after),
    ("rule", "any reset", believe_any_reset),
    ("rule", "any pace", widen_the_pace_without_end),
    ("rule", "any back-off", change(windows, "_backoff", lambda times: 2.0**times)),
    ("rule", "no second probe", never_probe_again),
    ("rule", "asking in vain", hesitate_for_ever),
    ("limiter", "any Retry-After", obey_any_retry_after),
    ("limiter", "a nervous timer", change(alarm, "_LONGEST_TIMER", 1.0)),
    ("limiter", "no timer", change(alarm.Alarm, "_arm", lambda *_: None)),
]


def forget_values() -> None:
    """Forget what was read before: it would be right."""
    values._http_date.cache_clear()
    values._read_epoch.cache_clear()
    headers._frame.cache_clear()


@pytest.mark.parametrize(
    ("target", "sabotage"),
    [(target, sabotage) for target, _, sabotage in SABOTAGED],
    ids=[f"{target}: {what}" for target, what, _ in SABOTAGED],
)
@pytest.mark.filterwarnings("ignore")
def test_the_kept_corpus_catches(
    target: str,
    sabotage: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
):
    forget_values()
    with monkeypatch.context() as patch:
        sabotage(patch)
        with pytest.raises(Exception):  # noqa: B017, PT011 - however it fails, it fails
            replay(target)
    forget_values()


# Inputs of hypothesis ----------------------------------------------------------------------------

ODD_NUMBERS = [
    *("-0", "-1", "+1", ".5", "1e400", "-1e400", "1e-400", "1e308", "nan", "-inf", "inf", "0x10"),
    *("9" * 20, "9" * 400, "9" * 4400, "1_0", "1,2", "٣", "１４", "²", "½", "18446744073709551615"),
    "1562287945706",
]
ODD = [
    *(
        "",
        " ",
        " " * 64,
        "\t",
        "-",
        "\x00",
        "\x1b[2J",
        "\u2028",
        "\u202e",
        "\ufeff",
        "\ud800",
        "\udcff",
    ),
    *("é", "😀", "ſ", "İ", "%", "%00", "%2e%2e", "%ud800", "..", "/", "//", "\\", "@", "[", "]"),
    *("{", "}", "?", "#", '"', "'", "(", ")", ",", ";", ":", "=", "|", "now", "now-1e9"),
]
odd = st.one_of(st.sampled_from(ODD), st.sampled_from(ODD_NUMBERS), st.text(max_size=4))
numbers = st.one_of(st.integers(0, 2**64), st.integers(), st.floats()).map(str)
odd_numbers = st.one_of(st.sampled_from(ODD_NUMBERS), numbers)


def utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def lines(*texts: str) -> bytes:
    return utf8("\n".join(texts))


def mostly(usual: str, *others: str) -> st.SearchStrategy[str]:
    return st.one_of(st.just(usual), st.just(usual), st.just(usual), st.sampled_from(others))


@st.composite
def mutated(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """A text with up to three edits: a part is left out, said twice, or something odd put in."""
    text = draw(texts)
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.integers(0, 6)))
        between = draw(st.one_of(odd, st.just(text[start:stop] * 2)))
        text = text[:start] + between + text[stop:]
    return text


days = mostly("Sun, ", "Sunday, ", "Sun ", "", "Mon,")
dates = mostly("13", "0", "1", "29", "31", "32")
months = mostly("Jan", "Feb", "Dec", "jan", "Foo", "1")
years = mostly(
    "2013", *("0", "00", "13", "68", "69", "99", "1969", "1970", "9999", "10000", "-1"), "9" * 30
)
times = mostly(
    "17:29:54",
    *("00:00:00", "23:59:60", "23:59:61", "24:00:00", "08:49", "8.49.37", "1:2:3:4"),
)
zones = mostly(
    "GMT",
    *("UTC", "EST", "+0000", "-0000", "+2359", "+9999", "-9999", "+99999999", "+", "-", ""),
    *("-" + "9" * 30, "+" + "9" * 30),
)
date_texts = st.one_of(
    st.builds("{}{} {} {} {} {}".format, days, dates, months, years, times, zones),
    st.builds("{}{}-{}-{} {} {}".format, days, dates, months, years, times, zones),
    st.builds("{}{} {:2} {} {}".format, days, months, dates, times, years),
)
real_values = st.sampled_from(["175", "1358098325", "2.5", "120", "HIT", "MISS, HIT", "true"])
header_lines = st.builds(
    "{}: {}".format,
    st.sampled_from([*NAMES, *map(str.title, NAMES), "", "1"]),
    st.one_of(mutated(real_values), mutated(date_texts), odd_numbers, odd),
)


@some
@given(st.lists(header_lines, max_size=20))
def test_whatever_the_header_lines(texts: list[str]):
    TARGETS["headers"](lines(*texts))


@many
@given(st.one_of(date_texts, mutated(date_texts), odd_numbers))
def test_whatever_the_date(text: str):
    TARGETS["dates"](utf8(text))


@st.composite
def told_times(draw: st.DrawFn) -> str:
    """Answers with their Dates: right, off by a few seconds, or by anything."""
    now, texts = 0.0, []
    for _ in range(draw(st.integers(1, 8))):
        gap, trip = draw(st.sampled_from([0.0, 0.3, 1.0, 1.37, 900.0, 1e5])), draw(st.floats(0, 2))
        now += gap
        off = draw(st.one_of(st.integers(-3, 3), st.integers(-2_000_000_000, 10**12)))
        texts.append(f"{gap} {trip} {max(0, int(1.7e9 + now + off))}")
        now += trip
    return "\n".join(texts)


@some
@given(told_times())
def test_whatever_the_dates_of_answers_the_clock_is_right_again(text: str):
    TARGETS["clocks"](utf8(text))


ATOMS = [
    *("null", "true", "NaN", "Infinity", "-Infinity", "-0", "0", "88", "-1", "1e400", "1E-400"),
    *(
        "9" * 300,
        "9" * 4300,
        "9" * 4301,
        "0" * 9,
        '""',
        '"a"',
        '"bearer"',
        '"invalid_grant"',
        '"\\ud800"',
    ),
    *('"\\udc00\\ud800"', '"\\u0000"', '"\\u12"', '"\\x"', '"a\\r\\nb"', '"\x00"', '"\ud800"'),
    *('"about:blank"', '"https://x/2/problems/usage-capped"', '"' + "é" * 600 + '"', "'a'", ""),
]
atoms = st.sampled_from(ATOMS)
keys = st.sampled_from(
    [
        *("errors", "error", "code", "message", "type", "title", "detail", "connection_issue"),
        *("token_type", "access_token", "refresh_token", "expires_in", "", "\\ud800", "errors"),
    ]
)


def a_list(items: list[str]) -> str:
    return f"[{','.join(items)}]"


def an_object(pairs: list[tuple[str, str]]) -> str:
    """Not by way of a dict: a key may come twice."""
    return "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}"


json_texts = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(a_list),
        st.lists(st.tuples(keys, inner), max_size=6).map(an_object),
    ),
    max_leaves=12,
)
codes = st.sampled_from(["88", "88", "9" * 300, "9" * 4300, "-1", "true", "8.8e1", "null"])
lifetimes = st.sampled_from(["7200", "7200", '"7200"', "9" * 400, "1e400", "NaN", "-1", "1e-300"])
errors = st.builds(
    '{{"errors":[{}]}}'.format,
    st.lists(
        st.builds('{{"code":{},"message":{}}}'.format, codes, atoms), min_size=1, max_size=20
    ).map(",".join),
)


@st.composite
def json_bodies(draw: st.DrawFn) -> str:
    """JSON as text: whole, cut, nested without end, or edited."""
    objects = st.lists(st.tuples(keys, json_texts)).map(an_object)
    text = draw(st.one_of(json_texts, objects, errors))
    deep = draw(st.sampled_from([0, 0, 0, 10, 900, 1000, 5000]))
    opening, closing = draw(st.sampled_from([("[", "]"), ('{"errors":', "}"), ('{"a":[', "]}")]))
    text = opening * deep + text + closing * deep
    return draw(st.one_of(st.just(text), st.just(text[: len(text) // 2]), mutated(st.just(text))))


@some
@given(json_bodies(), st.sampled_from(["utf-8", "utf-8", "utf-16", "utf-32", "utf-16-le"]))
def test_whatever_the_body(text: str, encoding: str):
    TARGETS["bodies"](text.encode(encoding, "surrogatepass"))


token_fields = st.builds(
    '{{"token_type":{},"access_token":{},"refresh_token":{},"expires_in":{},{}'.format,
    mostly('"bearer"', '"Bearer"', '"mac"', *ATOMS),
    mostly('"fine"', '"a\\nb"', '"a b"', *ATOMS),
    mostly('"fine"', '"a\\nb"', '"a b"', *ATOMS),
    st.one_of(lifetimes, odd_numbers, json_texts),
    st.one_of(st.just('"":0}'), st.lists(st.tuples(keys, json_texts)).map(an_object)),
)


@some
@given(
    mostly("200", "201", "302", "400", "401", "403", "429", "503", "999"),
    st.one_of(token_fields, json_bodies()),
)
def test_whatever_a_token_endpoint_answers(status: str, body: str):
    TARGETS["tokens"](lines(status, body))


segments = mostly("users", "2", "{id}", "{a}", "12", "x.json", ".json", "{rest}", *ODD)
real_paths = st.builds(
    lambda parts, times: ("/" + "/".join(parts)) * times,
    st.lists(segments, min_size=1, max_size=12),
    st.sampled_from([1, 1, 1, 1, 100]),
)
parameters = st.builds("{}={}".format, st.sampled_from(["id", "id", "a", "", "rest"]), odd)


@some
@given(st.one_of(real_paths, mutated(real_paths)), st.lists(parameters, max_size=3))
def test_whatever_the_path_and_its_parameters(path: str, texts: list[str]):
    TARGETS["paths"](lines(path, *texts))


@some
@given(odd)
def test_whatever_the_value_of_a_placeholder(value: str):
    TARGETS["paths"](lines("/2/users/{id}/tweets", f"id={value}"))


schemes = mostly("https://", "http://", "HTTPS://", "wss://", "//", "", "https:", "https:///")
users = mostly("", "@", "user@", "user:secret@", ":@", "a@b@")
hosts = mostly(
    "api.x.com",
    *("API.X.COM.", "api.twitter.com", "localhost", "127.0.0.1", "[::1]", "[::1", "[]", "[::1]@"),
    *("[::ffff:7f00:1]", "[v1.a]", "2130706433", "evil.example", "xn--", "xn--a", "bücher.example"),
    *("а" * 70, "a." * 200, "", "."),
)
ports = mostly("", ":", ":443", ":0", ":99999", ":-1", ":٤٤٣", ":4 43")
real_urls = st.builds("{}{}{}{}{}".format, schemes, users, hosts, ports, real_paths)


@some
@given(st.one_of(real_urls, mutated(real_urls), mutated(real_paths)))
def test_whatever_the_url(text: str):
    TARGETS["urls"](utf8(text))


limits = mostly("15", "1", "900", "9007199254740991", *ODD_NUMBERS)
remainders = st.one_of(mostly("0", *ODD_NUMBERS), st.sampled_from(["1", "2", "14", "900"]))
instants = st.one_of(
    st.sampled_from(["now+0.001", "now+5", "now+900", "now+86400", "now+1e9", "now-900", "now"]),
    odd_numbers,
)
delays = st.sampled_from(["0.5", "1", "60", "961", "1e308", "-0", "Fri, 31 Dec 9999 23:59:59 GMT"])


def families(*kinds: str) -> st.SearchStrategy[str]:
    form = "{0}-limit: {1} | {0}-remaining: {2} | {0}-reset: {3}".format
    return st.builds(form, st.sampled_from(kinds), limits, remainders, instants)


other_fields = st.one_of(
    st.builds("retry-after: {}".format, delays),
    st.builds("date: {}".format, mostly("now", "now-900", "now+1e9", "now-1e9", *ODD_NUMBERS)),
    st.builds("date: {}".format, date_texts),
    st.just("age: 3"),
)
gaps = st.sampled_from(["0", "0", "0.05", "0.3", "1", "5", "61", "300", "900", "961", "86400"])
statuses = st.sampled_from(["200", "200", "200", "429", "429", "429", "420", "503", "404", "401"])
silent = st.sampled_from(["lost", "unsent", "unsent failed", "200", "429"])
asks = st.builds("{} ask {}".format, gaps, mostly("", "user=1", "even", "reserve", "cost=2"))


def settled(families: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    said = st.builds("{} | {}".format, families, st.lists(other_fields, max_size=2).map(" | ".join))
    return st.one_of(
        st.builds("{} {} | {}".format, gaps, statuses, said),
        st.builds("{} {} | {}".format, gaps, statuses, said),
        st.builds("{} {} | {}".format, gaps, statuses, other_fields),
        st.builds("{} {}".format, gaps, silent),
    )


def repeated(events: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """The same event up to twenty times: servers are stubborn."""
    return st.builds(lambda text, times: "\n".join([text] * times), events, st.integers(1, 20))


quarters = settled(families("x-rate-limit"))
all_kinds = settled(families("x-rate-limit", "x-app-limit-24hour", "x-user-limit-24hour"))
exchanges = st.builds("{}\n{}".format, asks, st.one_of(quarters, all_kinds))


@some
@given(st.lists(st.one_of(exchanges, repeated(exchanges), asks, all_kinds), max_size=20))
def test_whatever_is_answered_nobody_waits_beyond_the_ceiling_and_few_asks_are_in_vain(
    events: list[str],
):
    TARGETS["rule"](lines(*events))


# Without windows of a day, for which the timer looks 3000 times.
@few
@given(st.lists(quarters, min_size=1, max_size=8))
def test_whatever_is_answered_the_loop_wakes_a_few_times_for_each_grant(events: list[str]):
    TARGETS["limiter"](lines(*events))


@pytest.mark.parametrize("piece", ["9", "(", ",", "Sun, ", "\x00", "é", "[", '{"a":', "%41", "|"])
def test_a_megabyte_breaks_no_promise(piece: str):
    huge = piece * (2**20 // len(piece))
    TARGETS["headers"](lines(*(f"{name}: {huge}" for name in NAMES)))
    TARGETS["bodies"](utf8(huge))
    TARGETS["tokens"](lines("200", huge))
    TARGETS["paths"](lines("/{id}/" + huge, f"id={huge}"))
    TARGETS["urls"](utf8("https://api.x.com/" + huge))
    TARGETS["dates"](utf8(huge))


# Time --------------------------------------------------------------------------------------------

SMALL, TIMES = 16_000, 8

PIECES = [
    *(
        "9",
        "0.",
        "(",
        ",",
        ":",
        "-",
        " ",
        ".",
        "/",
        "/.",
        "/a",
        "//",
        "?",
        "#",
        "%",
        "%41",
        "@",
        "\\",
    ),
    *(
        "{",
        "}",
        "{a}",
        "[",
        "]",
        '{"a":',
        '"a":1,',
        '["',
        '"',
        '"\\',
        "\\ud800",
        "é",
        "\x00",
        "HIT,",
    ),
]


def a_token(text: str) -> None:
    # A longer answer is not looked into.
    TARGETS["tokens"](utf8(f'200\n{{"access_token":"{text[: len(text) // 4]}'))


PARSERS: dict[str, Callable[[str], object]] = {
    "a header": lambda text: X_DIALECT.read(dict.fromkeys(NAMES, text)),
    "an error's body": lambda text: answers.parse_error(utf8(text)),
    "a message in an error": lambda text: answers.parse_error(utf8(f'{{"error":"{text}"}}')),
    "a list of errors": lambda text: answers.parse_error(utf8(f'{{"errors":[{text}')),
    "a body": lambda text: answers.decode(utf8(text)),
    "a string in a body": lambda text: answers.decode(utf8(f'"{text}"')),
    "a number in a body": lambda text: answers.decode(utf8(f"0.{text}e9")),
    "a token": a_token,
    "a path": routes.generic_template,
    "a path of the catalogue": lambda text: apis.X.template("GET", f"/2/users/{text}"),
    "a value in a path": lambda text: routes.expand("/{id}", {"id": text}),
    "a template": lambda text: routes.expand(text, {"a": "b"}),
    "a URL": lambda text: apis.X.url(f"https://api.x.com/{text}"),
    "a URL that may be ours": lambda text: apis.X.is_own(f"https://api.x.com/{text}"),
    "a URL of the catalogue": lambda text: apis.X.quota_name("GET", f"https://api.x.com/{text}"),
    "an address": lambda text: apis.api_at(f"https://api.x.com/{text}"),
}


def many_headers(count: int) -> None:
    X_DIALECT.read({f"x-{number}": "9" for number in range(count)})


def many_placeholders(count: int) -> None:
    names = [f"n{number}" for number in range(count)]
    routes.expand("".join(f"/{{{name}}}" for name in names), dict.fromkeys(names, "9"))


def many_errors(count: int) -> None:
    answers.parse_error(b'{"errors":[' + b",".join([b'{"code":88}'] * count) + b"]}")


def many_dates(count: int) -> None:
    seen = clock.ServerClock()
    for number in range(count):
        seen.observe(number * 7919.0 % 100_000, number, number + 0.1)


def seconds(work: Callable[[Any], object], size: Any) -> float:
    """The least that it took in a few runs: others work on this machine, too."""
    took = []
    for _ in range(3):
        began = time.process_time()
        with suppress(ValueError, RecursionError):
            work(size)
        took.append(time.process_time() - began)
    return min(took)


@pytest.mark.parametrize("parser", PARSERS)
def test_time_grows_as_the_input_does_and_not_as_its_square(parser: str):
    for piece in PIECES:
        text = piece * (TIMES * SMALL // len(piece))
        small = max(seconds(PARSERS[parser], text[:SMALL]), 0.0005)
        # Eight times the input: 8 times the time if linear, 64 times if quadratic.
        assert seconds(PARSERS[parser], text) < 3 * TIMES * small, piece


@pytest.mark.parametrize("work", [many_headers, many_placeholders, many_errors, many_dates])
def test_time_grows_as_the_number_of_things_does(work: Callable[[int], None]):
    small = max(seconds(work, 1000), 0.0005)
    assert seconds(work, TIMES * 1000) < 3 * TIMES * small
