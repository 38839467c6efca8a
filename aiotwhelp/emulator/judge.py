"""One request, one verdict: what is answered, what is counted, what goes wrong.

Synchronous, so that a request is judged and counted in one step, whatever comes meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .accounts import Accounts, Identity
from .answers import Answer, answer, error, failure, problem
from .catalogue import Catalogue, Endpoint, fits
from .clock import ServerClock
from .dialects import Refusal
from .endpoints import Call, Endpoints, Incoming
from .faults import Dice, Failure, Faults
from .gate import Gate
from .oauth1 import BAD_DATA, BAD_TOKEN, Verifier
from .tokens import TokenEndpoints


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a request; without an answer its connection is closed."""

    answer: Answer | None
    headers: Mapping[str, str] = field(default_factory=dict)
    template: str = ""
    identity: str = ""
    remaining: int | None = None
    counted: bool = False
    fault: str = ""
    truncated: bool = False
    refused: bool = False

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers on the wire: an answer's own ones replace those of the windows."""
        # Lower case, as X writes them; those of a dialect are spelled as it spells them.
        answered = self.answer.headers if self.answer else {}
        own = {name.lower(): value for name, value in answered.items()}
        windows = {name: text for name, text in self.headers.items() if name.lower() not in own}
        return windows | own


@dataclass(slots=True)
class Reply:
    """A canned answer; ``used`` tells how often it was given."""

    method: str
    path: str
    answer: Answer = field(repr=False)
    left: int | None = None
    counted: bool = True
    used: int = 0

    def matches(self, incoming: Incoming) -> bool:
        """Tell whether it is meant for this request and not used up."""
        is_method = self.method in ("*", incoming.method)
        return self.left != 0 and is_method and fits(self.path, incoming.path) is not None

    def take(self) -> Answer:
        """Return the answer, once less."""
        self.used += 1
        self.left = None if self.left is None else self.left - 1
        return self.answer


@dataclass(slots=True)
class Script:
    """What a test has arranged: canned answers and failures to come."""

    replies: list[Reply] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def reply(self, incoming: Incoming) -> Reply | None:
        """Return the reply to give: the counted ones in order, then the newest lasting one."""
        fitting = [reply for reply in self.replies if reply.matches(incoming)]
        return next((r for r in fitting if r.left is not None), fitting[-1] if fitting else None)

    def failure(self, incoming: Incoming) -> Failure:
        """Return the failure that this request is to meet; one of nothing if there is none."""
        self.failures = [fail for fail in self.failures if fail.left > 0]
        for fail in self.failures:
            if fail.path is None or fits(fail.path, incoming.path) is not None:
                return fail
        return Failure(left=0)


class Judge:
    """Puts catalogue, accounts, limits, endpoints and faults together."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        accounts: Accounts,
        clock: ServerClock,
        faults: Faults,
        gate: Gate,
        endpoints: Endpoints,
        tokens: TokenEndpoints,
        dice: Dice,
        retired: bool,
        anonymous: bool,
    ) -> None:
        self.script = Script()
        self._catalogue = catalogue
        self._accounts = accounts
        self._clock = clock
        self._faults = faults
        self._gate = gate
        self._endpoints = endpoints
        self._tokens = tokens
        self._dice = dice
        self._retired = retired
        self._anonymous = anonymous
        self._verifier = Verifier(accounts, clock.now)

    def judge(self, incoming: Incoming) -> Verdict:
        """Decide over a request and count it."""
        failing = self.script.failure(incoming)
        if failing.take("before") or self._dice.falls(self._faults.drop_before):
            return Verdict(None, fault="dropped before counting")
        verdict = self._judged(incoming, failing)
        if failing.take("after") or self._dice.falls(self._faults.drop_after):
            return replace(verdict, answer=None, fault="dropped after counting")
        if verdict.answer and verdict.answer.body and self._dice.falls(self._faults.truncated):
            return replace(verdict, truncated=True, fault="truncated")
        return verdict

    def _judged(self, incoming: Incoming, failing: Failure) -> Verdict:
        reply = self.script.reply(incoming)
        match = self._catalogue.match(incoming.method, incoming.path)
        if match is None or (reply is not None and not reply.counted):
            return self._uncounted(incoming, reply, failing)
        call = self._understood(incoming, *match)
        return call if isinstance(call, Verdict) else self._called(call, reply, failing)

    def _uncounted(self, incoming: Incoming, reply: Reply | None, failing: Failure) -> Verdict:
        """Judge a request that is under no limit."""
        broken = self._failure(failing)
        if broken is not None:
            return Verdict(broken.answer, fault=broken.fault)
        if reply is not None:
            return Verdict(reply.take(), fault="canned")
        return Verdict(self._elsewhere(incoming))

    def _understood(
        self, incoming: Incoming, endpoint: Endpoint, parameters: Mapping[str, str]
    ) -> Call | Verdict:
        """Find out who calls, and whether they may call this at all."""
        verdict = Verdict(None, template=endpoint.template)
        if self._retired and endpoint.retired:
            return replace(verdict, answer=error(251))
        identity = self._identify(incoming, endpoint)
        if isinstance(identity, Answer):
            return replace(verdict, answer=identity)
        forbidden = _forbidden(endpoint, identity)
        if forbidden is not None:
            return replace(verdict, answer=forbidden, identity=str(identity))
        return Call(incoming, endpoint, parameters, identity)

    def _called(self, call: Call, reply: Reply | None, failing: Failure) -> Verdict:
        """Let the limits decide, then the faults, then the endpoint."""
        refusal = self._gate.refusal(call)
        if refusal is not None:
            if self._faults.count_refused:
                self._gate.count_refused(call)
            made = self._gate.refused(refusal)
            is_refused = made.status == self._gate.refusal_status
            return self._stamped(call, Verdict(made, refused=is_refused), refusal)
        broken = self._failure(failing)
        if broken is not None:
            if broken.counted:
                self._count(call)
            stamped = self._stamped(call, broken)
            return stamped if self._faults.error_headers else replace(stamped, headers={})
        return self._stamped(call, self._answered(call, reply))

    def _answered(self, call: Call, reply: Reply | None) -> Verdict:
        # Counted first, since rate_limit_status describes its own window too.
        self._count(call)
        made = reply.take() if reply else self._endpoints.answer(call)
        counted = made.status < 400 or self._faults.count_failures
        if not counted:
            self._gate.give_back(call)
        return Verdict(made, counted=counted, fault="canned" if reply else "")

    def _failure(self, failing: Failure) -> Verdict | None:
        """Return how a failing server answers, None if it does not fail."""
        if failing.take(None):
            made, counted = _failed(failing), failing.counted
        elif self._dice.falls(self._faults.errors):
            made, counted = failure(self._faults.error_status), self._faults.errors_counted
        else:
            return None
        return Verdict(made, counted=counted, fault=f"error {made.status}")

    def _elsewhere(self, incoming: Incoming) -> Answer:
        token_answer = self._tokens.answer(incoming)
        if token_answer is not None:
            return token_answer
        methods = self._catalogue.methods(incoming.path)
        if incoming.path.startswith("/2/"):
            if not methods:
                return Answer(404)
            refused = problem(405)
            return replace(refused, headers={**refused.headers, "Allow": ", ".join(methods)})
        return error(34)

    def _count(self, call: Call) -> None:
        self._gate.count(call, others=self._faults.competitor)

    def _stamped(self, call: Call, verdict: Verdict, refusal: Refusal | None = None) -> Verdict:
        """Add who was judged and what is left, with the headers as the faults allow them."""
        verdict = replace(
            verdict,
            template=call.endpoint.template,
            identity=str(call.identity),
            remaining=self._gate.remaining(call),
        )
        headers = self._gate.headers(call, refusal)
        if self._dice.falls(self._faults.missing_headers):
            return replace(verdict, fault=verdict.fault or "no headers")
        if self._dice.falls(self._faults.garbled_headers):
            nonsense = {name: self._dice.nonsense() for name in headers}
            return replace(verdict, headers=nonsense, fault=verdict.fault or "garbled headers")
        return replace(verdict, headers=headers)

    def _identify(self, incoming: Incoming, endpoint: Endpoint) -> Identity | Answer:
        """Return who sent the request, or the answer that refuses to know."""
        scheme, _, token = incoming.headers.get("Authorization", "").partition(" ")
        found: Identity | int | None
        if scheme.lower() == "bearer":
            found = self._accounts.of_bearer(token.strip(), self._clock.steady()) or BAD_TOKEN
        elif scheme.lower() == "oauth" or "oauth_signature" in incoming.query:
            found = self._verify(incoming)
        elif self._anonymous:
            found = self._accounts.first
        else:
            found = BAD_DATA
        if isinstance(found, Identity):
            return found
        return problem(401) if endpoint.is_v2 else error(found)

    def _verify(self, incoming: Incoming) -> Identity | int:
        # The signature is over the target just as it was sent, and the Host that was asked for.
        uri = f"http://{incoming.host}{incoming.target}"
        headers = {"Authorization": incoming.headers.get("Authorization", "")}
        body = None
        if incoming.is_form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = incoming.body.decode("utf-8", "replace")
        return self._verifier.verify(uri, incoming.method, body, headers)


def _forbidden(endpoint: Endpoint, identity: Identity) -> Answer | None:
    if endpoint.is_v2:
        if identity.user is None and not endpoint.app_allowed:
            return problem(
                403,
                "This endpoint needs a user: OAuth 1.0a or OAuth 2.0 user context.",
                "unsupported-authentication",
            )
        return None
    # OAuth 2.0 user tokens are for v2 only.
    if identity.oauth2 or (identity.user is None and not endpoint.app_allowed):
        return error(220)
    return None


def _failed(failing: Failure) -> Answer:
    if failing.json is None:
        made = failure(failing.status)
        return replace(made, headers={**made.headers, **failing.headers})
    return answer(failing.json, failing.status, failing.headers)
