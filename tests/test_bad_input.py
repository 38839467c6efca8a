"""Arguments that make no sense: each is refused where it is passed, and says what to do."""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from functools import partial
from http.client import HTTPMessage
from typing import Any

import aiohttp
import pytest

from aiotwhelp import (
    Api,
    ApiError,
    AuthError,
    Bearer,
    ClientCredentials,
    Concurrency,
    Dialect,
    Family,
    Limiter,
    MemoryLedger,
    MemoryStore,
    OAuth2User,
    Priority,
    Rate,
    RateLimitMiddleware,
    Session,
    SQLiteLedger,
    Token,
    WindowKind,
    X,
    checks,
    testing,
)
from aiotwhelp.costs import as_cost
from aiotwhelp.emulator import Emulator
from tests.stack import PRIVACY, assert_at_rest, in_virtual_time, session_of

AT = "http://localhost"
NAN = float("nan")
RATE = Rate(1, per=1)
LIMITED = RateLimitMiddleware(Limiter(), {X: None})
KIND = WindowKind("minute")
FAMILY = Family(KIND, remaining="left")


def refused(kind: type[Exception], words: str, call: Callable[[], object]) -> None:
    """The error is of that kind, and begins with those words."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value).startswith(words), str(caught.value)


# What a session is made of ---------------------------------------------------------------------


#: Options that a session has for all calls, and a call for itself.
OF_A_REQUEST = [
    ({"timeout": "x"}, TypeError, "timeout is an aiohttp.ClientTimeout, or seconds for each "),
    ({"timeout": True}, TypeError, "timeout is an aiohttp.ClientTimeout, or seconds for each"),
    ({"timeout": -1}, ValueError, "timeout is a number of seconds from 0 on, or None, not -1"),
    ({"headers": 5}, TypeError, "headers is a mapping, or a list of pairs, not an int"),
    ({"headers": "a: b"}, TypeError, "headers is a mapping, or a list of pairs, not a str"),
    ({"headers": ["a"]}, TypeError, "each of headers is a pair of a name and a value"),
    ({"cookies": 5}, TypeError, "cookies is a mapping, or a list of pairs, not an int"),
    ({"raise_for_status": 5}, TypeError, "raise_for_status is True, False, or an async funct"),
]


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"auth": "s3cret"}, TypeError, "auth is a credential such as Bearer(token), or None, not"),
        ({"auth": Bearer}, TypeError, "auth is a credential such as Bearer(token), or None, not t"),
        ({"limiter": 5}, TypeError, "limiter is a Limiter, or None for one of its own, not an int"),
        ({"limiter": Limiter}, TypeError, "limiter is a Limiter, or None for one of its own, not "),
        ({"on_event": 5}, TypeError, "on_event is a function of one event, not an int"),
        ({"middlewares": 5}, TypeError, "middlewares is a list of aiohttp's client middlewares"),
        ({"middlewares": [LIMITED]}, ValueError, "a session looks after its quotas itself"),
        ({"middlewares": [5]}, TypeError, "each of middlewares is one of aiohttp's client middlew"),
        ({"retries": -1}, ValueError, "retries is a whole number from 0 on, not -1"),
        ({"retries": 1.5}, ValueError, "retries is a whole number from 0 on, not 1.5"),
        ({"max_wait": NAN}, ValueError, "max_wait is a number of seconds from 0 on, or None, not"),
        ({"total_timeout": -1}, ValueError, "total_timeout is a number of seconds from 0 on, or N"),
        ({"concurrency": 0}, ValueError, "concurrency is a whole number of calls from 1 on, not 0"),
        ({"priority": "high"}, ValueError, "priority is a Priority: INTERACTIVE (0), NORMAL (1), "),
        ({"coalesce": "no"}, TypeError, "coalesce is True or False, not a str"),
        ({"coalesce": 1}, TypeError, "coalesce is True or False, not an int"),
        ({"maxwait": 3}, TypeError, "unknown option 'maxwait': did you mean max_wait?"),
        ({"conector": 3}, TypeError, "unknown option 'conector': did you mean connector?"),
        ({"apis": [X]}, TypeError, "unknown option 'apis': did you mean api?"),
        ({"max_waiters": 3}, TypeError, "unknown option 'max_waiters': it is the limiter's: limit"),
        ({"zzz": 3}, TypeError, "unknown option 'zzz'"),
        ({"connector": "x"}, TypeError, "connector is an aiohttp connector, or None for one of"),
        ({"cookie_jar": {}}, TypeError, "cookie_jar is a cookie jar of aiohttp's, or None for no"),
        *OF_A_REQUEST,
    ],
)
def test_a_session_refuses_what_it_cannot_use(
    options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    refused(kind, words, lambda: Session(AT, **options))


@pytest.mark.parametrize("api", [None, 5, b"http://localhost", Session])
def test_a_session_is_of_an_api_or_a_url(api: Any) -> None:
    refused(TypeError, "api is an Api such as aiotwhelp.X, or a URL, not ", lambda: Session(api))


def test_a_credential_of_the_wrong_type_is_not_shown() -> None:
    with pytest.raises(TypeError) as caught:
        Session(AT, auth="s3cret")  # type: ignore[arg-type]
    assert "s3cret" not in str(caught.value)


def test_a_users_session_refuses_what_is_no_credential() -> None:
    refused(TypeError, "auth is a", lambda: Session(AT).as_user("u:1", auth="x"))  # type: ignore[arg-type]


@in_virtual_time
async def test_what_aiohttp_takes_is_passed_on() -> None:
    async with Emulator() as api:
        connector = aiohttp.TCPConnector(limit=3)
        async with session_of(api, connector=connector, read_bufsize=2048) as session:
            await session.fetch(PRIVACY, headers={"a": "b"}, max_redirects=2, read_bufsize=4096)
        assert api.requests[0].headers["a"] == "b"


def test_the_number_of_a_priority_is_as_good_as_its_name() -> None:
    assert checks.member("priority", 2, Priority) is Priority.BATCH


@pytest.mark.parametrize(
    ("environ", "options", "kind", "words"),
    [
        ("x", {}, TypeError, "environ is a mapping such as os.environ, not a str"),
        ({"AIOTWHELP_BASE_URL": "ftp://a"}, {}, ValueError, "AIOTWHELP_BASE_URL: 'ftp://a' is not"),
        ({"AIOTWHELP_BASE_URL": "http://a.b"}, {}, ValueError, "AIOTWHELP_BASE_URL: credentials a"),
        (
            {"AIOTWHELP_BEARER_TOKEN": "t\n"},
            {},
            ValueError,
            "AIOTWHELP_BEARER_TOKEN has a space, a",
        ),
        (
            {"AIOTWHELP_BEARER_TOKEN": "Bearer t"},
            {},
            ValueError,
            "pass the AIOTWHELP_BEARER_TOKEN ",
        ),
        (
            {
                "AIOTWHELP_CONSUMER_KEY": "k",
                "AIOTWHELP_CONSUMER_SECRET": "s",
                "AIOTWHELP_ACCESS_TOKEN": "t",
                "AIOTWHELP_ACCESS_TOKEN_SECRET": "s ",
            },
            {},
            ValueError,
            "AIOTWHELP_ACCESS_TOKEN_SECRET has a space, a line break",
        ),
        ({}, {"auth": Bearer("x")}, TypeError, "from_env takes auth from the environment"),
        ({}, {"api": AT}, TypeError, "from_env takes api from the environment"),
        ({}, {"maxwait": 3}, TypeError, "unknown option 'maxwait': did you mean max_wait?"),
    ],
)
def test_the_environment_is_refused_in_words(
    environ: Any, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    if isinstance(environ, dict):
        environ = {"AIOTWHELP_BEARER_TOKEN": "t", **environ}
    refused(kind, words, lambda: Session.from_env(environ, **options))


# A limiter, a middleware -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        (
            {"max_waiters": -1},
            ValueError,
            "max_waiters is a whole number of callers from 0 on, not",
        ),
        (
            {"max_waiters": "3"},
            ValueError,
            "max_waiters is a whole number of callers from 0 on, no",
        ),
        ({"max_quotas": -1}, ValueError, "max_quotas is a whole number from 0 on, not -1"),
        ({"reserve": "x"}, ValueError, "reserve is a share from 0 to below 1, not 'x'"),
        ({"reserve": NAN}, ValueError, "reserve is a share from 0 to below 1, not nan"),
        ({"pace": 3}, ValueError, 'pace is "burst" or "even", not 3'),
        ({"rates": {5: RATE}}, TypeError, "each key of rates is a route such as '/orders' or"),
        ({"rates": {f"{AT}/a": RATE}}, ValueError, f"rates['{AT}/a'] has a host, which no ro"),
        ({"rates": {"POST api.x.com/a": RATE}}, ValueError, "rates['POST api.x.com/a'] has a ho"),
        ({"rates": 3}, TypeError, "rates is a mapping from routes to a Rate, not an int"),
        (
            {"ledger": 3},
            TypeError,
            "ledger is a URL such as 'sqlite:///quota.db', or a Ledger such",
        ),
        ({"ledger": SQLiteLedger}, TypeError, "ledger is a URL such as 'sqlite:///quota.db', or a"),
        ({"on_event": 3}, TypeError, "on_event is a function of one event, not an int"),
    ],
)
def test_a_limiter_refuses_what_it_cannot_use(
    options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    refused(kind, words, lambda: Limiter(**options))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_wait": NAN}, "max_wait is a number of seconds from 0 on, or None, not nan"),
        ({"max_wait": -1}, "max_wait is a number of seconds from 0 on, or None, not -1"),
        ({"priority": 9}, "priority is a Priority: INTERACTIVE (0), NORMAL (1), BATCH (2); not 9"),
        (
            {"cost": 0},
            "cost is a whole number from 1 on, or a mapping such as {'tokens': 1200}, not 0",
        ),
        ({"dialect": "github"}, "dialect is a Dialect, such as DIALECTS['github'], not a str"),
        ({"ticket": -1}, "ticket is a whole number from 0 on, not -1"),
        ({"room": 5}, "room is a Room, not an int"),
    ],
)
def test_a_permit_is_refused_even_where_nobody_would_wait(
    options: dict[str, Any], words: str
) -> None:
    async def main() -> None:
        limiter = Limiter()
        with pytest.raises((TypeError, ValueError), match="is a") as caught:
            await limiter.acquire("k", **options)
        assert str(caught.value) == words
        if not options.keys() & {"max_wait", "ticket"}:  # who never waits says nothing of these
            refused(caught.type, words, lambda: limiter.try_acquire("k", **options))
        assert limiter.stats().granted == 0

    testing.run(main())


@pytest.mark.parametrize(
    ("headers", "options", "kind", "words"),
    [
        (None, {}, TypeError, "headers is a mapping, as an answer's headers are, not None"),
        ("a: b", {}, TypeError, "headers is a mapping, as an answer's headers are, not a str"),
        ([("a", "b")], {}, TypeError, "headers is a mapping, as an answer's headers are, not a l"),
        ({b"date": b"x"}, {}, TypeError, "each name and value of headers is a str, not a bytes"),
        ({"date": ["x"]}, {}, TypeError, "each name and value of headers is a str, not a list"),
        ({"retry-after": 5}, {}, TypeError, "each name and value of headers is a str, not an int"),
        ({}, {"status": None}, ValueError, "status is a whole number from 0 on, not None"),
        ({}, {"status": "200"}, ValueError, "status is a whole number from 0 on, not '200'"),
        ({}, {"status": []}, ValueError, "status is a whole number from 0 on, not []"),
        ({}, {"cost": -1}, ValueError, "cost is a whole number from 1 on, or a mapping"),
    ],
)
@in_virtual_time
async def test_an_answer_that_is_none_settles_nothing_and_loses_nothing(
    headers: Any, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    limiter = Limiter()
    permit = await limiter.acquire("k")
    with pytest.raises(kind) as caught:
        permit.observed(headers, **options)
    assert str(caught.value).startswith(words), str(caught.value)
    assert not permit.is_settled
    permit.observed({})
    assert (limiter.stats().in_flight, limiter.stats().lost) == (0, 0)


@pytest.mark.parametrize("key", [None, 5, b"k", True])
@in_virtual_time
async def test_a_key_is_a_quota_key_or_a_name(key: Any) -> None:
    words = "key is a QuotaKey, or a name such as 'GET /orders', not "
    limiter = Limiter()
    with pytest.raises(TypeError, match=words):
        await limiter.acquire(key)
    refused(TypeError, words, lambda: limiter.try_acquire(key))
    refused(TypeError, words, lambda: limiter.quota(key))
    assert limiter.stats().quotas == 0


@pytest.mark.parametrize(
    ("readings", "words"),
    [
        (None, "readings is a list of WindowReadings, not None"),
        ([{"remaining": 4}], "each of readings is one of WindowReadings, not a dict"),
        (5, "readings is a list of WindowReadings, not an int"),
    ],
)
@in_virtual_time
async def test_numbers_of_an_earlier_run_are_readings(readings: Any, words: str) -> None:
    limiter = Limiter()
    refused(TypeError, words, lambda: limiter.restore("k", readings))
    refused(TypeError, words, lambda: limiter.prime("k", readings))
    assert limiter.stats().quotas == 0


def test_who_listens_is_a_function() -> None:
    refused(TypeError, "handler is a function of one event, not", lambda: Limiter().listen(5))  # type: ignore[arg-type]


class Later:
    async def __call__(self, event: object) -> None: ...


@pytest.mark.parametrize(
    "handler", [Later.__call__, Later(), partial(Later().__call__), partial(Later())]
)
def test_who_listens_returns_at_once(handler: Any) -> None:
    words = "{} is a function of one event that returns at once, not an async one"
    refused(TypeError, words.format("handler"), lambda: Limiter().listen(handler))
    refused(TypeError, words.format("on_event"), lambda: Limiter(on_event=handler))
    refused(TypeError, words.format("on_event"), lambda: Session(AT, on_event=handler))


@in_virtual_time
async def test_the_headers_of_http_client_are_read() -> None:
    limiter, headers = Limiter(), HTTPMessage()
    headers["X-Rate-Limit-Remaining"] = "7"
    permit = await limiter.acquire("k")
    assert permit.observed(headers).windows[0].remaining == 7  # type: ignore[arg-type] # as one


@in_virtual_time
async def test_headers_that_a_server_has_garbled_are_no_error() -> None:
    limiter, headers = Limiter(), HTTPMessage()
    headers["X-Name"] = "\udcff"
    headers["X-Rate-Limit-Remaining"] = "\udcff"
    assert not isinstance(headers["X-Rate-Limit-Remaining"], str)
    permit = await limiter.acquire("k")
    assert permit.observed(headers).windows == ()  # type: ignore[arg-type] # as one


@pytest.mark.parametrize(
    ("limiter", "apis", "kind", "words"),
    [
        (Session(AT), {X: None}, TypeError, "limiter is a Limiter (a session has one: session.lim"),
        (Limiter, {X: None}, TypeError, "limiter is a Limiter (a session has one: session.limiter"),
        (Limiter(), None, TypeError, "apis is a mapping such as {X: auth}, not None"),
        (Limiter(), [X], TypeError, "apis is a mapping such as {X: auth}, not a list"),
        (Limiter(), X, TypeError, "apis is a mapping such as {X: auth}, not an Api"),
        (Limiter(), {}, ValueError, "apis is empty: name the APIs whose quotas are shared"),
        (Limiter(), {AT: None}, TypeError, "each key of apis is an Api such as aiotwhelp.X, not a"),
        (Limiter(), {X: "t"}, TypeError, "auth is a credential such as Bearer(token), or None, no"),
    ],
)
def test_a_middleware_refuses_what_it_cannot_use(
    limiter: Any, apis: Any, kind: type[Exception], words: str
) -> None:
    refused(kind, words, lambda: RateLimitMiddleware(limiter, apis))


@pytest.mark.parametrize("options", [{"max_wait": -1}, {"priority": 9}])
def test_a_middleware_refuses_options_that_make_no_sense(options: dict[str, Any]) -> None:
    refused(
        ValueError,
        next(iter(options)),
        lambda: RateLimitMiddleware(Limiter(), {X: None}, **options),
    )


# What is known of an API -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "kind", "words"),
    [
        ({"name": 5}, TypeError, "an API's name is a word such as 'shop', not an int"),
        ({"dialect": "github"}, TypeError, "dialect is a Dialect, such as DIALECTS['github'], not"),
        ({"categories": 5}, TypeError, "categories is a mapping from endpoints, not an int"),
        ({"categories": {"/a": "x"}}, ValueError, "categories['/a'] is for no endpoint: write"),
        ({"categories": {"GET /a": 5}}, TypeError, "categories['GET /a'] is a name for the quota"),
        ({"rates": [RATE]}, TypeError, "rates is a mapping from endpoints, not a list"),
        ({"rates": {"a": RATE}}, ValueError, "rates['a'] is for no endpoint: write \"/orders\""),
        ({"rates": {"GET": RATE}}, ValueError, "rates['GET'] is for no endpoint: write \"/orders"),
        ({"costs": {"/a": {"x": 1}}}, ValueError, "costs['/a'] is for no endpoint: write \"POST"),
        ({"costs": {5: {"x": 1}}}, ValueError, 'costs[5] is for no endpoint: write "POST /orders'),
        ({"partitions": "/a/{id}"}, TypeError, "partitions is a tuple of leading parts of paths,"),
        ({"origins": AT}, TypeError, "origins is a tuple of URLs, not a str"),
        ({"idempotent": "GET"}, TypeError, "idempotent is a tuple of methods, not a str"),
        ({"idempotent": {5}}, TypeError, "each of idempotent is one of methods, not an int"),
        ({"endpoints": 5}, TypeError, "endpoints is several Endpoints, not an int"),
        ({"endpoints": ["GET /a"]}, TypeError, "each of endpoints is an Endpoint, not a str"),
    ],
)
def test_facts_of_an_api_that_would_never_count_are_refused(
    facts: dict[str, Any], kind: type[Exception], words: str
) -> None:
    refused(kind, words, lambda: Api(**{"name": "mine", "base_url": AT, **facts}))


def test_methods_that_may_be_sent_again_are_known_in_any_case() -> None:
    assert Api("mine", AT, idempotent=frozenset({"get"})).idempotent == {"GET"}


@pytest.mark.parametrize(
    ("facts", "kind", "words"),
    [
        ({"name": 5}, TypeError, "a dialect's name is a word such as 'github', not an int"),
        ({"families": FAMILY}, TypeError, "families is a tuple of Family, not Family("),
        ({"families": ("x",)}, TypeError, "families is a tuple of Family, not ('x',)"),
        ({"refusals": 429}, TypeError, "refusals is a set of statuses such as {429}, not 429"),
        ({"refusals_if_told": {"403"}}, TypeError, "refusals_if_told is a set of statuses such as"),
        ({"refusal_words": "slow down"}, TypeError, "refusal_words is a tuple of words of a body,"),
        ({"pause": "x"}, ValueError, "pause is a number of seconds from 0 on, or None, not 'x'"),
        ({"everywhere": "x-global"}, TypeError, "everywhere is a mapping, or a list of pairs, not"),
        (
            {"everywhere": ((5, None),)},
            TypeError,
            "each of everywhere is a pair: a header and its value, or None for any, not an int",
        ),
        ({"retry_after": ((5, 1.0),)}, TypeError, "each of retry_after is a pair: a header and th"),
    ],
)
def test_a_dialect_that_nobody_speaks_is_refused(
    facts: dict[str, Any], kind: type[Exception], words: str
) -> None:
    refused(kind, words, lambda: Dialect(**{"name": "mine", **facts}))


def test_a_dialect_finds_its_words_in_any_case() -> None:
    dialect = Dialect(
        "mine",
        refusals_if_told=frozenset({403}),
        refusal_words=("Slow Down",),
        everywhere=(("X-Global", "True"),),
        retry_after=(("X-Wait-Minutes", 60.0),),
    )
    reading = dialect.read({"x-global": "TRUE", "x-wait-minutes": "2"}, 429)
    assert (reading.everywhere, reading.retry_after) == (True, 120)
    assert dialect.with_body(dialect.read({}, 403), 403, "please SLOW down").refused


@pytest.mark.parametrize(
    ("kind", "words", "make"),
    [
        (ValueError, 'scope is "identity" or "app", not 5', lambda: WindowKind("w", 5)),  # type: ignore[arg-type]
        (ValueError, "length and ceiling are seconds", lambda: WindowKind("w", length=-1)),
        (ValueError, "length and ceiling are seconds", lambda: WindowKind("w", ceiling=NAN)),
        (ValueError, "length and ceiling are seconds", lambda: WindowKind("w", length=checks.AGES)),
        (ValueError, "length and ceiling are seconds", lambda: WindowKind("w", length="60")),  # type: ignore[arg-type]
        (ValueError, "length and ceiling are seconds", lambda: WindowKind("w", length=None)),  # type: ignore[arg-type]
        (ValueError, "length and ceiling are seconds", lambda: WindowKind("w", length=10**400)),
        (TypeError, "kind is a WindowKind, not a str", lambda: Family("w", remaining="r")),  # type: ignore[arg-type]
        (TypeError, "remaining is the name of a header, or '', no", lambda: Family(KIND, "", 5)),  # type: ignore[arg-type]
        (TypeError, "hides is a tuple of names", lambda: Family(KIND, "", "r", hides="w")),  # type: ignore[arg-type]
        (ValueError, "a rate's burst is a number of calls a", lambda: Rate(1, per=1, burst=NAN)),  # type: ignore[arg-type]
        (ValueError, "a rate's burst is at least 1, not 0.5", lambda: Rate(1, per=1, burst=0.5)),  # type: ignore[arg-type]
        (ValueError, "a rate's limit is a number of calls above 0", lambda: Rate("5", per=1)),  # type: ignore[arg-type]
        (ValueError, "a rate's limit is a number of calls above 0", lambda: Rate(True, per=1)),
        (ValueError, "a rate's limit is a number of calls above 0", lambda: Rate(10**400, per=1)),
        (
            ValueError,
            "a rate's per is a number of seconds above 0, not -1",
            lambda: Rate(1, per=-1),
        ),
        (ValueError, "a rate's per is a number of seconds above 0", lambda: Rate(1, per=None)),  # type: ignore[arg-type]
        (TypeError, "unit is what is counted", lambda: Rate(1, per=1, unit=5)),  # type: ignore[arg-type]
        (TypeError, "unit is what is counted", lambda: Concurrency(1, unit=None)),  # type: ignore[arg-type]
        (TypeError, "store is a TokenStore, or None", lambda: OAuth2User("c", store=5)),  # type: ignore[arg-type]
        (TypeError, "token is a Token, or None, not a str", lambda: MemoryStore("s3cret")),  # type: ignore[arg-type]
        (TypeError, "token_path is a path such", lambda: ClientCredentials("a", "b", token_path=5)),  # type: ignore[arg-type]
        (
            TypeError,
            "invalidate_path is a path such",
            lambda: ClientCredentials("a", "b", invalidate_path=None),  # type: ignore[arg-type]
        ),
        (
            TypeError,
            "identity is a name that the user keeps, or None, not an int",
            lambda: OAuth2User("c", access_token="t", identity=7),  # type: ignore[arg-type]
        ),
        (ValueError, "expires_at must be POSIX seconds", lambda: Token("t", expires_at="soon")),  # type: ignore[arg-type]
        (ValueError, "expires_at must be POSIX seconds", lambda: Token("t", expires_at=NAN)),
        (TypeError, "clock is a function that returns sec", lambda: MemoryLedger(clock=5)),  # type: ignore[arg-type]
        (TypeError, "path is a path to a file, as a str or a Path", lambda: SQLiteLedger(None)),  # type: ignore[arg-type]
        (TypeError, "path is a path to a file, as a str or a Path", lambda: SQLiteLedger(b"x")),  # type: ignore[arg-type]
        (TypeError, "identity is a name for the user, such", lambda: Session(AT).as_user(5)),  # type: ignore[arg-type]
        (ValueError, "as_user needs a name for the user", lambda: Session(AT).as_user("")),
        (TypeError, "method is a word such as 'GET'", lambda: Session(AT).quota("/x", method=5)),  # type: ignore[arg-type]
        (ValueError, "method is a word such as 'GET'", lambda: Session(AT).quota("/x", method="")),
        (TypeError, "path is a path such as '/2/use", lambda: Session(AT).quota(5)),  # type: ignore[arg-type]
    ],
)
def test_a_part_of_these_is_refused_as_well(
    kind: type[Exception], words: str, make: Callable[[], object]
) -> None:
    refused(kind, words, make)


class Counted:
    """A whole number of another library's kind."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __index__(self) -> int:
        return self._number


@pytest.mark.parametrize("three", [Counted(3), enum.IntEnum("Number", {"THREE": 3}).THREE])
@in_virtual_time
async def test_a_whole_number_of_any_kind_is_one(three: Any) -> None:
    assert type(checks.seconds("max_wait", three)) is float
    assert repr(Rate(three, per=three, burst=three)) == repr(Rate(3, per=3, burst=3))
    assert repr(Concurrency(three)) == repr(Concurrency(3))
    assert repr(as_cost(three)) == "3"
    assert repr(as_cost({"tokens": three})) == "Cost({'tokens': 3})"
    limiter = Limiter(max_waiters=three, max_quotas=three)
    permit = await limiter.acquire("k", cost=three, max_wait=three)
    permit.observed({}, status=three)
    async with Session(AT, limiter=limiter, retries=three, concurrency=three, timeout=three):
        pass


@pytest.mark.parametrize("value", [True, "3", 3 + 0j, [3], int, Decimal(3), timedelta(3)])
def test_what_is_no_number_is_none(value: object) -> None:
    assert checks.plain(value) is None


def test_more_seconds_than_a_float_holds_are_no_bound() -> None:
    assert checks.seconds("max_wait", 10**400) == float("inf")


# One call --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"maxwait": 3}, TypeError, "unknown option 'maxwait': did you mean max_wait?"),
        ({"header": {}}, TypeError, "unknown option 'header': did you mean headers?"),
        ({"limiter": 3}, TypeError, "unknown option 'limiter'"),
        ({"priority": "high"}, ValueError, "priority is a Priority: INTERACTIVE (0), NORMAL (1), "),
        ({"retries": -1}, ValueError, "retries is a whole number from 0 on, not -1"),
        ({"max_wait": NAN}, ValueError, "max_wait is a number of seconds from 0 on, or None, not"),
        ({"total_timeout": -1}, ValueError, "total_timeout is a number of seconds from 0 on, or N"),
        ({"cost": "x"}, ValueError, "cost is a whole number from 1 on, or a mapping"),
        ({"middlewares": 5}, TypeError, "middlewares is a list of aiohttp's client middlewares"),
        ({"middlewares": [LIMITED]}, ValueError, "a session looks after its quotas itself"),
        (
            {"path_params": [3]},
            TypeError,
            "path_params is a mapping such as {'id': 12}, not a list",
        ),
        ({"method": None}, TypeError, "method is a word such as 'GET', not None"),
        ({"method": []}, TypeError, "method is a word such as 'GET', not a list"),
        ({"method": ""}, ValueError, "method is a word such as 'GET', not ''"),
        ({"method": "GET /x"}, ValueError, "method is a word such as 'GET', not 'GET /x'"),
        ({"path": None}, TypeError, "path is a path such as '/2/users/me', or a URL, not None"),
        ({"path": ["/x"]}, TypeError, "path is a path such as '/2/users/me', or a URL, not a list"),
        ({"path": b"/x"}, TypeError, "path is a path such as '/2/users/me', or a URL, not a bytes"),
        ({"coalesce": 0}, TypeError, "coalesce is True or False, not an int"),
        ({"max_body": "x"}, ValueError, "max_body is a whole number of bytes from 0 on, not 'x'"),
        *OF_A_REQUEST,
    ],
)
@in_virtual_time
async def test_a_call_is_refused_before_it_waits_or_spends(
    options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    async with Session(AT) as session:
        with pytest.raises(kind) as caught:
            await session.fetch(**{"path": "/x", **options})
        assert str(caught.value).startswith(words), str(caught.value)
        assert session.limiter.stats().granted == 0
        await assert_at_rest(session)


@in_virtual_time
async def test_an_option_of_fetch_is_none_of_a_request() -> None:
    async with Session(AT) as session:
        with pytest.raises(TypeError, match="'coalesce': it is an option of fetch, or of the sess"):
            await session.get("/x", coalesce=True)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/2/users/{id}", "'/2/users/{id}' needs path_params for id"),
        (
            f"{AT}/2/users/{{id}}/tweets?a={{b}}",
            f"'{AT}/2/users/{{id}}/tweets?a={{b}}' needs path_",
        ),
        ("/2/users/{id", "'/2/users/{id' is no template: write placeholders as {name}"),
    ],
)
@in_virtual_time
async def test_a_template_is_never_sent_as_it_is(path: str, words: str) -> None:
    async with Session(AT) as session:
        with pytest.raises(ValueError, match=r"template|path_params") as caught:
            await session.fetch(path)
        assert str(caught.value).startswith(words), str(caught.value)


@pytest.mark.parametrize("grace", [-1, NAN, "5", True])
@in_virtual_time
async def test_a_grace_that_is_no_number_of_seconds_closes_nothing(grace: Any) -> None:
    async with Session(AT) as session:
        with pytest.raises(ValueError, match="grace is a number of seconds from 0 on, or None"):
            await session.close(grace=grace)
        assert not session.closed
        await session.close(grace=None)


@in_virtual_time
async def test_a_timeout_in_seconds_and_headers_one_by_one_are_taken() -> None:
    async with (
        Emulator() as api,
        session_of(api, timeout=30, headers=iter([("a", "1")])) as session,
        session_of(api, timeout=10**400) as patient,
    ):
        await session.fetch(PRIVACY)
        await session.fetch(PRIVACY, timeout=20, headers=iter([("a", "2")]))
        await session.fetch(PRIVACY, timeout=None, headers=None, cookies=None)
        assert [request.headers["a"] for request in api.requests] == ["1", "2", "1"]
        await patient.fetch(PRIVACY, timeout=float("inf"))
        await patient.fetch(PRIVACY)


@in_virtual_time
async def test_braces_in_a_query_are_sent() -> None:
    async with Emulator() as api, session_of(api) as session:
        await session.fetch(f'{PRIVACY}?filter={{"a":1}}')
        assert "filter" in api.requests[0].query


@in_virtual_time
async def test_a_quota_is_asked_for_as_its_call_was_made() -> None:
    async with Emulator() as api, session_of(api) as session:
        await session.fetch("/2/users/{id}", path_params={"id": 1001})
        quota = session.quota("/2/users/{id}", path_params={"id": 1001})
        assert quota.limit == 300
        assert quota == session.quota("/2/users/{id}") == session.quota("/2/users/1001")
        with pytest.raises(TypeError, match="path_params is a mapping"):
            session.quota("/2/users/{id}", path_params=[3])  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [3, None, "x\r\ny"])
@in_virtual_time
async def test_a_header_that_cannot_be_written_costs_nothing(value: Any) -> None:
    async with Emulator(limits={"help/privacy": 3}) as api, session_of(api) as session:
        await session.fetch(PRIVACY)
        with pytest.raises((TypeError, ValueError)):
            await session.fetch(PRIVACY, headers={"a": value})
        assert session.limiter.stats().lost == 0
        assert session.quota(PRIVACY).remaining == 2
        assert len(api.requests) == 1
        await assert_at_rest(session)


# Without a credential --------------------------------------------------------------------------


@in_virtual_time
async def test_an_answer_that_misses_a_credential_says_that_none_was_given() -> None:
    words = "; no credential was given: pass auth= to the session"
    async with Emulator() as api, Session(api.url) as session:
        for path, kind in (("/2/users/me", AuthError), (PRIVACY, ApiError)):
            with pytest.raises(kind, match=words):
                await session.fetch(path)
            with pytest.raises(kind, match=words):
                await session.get(path, raise_for_status=True)
        with pytest.raises(AuthError) as caught:
            await session.fetch(PRIVACY, headers={"Authorization": "Bearer x"})
        assert "no credential" not in str(caught.value)
    async with Emulator() as api, session_of(api, auth=Bearer("x")) as session:
        with pytest.raises(AuthError) as caught:
            await session.fetch(PRIVACY)
        assert "no credential" not in str(caught.value)
