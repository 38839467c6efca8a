"""Who exists: apps, their users, and the tokens that stand for them.

Every name and secret is drawn from a seeded generator, so a run can be repeated to the letter.
They guard nothing; their reprs hide them all the same, as those of real ones should.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass, field
from urllib.parse import unquote

_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class App:
    """An app's keys: OAuth 1.0a consumer, client credentials, and its OAuth 2.0 client."""

    name: str
    consumer_key: str
    consumer_secret: str = field(repr=False)
    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class User:
    """A user who has authorised one app: that app's consumer keys and the user's own token."""

    id: str
    username: str
    name: str
    app: App
    access_token: str
    access_token_secret: str = field(repr=False)

    @property
    def consumer_key(self) -> str:
        """The consumer key of the app."""
        return self.app.consumer_key

    @property
    def consumer_secret(self) -> str:
        """The consumer secret of the app."""
        return self.app.consumer_secret


@dataclass(frozen=True, slots=True)
class Grant:
    """An OAuth 2.0 user token with its refresh token; ``expires_in`` is in seconds."""

    user: User
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: float
    expires_at: float = field(repr=False)
    scope: str = "tweet.read tweet.write users.read offline.access"

    @property
    def client_id(self) -> str:
        """The OAuth 2.0 client id of the app."""
        return self.user.app.client_id

    @property
    def client_secret(self) -> str:
        """The OAuth 2.0 client secret of the app."""
        return self.user.app.client_secret


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a request was made for: a user of an app, or the app itself."""

    app: App
    user: User | None = None
    oauth2: bool = False
    token: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"user:{self.user.id}" if self.user else f"app:{self.app.name}"

    @property
    def pool(self) -> str:
        """The name of its own quota; one user has another one in every app."""
        return f"{self}@{self.app.name}" if self.user else str(self)


class Accounts:
    """The register of apps, users and tokens. Instants are steady seconds."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"{seed}:names")
        self.apps: dict[str, App] = {}
        self.users: dict[str, User] = {}
        self._bearers: dict[str, App] = {}
        self._grants: dict[str, Grant] = {}
        self._refreshes: dict[str, Grant] = {}

    def add_app(self, name: str | None = None) -> App:
        """Register an app; its consumer key is what it is found by."""
        app = App(
            name or f"app{len(self.apps) + 1}",
            self._word(25),
            self._word(50),
            self._word(34),
            self._word(50),
        )
        self.apps[app.consumer_key] = app
        return app

    def add_user(self, app: App, username: str | None = None) -> User:
        """Register a user who has authorised the app."""
        number = len(self.users) + 1
        user_id = str(1000 + number)
        username = username or f"user{number}"
        user = User(
            id=user_id,
            username=username,
            name=username.capitalize(),
            app=app,
            access_token=f"{user_id}-{self._word(40)}",
            access_token_secret=self._word(45),
        )
        self.users[user.access_token] = user
        return user

    @property
    def first(self) -> Identity:
        """The identity of the first app, for calls that name nobody."""
        return Identity(next(iter(self.apps.values())))

    def bearer_of(self, app: App) -> str:
        """Return the app's one bearer token; asking again returns the same one."""
        for token, owner in self._bearers.items():
            if owner == app:
                return token
        # The real ones hold percent signs, and are used just as they are.
        token = f"{'A' * 22}{self._word(16)}%2B{self._word(24)}%3D{self._word(40)}"
        self._bearers[token] = app
        return token

    def grant(self, user: User, expires_in: float, now: float) -> Grant:
        """Issue an OAuth 2.0 access token and the refresh token beside it."""
        grant = Grant(user, self._word(91), self._word(91), expires_in, now + expires_in)
        self._grants[grant.access_token] = grant
        self._refreshes[grant.refresh_token] = grant
        return grant

    def refresh(self, refresh_token: str, expires_in: float, now: float) -> Grant | None:
        """Exchange a refresh token, which is used up by it; None for one that is not valid."""
        old = self._refreshes.pop(refresh_token, None)
        if old is None:
            return None
        self._grants.pop(old.access_token, None)
        return self.grant(old.user, expires_in, now)

    def refreshable(self, refresh_token: str) -> Grant | None:
        """Return the grant that a refresh token would renew."""
        return self._refreshes.get(refresh_token)

    def client(self, key: str, secret: str) -> App | None:
        """Return the app of a pair of keys, consumer keys or OAuth 2.0 ones."""
        for app in self.apps.values():
            if (key, secret) in (
                (app.consumer_key, app.consumer_secret),
                (app.client_id, app.client_secret),
            ):
                return app
        return None

    def identity(self, caller: User | App) -> Identity:
        """Return the identity that a caller's requests have."""
        return Identity(caller) if isinstance(caller, App) else Identity(caller.app, caller)

    def of_bearer(self, token: str, now: float) -> Identity | None:
        """Return whose bearer token that is, an app's or a user's; None if it is no longer one."""
        app = self._bearers.get(token)
        if app is not None:
            return Identity(app, token=token)
        grant = self._grants.get(token)
        if grant is None or now >= grant.expires_at:
            return None
        return Identity(grant.user.app, grant.user, oauth2=True, token=token)

    def revoke(self, token: str) -> bool:
        """End a token of any kind; tell whether there was one."""
        # A form turns an unescaped %2B of a bearer token into a plus sign.
        bearer = next((b for b in self._bearers if token in (b, unquote(b))), None)
        grant = self._grants.pop(token, None) or self._refreshes.pop(token, None)
        if grant is not None:
            self._grants.pop(grant.access_token, None)
            self._refreshes.pop(grant.refresh_token, None)
        known: list[object] = [
            grant,
            self._bearers.pop(bearer or "", None),
            self.users.pop(token, None),
        ]
        return any(known)

    def _word(self, length: int) -> str:
        return "".join(self._random.choices(_ALPHABET, k=length))
