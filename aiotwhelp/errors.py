"""What can go wrong, split by whose fault it was.

::

    AiotwhelpError
    ├── the wait
    │   ├── QuotaTimeoutError       (also TimeoutError and aiohttp.ClientError)
    │   ├── TooManyWaitersError     (also aiohttp.ClientError)
    │   └── LedgerError             (also aiohttp.ClientError)
    ├── the answer                  (each is also aiohttp.ClientResponseError)
    │   ├── ApiError
    │   │   ├── AuthError           a credential was refused
    │   │   ├── EndpointRetiredError
    │   │   └── UsageCapError       a monthly cap, credits, stream connections
    │   ├── BodyError               too large, or not what its headers promised
    │   └── RateLimitError          a 429 outlasted the policy
    └── the caller
        ├── CostError               (also ValueError)
        ├── SessionClosedError      (also aiohttp.ClientError)
        ├── BodyNotReplayableError  (also aiohttp.ClientError)
        └── WrongLoopError          (also RuntimeError)

Failures of the connection stay aiohttp's own exceptions. None of ours subclasses
``ClientOSError`` or ``ServerDisconnectedError``: raised in a middleware, those two make aiohttp
run the whole chain again.

No exception carries a credential: request headers and URLs are redacted before they are kept, and
what the server echoed of the call's credential is taken out. Each exception can be pickled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

#: Header fields whose values are secrets, or lead to one (RFC 9110, 11; RFC 6265).
SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"}
)

#: Query parameters by which some APIs take credentials.
SECRET_PARAMETERS = frozenset(
    {
        "access_token",
        "api_key",
        "apikey",
        "client_secret",
        "key",
        "oauth_signature",
        "oauth_token",
        "oauth_verifier",
        "password",
        "refresh_token",
        "secret",
        "signature",
        "token",
    }
)


class AiotwhelpError(Exception):
    """The base of everything that aiotwhelp raises."""


class QuotaTimeoutError(AiotwhelpError, aiohttp.ClientError, TimeoutError):
    """A call would have to wait for quota longer than it allowed; nothing was sent.

    Raised as soon as it is known that the wait will not fit, often at once. ``retry_after`` is
    in seconds from then, ``resets_at`` is POSIX time; each is None where it is not known.
    """

    def __init__(
        self,
        message: str,
        *,
        key: str | None = None,
        limit: int | None = None,
        remaining: int | None = None,
        resets_at: float | None = None,
        retry_after: float | None = None,
    ) -> None:
        # Exactly one positional argument: two would make it an OSError with errno set.
        super().__init__(message)
        self.key = key
        self.limit = limit
        self.remaining = remaining
        self.resets_at = resets_at
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class TooManyWaitersError(AiotwhelpError, aiohttp.ClientError):
    """``max_waiters`` callers wait already, so this one was turned away; nothing was sent."""


class LedgerError(AiotwhelpError, aiohttp.ClientError):
    """The ledger that shares quotas between processes is away, or holds something else.

    Callers see it with ``Limiter(on_ledger_failure="fail")`` only. `SQLiteStore` and `RedisStore`
    raise it as well; in a call that becomes an `AuthError` with the same words.
    """


class CostError(AiotwhelpError, ValueError):
    """A call costs more than a window of its quota ever holds; nothing was sent.

    Of a call that was redirected, the request that the redirect asked for.
    """

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class SessionClosedError(AiotwhelpError, aiohttp.ClientError):
    """The session or its limiter was closed before the call could be made."""


class BodyNotReplayableError(AiotwhelpError, aiohttp.ClientError):
    """The call should go again, but its body was a stream that is used up.

    Pass bytes, a file that can seek, or JSON, to have the call retried. The failure that made
    the retry necessary is the ``__cause__``.
    """


class WrongLoopError(AiotwhelpError, RuntimeError):
    """A limiter or session was used on another event loop than the one it belongs to."""


class _AnswerError(AiotwhelpError, aiohttp.ClientResponseError):
    """An answer that is an error, with its headers and the start of its body."""

    def __init__(
        self,
        message: str,
        *,
        request_info: aiohttp.RequestInfo,
        history: tuple[aiohttp.ClientResponse, ...] = (),
        status: int = 0,
        headers: Mapping[str, str] | None = None,
        body: str = "",
        codes: Iterable[int] = (),
        problem: str | None = None,
    ) -> None:
        super().__init__(
            redacted(request_info),
            (),
            status=status,
            message=message,
            headers=CIMultiDictProxy(_without_secrets(headers or {})),
        )
        self.body = body
        #: v1.1 error codes of the body, such as 88 (facts of the API: its error code table).
        self.codes = tuple(codes)
        #: The last segment of a v2 problem's ``type``, such as ``usage-capped``.
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.status}, {self.message} ({self.request_info.method} {self.request_info.url})"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def hide(self, words: Collection[str]) -> None:
        """Take words out of everything that the server said."""

        def without(text: str) -> str:
            for word in words:
                text = text.replace(word, "***")
            return text

        self.message = without(self.message)
        self.body = without(self.body)
        self.problem = None if self.problem is None else without(self.problem)
        kept = CIMultiDict((name, without(value)) for name, value in (self.headers or {}).items())
        self.headers = CIMultiDictProxy(kept)

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(self.__dict__)
        # Neither CIMultiDictProxy nor the RequestInfo that holds one can be pickled.
        state["headers"] = list((self.headers or {}).items())
        info = self.request_info
        state["request_info"] = (
            str(info.url),
            info.method,
            list(info.headers.items()),
            str(info.real_url),
        )
        return _rebuild_answer, (type(self), state)


class RateLimitError(_AnswerError):
    """The server refused the call for its rate, more often than the policy allows.

    ``limit`` and ``remaining`` are the window's, ``resets_at`` is POSIX time and ``retry_after``
    seconds from then; each is None where the answer did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        limit: int | None = None,
        remaining: int | None = None,
        resets_at: float | None = None,
        retry_after: float | None = None,
        **answer: Any,
    ) -> None:
        super().__init__(message, **answer)
        self.limit = limit
        self.remaining = remaining
        self.resets_at = resets_at
        self.retry_after = retry_after


class ApiError(_AnswerError):
    """The API answered with an error: its codes, its problem type, the start of its body."""


class AuthError(ApiError):
    """A credential was refused, or no credential could be had.

    ``retry_after`` is in seconds, where a token endpoint failed in a way that may pass; else None.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, **answer: Any) -> None:
        super().__init__(message, **answer)
        self.retry_after = retry_after


class EndpointRetiredError(ApiError):
    """The endpoint was retired upstream; the message says when, and what to use instead."""


class UsageCapError(ApiError):
    """A cap that no wait of minutes lifts: a monthly cap, credits, stream connections."""


class BodyError(_AnswerError):
    """An answer's body was larger than allowed, or not the JSON that was asked for."""


#: So much of what a server says is shown; an API's messages are below 200 characters.
_LONGEST_SAYING = 500


def one_line(text: str) -> str:
    """Leave out what breaks a line, steers a terminal, or is half a character and unprintable."""
    shown = text[:_LONGEST_SAYING]
    if shown.isprintable():
        return shown
    return " ".join("".join(each if each.isprintable() else " " for each in shown).split())


#: What has fewer characters is no credential, and would be found in any text.
SHORTEST_SECRET = 6

#: Errors of aiohttp's and the system's, which may quote what a server wrote.
_QUOTING = (aiohttp.ClientError, HttpProcessingError, OSError)


def hide(
    error: BaseException,
    words: Collection[str],
    quoting: tuple[type[BaseException], ...] = _QUOTING,
) -> bool:
    """Take words, such as a credential that was echoed, out of an error and what it came from.

    Also where an error of aiohttp's, or of others that are ``quoting``, quotes what a server wrote.
    Returns whether any was there.
    """
    found = False
    for each in _origins(error) if words else ():
        if isinstance(each, _AnswerError):
            was = dict(each.__dict__)
            each.hide(words)
            found = found or was != each.__dict__
        elif isinstance(each, quoting):
            for name, value in (("args", each.args), *each.__dict__.items()):
                shown = _without(value, words)
                if shown is not value:
                    found = True
                    setattr(each, name, shown)
    return found


def forget_frames(error: BaseException, handled: BaseException | None = None) -> None:
    """Leave no frames to an error and what it came from: their locals show what was sent and said.

    ``handled`` is what the caller was handling before, and is not touched.
    """
    for each in _origins(error, handled):
        each.__traceback__ = None


def _origins(error: BaseException, handled: BaseException | None = None) -> Iterable[BaseException]:
    """Return an error, and those that it was raised from or during: up to what was handled."""
    left: list[BaseException | None] = [error]
    found: dict[int, BaseException] = {}  # causes may lead in a circle
    while left:
        each = left.pop()
        if each is not None and each is not handled and id(each) not in found:
            found[id(each)] = each
            left += (each.__cause__, each.__context__)
    return found.values()


def _without(value: Any, words: Collection[str]) -> Any:
    """Return what an error holds without these words; the same object if they are not in it."""
    if isinstance(value, BaseException):
        hide(value, words)
        return value
    if isinstance(value, str):
        for word in words:
            value = value.replace(word, "***") if word in value else value
        return value
    if isinstance(value, (tuple, list)):
        shown = [_without(each, words) for each in value]
        if all(new is old for new, old in zip(shown, value, strict=True)):
            return value
        return type(value)(*shown) if hasattr(value, "_fields") else type(value)(shown)
    return "***" if any(word in repr(value) for word in words) else value


def hide_request(error: BaseException) -> None:
    """Take secrets out of the request that an error of aiohttp's shows, such as a proxy's."""
    if isinstance(error, aiohttp.ClientResponseError) and not isinstance(error, AiotwhelpError):
        error.request_info = redacted(error.request_info)
        error.args = (error.request_info, *error.args[1:])


def redacted(info: aiohttp.RequestInfo) -> aiohttp.RequestInfo:
    """Return the same request without secrets in its headers or its URL."""
    return aiohttp.RequestInfo(
        _shown(info.url),
        info.method,
        CIMultiDictProxy(_without_secrets(info.headers)),
        _shown(info.real_url),
    )


def _without_secrets(headers: Mapping[str, str]) -> CIMultiDict[str]:
    return CIMultiDict(
        (name, "***" if name.lower() in SECRET_HEADERS else value)
        for name, value in headers.items()
    )


def _shown(url: URL) -> URL:
    if url.raw_user or url.raw_password:
        url = url.with_user(None)
    secret = [name for name in url.query if name.lower() in SECRET_PARAMETERS]
    return url.update_query(dict.fromkeys(secret, "***")) if secret else url


def _rebuild(
    kind: type[AiotwhelpError], args: tuple[Any, ...], state: dict[str, Any]
) -> AiotwhelpError:
    error = kind(*args)
    error.__dict__.update(state)
    return error


def _rebuild_answer(kind: type[_AnswerError], state: dict[str, Any]) -> _AnswerError:
    url, method, headers, real_url = state.pop("request_info")
    answer_headers = CIMultiDictProxy(CIMultiDict(state.pop("headers")))
    info = aiohttp.RequestInfo(
        URL(url), method, CIMultiDictProxy(CIMultiDict(headers)), URL(real_url)
    )
    error = kind(state["message"], request_info=info, status=state["status"])
    error.__dict__.update(state, headers=answer_headers)
    return error
