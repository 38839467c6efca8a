"""Who is let through: the limits of each endpoint applied to each caller."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from .accounts import Identity
from .answers import Answer
from .catalogue import Endpoint
from .clock import ServerClock, http_date
from .dialects import APP_DAY, MAIN, USER_DAY, Announcement, Dialect, Refusal, Standing
from .endpoints import Call
from .faults import Faults
from .windows import Book, Pace, Rule, Window, announced


class Gate:
    """Counts and refuses; everything happens at the present instant of the server's clock."""

    def __init__(
        self,
        clock: ServerClock,
        faults: Faults,
        *,
        window: float,
        day: float,
        book: Book,
        dialect: Dialect,
        tokens: Mapping[str, int | None],
        refusal_status: int | None,
    ) -> None:
        self.book = book
        self.refusal_status = refusal_status or dialect.status
        self._clock = clock
        self._faults = faults
        self._window = window
        self._day = day
        self._dialect = dialect
        self._tokens = tokens
        self._paces: dict[tuple[str, int, float], Pace] = {}
        self._turn = 0

    @property
    def units(self) -> tuple[str, ...]:
        """What the dialect counts."""
        return ("requests", *self._dialect.units)

    def refusal(self, call: Call) -> Refusal | None:
        """Return the refusal of a call, or None if every limit lets it through."""
        cost = call.incoming.cost
        windows = self._windows(call.endpoint, call.identity)
        spent = next((w for w in windows if w.remaining < cost(w.rule.unit)), None)
        if spent is not None:
            self.book.refuse(spent, self._clock.now())
            return self._spent(call, spent)
        at = self._clock.steady()
        hidden = self._hidden(call)
        blocked = next((scope for scope in hidden if not hidden[scope].is_free(at)), None)
        if blocked is None:
            return None
        until = self._clock.now() + hidden[blocked].span
        return Refusal("", "requests", blocked, True, until, 88, call.endpoint.is_v2)

    def count(self, call: Call, *, others: float = 0.0) -> None:
        """Take one call from every limit of the endpoint."""
        windows = self._windows(call.endpoint, call.identity)
        self.book.count(windows, self._clock.now(), others, call.incoming.cost)
        for pace in self._hidden(call).values():
            pace.count(self._clock.steady())

    def give_back(self, call: Call) -> None:
        """Take back the call that was counted last."""
        windows = self._windows(call.endpoint, call.identity)
        self.book.give_back(windows, call.incoming.cost)
        for pace in self._hidden(call).values():
            pace.give_back()

    def count_refused(self, call: Call) -> None:
        """Take one call from the limits that would have let it through."""
        cost = call.incoming.cost
        windows = self._windows(call.endpoint, call.identity)
        others = [w for w in windows if w.remaining >= max(1, cost(w.rule.unit))]
        self.book.count(others, self._clock.now(), cost=cost)

    def spend(self, endpoint: Endpoint, caller: Identity, number: int, unit: str) -> None:
        """Take calls, or tokens, from the announced windows as somebody else."""
        for rule in self.rules(endpoint, caller):
            if rule.header is not None and rule.unit == unit:
                self.book.spend(rule, number, self._clock.now())

    def refused(self, refusal: Refusal) -> Answer:
        """Return the answer to a refused call."""
        now = self._clock.now()
        said = Announcement((), now, self._faults.reset_rounding, refusal)
        made = self._dialect.body(said, refusal)
        if made.status != 429:
            return made
        made = replace(made, status=self.refusal_status)
        if self._faults.retry_after == "off":
            return made
        delay = max(0, math.ceil(refusal.until - now))
        hint = str(delay)
        if self._faults.retry_after == "date":
            hint = http_date(now + self._faults.edge_skew + delay)
        return replace(made, headers={**made.headers, "Retry-After": hint})

    def headers(self, call: Call, refusal: Refusal | None = None) -> dict[str, str]:
        """Return the rate-limit headers of an answer."""
        shift = self._shift()
        standings = tuple(
            Standing(
                name=self._dialect.name(window.rule.header),
                unit=window.rule.unit,
                bucket=call.endpoint.bucket_name,
                pool=call.identity.pool,
                limit=window.rule.limit,
                remaining=window.remaining,
                length=window.rule.length,
                reset=window.resets_at + shift,
            )
            for window in self._windows(call.endpoint, call.identity)
            if window.rule.header is not None
        )
        rounding = self._faults.reset_rounding
        return self._dialect.headers(Announcement(standings, self._clock.now(), rounding, refusal))

    def remaining(self, call: Call) -> int | None:
        """Return what the 15-minute window has left, None for an endpoint without one."""
        windows = self._windows(call.endpoint, call.identity)
        return next((w.remaining for w in windows if w.rule.header == MAIN), None)

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
        own, app = f"{endpoint.pool} {caller.pool}", f"{endpoint.pool} app:{caller.app.name}"
        limit = endpoint.user if caller.user else endpoint.app
        rules = []
        if limit is not None:
            rules.append(Rule(own, limit, self._window))
        for unit, tokens in self._tokens.items():
            if tokens is not None:
                rules.append(Rule(own, tokens, self._window, unit, unit=unit))
        if endpoint.user_day is not None and caller.user:
            rules.append(Rule(own, endpoint.user_day, self._day, USER_DAY))
        if endpoint.app_day is not None:
            rules.append(Rule(app, endpoint.app_day, self._day, APP_DAY))
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
        return next((w for w in windows if w.rule.header == MAIN), None)

    def _described(self, window: Window) -> dict[str, float]:
        reset = float(self._announced(window.resets_at))
        return {
            "limit": window.rule.limit,
            "remaining": window.remaining,
            "reset": int(reset) if reset.is_integer() else reset,
        }

    def _hidden(self, call: Call) -> dict[str, Pace]:
        """Return the limits that no header tells of, by their scope."""
        paces = {}
        pool = call.identity.pool
        if call.endpoint.per_second is not None:
            name = f"{call.endpoint.pool} {pool}"
            paces["shared"] = self._pace(name, call.endpoint.per_second, 1.0)
        if self._faults.hidden_limit is not None:
            limit, span = self._faults.hidden_limit, self._faults.hidden_span
            paces["global"] = self._pace(pool, limit, span)
        return paces

    def _pace(self, name: str, limit: int, span: float) -> Pace:
        return self._paces.setdefault((name, limit, span), Pace(limit, span))

    def _spent(self, call: Call, window: Window) -> Refusal:
        rule = window.rule
        return Refusal(
            name=self._dialect.name(rule.header or ""),
            unit=rule.unit,
            scope="shared" if rule.header == APP_DAY else "user",
            hidden=rule.header is None,
            until=window.free_at(call.incoming.cost(rule.unit)),
            code=rule.code,
            is_v2=call.endpoint.is_v2,
        )

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
