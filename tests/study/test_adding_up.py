"""Figures that were measured in parts, corrected by whole runs of a made-up machine."""

import numpy as np
import pytest

from offsim.calibration.schema import Calibration
from offsim.policy.policy import Policy
from offsim.policy.transfer import Transfer
from offsim.runtime.run import Run
from offsim.simulate import simulate
from offsim.study.adding_up import SPEEDS, Ran, Whole, added_up
from offsim.trace import Trace
from tests.builders import TOY, calibration, codec_figures, trace_of
from tests.simulate.stamps import stamps

LINKS = {"none": 2000.0, "oracle": 10_000.0}
RNG = np.random.default_rng(5)
TRACES = {
    "none": Trace(TOY.info, **TOY.arrays() | {"phase": np.array([0, 0, 0, 1, 1], np.uint8)}),
    "oracle": trace_of([[RNG.permutation(4)[:2].tolist() for _ in range(3)] for _ in range(40)]),
}
STILL = Policy(codec="cuszp", bound=0.5, slots=0)
AHEAD = STILL.model_copy(update={"slots": 2, "prefetch": "oracle"})
AHEAD_CHUNKED = AHEAD.model_copy(update={"transfer": Transfer(chunk_bytes=300)})


@pytest.fixture(autouse=True)
def hours(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine takes seconds for everything, its threads too."""
    monkeypatch.setattr("offsim.study.adding_up.MOST_S", 3600.0)
    monkeypatch.setattr("offsim.study.adding_up.ARRIVALS_S", (0.0, 3600.0))
    monkeypatch.setattr("offsim.study.adding_up.FIRST_ARRIVAL_S", 0.01)


def machine(
    decode_s: float, slowdown: float, chunk_s: float = 0.0, arrival_s: float = 0.0
) -> Calibration:
    figures = codec_figures("cuszp", 0.5, decode_s=decode_s, compute_slowdown=slowdown)
    figures = figures.model_copy(
        update={"expert_slowdown": 1.0, "chunk_s": chunk_s, "arrival_s": arrival_s}
    )
    return calibration(codec_figures(), figures, dense_s=1.0, expert_s=0.25)


def ran(true: Calibration, policy: Policy) -> Ran:
    """Three rounds of a policy on a machine."""
    trace, link = TRACES[policy.prefetch], LINKS[policy.prefetch]
    record = simulate(trace, policy, true, link)
    raw = policy.model_copy(update={"codec": "raw", "bound": 0.0})  # the same decisions
    run = Run(record, times=stamps(trace, raw))
    return Ran(policy, link, [run] * 3)


def whole(true: Calibration) -> Whole:
    return Whole(*(ran(true, policy) for policy in (STILL, AHEAD, AHEAD_CHUNKED)))


@pytest.mark.parametrize(("decode_s", "slowdown"), [(1.0, 1.5), (1.5, 1.0), (0.75, 3.0)])
def test_what_was_measured_wrong_is_corrected(decode_s: float, slowdown: float) -> None:
    true = machine(decode_s, slowdown, chunk_s=0.2, arrival_s=0.03)
    made = added_up(machine(1.0, 1.2, chunk_s=0.2), 1, whole(true))
    figures = made.codecs[1]
    assert figures.decode_s.value == pytest.approx(decode_s, rel=0.01)
    for policy in (STILL, AHEAD, AHEAD_CHUNKED):
        trace, link = TRACES[policy.prefetch], LINKS[policy.prefetch]
        took, found = (simulate(trace, policy, one, link) for one in (true, made))
        assert found.steps[-1].end == pytest.approx(took.steps[-1].end, rel=0.01)
    assert made.codecs[0] == true.codecs[0]


def test_what_chunks_cost_compute_is_found_where_decoding_costs_it_nothing() -> None:
    true = machine(1.0, 1.0, arrival_s=0.03)
    made = added_up(machine(1.0, 1.0), 1, whole(true))
    assert made.codecs[1].arrival_s == pytest.approx(0.03, abs=0.005)
    assert made.codecs[1].compute_slowdown == pytest.approx(1.0, abs=0.05)


def test_a_correction_has_its_limits() -> None:
    true = machine(10.0, 1.0)
    made = added_up(machine(1.0, 1.0), 1, whole(true))
    assert made.codecs[1].decode_s.value == pytest.approx(SPEEDS[1])
    assert made.codecs[1].compute_slowdown >= 1


def test_what_threads_cannot_have_taken_is_not_laid_to_decoding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("offsim.study.adding_up.MOST_S", 0.25)
    for true, found in ((machine(1.5, 1.0), 1.25), (machine(0.5, 1.0), 0.75)):
        made = added_up(machine(1.0, 1.0), 1, whole(true))
        assert made.codecs[1].decode_s.value == pytest.approx(found)
