import math

import numpy as np
import pytest

from offsim.calibration.expert_notes import Point, Row
from offsim.calibration.expert_summary import SampledPoint, summarised


def point(blob_bytes: int, **changes: float | str | None) -> Point:
    fields = {
        "codec": "cuszp",
        "asked": "0.1",
        "bound": 0.1,
        "fallbacks": 0,
        "stored_bytes": 1000,
        "blob_bytes": blob_bytes,
        "ideal_bits": 4.0,
        "largest_error": 0.09,
        "rmse": 0.03,
        "copy_s": 1e-6,
        "encode_s": 2e-6,
        "decode_s": 4e-6,
    }
    return Point.model_validate(fields | changes)


def rows(*points: Point) -> list[Row]:
    """One expert for each."""
    return [Row(layer=0, expert=at, points=(one,)) for at, one in enumerate(points)]


def summary(sample: list[Row], population: int) -> SampledPoint:
    (found,) = summarised(sample, 2, population)
    return found


def test_figures_of_a_sample() -> None:
    sample = rows(
        point(200, bound=0.1, rmse=0.03, largest_error=0.08, fallbacks=1, ideal_bits=3.0),
        point(300, bound=0.3, rmse=0.04, largest_error=0.05, fallbacks=2, encode_s=5e-6),
        point(500, bound=0.2, rmse=0.0, largest_error=0.09, decode_s=1e-6),
    )
    found = summary(sample, 10)
    assert (found.codec, found.asked, found.experts, found.fallbacks) == ("cuszp", "0.1", 3, 3)
    assert found.ratio == 3.0
    assert found.bits_per_weight == pytest.approx(16 / 3)
    assert found.bound == 0.2
    assert found.largest_error == 0.09
    assert found.rmse == pytest.approx(math.sqrt((0.03**2 + 0.04**2) / 3))
    assert found.ideal_bits == pytest.approx(11 / 3)
    assert found.encode_bytes_per_s == pytest.approx(1000 / 2e-6)
    assert found.decode_bytes_per_s == pytest.approx(1000 / 4e-6)
    assert found.encode_of_memcpy == pytest.approx(0.5)
    assert found.decode_of_memcpy == pytest.approx(0.25)
    assert 2 <= found.ratio_low <= 3 <= found.ratio_high <= 5


def test_a_sample_of_all_is_exact() -> None:
    found = summary(rows(point(200), point(300)), 2)
    assert found.ratio_low == found.ratio == found.ratio_high == 4


def test_a_single_expert_of_many_says_nothing_of_the_others() -> None:
    found = summary(rows(point(250)), 8)
    assert found.ratio == 4
    assert math.isnan(found.ratio_low)
    assert math.isnan(found.ratio_high)
    assert summary(rows(point(250)), 1).ratio_low == 4


def test_a_codec_without_a_bound_has_no_ideal() -> None:
    assert math.isnan(summary(rows(point(200, ideal_bits=None)), 4).ideal_bits)


def test_each_codec_and_bound_has_its_own() -> None:
    sample = [
        Row(layer=0, expert=at, points=(point(250, codec="a"), point(500, codec="b")))
        for at in (0, 1)
    ]
    assert [(one.codec, one.ratio) for one in summarised(sample, 2, 9)] == [("a", 4), ("b", 2)]


def test_the_interval_holds_the_ratio_of_all_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    everything = generator.integers(150, 450, 2000)
    truth = 1000 * len(everything) / everything.sum()
    inside = 0
    for _ in range(100):
        drawn = generator.choice(everything, 20, replace=False)
        found = summary(rows(*(point(int(size)) for size in drawn)), len(everything))
        inside += found.ratio_low <= truth <= found.ratio_high
    assert 86 <= inside <= 100  # 95 expected, or a little fewer of so small a sample


def test_more_experts_give_a_narrower_interval() -> None:
    sizes = np.random.default_rng(1).integers(150, 450, 80)
    widths = []
    for count in (10, 80):
        found = summary(rows(*(point(int(size)) for size in sizes[:count])), 1000)
        widths.append(found.ratio_high - found.ratio_low)
    assert widths[1] < widths[0] / 2


def test_the_same_seed_gives_the_same_interval() -> None:
    sample = rows(point(200), point(300), point(500))
    assert summary(sample, 10) == summary(sample, 10)
