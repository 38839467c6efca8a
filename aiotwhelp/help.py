"""The help family and ``application/rate_limit_status`` as typed calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiotwhelp import checks
from aiotwhelp.session import Session


@dataclass(frozen=True, slots=True)
class Language:
    """A language of the API: its code is of ISO 639-1 or 639-3, or has a region (``zh-tw``)."""

    code: str
    name: str
    status: str


@dataclass(frozen=True, slots=True)
class EndpointLimit:
    """One endpoint of ``rate_limit_status``; ``reset`` is POSIX time of the server's clock."""

    limit: int
    remaining: int
    reset: float


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """What ``rate_limit_status`` tells: limits by the API's own templates.

    The numbers may be stale (the endpoint stood still three times), and the reset of an endpoint
    that was not called yet is no running window. Nothing in the limiter is replaced by them.
    """

    resources: Mapping[str, Mapping[str, EndpointLimit]]

    def __getitem__(self, template: str) -> EndpointLimit:
        """Return an endpoint's limit by its template, such as ``/help/privacy``."""
        for endpoints in self.resources.values():
            if template in endpoints:
                return endpoints[template]
        raise KeyError(template)


class Help:
    """The help family of the X API, v1.1.

    The API retired these endpoints; there, they raise `EndpointRetiredError`. Each call raises
    what `Session.fetch` raises, and ValueError for an answer of another shape.
    """

    def __init__(self, session: Session) -> None:
        self._session = checks.instance("session", session, Session, "a Session")

    async def privacy(self) -> str:
        """Return the privacy policy: ``GET help/privacy``, 15 calls per 15 minutes."""
        return _text(await self._session.fetch("/1.1/help/privacy.json"), "privacy")

    async def tos(self) -> str:
        """Return the terms of service: ``GET help/tos``, 15 calls per 15 minutes."""
        return _text(await self._session.fetch("/1.1/help/tos.json"), "tos")

    async def languages(self) -> list[Language]:
        """Return the languages of the API: ``GET help/languages``, 15 calls per 15 minutes."""
        answer = await self._session.fetch("/1.1/help/languages.json")
        if not isinstance(answer, list):
            raise _unexpected("a list of languages", answer)
        return [_language(each) for each in answer]

    async def configuration(self) -> dict[str, Any]:
        """Return the API's own settings: ``GET help/configuration``, to be asked once a day."""
        answer = await self._session.fetch("/1.1/help/configuration.json")
        if not isinstance(answer, dict):
            raise _unexpected("an object", answer)
        return answer

    async def rate_limit_status(self, *families: str) -> RateLimitStatus:
        """Return the limits of some families (``help``, ``users``), or of all.

        A call itself, of 180 per 15 minutes.
        """
        named = checks.texts("families", families, "families such as 'help'")
        params = {"resources": ",".join(named)} if named else {}
        answer = await self._session.fetch("/1.1/application/rate_limit_status.json", params=params)
        resources = answer.get("resources") if isinstance(answer, dict) else None
        if not isinstance(resources, dict):
            raise _unexpected("an object with resources", answer)
        return RateLimitStatus(
            {
                family: {template: _limit(each) for template, each in endpoints.items()}
                for family, endpoints in resources.items()
                if isinstance(endpoints, dict)
            }
        )


def _text(answer: Any, name: str) -> str:
    text = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(text, str):
        raise _unexpected(f"an object with the text {name!r}", answer)
    return text


def _language(answer: Any) -> Language:
    try:
        return Language(str(answer["code"]), str(answer["name"]), str(answer["status"]))
    except (TypeError, KeyError):
        raise _unexpected("a language with code, name and status", answer) from None


def _limit(answer: Any) -> EndpointLimit:
    try:
        return EndpointLimit(int(answer["limit"]), int(answer["remaining"]), float(answer["reset"]))
    except (TypeError, KeyError, ValueError, OverflowError):
        raise _unexpected("a limit with limit, remaining and reset", answer) from None


def _unexpected(what: str, answer: Any) -> ValueError:
    return ValueError(f"expected {what}, and got {str(answer)[:80]!r}")
