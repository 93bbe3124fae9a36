import pytest

from offsim.record import Load, RunRecord, Span, StepRecord, Wait, metrics_of
from offsim.record.typical import typical


def run(*seconds: float, start: float = 0.0) -> RunRecord:
    """A prompt pass and decode steps of these durations, each waiting for its last tenth."""
    steps = []
    for number, duration in enumerate(seconds):
        end = start + duration
        load = Load(0, number, 10, start, [Span("link", start, end)])
        wait = Wait(end - duration / 10, end, load)
        steps.append(StepRecord(0, min(number, 1), start, end, [], [load], [wait]))
        start = end + 0.5  # gaps between steps are no part of a step
    return RunRecord("MEASURED", steps)


def test_each_step_is_its_median_repeat() -> None:
    one = typical([run(1, 9, 3, start=7), run(2, 2, 2), run(9, 1, 4, start=100)])
    assert [step.end - step.start for step in one.steps] == pytest.approx([2, 2, 3])
    assert one.steps[0].start == 0
    assert one.steps[1].start == one.steps[0].end
    metrics = metrics_of(one)
    assert (metrics.ttft_s, metrics.tpot_s) == pytest.approx((2.0, 2.5))
    assert metrics.decode_stall_s["link"] == pytest.approx(0.25)
    assert metrics.link_bytes == 30


def test_of_an_even_number_the_faster_middle_one_is_taken() -> None:
    assert typical([run(4.0), run(1.0), run(2.0), run(3.0)]).steps[0].end == 2.0


def test_repeats_must_be_of_the_same_steps() -> None:
    with pytest.raises(ValueError, match="the same steps"):
        typical([run(1), run(1, 1)])
