"""Runs that wait for a calm machine."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from offsim.codec import codec_named
from offsim.record import RunRecord
from offsim.runtime.run import Run
from offsim.study.guard import CALM, FEWEST_S, FIRST, PAUSE_S, Guard, Guarded, reference
from offsim.study.subject import DrivenSubject
from offsim.testbed.generated import generated_model
from tests.builders import TOY


@dataclass
class Machine:
    """Takes 1 s for the reference, or 2 s in given spells of its clock; each run takes 3 s."""

    spells: list[tuple[float, float]] = field(default_factory=list)
    now: float = 0.0
    began: list[float] = field(default_factory=list)

    def guard(self) -> Guard:
        return Guard(self.reference, lambda: self.now, self.sleep)

    def reference(self) -> float:
        return 2.0 if any(start <= self.now < end for start, end in self.spells) else 1.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self) -> Run:
        self.began.append(self.now)
        self.now += 3.0
        return Run(RunRecord("MEASURED"), [[len(self.began)]], [], [])


READY = FIRST * PAUSE_S
"""When there is a best."""


def test_a_calm_machine_is_run_at_once() -> None:
    machine = Machine()
    guard = machine.guard()
    assert [guard.guarded(machine.run).tokens for _ in range(2)] == [[[1]], [[2]]]
    assert machine.began == [READY, READY + 3]
    assert (guard.runs, guard.again, guard.disturbed, guard.spent_s) == (2, 0, 0, 0)
    assert guard.counted_s == 6


def test_a_run_waits_until_the_machine_is_calm() -> None:
    machine = Machine([(READY, READY + 2)])
    guard = machine.guard()
    guard.guarded(machine.run)
    assert machine.began == [READY + 2]
    assert (guard.again, guard.disturbed, guard.spent_s) == (0, 0, 2)


def test_a_run_in_which_a_spell_began_is_made_again() -> None:
    machine = Machine([(READY + 1, READY + 4)])
    guard = machine.guard()
    assert guard.guarded(machine.run).tokens == [[2]]
    assert machine.began == [READY, READY + 4]
    assert (guard.runs, guard.again, guard.disturbed) == (1, 1, 0)
    assert guard.spent_s == 3 + 1


def test_patience_ends_and_the_run_counts_as_it_comes() -> None:
    machine = Machine([(READY, 1e9)])
    guard = machine.guard()
    guard.guarded(machine.run)
    assert machine.began == [READY + FEWEST_S]
    assert (guard.runs, guard.again, guard.disturbed) == (1, 0, 1)
    guard.guarded(machine.run)
    assert machine.began[1] == READY + FEWEST_S + 3
    assert guard.disturbed == 2


def test_a_machine_that_is_slow_all_the_time_becomes_the_usual_one() -> None:
    machine = Machine([(READY + 3, 1e9)])
    guard = machine.guard()
    for _ in range(200):
        guard.guarded(machine.run)
    before = guard.disturbed
    guard.guarded(machine.run)
    assert guard.disturbed == before < 200
    assert guard.spent_s <= guard.counted_s


def test_the_reference_is_work() -> None:
    subject = DrivenSubject(generated_model((3, 4, 16, 24)), TOY)
    measure = reference(subject, subject.store(codec_named("raw"), 0.0))
    seconds = [measure() for _ in range(3)]
    assert 0 < min(seconds) <= max(seconds) < 10
    assert CALM > 1


def test_a_guarded_subject_is_the_subject() -> None:
    subject = DrivenSubject(generated_model((3, 4, 16, 24)), TOY)
    waits: Iterator[float] = iter([1.0] * 1000)
    guarded = Guarded(subject, Guard(lambda: next(waits), sleep=lambda _: None))
    store = guarded.store(codec_named("raw"), 0.0)
    assert guarded.facts == subject.facts
    assert guarded.lookahead == subject.lookahead
    assert guarded.device is subject.device
    assert guarded.resident(store).shape == subject.resident(store).shape
    asked = guarded.drawn(1, 3)
    assert [one.tokens for one in asked] == [one.tokens for one in subject.drawn(1, 3)]
    assert guarded.steps(asked, 3) == subject.steps(asked, 3)
    assert guarded.longest(3, 1) == subject.longest(3, 1)
    assert len(guarded.checked(1, 0)) == len(guarded.matrices()) - 2
    policy = store.policy(slots=2)
    run = guarded.run(store, policy, asked, 3, 1e9)
    assert run.record.decisions() == subject.run(store, policy, asked, 3, 1e9).record.decisions()
    assert guarded.guard.runs == 1
