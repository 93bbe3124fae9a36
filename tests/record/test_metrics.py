import math
from dataclasses import replace

import pytest

from offsim.policy.cache import Decision
from offsim.record import Load, RunRecord, Span, StepRecord, Wait, metrics_of
from offsim.record.metrics import split_wait

PREFILL, DECODE = 0, 1


def load(*spans: tuple[str, float, float], submitted: float = 0.0, link_bytes: int = 100) -> Load:
    return Load(0, 1, link_bytes, submitted, [Span(*span) for span in spans])


def whole_load() -> Load:
    return load(("host decode", 1.0, 2.0), ("link", 2.5, 4.0), ("device decode", 4.0, 4.5))


def step(
    request: int, phase: int, start: float, end: float, hits: int = 0, misses: int = 0
) -> StepRecord:
    decision = Decision(0, tuple(range(hits)), tuple(range(hits, hits + misses)), ((),) * misses)
    return StepRecord(request, phase, start, end, decisions=[decision])


def test_what_brings_nothing_is_decoded_again() -> None:
    record = RunRecord("SIMULATED", [step(0, DECODE, 0.0, 1.0, hits=3, misses=1)])
    record.steps[0].loads = [Load(0, 3, 9, 0.1), *(Load(0, expert, 0, 0.1) for expert in (0, 2))]
    assert metrics_of(record).again_rate == 2 / 4


def two_requests() -> RunRecord:
    """One of 4 tokens and one of 2; each step begins where the one before it ended."""
    first = [
        step(0, PREFILL, 10.0, 12.0, hits=0, misses=4),
        step(0, DECODE, 12.0, 12.5, hits=1, misses=1),
        step(0, DECODE, 12.5, 13.5, hits=2, misses=0),
        step(0, DECODE, 13.5, 14.0, hits=0, misses=2),
    ]
    second = [
        step(7, PREFILL, 14.0, 17.0, hits=1, misses=2),
        step(7, DECODE, 17.0, 20.0, hits=2, misses=0),
    ]
    return RunRecord("SIMULATED", first + second)


def parts(wait: Wait) -> dict[str, float]:
    return pytest.approx(split_wait(wait))


def test_wait_from_the_beginning_is_split_by_stage() -> None:
    # Queued and decoded until 2.0, link until 4.0, device until 4.5, handed over until 4.75.
    assert parts(Wait(0.5, 4.75, whole_load())) == {
        "host decode": 1.5,
        "link": 2.0,
        "device decode": 0.5,
        "hand-over": 0.25,
    }


@pytest.mark.parametrize(
    ("start", "expected"),
    [(1.5, (0.5, 2.0, 0.5)), (2.25, (0, 1.75, 0.5)), (4.25, (0, 0, 0.25)), (4.5, (0, 0, 0))],
)
def test_stages_over_before_the_wait_count_nothing(
    start: float, expected: tuple[float, float, float]
) -> None:
    names = ("host decode", "link", "device decode")
    wanted = {**dict(zip(names, expected, strict=True)), "hand-over": 0.25}
    assert parts(Wait(start, 4.75, whole_load())) == wanted


def test_wait_for_a_load_long_done_is_hand_over() -> None:
    assert parts(Wait(5.0, 5.5, whole_load())) == {
        "host decode": 0.0,
        "link": 0.0,
        "device decode": 0.0,
        "hand-over": 0.5,
    }


def test_load_of_one_stage() -> None:
    assert parts(Wait(1.0, 3.0, load(("link", 0.0, 3.0)))) == {"link": 2.0, "hand-over": 0.0}


@pytest.mark.parametrize("start", [0.0, 0.5, 1.9, 2.2, 3.0, 4.1, 4.6])
@pytest.mark.parametrize("length", [0.0, 0.3, 1.0, 6.0])
def test_parts_add_up_and_are_never_negative(start: float, length: float) -> None:
    split = split_wait(Wait(start, start + length, whole_load()))
    assert sum(split.values()) == pytest.approx(length)
    assert min(split.values()) >= 0.0


def test_times_by_hand() -> None:
    metrics = metrics_of(two_requests())
    assert metrics.label == "SIMULATED"
    assert (metrics.requests, metrics.output_tokens) == (2, 6)
    assert metrics.ttft_s == pytest.approx((2.0 + 3.0) / 2)
    assert metrics.tpot_s == pytest.approx(((14.0 - 12.0) / 3 + 3.0) / 2)
    # Gaps between tokens of one request: 0.5, 1.0, 0.5 and 3.0.
    assert metrics.itl_p50_s == pytest.approx(0.75)
    assert metrics.itl_p95_s == pytest.approx(1.0 + 0.85 * 2.0)
    assert metrics.itl_p99_s == pytest.approx(1.0 + 0.97 * 2.0)
    assert metrics.tokens_per_s == pytest.approx(6 / 10.0)
    assert metrics.prefill_s == pytest.approx(2.5)


def test_percentiles_of_the_first_token_by_hand() -> None:
    metrics = metrics_of(two_requests())  # 2 s and 3 s
    assert metrics.ttft_p50_s == pytest.approx(2.5)
    assert metrics.ttft_p95_s == pytest.approx(2.95)
    assert metrics.ttft_p99_s == pytest.approx(2.99)


def test_the_first_token_counts_from_the_arrival() -> None:
    record = two_requests()
    record.arrivals = {7: 11.0}  # it waited for the other one
    metrics = metrics_of(record)
    assert metrics.ttft_s == metrics.ttft_p50_s == pytest.approx((2.0 + 6.0) / 2)


def test_lookups_by_hand() -> None:
    metrics = metrics_of(two_requests())
    assert metrics.lookups == 15
    assert metrics.hit_rate == pytest.approx(6 / 15)
    assert metrics.hit_rate_decode == pytest.approx(5 / 8)


def test_lookups_of_all_layers_count() -> None:
    record = RunRecord("SIMULATED", [step(0, PREFILL, 0.0, 1.0, hits=1, misses=1)])
    record.steps[0].decisions.append(Decision(1, (4,), (5, 6), ((), ()), (5,)))
    assert metrics_of(record).lookups == 5
    assert metrics_of(record).hit_rate == pytest.approx(2 / 5)


def test_stall_is_that_of_decode_steps_alone() -> None:
    record = two_requests()
    record.steps[0].waits = [Wait(10.0, 11.0, load(("link", 10.0, 11.0)))]
    slow = load(("host decode", 12.5, 12.75), ("link", 12.75, 13.0))
    record.steps[2].waits = [
        Wait(12.625, 13.125, slow),
        Wait(13.25, 13.375, load(("link", 13.125, 13.375))),
    ]
    record.steps[5].waits = [Wait(17.0, 18.0, load(("device decode", 17.0, 18.0)))]
    metrics = metrics_of(record)
    assert metrics.decode_stall_s == pytest.approx(
        {
            "disk": 0.0,
            "host decode": 0.125 / 4,
            "host compute": 0.0,
            "link": (0.25 + 0.125) / 4,
            "device decode": 1.0 / 4,
            "hand-over": 0.125 / 4,
        }
    )
    # Four decode steps of 5 s in all, of which 1.625 s are stall.
    assert metrics.decode_compute_s == pytest.approx((5.0 - 1.625) / 4)


def test_without_waits_everything_is_compute() -> None:
    metrics = metrics_of(two_requests())
    assert set(metrics.decode_stall_s.values()) == {0.0}
    assert metrics.decode_compute_s == pytest.approx(5.0 / 4)


def test_bytes_of_all_loads_count() -> None:
    record = two_requests()
    record.steps[0].loads = [load(link_bytes=1000), load(link_bytes=200)]
    record.steps[4].loads = [load(link_bytes=30)]
    assert metrics_of(record).link_bytes == 1230


def test_one_token_has_no_time_between_tokens() -> None:
    metrics = metrics_of(RunRecord("MEASURED", [step(0, PREFILL, 1.0, 3.0, hits=1, misses=3)]))
    assert metrics.label == "MEASURED"
    assert metrics.ttft_s == metrics.prefill_s == pytest.approx(2.0)
    assert metrics.tokens_per_s == pytest.approx(0.5)
    between = (metrics.tpot_s, metrics.itl_p50_s, metrics.itl_p95_s, metrics.itl_p99_s)
    assert all(math.isnan(value) for value in (*between, metrics.hit_rate_decode))


def test_request_of_one_token_is_left_out_of_tpot() -> None:
    record = two_requests()
    record.steps.append(step(9, PREFILL, 20.0, 21.0, misses=1))
    assert metrics_of(record).tpot_s == metrics_of(two_requests()).tpot_s


def test_the_clock_may_start_anywhere() -> None:
    record, later = two_requests(), two_requests()
    later.steps = [replace(s, start=s.start + 64.0, end=s.end + 64.0) for s in later.steps]
    assert metrics_of(later) == metrics_of(record)


def test_decision_log_is_in_order() -> None:
    record = two_requests()
    assert record.decisions() == [s.decisions[0] for s in record.steps]


def test_itl_goes_from_one_token_to_the_next() -> None:
    steps = [StepRecord(0, 0, 0.0, 1.0), StepRecord(0, 1, 1.5, 2.0), StepRecord(0, 1, 2.5, 3.0)]
    metrics = metrics_of(RunRecord("MEASURED", steps))
    assert (metrics.itl_p50_s, metrics.tpot_s) == (1.0, 1.0)


def test_what_is_not_defined_is_nan() -> None:
    metrics = metrics_of(RunRecord("SIMULATED", [StepRecord(0, 1, 0.0, 0.0)]))
    assert all(map(math.isnan, (metrics.prefill_s, metrics.hit_rate, metrics.tpot_s)))
    with pytest.raises(ValueError, match="without a step"):
        metrics_of(RunRecord("SIMULATED", []))
