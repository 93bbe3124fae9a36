"""Slowdowns, told from runs in which compute and a decoder work side by side."""

from collections.abc import Sequence

import numpy as np
import pytest

from offsim.calibration.overlap import (
    Beside,
    alone,
    computed,
    decode_slowdown,
    decoded,
    interference,
    slowdown,
)
from offsim.record import Load, RunRecord, Span, StepRecord, Wait
from offsim.record.times import LayerTimes, StepTimes
from offsim.trace import DECODE
from tests.builders import calibration, codec_figures, sized


def load(arrived: float, start: float, end: float) -> Load:
    return Load(0, 0, 80, 0.0, [Span("link", 0.0, arrived), Span("device decode", start, end)])


def step() -> StepRecord:
    """Three loads, of which the second waited for the first, and the third for nobody."""
    made = StepRecord(0, DECODE, 0.0, 20.0)
    made.loads[:] = [load(1.0, 1.0, 3.0), load(2.0, 3.0, 7.0), load(9.0, 9.0, 10.0)]
    made.waits[:] = [Wait(0.0, 3.0, made.loads[0]), Wait(4.0, 7.0, made.loads[1])]
    return made


def test_only_who_waited_was_decoded_right_after_another() -> None:
    record = RunRecord("MEASURED", [step()])
    assert list(decoded(record, "device decode", in_turn=True)) == [Beside(4.0, 1.0)]
    assert list(decoded(record, "device decode", in_turn=False)) == [
        Beside(2.0, 0.0),
        Beside(1.0, 1.0),
    ]
    assert list(decoded(record, "host decode", in_turn=True)) == []


def test_compute_is_held_against_what_it_takes_alone() -> None:
    figures = calibration(codec_figures()).compute
    figures = figures.model_copy(update={"expert": sized((1, 0.5)), "dense": sized((1, 2.0))})
    layers = [
        LayerTimes(1, 0.0, experts=[(1, 3.0, 4.0), (1, 7.0, 7.5)], leave=8.0),
        LayerTimes(1, 12.0, experts=[(1, 12.5, 13.0)], leave=14.0),
    ]
    record = RunRecord("MEASURED", [step()])
    dense, experts = computed(record, [StepTimes(1, 0.0, layers, 20.0)], "device decode", figures)
    # Of the links' ends, at 1, 2 and 9 s, the last one is in the dense part.
    assert dense == [Beside(4.0, 1.0, 2.0, cold=True, arrivals=1)]
    assert experts == [
        Beside(1.0, 1.0, 2.0, cold=True),
        Beside(0.5, 0.0, 1.0, cold=True),
        Beside(0.5, 0.0, 1.0),
    ]


def drawn(shares: Sequence[float], seconds: Sequence[float]) -> list[Beside]:
    pairs = zip(shares, seconds, strict=True)
    return [Beside(took, share * took, took / 2.0) for share, took in pairs]


@pytest.mark.parametrize("factor", [1.0, 1.5, 4.0])
def test_how_compute_is_slowed_is_found_again(factor: float) -> None:
    rng = np.random.default_rng(0)
    shares, cold = rng.random(300), rng.random(300) < 0.5
    took = 2.0 * (1 + 0.5 * cold) / (1 - shares * (1 - 1 / factor)) * rng.normal(1, 0.05, 300)
    took[:5] *= 100  # interrupted by something else
    samples = [
        Beside(one.seconds, one.together, one.relative, bool(was))
        for one, was in zip(drawn(shares.tolist(), took.tolist()), cold, strict=True)
    ]
    assert slowdown(samples) == pytest.approx(factor, rel=0.05)


def test_asking_ahead_is_no_part_of_what_is_slowed_and_chunks_are_equally_spaced() -> None:
    figures = calibration(codec_figures()).compute
    figures = figures.model_copy(update={"dense": sized((1, 2.0))})
    layers = [LayerTimes(1, 0.0, leave=4.0, fetching=1.0), LayerTimes(1, 9.5, leave=14.0)]
    made = StepRecord(0, DECODE, 0.0, 20.0)
    made.loads[:] = [Load(0, 0, 80, 0.0, [Span("link", 1.0, 9.0)])]
    times = [StepTimes(1, 0.0, layers, 20.0)]
    dense, _ = computed(RunRecord("MEASURED", [made]), times, "device decode", figures, chunks=4)
    assert dense == [Beside(4.5, 0.0, 2.25, arrivals=2)]  # of 3, 5, 7 and 9 s: 7 and 9


def test_what_arrivals_cost_is_told_apart_from_decoding() -> None:
    rng = np.random.default_rng(1)
    together, arrivals = rng.random(400), rng.integers(0, 4, 400)
    took = (2.0 + 0.5 * together + 0.1 * arrivals) * rng.normal(1, 0.02, 400)
    samples = [
        Beside(seconds, beside, seconds / 2.0, arrivals=int(came))
        for seconds, beside, came in zip(took, together, arrivals, strict=True)
    ]
    slowed, arrival_s = interference(samples)
    assert slowed == pytest.approx(2.0, rel=0.05)
    assert arrival_s == pytest.approx(0.1, rel=0.1)
    none = [Beside(one.seconds, one.together, one.relative) for one in samples]
    assert interference(none)[1] == 0.0


def test_a_slowdown_is_one_where_the_samples_cannot_tell() -> None:
    assert slowdown([Beside(2.0, 2.0, 1.0)] * 50) == 1.0
    assert slowdown(drawn([0.0, 1.0], [1.0, 2.0])) == 1.0
    shares = np.linspace(0, 1, 50)
    assert slowdown(drawn(shares.tolist(), (2 - shares).tolist())) == 1.0, "nobody gains by it"
    assert decode_slowdown([Beside(2.0, 2.0)] * 50) == 1.0


@pytest.mark.parametrize("factor", [1.0, 1.6, 3.0])
def test_how_decoding_is_slowed_is_found_again_though_long_loads_outlast_compute(
    factor: float,
) -> None:
    rng = np.random.default_rng(0)
    work = rng.normal(1.0, 0.1, 4000)
    compute = rng.choice([0.0, 0.5, 1.0, 9.0], 4000)  # s that compute has to do beside it
    together = np.minimum(compute, work * factor)
    took = together + work - together / factor
    samples = [Beside(*pair) for pair in zip(took.tolist(), together.tolist(), strict=True)]
    found = decode_slowdown(samples)
    assert found == pytest.approx(factor, rel=0.02)
    assert np.mean(alone(samples, found)) == pytest.approx(1.0, rel=0.02)
