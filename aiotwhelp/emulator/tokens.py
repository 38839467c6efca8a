"""The token endpoints: app-only bearer tokens (v1.1) and refreshed user tokens (v2)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from urllib.parse import unquote

from .accounts import Accounts, App, Grant
from .answers import Answer, answer, error
from .clock import ServerClock
from .endpoints import Incoming


class TokenEndpoints:
    """Issues, refreshes and ends tokens; ``lifetime`` is that of a refreshed one, in seconds."""

    def __init__(self, accounts: Accounts, clock: ServerClock, lifetime: float) -> None:
        self._accounts = accounts
        self._clock = clock
        self.lifetime = lifetime
        self._answers: dict[tuple[str, str], Callable[[Incoming], Answer]] = {
            ("POST", "/oauth2/token"): self._bearer,
            ("POST", "/oauth2/invalidate_token"): self._invalidate,
            ("POST", "/2/oauth2/token"): self._refresh,
            ("POST", "/2/oauth2/revoke"): self._revoke,
        }

    def answer(self, incoming: Incoming) -> Answer | None:
        """Return the answer of a token endpoint, None if the request is for something else."""
        handler = self._answers.get((incoming.method, incoming.path))
        return handler(incoming) if handler else None

    def _bearer(self, incoming: Incoming) -> Answer:
        app = self._client(incoming)
        if app is None or incoming.form.get("grant_type") != "client_credentials":
            return error(99)
        return answer({"token_type": "bearer", "access_token": self._accounts.bearer_of(app)})

    def _invalidate(self, incoming: Incoming) -> Answer:
        if self._client(incoming) is None:
            return error(99)
        token = incoming.form.get("access_token", "")
        if not self._accounts.revoke(token):
            return error(89)
        return answer({"access_token": token})

    def _refresh(self, incoming: Incoming) -> Answer:
        form = incoming.form
        if form.get("grant_type") != "refresh_token":
            return _refused("unsupported_grant_type", "Only refresh_token is issued here.")
        old = self._accounts.refreshable(form.get("refresh_token", ""))
        if old is None:
            return _refused("invalid_request", "Value passed for the token was invalid.")
        if not self._may_refresh(incoming, old):
            return _refused("invalid_client", "Missing or wrong client credentials.", 401)
        new = self._accounts.refresh(old.refresh_token, self.lifetime, self._clock.steady())
        return _granted(new) if new else _refused("invalid_request", "The token was used up.")

    def _revoke(self, incoming: Incoming) -> Answer:
        self._accounts.revoke(incoming.form.get("token", ""))
        # RFC 7009, 2.2: a token that does not exist is as good as revoked.
        return answer({"revoked": True})

    def _may_refresh(self, incoming: Incoming, grant: Grant) -> bool:
        # A confidential client shows its secret, a public one only its name.
        if "Authorization" in incoming.headers:
            return self._client(incoming) == grant.user.app
        return incoming.form.get("client_id") == grant.client_id

    def _client(self, incoming: Incoming) -> App | None:
        scheme, _, value = incoming.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            key, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return self._accounts.client(unquote(key), unquote(secret))


def _granted(grant: Grant) -> Answer:
    lifetime = grant.expires_in
    return answer(
        {
            "token_type": "bearer",
            "expires_in": int(lifetime) if lifetime == int(lifetime) else lifetime,
            "access_token": grant.access_token,
            "scope": grant.scope,
            "refresh_token": grant.refresh_token,
        }
    )


def _refused(kind: str, description: str, status: int = 400) -> Answer:
    return answer({"error": kind, "error_description": description}, status)
