import pytest

from offsim.record import Load, RunRecord, Span, StepRecord, Wait, metrics_of
from offsim.record.typical import moved, typical


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


def prefetching(*seconds: float) -> RunRecord:
    """Steps of these durations, each waiting at its end for what the one before fetched ahead."""
    record, start, before = RunRecord("MEASURED"), 0.0, None
    for number, duration in enumerate(seconds):
        end = start + duration
        waits = [] if before is None else [Wait(start, end, before)]
        if before is not None:
            before.spans.append(Span("link", before.submitted, end))
        before = Load(1, number, 10, end - 0.25, ahead=True, used=number + 1 < len(seconds))
        step = StepRecord(0, min(number, 1), start, end, [], [before], waits)
        step.late, step.emits = len(waits), (0, number)
        record.steps.append(step)
        start = end
    return record


def test_a_moved_step_keeps_all_that_it_says() -> None:
    step = prefetching(1, 2, 4).steps[1]
    other = moved(step, 0.5)
    assert (other.start, other.end) == (0.5, 2.5)
    assert (other.late, other.emits) == (1, (0, 1))
    assert [(load.ahead, load.used) for load in other.loads] == [(True, True)]
    assert other.loads[0].submitted == 2.25
    assert other.loads[0].spans == [Span("link", 2.25, 6.5)], "it may outlive its step"
    assert moved(other, step.start) == step


def test_a_wait_for_a_load_of_an_earlier_step_keeps_the_load_of_its_repeat() -> None:
    slow_first, slow_last = prefetching(4, 2), prefetching(1, 8)
    one = typical([slow_first, slow_last])
    assert [step.end - step.start for step in one.steps] == [1, 2]
    (wait,) = one.steps[1].waits
    assert (wait.start, wait.end) == (1.0, 3.0)
    assert wait.load.spans == [Span("link", 0.75, 3.0)], "as in the repeat of the wait"
    own = [load for step in one.steps for load in step.loads]
    assert len(own) == 2
    assert all(load is not wait.load for load in own)
    metrics = metrics_of(one)
    assert (metrics.link_bytes, metrics.prefetch_bytes, metrics.wasted_bytes) == (20, 20, 10)
    assert metrics.decode_stall_s["link"] == pytest.approx(2.0)


def test_a_wait_for_a_load_of_its_step_is_for_its_copy() -> None:
    step = typical([run(1, 2)]).steps[1]
    assert step.waits[0].load is step.loads[0]
