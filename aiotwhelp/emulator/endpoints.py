"""What each endpoint answers: real shapes for some, an echo of what was understood for the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from .accounts import Identity
from .answers import Answer, answer, configuration, error, languages, problem, slashed, text
from .catalogue import Endpoint

#: The newest post's id; older ones count down from it.
_NEWEST = 1_800_000_000_000_000_000

#: What opens every page token; clients must not look inside.
_TOKEN = "b26v89c19zqg8o3f"  # noqa: S105

_IDS = (
    "/followers/ids",
    "/friends/ids",
    "/blocks/ids",
    "/mutes/users/ids",
    "/friendships/incoming",
    "/friendships/outgoing",
    "/statuses/retweeters/ids",
)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came, before anybody looked at who sent it."""

    method: str
    path: str
    target: str
    host: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def query(self) -> str:
        """The raw query."""
        return self.target.partition("?")[2]

    @property
    def params(self) -> dict[str, str]:
        """The query, decoded."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def is_form(self) -> bool:
        """Whether the body is a form, whatever parameters its content type has."""
        return self._media_type == "application/x-www-form-urlencoded"

    @property
    def form(self) -> dict[str, str]:
        """The body's form, empty if it is none."""
        if not self.is_form:
            return {}
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    @property
    def json(self) -> Any:
        """The body's JSON, None if it is none."""
        if self._media_type != "application/json":
            return None
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def cost(self, unit: str) -> int:
        """Return what it takes of a unit: by a parameter or ``x-`` header of that name, else 1.

        A kind of tokens that is not named costs what ``tokens`` does.
        """
        if unit == "requests":
            return 1
        named = (
            self.params.get(name) or self.headers.get(f"x-{name}") for name in (unit, "tokens")
        )
        text = next(filter(None, named), "")
        return int(text) if text.isascii() and text.isdigit() else 1

    @property
    def _media_type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was understood: which endpoint, with what, for whom."""

    incoming: Incoming
    endpoint: Endpoint
    parameters: Mapping[str, str]
    identity: Identity

    @property
    def params(self) -> dict[str, str]:
        """The query's and the form's parameters together."""
        return {**self.incoming.params, **self.incoming.form}


#: Families and caller of rate_limit_status to its "resources".
StatusReport = Callable[[Identity, set[str]], Mapping[str, Any]]


class Endpoints:
    """The state behind the endpoints and their answers."""

    def __init__(self, *, followers: int, tweets: int, status: StatusReport) -> None:
        self._followers = followers
        self._tweets = tweets
        self._status = status
        self._posted = 0
        self._last_text: dict[str, str] = {}
        self._answers: dict[tuple[str, str], Callable[[Call], Answer]] = {
            ("GET", "/help/privacy"): lambda _: slashed({"privacy": text("privacy")}),
            ("GET", "/help/tos"): lambda _: slashed({"tos": text("tos")}),
            ("GET", "/help/languages"): lambda _: slashed(languages()),
            ("GET", "/help/configuration"): lambda _: slashed(configuration()),
            ("GET", "/application/rate_limit_status"): self._rate_limit_status,
            **{("GET", template): self._ids for template in _IDS},
            ("POST", "/statuses/update"): self._update,
            ("GET", "/2/users/me"): self._me,
            ("GET", "/2/users/{id}"): self._user,
            ("GET", "/2/users/{id}/tweets"): self._tweets_of,
            ("GET", "/2/tweets/search/recent"): self._search,
            ("GET", "/2/tweets/search/all"): self._search,
            ("POST", "/2/tweets"): self._post,
        }

    def answer(self, call: Call) -> Answer:
        """Carry the call out and return its answer."""
        endpoint = call.endpoint
        return self._answers.get((endpoint.method, endpoint.template), _echo)(call)

    def _rate_limit_status(self, call: Call) -> Answer:
        named = call.params.get("resources", "")
        families = {name.strip() for name in named.split(",") if name.strip()}
        identity = call.identity
        context = (
            {"access_token": identity.token}
            if identity.user
            else {"application": identity.app.consumer_key}
        )
        return answer(
            {"rate_limit_context": context, "resources": self._status(identity, families)}
        )

    def _ids(self, call: Call) -> Answer:
        count = _between(call.params.get("count"), 1, 5000, default=5000)
        start = _offset(call.params.get("cursor", "-1"))
        if start is None:
            return error(44)
        ids: list[Any] = list(range(start + 1, min(start + count, self._followers) + 1))
        after = _cursor(start + count) if start + count < self._followers else 0
        before = -_cursor(max(0, start - count)) if start else 0
        if call.params.get("stringify_ids") in ("true", "1", "t"):
            ids = [str(number) for number in ids]
        return answer(
            {
                "ids": ids,
                "next_cursor": after,
                "next_cursor_str": str(after),
                "previous_cursor": before,
                "previous_cursor_str": str(before),
            }
        )

    def _update(self, call: Call) -> Answer:
        status = call.params.get("status")
        if not status:
            return error(38)
        post = self._posts(call, status)
        if post is None:
            return error(187)
        user = call.identity.user
        return answer(
            {
                "id": int(post),
                "id_str": post,
                "text": status,
                "user": {"id_str": user.id, "screen_name": user.username} if user else None,
            }
        )

    def _me(self, call: Call) -> Answer:
        user = call.identity.user
        if user is None:
            return problem(403)
        return answer({"data": {"id": user.id, "name": user.name, "username": user.username}})

    def _user(self, call: Call) -> Answer:
        user_id = call.parameters["id"]
        if not _is_id(user_id):
            return _invalid(f"The `id` query parameter value [{user_id}] is not valid")
        return answer(
            {"data": {"id": user_id, "name": f"User {user_id}", "username": f"user_{user_id}"}}
        )

    def _tweets_of(self, call: Call) -> Answer:
        user_id = call.parameters["id"]
        if not _is_id(user_id):
            return _invalid(f"The `id` query parameter value [{user_id}] is not valid")
        return self._page(call, "pagination_token", f"post {{}} of user {user_id}", lowest=5)

    def _search(self, call: Call) -> Answer:
        query = call.params.get("query")
        if not query:
            return _invalid("The `query` query parameter can not be empty")
        name = "next_token" if "next_token" in call.params else "pagination_token"
        highest = 500 if call.endpoint.template.endswith("/all") else 100
        wording = query.replace("{", "{{").replace("}", "}}")
        return self._page(call, name, f"post {{}} about {wording}", highest=highest)

    def _page(
        self, call: Call, name: str, wording: str, *, lowest: int = 10, highest: int = 100
    ) -> Answer:
        token = call.params.get(name)
        start = 0 if token is None else _from_token(token)
        size = _between(call.params.get("max_results"), lowest, highest, default=10, strict=True)
        if start is None or not size:
            return _invalid(f"The `{'max_results' if not size else name}` value is not valid")
        numbers = range(start, min(start + size, self._tweets))
        meta: dict[str, Any] = {"result_count": len(numbers)}
        if not numbers:
            return answer({"meta": meta})
        meta["newest_id"] = str(_NEWEST - numbers[0])
        meta["oldest_id"] = str(_NEWEST - numbers[-1])
        if start + size < self._tweets:
            meta["next_token"] = f"{_TOKEN}{start + size:x}"
        if start:
            meta["previous_token"] = f"{_TOKEN}{max(0, start - size):x}"
        data = [{"id": str(_NEWEST - n), "text": wording.format(n + 1)} for n in numbers]
        return answer({"data": data, "meta": meta})

    def _post(self, call: Call) -> Answer:
        body = call.incoming.json
        words = body.get("text") if isinstance(body, dict) else None
        if not isinstance(words, str) or not words:
            return _invalid("One or more parameters to your request was invalid.")
        post = self._posts(call, words)
        if post is None:
            return problem(403, "You are not allowed to create a Tweet with duplicate content.")
        return answer({"data": {"id": post, "text": words}}, 201)

    def _posts(self, call: Call, words: str) -> str | None:
        pool = call.identity.pool
        if self._last_text.get(pool) == words:
            return None
        self._last_text[pool] = words
        self._posted += 1
        return str(_NEWEST + self._posted)


def _echo(call: Call) -> Answer:
    return answer(
        {
            "method": call.endpoint.method,
            "path": call.incoming.path,
            "template": call.endpoint.template,
            "parameters": dict(call.parameters),
            "query": call.incoming.params,
            "form": call.incoming.form,
            "json": call.incoming.json,
            "identity": str(call.identity),
        }
    )


def _invalid(detail: str) -> Answer:
    return problem(400, detail, "invalid-request", errors=[{"message": detail}])


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 19


def _between(
    given: str | None, lowest: int, highest: int, *, default: int, strict: bool = False
) -> int:
    """Read a page size; where it is out of bounds, ``strict`` gives 0 instead of a bound."""
    try:
        number = default if given is None else int(given)
    except ValueError:
        return 0 if strict else default
    bounded = min(max(number, lowest), highest)
    return 0 if strict and bounded != number else bounded


def _cursor(offset: int) -> int:
    return (offset << 20) | 0xBEEF


def _offset(cursor: str) -> int | None:
    try:
        number = int(cursor)
    except ValueError:
        return None
    if number == -1:
        return 0
    return abs(number) >> 20 if abs(number) & 0xFFFFF == 0xBEEF else None


def _from_token(token: str) -> int | None:
    try:
        return int(token.removeprefix(_TOKEN), 16) if token.startswith(_TOKEN) else None
    except ValueError:
        return None
