"""Terms of the model, left out."""

import numpy as np
import pytest

from offsim.calibration.schema import CoolingPoint, ForesightFigures
from offsim.policy.policy import Policy
from offsim.policy.transfer import Transfer
from offsim.simulate import predict
from offsim.study.ablation import CHUNKS, TERMS, without
from offsim.trace import Trace
from offsim.trace.format import NOWHERE
from tests.builders import TOY, calibration, codec_figures, figure, foreseen, sized


def often_wrong(trace: Trace) -> Trace:
    """Gates that name the neighbours of whom they should."""
    ahead = trace.lookahead
    wrong = np.where(ahead == NOWHERE, ahead, (ahead + 1) % trace.info.experts_per_layer)
    return Trace(trace.info, **{**trace.arrays(), "lookahead": wrong.astype(np.uint16)})


@pytest.mark.parametrize("term", [*TERMS, CHUNKS])
def test_each_term_changes_the_time_and_no_decision(term: str) -> None:
    slow = {"decode_s": 0.5, "compute_slowdown": 1.5, "decode_slowdown": 1.5}
    figures = calibration(codec_figures(**slow), handover_s=0.25)
    ahead = ForesightFigures(prefetch="gate", distance=1, seconds=sized((1, 0.25)))
    cold = [CoolingPoint(idle_s=0.1, extra=figure(0.5))]
    compute = figures.compute.model_copy(
        update={"foresight": [ahead], "cooling": cold, "attention_s": figure(0.25)}
    )
    link = figures.link.model_copy(update={"overshoot_s": figure(0.25)})
    figures = figures.model_copy(update={"compute": compute, "link": link})
    policy = Policy(slots=2, prefetch="gate", transfer=Transfer(chunk_bytes=100))
    trace = often_wrong(foreseen(TOY, 1)) if term == CHUNKS else foreseen(TOY, 1)
    link_bytes_per_s = 100.0 if term == CHUNKS else 5000.0  # slower or faster than compute
    left = without(term, policy, figures)
    assert left != (policy, figures)
    assert without(term, *left) == left
    whole = predict(trace, policy, figures, link_bytes_per_s)
    less = predict(trace, *left, link_bytes_per_s)
    assert less.link_bytes == whole.link_bytes
    assert less.hit_rate + less.late_rate == pytest.approx(whole.hit_rate + whole.late_rate)
    if term == CHUNKS:
        assert less.tpot_s > whole.tpot_s, "what is asked for now waits for what nobody wants"
    elif term == "interference":  # what is slowed down may keep out of the way
        assert less.tpot_s != whole.tpot_s
    else:
        assert less.tpot_s < whole.tpot_s
