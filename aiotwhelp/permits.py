"""One caller's go, until it is settled."""

from __future__ import annotations

from collections.abc import Mapping

from multidict import CIMultiDictProxy

from aiotwhelp import checks
from aiotwhelp.costs import as_cost
from aiotwhelp.headers import Dialect, Reading
from aiotwhelp.queues import Line
from aiotwhelp.quota import Granted


class Permit(Granted):
    """One caller's go. Settle it exactly once: `observed`, `unsent` or `lost`.

    One from `Limiter.acquire` or `Limiter.try_acquire` that is dropped unsettled counts as lost,
    with a ResourceWarning.
    """

    __slots__ = ("_dialect", "_line", "waited")

    _dialect: Dialect
    _line: Line
    #: Seconds that the caller waited for it.
    waited: float

    def __repr__(self) -> str:
        return f"<Permit {self._line.key} {'settled' if self.is_settled else 'out'}>"

    def observed(
        self,
        headers: Mapping[str, str],
        *,
        status: int = 200,
        cost: int | Mapping[str, int] | None = None,
    ) -> Reading:
        """Settle with an answer's headers and status, as soon as they are there.

        Pass what the call really took as ``cost`` if that is known by now and differs from what
        was asked for: local rates are corrected; windows that the server announces correct
        themselves. Returns what was read. Raises RuntimeError if the permit is settled already, and
        TypeError for headers that are no text; of those nothing could be read.
        """
        # aiohttp's at a glance; http.client's are no Mapping by their type.
        if headers.__class__ is not CIMultiDictProxy and not isinstance(headers, Mapping):
            meaning = "a mapping, as an answer's headers are"
            checks.methods("headers", headers, ("get", "items"), meaning)
        plain = self._line.bucket.plain
        frame = None if plain is None else plain.frame
        if frame is not None and status == 200 and cost is None:
            remaining = self.observed_again(headers)
            if remaining >= 0:
                return frame.reading(remaining)
        status = checks.whole("status", status)  # a server may write 000 to 999, whatever they mean
        line, dialect = self._line, self._dialect
        reading = dialect.read(headers, status)
        if not reading.windows and headers.__class__ is not CIMultiDictProxy:
            checks.fields("headers", headers)  # of what is no text nothing is read
        took = None if cost is None else as_cost(cost)
        line.settling.observed(line, self, reading, status, took)
        if plain is not None and plain.is_plain and status == 200:
            plain.expect_as(dialect.frame(headers))
        return reading

    def observed_again(self, headers: Mapping[str, str]) -> int:
        """Settle with an answer of status 200 that says what the one before did, but what is left.

        Returns that; -1 for any other answer, which is yet to be `observed`.
        """
        line = self._line
        window = self.bucket.plain
        if window is None:
            return -1
        frame = window.frame
        if frame is None or frame.dialect is not self._dialect:
            return -1
        remaining = frame.left(headers)
        if remaining >= 0:
            line.settling.observed_again(line, self, window, frame, remaining)
        return remaining

    def refused_after_all(self, reading: Reading, status: int) -> None:
        """Note that the body of the answer, read after its headers, refused the call."""
        self._line.settling.refused_after_all(self._line, self, reading, status)

    def unsent(self, *, failed: bool = False, reason: str = "") -> None:
        """Settle a call that surely never left: its token goes back.

        Pass ``failed=True`` if it was tried and nobody was there (a refused connection). Callers
        that wait in vain are told the ``reason``.
        """
        self._line.settling.unsent(self._line, self, failed=failed, reason=reason)

    def lost(self, *, reason: str = "") -> None:
        """Settle a call that may have been counted and whose answer will not come.

        Callers that wait in vain are told the ``reason``.
        """
        self._line.settling.lost(self._line, self, reason=reason)


class HeldPermit(Permit):
    """A permit in a user's hands, who may forget it; a session's own calls settle theirs."""

    __slots__ = ()

    def __del__(self) -> None:
        if not self.is_settled and hasattr(self, "_line"):
            self._line.settling.dropped(self._line, self)


def handed_out(line: Line, granted: Granted, dialect: Dialect, waited: float) -> Permit:
    """Make a permit of what the rule has granted to a caller of a line."""
    permit: Permit = granted  # type: ignore[assignment] # as `Bucket.grants` has it
    permit._line = line
    permit._dialect = dialect
    permit.waited = waited
    return permit
