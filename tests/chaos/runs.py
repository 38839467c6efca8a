"""Many schedules in several processes, and what happened in them."""

from __future__ import annotations

import multiprocessing
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice

import pytest

from tests.chaos.play import Outcome, play
from tests.sabotages import Sabotage

#: Schedules that a process plays between two reports.
BATCH = 50


@dataclass
class Report:
    """What some schedules came to."""

    schedules: int = 0
    calls: int = 0
    requests: int = 0
    #: Virtual seconds.
    elapsed: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def note(self, outcome: Outcome) -> None:
        self.calls += outcome.plan.calls
        self.requests += outcome.requests
        self.elapsed += outcome.elapsed
        self.kinds.update(outcome.plan.kinds)
        self.faults += outcome.faults
        self.ends += outcome.ends

    def add(self, other: Report) -> None:
        self.schedules += other.schedules
        self.calls += other.calls
        self.requests += other.requests
        self.elapsed += other.elapsed
        self.kinds += other.kinds
        self.faults += other.faults
        self.ends += other.ends
        self.failures += other.failures

    def lines(self) -> Iterator[str]:
        """Say it for people."""
        yield (
            f"{self.schedules} schedules, {self.calls} calls, {self.requests} requests, "
            f"{sum(self.faults.values())} faults, {self.elapsed / 86_400:.0f} virtual days: "
            f"{len(self.failures)} failed"
        )
        for name, counts in (
            ("schedules with", self.kinds),
            ("faults", self.faults),
            ("calls ended as", self.ends),
        ):
            told = ", ".join(f"{key} {value}" for key, value in counts.most_common())
            yield f"  {name}: {told}"


def batch(seeds: list[int]) -> Report:
    """Play some seeds; a failure is told, and the others go on."""
    report = Report()
    for seed in seeds:
        report.schedules += 1
        try:
            report.note(play(seed))
        except Exception:  # noqa: BLE001 - whatever it is, it is told
            report.failures.append(traceback.format_exc())
    return report


def reports(first: int, schedules: int | None, processes: int) -> Iterator[Report]:
    """Play so many seeds from the first on, or without end, and report on each batch."""
    seeds = iter(count(first) if schedules is None else range(first, first + schedules))
    batches = iter(lambda: list(islice(seeds, BATCH)), [])
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        running = [pool.apply_async(batch, (some,)) for some in islice(batches, 2 * processes)]
        while running:
            yield running.pop(0).get()
            running += [pool.apply_async(batch, (some,)) for some in islice(batches, 1)]


def catches(sabotage: Sabotage, most: int = 500) -> tuple[int, str] | None:
    """Return how many schedules it took to notice a broken rule, and what was noticed."""
    with pytest.MonkeyPatch.context() as patch:
        sabotage(patch)
        for seed in range(most):
            try:
                play(seed)
            except Exception as error:  # noqa: BLE001 - however it fails, it fails
                return seed + 1, f"{type(error).__name__}: {error}".partition("\n")[0]
    return None
