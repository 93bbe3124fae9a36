import numpy as np
import pytest

from offsim.policy.policy import Policy
from offsim.record.times import StepTimes
from offsim.simulate import simulate
from offsim.simulate.again import again
from offsim.trace import Trace
from offsim.trace.cut import cut
from tests.builders import TOY, calibration, codec_figures

from .stamps import stamps


@pytest.mark.parametrize("codec", ["raw", "sz3"])
@pytest.mark.parametrize("slots", [0, 2, 4])
def test_a_run_is_timed_as_its_trace_would_be(codec: str, slots: int) -> None:
    arrays = TOY.arrays() | {"phase": np.array([0, 0, 0, 1, 1], np.uint8)}
    trace = Trace(TOY.info, **arrays)  # a prompt of three tokens
    policy = Policy(codec=codec, bound=0.5 if codec == "sz3" else 0.0, slots=slots)
    own = codec_figures(codec, policy.bound, decode_s=0.5, decode_slowdown=1.5)
    figures = calibration(codec_figures(), own, handover_s=0.125)
    record = simulate(trace, policy, figures, 500.0)
    expected = [step.end - step.start for step in record.steps]
    times = stamps(trace, Policy(slots=slots))
    assert again(record, times, policy, figures, 500.0).tolist() == pytest.approx(expected)


def test_a_run_of_the_first_layers_alone() -> None:
    trace = cut(TOY, layers=2)
    policy = Policy(slots=1)
    small = calibration(layers=2)
    record = simulate(trace, policy, small, 500.0)
    expected = [step.end - step.start for step in record.steps]
    times = [StepTimes(seen.tokens, 0.0, seen.layers[:2]) for seen in stamps(TOY, policy)]
    assert again(record, times, policy, calibration(), 500.0).tolist() == pytest.approx(expected)
