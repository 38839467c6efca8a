"""The targets: each takes one input and fails if a promise is broken.

An input is bytes that mostly read as text, so that a kept one can be read and edited. A target
makes something of any bytes. What a parser may raise stands where it is called; everything else
that it raises is a bug.
"""

from __future__ import annotations

import asyncio
import math
import pickle
from collections.abc import Callable, Coroutine, Mapping
from types import SimpleNamespace
from typing import Any, TypeVar

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from aiotwhelp.answers import as_error, parse_error
from aiotwhelp.apis import X, api_at
from aiotwhelp.auth import ClientCredentials, OAuth2User, TokenAnswer
from aiotwhelp.calls import Call, Settings, Targets
from aiotwhelp.clock import ServerClock
from aiotwhelp.errors import ApiError, AuthError, BodyError
from aiotwhelp.headers import X_DIALECT, Reading, parse_date, parse_retry_after
from aiotwhelp.limiter import Limiter
from aiotwhelp.middleware import Caller
from aiotwhelp.pool import Pool
from aiotwhelp.queues import Priority
from aiotwhelp.retries import Retries
from aiotwhelp.routes import Routes, expand, generic_template
from tests.fuzz.scripts import play_on_the_limiter, play_on_the_rule

T = TypeVar("T")

#: An HTTP-date has four digits for its year; a zone may lead a day further.
_LATEST_DATE = 253_402_300_800.0 + 86_400.0

#: An exception's text is for a line of a log.
_LONGEST_ERROR = 1500

#: Sixteen segments of at most 64 characters, the rest, a suffix.
_LONGEST_TEMPLATE = 1100


# Headers -----------------------------------------------------------------------------------------


def headers(data: bytes) -> None:
    """Read header lines, ``name: value``, as an answer's headers in two kinds of mapping."""
    fields = [_field(line) for line in _text(data).split("\n")]
    reading = X_DIALECT.read(CIMultiDict(fields))
    _check_reading(reading)
    first_ones: dict[str, str] = {}
    for name, value in fields:
        first_ones.setdefault(name, value)
    assert X_DIALECT.read(first_ones) == reading


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.strip(" \t")


def _check_reading(reading: Reading) -> None:
    _check_span(reading.retry_after)
    _check_date(reading.date)
    assert not (reading.cached and (reading.windows or reading.date is not None))
    kinds = [window.kind for window in reading.windows]
    assert len(set(kinds)) == len(kinds)
    for window in reading.windows:
        assert 0 <= window.remaining <= 2**53
        assert window.limit is None or 0 < window.limit <= 2**53
        assert window.reset is None or 0 < window.reset < 1e11


def dates(data: bytes) -> None:
    """Read one value as a Date and as a Retry-After."""
    text = _text(data)
    date = parse_date(text)
    _check_date(date)
    assert date == parse_date(text)
    assert date is None or len(text) <= 64
    for base in (None, 0.0, 1.7e9, date):
        _check_span(parse_retry_after(text, base))
    if date is not None:
        assert parse_retry_after(text, date) == 0.0


def _check_date(date: float | None) -> None:
    assert date is None or 0 <= date <= _LATEST_DATE


def _check_span(seconds: float | None) -> None:
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)


def clocks(data: bytes) -> None:
    """Let answers tell the time, ``seconds trip date`` a line; then let 40 tell the right one."""
    clock, now = ServerClock(), 0.0
    for line in _text(data).split("\n")[:100]:
        gap, trip, date = (_number(word) for word in (*line.split()[:3], "", "", "")[:3])
        now += min(gap, 1e6)
        date = math.floor(min(date, _LATEST_DATE))
        clock.observe(float(date), now, now + min(trip, 300.0))
        now += min(trip, 300.0)
        assert clock.is_known
        for epoch in (0.0, 1.7e9, date):
            assert clock.soonest(epoch) <= clock.local(epoch)
            assert math.isfinite(clock.local(epoch))
        assert math.isfinite(clock.epoch(now))
    offset = 1.7e9
    for _ in range(40):
        now += 1.37
        clock.observe(float(math.floor(now + 0.05 + offset)), now, now + 0.1)
    assert abs(clock.local(now + offset) - now) < 3.0


# Bodies ------------------------------------------------------------------------------------------


def bodies(data: bytes) -> None:
    """Read a body as what was asked for, and as what an error says."""
    try:
        _at_once(_CALL.read_json(_response(200, data)))
    except BodyError as error:
        _check_error(error)
    said = parse_error(data)
    assert len(said.codes) <= 16
    assert len(said.snippet) <= 2048
    assert said.problem is None or len(said.problem) <= 100
    for status in (400, 401, 429):
        _check_error(as_error(_response(status, data), said))


def _check_error(error: ApiError | BodyError) -> None:
    """An error can be printed, logged in one line, and sent to another process."""
    text = str(error)
    assert len(text) <= _LONGEST_ERROR
    assert text.isprintable(), ascii(text)
    assert repr(error).isprintable()
    assert str(pickle.loads(pickle.dumps(error))) == text


def _response(status: int, body: bytes) -> Any:
    """Make as much of aiohttp's response as is looked at; what comes after the status, too."""

    async def read() -> bytes:
        return body

    url = URL("https://api.x.com/1.1/help/privacy.json")
    fields: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict({"Content-Length": "1"}))
    return SimpleNamespace(
        status=status,
        reason=body[:40].decode("utf-8", "surrogateescape"),
        headers=fields,
        request_info=aiohttp.RequestInfo(url, "GET", fields, url),
        content_length=None,
        content=SimpleNamespace(at_eof=lambda: True, is_eof=lambda: True, total_bytes=len(body)),
        read=read,
    )


def _at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waits")


def tokens(data: bytes) -> None:
    """Let a token endpoint answer: a line with the status, then the body."""
    line, _, body = data.partition(b"\n")
    status = int(line) if len(line) == 3 and line.isdigit() else 200
    asyncio.run(_tokens(status, body), debug=False)


async def _tokens(status: int, body: bytes) -> None:
    await _token_of_an_app(status, body)
    await _token_of_a_user(status, body)


async def _token_of_an_app(status: int, body: bytes) -> None:
    auth = ClientCredentials("a-key", "a-secret")
    if await _obtained(auth, status, body):
        try:
            await auth.invalidate(_Endpoint(status, body))
        except AuthError as error:
            _check_error(error)


async def _token_of_a_user(status: int, body: bytes) -> None:
    auth = OAuth2User("an-id", refresh_token="the-first")
    if await _obtained(auth, status, body):
        header = auth.authorize("GET", "https://api.x.com/2/users/me", now=_NOW)
        assert auth.rejected(header, 401, (), _NOW)
        await _obtained(auth, status, body)


async def _obtained(auth: ClientCredentials | OAuth2User, status: int, body: bytes) -> bool:
    """Whether an answer was a token that can be sent; else it was an error that keeps quiet."""
    try:
        await auth.prepare(_Endpoint(status, body), _NOW)
    except AuthError as error:
        _check_error(error)
        assert error.status == status
        assert not error.body
        assert not auth.ready(_NOW)
        return False
    header = auth.authorize("GET", "https://api.x.com/2/users/me", now=_NOW)
    assert header.startswith("Bearer ")
    assert header.isascii()
    assert header.isprintable()
    assert " " not in header.removeprefix("Bearer ")
    assert len(header) <= 8190
    assert 200 <= status < 300
    return True


class _Endpoint:
    """A token endpoint that always gives the same answer."""

    def __init__(self, status: int, body: bytes) -> None:
        self._status, self._body = status, body

    async def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str], data: bytes
    ) -> TokenAnswer:
        return TokenAnswer(self._status, {}, self._body, "https://api.x.com/oauth2/token")


# Paths and URLs ----------------------------------------------------------------------------------


def paths(data: bytes) -> None:
    """Name a path, and fill it as a template: a line with the path, then ``name=value`` lines."""
    path, *lines = _text(data).split("\n")
    for template in (generic_template(path), _ROUTES.match("GET", path)):
        assert template.startswith("/")
        assert len(template) <= _LONGEST_TEMPLATE
    params = {name: value for name, _, value in (line.partition("=") for line in lines)}
    try:
        filled = expand(path, params)
    except ValueError:
        return
    assert filled.count("/") == path.count("/")
    for value in params.values():
        assert value not in ("", ".", "..")


def urls(data: bytes) -> None:
    """Look a URL up in an API, as a caller or a redirect names it."""
    text = _text(data)
    if X.is_own(text):
        url = URL(text)
        assert url.scheme == "https"
        assert (url.raw_host or "").rstrip(".") in _HOSTS
        assert url.raw_user is None
    try:
        whole = URL(X.url(text))
    except ValueError as error:
        assert "secret@" not in str(error)
        return
    key = _CALLER.key("GET", whole)
    assert len(key.route) <= _LONGEST_TEMPLATE
    X.endpoint("GET", whole)
    assert X.quota_name("get", whole).startswith("GET /")
    try:
        api = api_at(text)
    except ValueError:
        return
    assert api.base_url.startswith(("http://", "https://"))
    assert (
        Caller.of(api, None, Limiter()).key("GET", api.url("/2/users/12")).route
        == "GET /2/users/{id}"
    )


# The rule and the limiter ------------------------------------------------------------------------


def rule(data: bytes) -> None:
    """Play a script on the pure rule (see `tests.fuzz.scripts`)."""
    play_on_the_rule(_text(data))


def limiter(data: bytes) -> None:
    """Play a script's answers on the limiter, in virtual time (see `tests.fuzz.scripts`)."""
    play_on_the_limiter(_text(data))


def _text(data: bytes) -> str:
    """Decode as aiohttp decodes headers; lone surrogates that callers may write stay such."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape")


def _number(word: str) -> float:
    """Return a finite number from 0 on, whatever the word."""
    try:
        number = float(word[:30])
    except ValueError:
        return 0.0
    return number if math.isfinite(number) and number >= 0 else 0.0


_NOW = 1.7e9
_HOSTS = {"api.x.com", "api.twitter.com", "upload.x.com", "upload.twitter.com"}
_ROUTES = Routes([("GET", "/2/users/{id}"), ("GET", "/2/users/me"), ("GET", "/files/{name}")])
_CALLER = Caller.of(X, None, Limiter())
_CALL = Call(
    Settings(
        caller=_CALLER,
        targets=Targets(_CALLER),
        pool=Pool(None, 1, {}),
        retries=Retries(0),
        timeout=float("inf"),
        max_wait=None,
        total_timeout=None,
        priority=Priority.NORMAL,
        coalesce=False,
        middlewares=(),
        raise_for_status=None,
    ),
    "GET",
    "/1.1/help/privacy.json",
    {},
)

TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (headers, dates, clocks, bodies, tokens, paths, urls, rule, limiter)
}
