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


def test_each_step_is_its_repeat_at_the_first_quartile() -> None:
    repeats = [run(1, 9, 3, start=7), run(2, 2, 2), run(9, 1, 4, start=100)]
    repeats += [run(3, 3, 5), run(4, 4, 6)]  # of five repeats, the second fastest
    one = typical(repeats)
    assert [step.end - step.start for step in one.steps] == pytest.approx([2, 2, 3])
    assert one.steps[0].start == 0
    assert one.steps[1].start == one.steps[0].end
    metrics = metrics_of(one)
    assert (metrics.ttft_s, metrics.tpot_s) == pytest.approx((2.0, 2.5))
    assert metrics.decode_stall_s["link"] == pytest.approx(0.25)
    assert metrics.link_bytes == 30


@pytest.mark.parametrize(("count", "rank"), [(1, 1), (4, 1), (5, 2), (7, 2), (9, 3)])
def test_which_repeat_that_is(count: int, rank: int) -> None:
    assert typical([run(float(n)) for n in range(1, count + 1)]).steps[0].end == rank


def test_repeats_must_be_of_the_same_steps() -> None:
    with pytest.raises(ValueError, match="the same steps"):
        typical([run(1), run(1, 1)])
