"""Who is let through: the limits of each endpoint applied to each caller."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .accounts import Identity
from .answers import Answer, error, problem
from .catalogue import Endpoint
from .clock import ServerClock, http_date
from .faults import Faults
from .windows import Book, Pace, Rule, Window, announced


class Gate:
    """Counts and refuses; everything happens at the present instant of the server's clock."""

    def __init__(
        self, clock: ServerClock, faults: Faults, *, window: float, day: float, keep: int
    ) -> None:
        self.book = Book(keep)
        self._clock = clock
        self._faults = faults
        self._window = window
        self._day = day
        self._paces: dict[tuple[str, int, float], Pace] = {}
        self._turn = 0

    def refusal(self, endpoint: Endpoint, caller: Identity) -> Answer | None:
        """Return the refusal of a call, or None if every limit lets it through."""
        spent = next((w for w in self._windows(endpoint, caller) if w.remaining < 1), None)
        if spent is not None:
            self.book.refuse(spent, self._clock.now())
            return self._refused(endpoint, spent.rule.code, spent.resets_at)
        blocked = self._blocked(endpoint, caller)
        if blocked is None:
            return None
        return self._refused(endpoint, 88, self._clock.now() + blocked.span)

    def count(self, endpoint: Endpoint, caller: Identity, *, others: float = 0.0) -> None:
        """Take one call from every limit of the endpoint."""
        self.book.count(self._windows(endpoint, caller), self._clock.now(), others)
        for pace in self._hidden(endpoint, caller):
            pace.count(self._clock.steady())

    def give_back(self, endpoint: Endpoint, caller: Identity, *, others: float = 0.0) -> None:
        """Take back the call that was counted last."""
        self.book.give_back(self._windows(endpoint, caller), others)
        for pace in self._hidden(endpoint, caller):
            pace.give_back()

    def count_refused(self, endpoint: Endpoint, caller: Identity) -> None:
        """Take one call from the limits that would have let it through."""
        others = [w for w in self._windows(endpoint, caller) if w.remaining]
        self.book.count(others, self._clock.now())

    def spend(self, endpoint: Endpoint, caller: Identity, number: int) -> None:
        """Take calls from the announced windows as somebody else."""
        for rule in self.rules(endpoint, caller):
            if rule.header is not None:
                self.book.spend(rule, number, self._clock.now())

    def headers(self, endpoint: Endpoint, caller: Identity) -> dict[str, str]:
        """Return the rate-limit headers of an answer."""
        headers = {}
        shift = self._shift()
        for window in self._windows(endpoint, caller):
            prefix = window.rule.header
            if prefix is not None:
                headers[f"{prefix}-limit"] = str(window.rule.limit)
                headers[f"{prefix}-remaining"] = str(window.remaining)
                headers[f"{prefix}-reset"] = self._announced(window.resets_at + shift)
        return headers

    def remaining(self, endpoint: Endpoint, caller: Identity) -> int | None:
        """Return what the 15-minute window has left, None for an endpoint without one."""
        return next(
            (
                window.remaining
                for window in self._windows(endpoint, caller)
                if window.rule.header == "x-rate-limit"
            ),
            None,
        )

    def status(
        self, endpoints: Iterable[Endpoint], caller: Identity, families: set[str]
    ) -> dict[str, dict[str, dict[str, float]]]:
        """Return what application/rate_limit_status tells: templates by family."""
        listed = [e for e in endpoints if not e.is_v2]
        gets = {e.template for e in listed if e.method == "GET"}
        resources: dict[str, dict[str, dict[str, float]]] = {}
        for endpoint in listed:
            wanted = not families or endpoint.family in families
            window = self._announced_window(endpoint, caller) if wanted else None
            if window is not None:
                key = _status_key(endpoint, gets)
                resources.setdefault(endpoint.family, {})[key] = self._described(window)
        return resources

    def rules(self, endpoint: Endpoint, caller: Identity) -> list[Rule]:
        """Return every windowed limit that a call of this caller is under."""
        name = f"{endpoint.method} {endpoint.template}"
        own, app = f"{name} {caller.pool}", f"{name} app:{caller.app.name}"
        limit = endpoint.user if caller.user else endpoint.app
        rules = []
        if limit is not None:
            rules.append(Rule(own, limit, self._window))
        if endpoint.user_day is not None and caller.user:
            rules.append(Rule(own, endpoint.user_day, self._day, "x-user-limit-24hour"))
        if endpoint.app_day is not None:
            rules.append(Rule(app, endpoint.app_day, self._day, "x-app-limit-24hour"))
        if endpoint.cap is not None:
            cap = endpoint.cap
            rules.append(Rule(f"{cap.pool} {caller.pool}", cap.limit, cap.seconds, None, cap.code))
        return rules

    def _windows(self, endpoint: Endpoint, caller: Identity) -> list[Window]:
        self.book.shape = self._faults.shape()
        now = self._clock.now()
        return [self.book.find(rule, now) for rule in self.rules(endpoint, caller)]

    def _announced_window(self, endpoint: Endpoint, caller: Identity) -> Window | None:
        if caller.user is None and not endpoint.app_allowed:
            return None
        windows = self._windows(endpoint, caller)
        return next((w for w in windows if w.rule.header == "x-rate-limit"), None)

    def _described(self, window: Window) -> dict[str, float]:
        reset = float(self._announced(window.resets_at))
        return {
            "limit": window.rule.limit,
            "remaining": window.remaining,
            "reset": int(reset) if reset.is_integer() else reset,
        }

    def _hidden(self, endpoint: Endpoint, caller: Identity) -> list[Pace]:
        paces = []
        if endpoint.per_second is not None:
            name = f"{endpoint.method} {endpoint.template} {caller.pool}"
            paces.append(self._pace(name, endpoint.per_second, 1.0))
        if self._faults.hidden_limit is not None:
            pace = self._pace(caller.pool, self._faults.hidden_limit, self._faults.hidden_span)
            paces.append(pace)
        return paces

    def _pace(self, name: str, limit: int, span: float) -> Pace:
        return self._paces.setdefault((name, limit, span), Pace(limit, span))

    def _blocked(self, endpoint: Endpoint, caller: Identity) -> Pace | None:
        at = self._clock.steady()
        return next((p for p in self._hidden(endpoint, caller) if not p.is_free(at)), None)

    def _refused(self, endpoint: Endpoint, code: int, until: float) -> Answer:
        refused = problem(429) if endpoint.is_v2 else error(code)
        if self._faults.retry_after == "off" or refused.status != 429:
            return refused
        delay = max(0, math.ceil(until - self._clock.now()))
        hint = str(delay)
        if self._faults.retry_after == "date":
            hint = http_date(self._clock.now() + self._faults.edge_skew + delay)
        return Answer(429, refused.body, {**refused.headers, "Retry-After": hint})

    def _shift(self) -> float:
        backends = self._faults.backends
        if not backends:
            return 0.0
        self._turn += 1
        return backends[(self._turn - 1) % len(backends)]

    def _announced(self, reset: float) -> str:
        return announced(reset, self._faults.reset_rounding)


def _status_key(endpoint: Endpoint, gets: set[str]) -> str:
    # The API lists this one under a placeholder that its path does not have.
    if endpoint.template == "/users/show":
        return "/users/show/:id"
    if endpoint.method == "POST" and endpoint.template in gets:
        return f"{endpoint.template}&POST"
    return endpoint.template
