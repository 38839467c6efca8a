"""OAuth 1.0a signatures, checked by oauthlib's server side (RFC 5849, 3.2)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from oauthlib import oauth1

from .accounts import Accounts, Identity

#: Seconds by which a timestamp may differ from the server's clock, to either side.
TIMESTAMP_TOLERANCE = 300

#: v1.1 error codes: not authenticated, unknown token, no usable credentials, clock drift.
BAD_SIGNATURE, BAD_TOKEN, BAD_DATA, BAD_TIMESTAMP = 32, 89, 215, 135


class Verifier(oauth1.RequestValidator):
    """Finds out who signed a request, or with which error code to refuse it.

    A nonce is used up by a request that was accepted, and may not be seen again while its
    timestamp would still be accepted.
    """

    def __init__(self, accounts: Accounts, now: Callable[[], float]) -> None:
        super().__init__()
        self._accounts = accounts
        self._now = now
        self._seen: dict[tuple[str | None, str], int] = {}
        self._endpoint = oauth1.ResourceEndpoint(self)

    def verify(
        self, uri: str, method: str, body: str | None, headers: Mapping[str, str]
    ) -> Identity | int:
        """Return whose signature the request carries, or the error code that refuses it.

        ``uri`` is the raw one: scheme, Host and the request target as sent. ``body`` is given
        only where it is a form.
        """
        try:
            is_valid, request = self._endpoint.validate_protected_resource_request(
                uri, method, body, dict(headers)
            )
        except ValueError:  # a header, query or form that cannot be taken apart
            return BAD_DATA
        if not is_valid:
            return self._refusal(request)
        self._remember(request)
        user = self._accounts.users[request.resource_owner_key]
        return Identity(user.app, user, token=user.access_token)

    @property
    def timestamp_lifetime(self) -> int:
        """Endless: oauthlib would compare with the machine's clock, and ours is another one."""
        return sys.maxsize

    @property
    def enforce_ssl(self) -> bool:
        """No: the emulator listens on the loopback interface."""
        return False

    @property
    def allowed_signature_methods(self) -> tuple[str, ...]:
        """The only one that the API takes."""
        return (oauth1.SIGNATURE_HMAC_SHA1,)

    @property
    def dummy_client(self) -> str:
        """A key that no app has."""
        return "nobody"

    @property
    def dummy_access_token(self) -> str:
        """A token that no user has."""
        return "nobody"

    def check_client_key(self, client_key: str) -> bool:
        """Accept keys of every length; whether one exists is looked up later."""
        return True

    def check_access_token(self, request_token: str) -> bool:
        """Accept tokens of every length; whether one exists is looked up later."""
        return True

    def check_nonce(self, nonce: str) -> bool:
        """Accept any ASCII; the API's own examples have 32 and 42 characters."""
        return nonce.isascii() and 0 < len(nonce) <= 200

    def validate_timestamp_and_nonce(
        self,
        client_key: str,
        timestamp: Any,
        nonce: str,
        request: Any,
        request_token: str | None = None,
        access_token: str | None = None,
    ) -> bool:
        """Compare with the emulator's clock, and with the nonces it has accepted."""
        return self._is_timely(timestamp) and (access_token, nonce) not in self._seen

    def validate_client_key(self, client_key: str, request: Any) -> bool:
        """Tell whether the app exists."""
        return client_key in self._accounts.apps

    def validate_access_token(self, client_key: str, token: str, request: Any) -> bool:
        """Tell whether the token exists and belongs to the app."""
        user = self._accounts.users.get(token)
        return user is not None and user.consumer_key == client_key

    def validate_realms(self, *args: Any, **kwargs: Any) -> bool:
        """Accept every realm: the API has none."""
        return True

    def get_client_secret(self, client_key: str, request: Any) -> str:
        """Return the consumer secret, or one that fits nothing."""
        app = self._accounts.apps.get(client_key)
        return app.consumer_secret if app else "none"

    def get_access_token_secret(self, client_key: str, token: str, request: Any) -> str:
        """Return the token secret, or one that fits nothing."""
        user = self._accounts.users.get(token)
        return user.access_token_secret if user else "none"

    def _is_timely(self, timestamp: str) -> bool:
        return abs(self._now() - int(timestamp)) <= TIMESTAMP_TOLERANCE

    def _refusal(self, request: Any) -> int:
        if request is None or not request.resource_owner_key:
            return BAD_DATA
        if (request.timestamp or "").isdecimal() and not self._is_timely(request.timestamp):
            return BAD_TIMESTAMP
        # oauthlib has put the dummy in the place of a token that it could not find.
        token = request.oauth_params.get("oauth_token")
        return BAD_SIGNATURE if token in self._accounts.users else BAD_TOKEN

    def _remember(self, request: Any) -> None:
        self._seen[request.resource_owner_key, request.nonce] = int(request.timestamp)
        if len(self._seen) % 4096 == 0:
            self._seen = {key: at for key, at in self._seen.items() if self._is_timely(str(at))}
