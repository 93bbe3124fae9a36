"""Terms of the model, left out."""

import pytest

from offsim.calibration.schema import CoolingPoint, ForesightFigures
from offsim.policy.policy import Policy
from offsim.policy.transfer import Transfer
from offsim.simulate import predict
from offsim.study.ablation import CHUNKS, TERMS, without
from tests.builders import TOY, calibration, codec_figures, figure, foreseen, sized


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
    trace = foreseen(TOY, 1)
    left = without(term, policy, figures)
    assert left != (policy, figures)
    assert without(term, *left) == left
    whole = predict(trace, policy, figures, 5000.0)
    less = predict(trace, *left, 5000.0)
    assert less.link_bytes == whole.link_bytes
    assert less.hit_rate + less.late_rate == pytest.approx(whole.hit_rate + whole.late_rate)
    # On this link some of what is decoded is in the way of compute, and most is not.
    # Chunks let what is asked for now go first, and what is slowed down may keep out of the way.
    if term in {CHUNKS, "interference"}:
        assert less.tpot_s != whole.tpot_s
    else:
        assert less.tpot_s < whole.tpot_s
