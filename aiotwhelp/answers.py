"""The bodies of answers: read within bounds, and what the API's errors in them mean."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from json.scanner import make_scanner
from typing import Any

import aiohttp
from aiohttp import hdrs

from aiotwhelp.errors import ApiError, AuthError, BodyError, UsageCapError, one_line

#: An error's body is read up to this; the API's are below 1 KiB, gateways' pages some 10 KiB.
ERROR_BODY = 64 * 1024

#: Seconds that an error's body may take; its headers are there already.
_ERROR_TIME = 10.0

#: So much of a body an exception carries.
_SNIPPET = 2048

#: Error codes have a few digits; a number in JSON may have thousands.
_NO_CODE = 2**31

#: Problem types, and titles where the type is blank, that no wait of minutes lifts
#: (facts of the API: its catalogue of 429s and its neighbours).
_CAPS = frozenset(
    {"usage-capped", "usagecapexceeded", "credits", "creditsdepleted", "streaming-connection"}
)


#: Reads a value where it begins; what `json.loads` does around that takes longer for small ones.
_scan = make_scanner(json.JSONDecoder())  # type: ignore[arg-type] # as typeshed has it


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What an error's body said: v1.1 codes, the v2 problem's type, a text for people."""

    codes: tuple[int, ...] = ()
    #: What a server quotes may be a credential, which no frame's locals shall show.
    problem: str | None = field(default=None, repr=False)
    message: str = field(default="", repr=False)
    snippet: str = field(default="", repr=False)
    is_cap: bool = False


@dataclass(slots=True)  # not frozen, which takes three times as long to make
class Json:
    """A body that is JSON, raw too, so that each caller can have a copy of its own."""

    response: aiohttp.ClientResponse
    raw: bytes = field(repr=False)
    value: Any = field(repr=False)

    def copy(self) -> Any:
        """Decode it once more; BodyError if the caller's stack has no room for its nesting."""
        with suppress(RecursionError):  # whose frames hold the body, see `no_json`
            return decode(self.raw)
        raise body_error(self.response, "the body is nested too deeply")


def read_within(response: aiohttp.ClientResponse, most: int) -> Coroutine[Any, Any, bytes | None]:
    """Read a whole body of at most so many decompressed bytes; None, and closed, if larger.

    What was read stays readable on the response. Raises what reading raises.
    """
    content = response.content
    if content.is_eof() and content.total_bytes <= most:
        return response.read()  # as it is mostly: small, and all there
    return _read_within(response, most)


async def _read_within(response: aiohttp.ClientResponse, most: int) -> bytes | None:
    length = response.content_length
    if length is not None and length > most:
        response.close()
        return None
    body = await _read(response, most)
    return body if len(body) <= most else None


async def read_error(response: aiohttp.ClientResponse) -> ErrorBody:
    """Read and understand the start of an error's body; whatever it is, there is an answer.

    A longer body, and one that takes too long, is cut: the response is closed then.
    """
    try:
        async with asyncio.timeout(_ERROR_TIME):
            body = await _read(response, ERROR_BODY)
    except (aiohttp.ClientError, TimeoutError, OSError):
        return ErrorBody()
    return parse_error(body[:ERROR_BODY])


async def free(response: aiohttp.ClientResponse) -> None:
    """Let go of an answer nobody will read: a small body is read, a large one is cut.

    An unread answer would hold its connection for ever.
    """
    length = response.content_length
    if length is not None and length <= ERROR_BODY and not response.closed:
        await read_error(response)
    response.release()


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Read a body; one that is longer is cut soon after so many bytes, and closed."""
    if response.content.at_eof():
        return await response.read()  # a middleware may have read it before
    read = bytearray()  # a list of pieces would take 60 times as much, if they are tiny
    try:
        async for piece in response.content.iter_any():
            read += piece
            if len(read) > most:
                response.close()
                return bytes(read)
    except BaseException:
        response.close()
        raise
    body = bytes(read)
    # aiohttp has no public way to bound `read()`, nor to give back what was read otherwise.
    response._body = body  # noqa: SLF001
    return body


def parse_error(body: bytes) -> ErrorBody:
    """Understand an error's body: v1.1 codes, a v2 problem, or neither."""
    snippet = body[:_SNIPPET].decode("utf-8", "replace")
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return ErrorBody(snippet=snippet)
    if not isinstance(parsed, dict):
        return ErrorBody(snippet=snippet)
    codes, message = _codes(parsed)
    problem = _last_segment(parsed.get("type"))
    title = _text(parsed.get("title"))
    return ErrorBody(
        codes=codes,
        problem=problem,
        message=message or _text(parsed.get("detail")) or title or _text(parsed.get("message")),
        snippet=snippet,
        is_cap=(problem or "").lower() in _CAPS
        or title.lower() in _CAPS
        or parsed.get("connection_issue") == "TooManyConnections",
    )


def as_error(response: aiohttp.ClientResponse, body: ErrorBody) -> ApiError:
    """Make the exception for an answer with an error status."""
    kind: type[ApiError] = AuthError if response.status == 401 else ApiError
    if body.is_cap or response.status == 402:
        kind = UsageCapError
    return kind(describe(response, body), **evidence(response, body))


def already_done(response: aiohttp.ClientResponse, body: ErrorBody) -> ApiError:
    """Make the exception for a write that is refused since its earlier attempt had worked."""
    said = describe(response, body)
    return ApiError(
        f"{said}: an earlier attempt of this call got no answer, and it had worked; "
        "what was asked for is done",
        **evidence(response, body),
    )


def describe(response: aiohttp.ClientResponse, body: ErrorBody) -> str:
    """Say what an error answer says, in one line that can be printed."""
    text = body.message or one_line(response.reason or "") or "error"
    codes = ", ".join(f"code {code}" for code in body.codes)
    return f"{text} ({codes})" if codes else text


def evidence(response: aiohttp.ClientResponse, body: ErrorBody) -> dict[str, Any]:
    """Return what an exception keeps of an answer."""
    return {
        "request_info": response.request_info,
        "status": response.status,
        "headers": response.headers,
        "body": body.snippet,
        "codes": body.codes,
        "problem": body.problem,
    }


def body_error(response: aiohttp.ClientResponse, message: str, body: bytes = b"") -> BodyError:
    """Make the exception for a body that is too large, or not what was asked for."""
    return BodyError(
        message, **evidence(response, ErrorBody(snippet=body[:_SNIPPET].decode("utf-8", "replace")))
    )


def no_json(response: aiohttp.ClientResponse, body: bytes, problem: Exception) -> BodyError:
    """Make the exception for a body that could not be decoded.

    To be raised where ``problem`` is not being handled: the decoder's error, and its frames, hold
    all of the body, and whatever a server has repeated there.
    """
    if isinstance(problem, RecursionError):
        return body_error(response, "the body is not JSON, or nested too deeply", body)
    return body_error(response, f"the body is not JSON: {one_line(str(problem))}", body)


def decode(body: bytes) -> Any:
    """Decode a JSON body; an empty one is None."""
    try:
        text = body.decode()
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except (ValueError, StopIteration):
        pass
    # Space around it, another encoding, a mark of one, or no JSON: the standard library tells.
    return json.loads(body) if body.strip() else None


def is_delimited(response: aiohttp.ClientResponse) -> bool:
    """Whether the body has an end of its own; otherwise a broken connection looks like its end."""
    coding = response.headers.get(hdrs.TRANSFER_ENCODING, "")
    return hdrs.CONTENT_LENGTH in response.headers or "chunked" in coding.lower()


def _codes(parsed: Mapping[str, Any]) -> tuple[tuple[int, ...], str]:
    """Return the codes and the first message of v1.1's list of errors."""
    errors = parsed.get("errors")
    listed = [each for each in errors if isinstance(each, dict)] if isinstance(errors, list) else []
    codes = tuple(
        each["code"]
        for each in listed[:16]
        if type(each.get("code")) is int and -_NO_CODE < each["code"] < _NO_CODE
    )
    message = _text(listed[0].get("message")) if listed else _text(parsed.get("error"))
    return codes, message


def _last_segment(kind: object) -> str | None:
    """Return the last segment of a problem's type: its base has had three spellings."""
    if not isinstance(kind, str) or not kind or kind == "about:blank":
        return None
    return one_line(kind.rstrip("/").rpartition("/")[2].rpartition("#")[2][:100])


def _text(value: object) -> str:
    return one_line(value) if isinstance(value, str) else ""
