"""Calibrating and checking on a trace that drives generated experts."""

from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedModel

from offsim.calibration.schema import Calibration
from offsim.errors import InputError
from offsim.policy.policy import Policy
from offsim.study.calibrate import Effort
from offsim.study.plan import Plan
from offsim.study.study import calibrate_alone, check_alone
from offsim.study.subject import DrivenSubject, ModelSubject
from offsim.study.workload import prompts
from offsim.testbed.generated import generated_model
from offsim.trace import Trace
from offsim.trace.cut import cut, joined
from tests.builders import TOY, foreseen

EFFORT = Effort(rounds=1, requests=2, tokens=3, repeats=2)
PLAN = Plan(EFFORT, requests=2, tokens=4, slots=(1, 2), paces=(1.0,), repeats=1, items=0)
KEYS = [("raw", 0.0), ("cuszp", 2.0**-8)]
SHAPE = (3, 4, 16, 24)


def subject_of(trace: Trace, distinct: int | None = None) -> DrivenSubject:
    experts = trace.info.experts_per_layer
    model = generated_model((trace.layers, experts, 16, 24), distinct=distinct)
    return DrivenSubject(model, trace)


@pytest.fixture(scope="module")
def subject() -> DrivenSubject:
    return subject_of(foreseen(joined([TOY] * 4), 1))


@pytest.fixture(scope="module")
def figures(subject: DrivenSubject) -> Calibration:
    return calibrate_alone(KEYS, EFFORT, lambda *_: None, subject)


def test_a_calibration_is_of_the_generated_experts(
    subject: DrivenSubject, figures: Calibration
) -> None:
    assert figures.model == subject.facts
    assert figures.measured
    assert (figures.model.layers, figures.model.experts, figures.model.top_k) == (3, 4, 2)
    assert "12 distinct, sigma 0.02" in figures.model.name
    assert [(codec.codec, codec.bound) for codec in figures.codecs] == KEYS
    for codec in figures.codecs:
        assert np.shape(codec.blob_bytes) == (3, 4)
        assert codec.largest_error <= codec.bound
    assert figures.compute.expert[0].seconds.value > 0


@pytest.mark.parametrize("prefetch", ["none", "gate"])
def test_a_check_finds_equal_decisions(
    subject: DrivenSubject, figures: Calibration, tmp_path: Path, prefetch: str
) -> None:
    like = Policy(prefetch=prefetch)
    table, facts = check_alone(figures, PLAN, tmp_path, lambda *_: None, like, subject=subject)
    assert facts["decision_logs_equal"] is True
    assert facts["bytes_equal"] is True
    assert facts["policies_checked"] == len(KEYS) * 2
    assert facts["model"] == subject.facts.name
    assert (table["tpot_measured"] > 0).all()
    assert (tmp_path / "check.csv").is_file()


def test_a_calibration_of_other_experts_is_refused(
    subject: DrivenSubject, figures: Calibration, tmp_path: Path
) -> None:
    for other in (subject_of(subject.trace, distinct=3), subject_of(cut(subject.trace, layers=2))):
        with pytest.raises(InputError, match="the calibration is of toy, 3 layers of 4 generated"):
            check_alone(figures, PLAN, tmp_path, lambda *_: None, subject=other)
    with pytest.raises(InputError, match="this check runs offsim-embedded"):
        check_alone(figures, PLAN, tmp_path, lambda *_: None)


def test_what_is_checked_is_not_calibrated_on() -> None:
    rng = np.random.default_rng(0)
    changed = [
        Trace(
            TOY.info,
            **{
                **TOY.arrays(),
                "experts": rng.random((5, 3, 4)).argsort(-1)[:, :, :2].astype(np.uint16),
            },
        )
        for _ in range(5)
    ]
    subject = subject_of(joined(changed))
    checked = {one.experts.tobytes() for one in subject.checked(9, 0)}
    drawn = {one.experts.tobytes() for seed in range(20) for one in subject.drawn(3, seed)}
    assert (len(checked), len(drawn)) == (2, 3)
    assert not checked & drawn
    assert [one.experts.tobytes() for one in subject.drawn(3, 1)] == [
        one.experts.tobytes() for one in subject.drawn(3, 1)
    ]
    alone = subject_of(TOY)
    assert len(alone.checked(3, 0)) == 1
    assert len(alone.drawn(3, 0)) == 3


def test_steps_are_those_of_a_run(subject: DrivenSubject) -> None:
    assert subject.steps(subject.requests[:3], 4) == 12
    assert subject.steps(subject.requests[:3], 99) == 15


def test_a_calibration_holds_only_as_many_layers_as_it_needs(
    subject: DrivenSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert subject.resident_layers == 3
    monkeypatch.setattr("offsim.study.subject.FEWEST_LAYERS", 2)
    monkeypatch.setattr("offsim.testbed.generated.last_level_cache", lambda: 1)
    assert subject.resident_layers == 2
    need = 2 * 4 + 2  # slots of two layers, and two more for a token
    room = need * subject.model.shape.values * 4
    with pytest.raises(InputError, match="more than the"):
        subject.check_room(2 * 4, 0, room, layers=2)  # the dense parts have no room


def test_what_nothing_can_be_measured_on_is_refused(subject: DrivenSubject) -> None:
    subject.check_measurable()
    with pytest.raises(InputError, match="from one to the next: give 2"):
        subject_of(cut(TOY, layers=1)).check_measurable()
    with pytest.raises(InputError, match="request 0 of the trace has 1 decode steps"):
        subject_of(cut(TOY, tokens=2)).check_measurable()
    with pytest.raises(InputError, match="the trace has 3 layers of 4 experts"):
        DrivenSubject(generated_model((3, 5, 16, 24)), TOY)


def test_the_same_holds_of_a_model(tiny_model: PreTrainedModel) -> None:
    asked = ModelSubject(tiny_model, "tiny")
    assert (asked.facts.name, asked.facts.layers, asked.facts.top_k) == ("tiny", 3, 2)
    assert asked.drawn(2, 7) == asked.checked(2, 7) == prompts(2, 7)
    assert asked.steps(asked.drawn(2, 7), 5) == 10
    assert [tuple(weights.shape) for weights in asked.matrices()] == [(32, 32)] * 3
