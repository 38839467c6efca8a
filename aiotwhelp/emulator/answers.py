"""The words the API answers with: bodies of errors and of endpoints, as bytes with a status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

JSON = "application/json;charset=utf-8"

#: v1.1 error codes with the status and the text that go with them.
_ERRORS = {
    32: (401, "Could not authenticate you."),
    34: (404, "Sorry, that page does not exist."),
    38: (403, "A required parameter is missing."),
    44: (403, "cursor parameter is invalid."),
    88: (429, "Rate limit exceeded"),
    89: (401, "Invalid or expired token."),
    99: (403, "Unable to verify your credentials"),
    130: (503, "Over capacity"),
    131: (500, "Internal error"),
    135: (401, "Timestamp out of bounds."),
    161: (403, "You are unable to follow more people at this time."),
    185: (403, "User is over daily status update limit."),
    187: (403, "Status is a duplicate."),
    215: (400, "Bad Authentication data."),
    220: (403, "Your credentials do not allow access to this resource."),
    251: (410, "This endpoint has been retired and should not be used."),
}

_TITLES = {
    400: "Invalid Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    410: "Gone",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a body and headers, before the windows add theirs."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return a value as JSON."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return Answer(status, body, {"Content-Type": JSON, **(headers or {})})


def slashed(value: Any) -> Answer:
    r"""Return a value as v1.1 writes it: ASCII, and slashes as ``\/``."""
    # A slash can stand only inside a string of JSON, where the escape is allowed everywhere.
    plain = answer(value)
    return Answer(plain.status, plain.body.replace(b"/", b"\\/"), plain.headers)


def error(code: int) -> Answer:
    """Return a v1.1 error."""
    status, message = _ERRORS[code]
    return answer({"errors": [{"message": message, "code": code}]}, status)


def problem(status: int, detail: str = "", kind: str = "", **more: Any) -> Answer:
    """Return a v2 problem; without a ``kind`` its type is about:blank."""
    title = _TITLES.get(status, "Error")
    return answer(
        {
            "title": title,
            "type": f"https://api.twitter.com/2/problems/{kind}" if kind else "about:blank",
            "status": status,
            "detail": detail or title,
            **more,
        },
        status,
        {"Content-Type": "application/problem+json"},
    )


def failure(status: int) -> Answer:
    """Return the page of an edge that could not reach what is behind it: no JSON at all."""
    title = _TITLES.get(status, "Error")
    page = f"<html><head><title>{status} {title}</title></head><body>{title}</body></html>"
    return Answer(status, page.encode(), {"Content-Type": "text/html;charset=utf-8"})


@cache
def text(name: str) -> str:
    """Return one of the texts that the help family serves."""
    file = resources.files("aiotwhelp.emulator") / "data" / f"{name}.txt"
    return file.read_text(encoding="utf-8").strip()


def languages() -> list[dict[str, str]]:
    """Return the answer of help/languages: codes of two letters, of three, and with a region."""
    names = (
        ("French", "fr"),
        ("English", "en"),
        ("Arabic", "ar"),
        ("Japanese", "ja"),
        ("Spanish", "es"),
        ("German", "de"),
        ("Portuguese", "pt"),
        ("Malay", "msa"),
        ("Filipino", "fil"),
        ("Traditional Chinese", "zh-tw"),
        ("British English", "en-gb"),
    )
    return [{"name": name, "status": "production", "code": code} for name, code in names]


def configuration() -> dict[str, Any]:
    """Return the answer of help/configuration."""
    sizes = {"large": (1024, 2048), "medium": (600, 1200), "small": (340, 480), "thumb": (150, 150)}
    return {
        "characters_reserved_per_media": 24,
        "dm_text_character_limit": 10_000,
        "max_media_per_upload": 1,
        "photo_size_limit": 3_145_728,
        "photo_sizes": {
            name: {"w": width, "h": height, "resize": "crop" if name == "thumb" else "fit"}
            for name, (width, height) in sizes.items()
        },
        "short_url_length": 23,
        "short_url_length_https": 23,
        "non_username_paths": ["about", "account", "help", "i", "login", "privacy", "search"],
    }
