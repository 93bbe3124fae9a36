"""Figures that were measured in parts, corrected by whole runs of a made-up machine."""

import numpy as np
import pytest

from offsim.calibration.schema import Calibration
from offsim.policy.policy import Policy
from offsim.runtime.run import Run
from offsim.simulate import simulate
from offsim.study.adding_up import SPEEDS, Ran, added_up
from offsim.trace import Trace
from tests.builders import TOY, calibration, codec_figures
from tests.simulate.stamps import stamps

LINK = 2000.0
PROMPT = Trace(TOY.info, **TOY.arrays() | {"phase": np.array([0, 0, 0, 1, 1], np.uint8)})
STILL = Policy(codec="cuszp", bound=0.5, slots=0)
AHEAD = STILL.model_copy(update={"slots": 2, "prefetch": "last-token"})


@pytest.fixture(autouse=True)
def hours(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine takes seconds for everything, its threads too."""
    monkeypatch.setattr("offsim.study.adding_up.MOST_S", 3600.0)


def machine(decode_s: float, slowdown: float) -> Calibration:
    figures = codec_figures("cuszp", 0.5, decode_s=decode_s, compute_slowdown=slowdown)
    figures = figures.model_copy(update={"expert_slowdown": 1.0})
    return calibration(codec_figures(), figures, dense_s=1.0, expert_s=0.25)


def ran(true: Calibration, policy: Policy) -> Ran:
    """Three rounds of a policy on a machine."""
    record = simulate(PROMPT, policy, true, LINK)
    raw = policy.model_copy(update={"codec": "raw", "bound": 0.0})  # the same decisions
    run = Run(record, times=stamps(PROMPT, raw))
    return Ran(policy, LINK, [run] * 3)


@pytest.mark.parametrize(("decode_s", "slowdown"), [(1.0, 1.5), (0.9, 1.0), (0.75, 3.0)])
def test_what_was_measured_wrong_is_corrected(decode_s: float, slowdown: float) -> None:
    true = machine(decode_s, slowdown)
    made = added_up(machine(0.75, 1.2), 1, ran(true, STILL), ran(true, AHEAD))
    figures = made.codecs[1]
    assert figures.decode_s.value == pytest.approx(decode_s, rel=0.01)
    for policy in (STILL, AHEAD):
        took, found = (simulate(PROMPT, policy, one, LINK) for one in (true, made))
        assert found.steps[-1].end == pytest.approx(took.steps[-1].end, rel=0.01)
    assert made.codecs[0] == true.codecs[0]


def test_a_correction_has_its_limits() -> None:
    true = machine(10.0, 1.0)
    made = added_up(machine(1.0, 1.0), 1, ran(true, STILL), ran(true, AHEAD))
    assert made.codecs[1].decode_s.value == pytest.approx(SPEEDS[1])
    assert made.codecs[1].compute_slowdown >= 1


def test_what_threads_cannot_have_taken_is_not_laid_to_decoding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("offsim.study.adding_up.MOST_S", 0.25)
    for true, found in ((machine(1.5, 1.0), 1.25), (machine(0.5, 1.0), 1.0)):
        rans = (ran(true, STILL), ran(true, AHEAD))
        made = added_up(machine(1.0, 1.0), 1, *rans)
        assert made.codecs[1].decode_s.value == pytest.approx(found)
