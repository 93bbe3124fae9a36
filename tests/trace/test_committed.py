from pathlib import Path

from offsim.policy.policy import Policy
from offsim.record import metrics_of
from offsim.simulate import simulate
from offsim.study.workload import prompts
from offsim.trace import load_trace
from tests.builders import calibration, codec_figures

TRACE = Path(__file__).parents[2] / "traces" / "embedded.safetensors"


def test_the_committed_trace_is_that_of_the_embedded_model() -> None:
    trace = load_trace(TRACE)
    assert (trace.layers, trace.top_k, trace.info.experts_per_layer) == (9, 2, 8)
    asked = prompts(16, 5)
    assert trace.tokens == sum(map(len, asked)) + 16 * 31
    assert (trace.info.codec, trace.info.bound) == ("raw", 0.0)


def test_more_slots_never_cost_hits_on_it() -> None:
    shape = {"layers": 9, "experts": 8}
    figures = calibration(codec_figures(**shape), **shape)
    trace = load_trace(TRACE)
    rates = [
        metrics_of(simulate(trace, Policy(slots=slots), figures)).hit_rate_decode
        for slots in (0, 2, 4, 8)
    ]
    assert rates == sorted(rates)
    assert rates[0] == 0
    assert rates[-1] > 0.97
