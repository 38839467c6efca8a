"""Runs the mutants of the module that the copy is for: one import of the tests, one fork a mutant.

mutmut makes the mutants. It would have pytest begin anew for each, and run the tests in any order,
which takes five times as long: here each mutant is a fork of a process that has collected the
tests. It runs those that meet the function, the ones that noticed most mutants of it first, until
one fails.
"""

from __future__ import annotations

import argparse
import enum
import gc
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

import pytest
from mutmut.configuration import config
from mutmut.mutation import trampoline
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.utils.file_utils import (
    copy_also_copy_files,
    copy_src_dir,
    setup_source_paths,
    walk_mutatable_files,
)
from mutmut.utils.format_utils import (
    mangled_name_from_mutant_name,
    orig_function_and_class_names_from_key,
)

#: A test may take so many seconds of the processor, and so many times what it took unchanged with
#: mutmut's detours, which are slow themselves.
_CPU, _TIMES = 2.0, 3.0

#: A test that waits for nothing is stopped after so many seconds, and what that gives.
_WAITS = 300.0
_STOPPED = {signal.SIGPROF, signal.SIGALRM}

#: Where mutmut has what it puts in a function's place.
_DETOUR = trampoline.__file__

#: Results are written down each time that so many more are known.
_SAVE = 100


class Fate(enum.StrEnum):
    """What became of a mutant."""

    SURVIVED = "survived"
    KILLED = "killed"
    TOO_LATE = "killed by time"
    CRASHED = "crashed"
    NO_TESTS = "no test meets it"
    NOT_RUN = "not run"

    @property
    def is_noticed(self) -> bool:
        return self in (Fate.KILLED, Fate.TOO_LATE, Fate.CRASHED)

    @classmethod
    def of(cls, code: int | None) -> Fate:
        """Return what mutmut has as this code."""
        return _FATES.get(code, Fate.CRASHED)


#: As mutmut has them; what is not here is a signal.
_FATES = {
    0: Fate.SURVIVED,
    1: Fate.KILLED,
    33: Fate.NO_TESTS,
    36: Fate.TOO_LATE,
    None: Fate.NOT_RUN,
}
_CODES = {fate: code for code, fate in _FATES.items()}


@dataclass
class Running:
    """A mutant that is tried by a process of its own, which writes down which test noticed."""

    name: str
    function: str
    told: int


class Forks:
    """A pytest plugin: runs the tests once for each mutant."""

    def __init__(self, data: SourceFileMutationData, names: list[str], processes: int) -> None:
        self.data = data
        self.names = names
        self.processes = processes
        self.items: list[pytest.Item] = []
        self.seconds: list[float] = []
        #: The tests, by their numbers, that meet a function.
        self.meeting: defaultdict[str, set[int]] = defaultdict(set)
        self.kills: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.running: dict[int, Running] = {}
        #: Where the functions stand that are called without mutmut's detour.
        self.plain: dict[str, tuple[object, str]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self) -> None:
        """Have hypothesis try a few examples, and stop at one that fails: nobody reads it."""
        from hypothesis import HealthCheck, Phase, settings  # not before pytest rewrites it

        settings.register_profile(
            "mutants",
            derandomize=True,
            database=None,
            deadline=None,
            max_examples=25,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        os.environ["HYPOTHESIS_PROFILE"] = "mutants"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = session.items
        self.look(session)
        self.check("fail", Fate.KILLED)
        self.make_plain()
        gc.collect()
        gc.freeze()
        self.check("", Fate.SURVIVED)
        for done, name in enumerate(self.names):
            if len(self.running) == self.processes:
                self.wait()
            self.start(name, mangled_name_from_mutant_name(name))
            if not done % _SAVE:
                self.data.save()
        while self.running:
            self.wait()
        self.data.save()
        return True

    def check(self, name: str, expected: Fate) -> None:
        """Look that the tests fail where they must, and else pass, in a fork as well."""
        self.start(name, "", list(range(len(self.items))))
        if (fate := Fate.of(self.wait())) is not expected:
            noticed = [self.items[number].name for number in self.kills[""]]
            raise RuntimeError(f"{name or 'unchanged'}: {fate} {noticed}, and not {expected}")
        self.kills.clear()

    def make_plain(self) -> None:
        """Have functions called as they are: mutmut's detour, by a name, takes longer than most."""
        for mutant in self.data.exit_code_by_key:
            function = mangled_name_from_mutant_name(mutant)
            owner, name = place_of(mutant)
            detour = vars(owner).get(name)
            if isinstance(detour, FunctionType) and detour.__code__.co_filename == _DETOUR:
                setattr(owner, name, detour.__wrapped__)
                self.plain[function] = owner, name

    @staticmethod
    def note(function: str, caller: str | None = None) -> None:
        """Remember that a test has met a function."""
        state()._stats.add(function)

    def look(self, session: pytest.Session) -> None:
        """Find out which tests meet which function, and how long they take."""
        set_mutant_under_test("stats")
        trampoline.record_trampoline_hit = self.note  # its own asks for the settings each time
        for number, item in enumerate(self.items):
            state()._stats.clear()
            began = time.process_time()
            item.ihook.pytest_runtest_protocol(item=item, nextitem=self.after(number))
            self.seconds.append(time.process_time() - began)
            for function in state()._stats:
                self.meeting[function].add(number)
        if session.testsfailed:
            raise RuntimeError("the tests fail where nothing is changed")

    def after(self, number: int) -> pytest.Item | None:
        return self.items[number + 1] if number + 1 < len(self.items) else None

    def start(self, name: str, function: str, order: list[int] | None = None) -> None:
        order = order or self.order(function)
        if not order:
            self.data.exit_code_by_key[name] = _CODES[Fate.NO_TESTS]
            return
        told, tells = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            code = 3
            try:
                self.change(name, function)
                code = self.child(order, tells)
            finally:
                os._exit(code)
        os.close(tells)
        self.running[pid] = Running(name, function, told)

    def order(self, function: str) -> list[int]:
        """Return the tests that meet a function, those that are likely to notice first."""
        kills = self.kills[function]
        return sorted(
            self.meeting[function], key=lambda number: (-kills[number], self.seconds[number])
        )

    def change(self, name: str, function: str) -> None:
        """Make this process one where a function is the mutant of this name."""
        set_mutant_under_test(name)
        if function in self.plain:
            setattr(*self.plain[function], mutant_of(name))

    def child(self, order: list[int], tells: int) -> int:
        session = self.items[0].session
        for number, following in zip(order, [*order[1:], None], strict=True):
            signal.setitimer(signal.ITIMER_PROF, _CPU + _TIMES * self.seconds[number])
            signal.setitimer(signal.ITIMER_REAL, _WAITS)
            item = self.items[number]
            nextitem = None if following is None else self.items[following]
            item.ihook.pytest_runtest_protocol(item=item, nextitem=nextitem)
            if session.testsfailed:
                os.write(tells, number.to_bytes(4, "big"))
                return 1
        return 0

    def wait(self) -> int:
        """Wait for one mutant to be done, write down what became of it, and return that."""
        pid, status = os.wait()
        mutant = self.running.pop(pid)
        told = os.read(mutant.told, 4)
        os.close(mutant.told)
        code = os.waitstatus_to_exitcode(status)
        if -code in _STOPPED:
            code = _CODES[Fate.TOO_LATE]
        if told:
            self.kills[mutant.function][int.from_bytes(told, "big")] += 1
        if mutant.function:
            self.data.exit_code_by_key[mutant.name] = code
        return code


def place_of(mutant: str) -> tuple[object, str]:
    """Return the class or module whose function is changed, and the function's name."""
    name, of_class = orig_function_and_class_names_from_key(mutant)
    module = sys.modules[mutant.rpartition(".")[0]]
    return getattr(module, of_class) if of_class else module, name


def mutant_of(name: str) -> object:
    """Return the function of this name, from the table that mutmut has written."""
    module, _, function = name.rpartition(".")
    table = vars(sys.modules[module])[f"mutants_{mangled_name_from_mutant_name(function)}__mutmut"]
    return table[function]


def main() -> int:
    # It reads its settings, those of the copy, while it is imported.
    from mutmut.__main__ import create_mutants

    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir(exist_ok=True)
    copy_src_dir()
    copy_also_copy_files()
    setup_source_paths()
    create_mutants(1)
    (path,) = walk_mutatable_files()
    data = SourceFileMutationData(path=path)
    data.load()
    codes = data.exit_code_by_key
    names = [name for name, code in codes.items() if not Fate.of(code).is_noticed]
    data.meta_path = data.meta_path.absolute()
    chosen = config().pytest_add_cli_args_test_selection + config().pytest_add_cli_args
    os.chdir("mutants")
    arguments = ["--rootdir=.", "--tb=native", "-q", *chosen]
    return int(pytest.main(arguments, plugins=[Forks(data, names, options.processes)]))


if __name__ == "__main__":
    del sys.path[0]  # this file's folder: the tests are imported from the copy
    sys.exit(main())
