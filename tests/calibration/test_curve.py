import math

import pytest
import torch

from offsim.calibration.curve import curve, entropy
from offsim.codec import codec_named
from offsim.codec.bounds import Bound
from tests.codec.checks import weights_like

WEIGHTS = weights_like(64, 64)


def test_a_point_for_each_bound_and_one_where_none_is_taken() -> None:
    codecs = [codec_named(name) for name in ("raw", "cuszp", "rtn-int4")]
    told: list[float] = []
    points = curve(
        WEIGHTS, codecs, [Bound(2.0**-8), Bound(0.1, "sigma")], 1, lambda _, s: told.append(s)
    )
    assert [(p.codec, p.asked) for p in points] == [
        ("raw", ""),
        ("cuszp", "0.00390625"),
        ("cuszp", "sigma:0.1"),
        ("rtn-int4", ""),
    ]
    assert told == [0, 0.25, 0.5, 0.75]
    raw, fine, wide, rtn = points
    assert (raw.ratio, raw.bits_per_weight, raw.largest_error, raw.rmse) == (1, 16, 0, 0)
    assert math.isnan(raw.ideal_bits)
    assert math.isnan(rtn.ideal_bits)
    assert rtn.bits_per_weight == 4.125
    assert 0 < rtn.largest_error == rtn.bound
    assert wide.bound == pytest.approx(0.1 * float(WEIGHTS.double().std(correction=0)))
    for point in (fine, wide):
        assert 0 < point.rmse < point.largest_error <= point.bound
        assert point.bits_per_weight == 16 / point.ratio > point.ideal_bits > 0
        assert not point.fallback
    assert all(p.encode_bytes_per_s > 0 and p.decode_of_memcpy > 0 for p in points)


def test_a_fallback_is_said() -> None:
    (point,) = curve(WEIGHTS, [codec_named("cuszp")], [Bound(1e-12)], 1)
    assert point.fallback
    assert (point.ratio, point.largest_error) == (1, 0)


def test_entropy_of_known_levels() -> None:
    assert entropy(torch.zeros(8), 0.1) == 0.0
    assert entropy(torch.tensor([0.0, 1.0, 2.0, 3.0]), 0.5) == 2.0
    assert entropy(torch.tensor([0.0, 0.1, -0.1, 3.0]), 0.5) == pytest.approx(0.811278, rel=1e-6)


def test_entropy_does_not_depend_on_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.randn(30, 41, generator=torch.Generator().manual_seed(2))
    whole = entropy(weights, 0.05)
    monkeypatch.setattr("offsim.calibration.curve.CHUNK", 100)
    assert entropy(weights, 0.05) == whole > 1


def test_entropy_of_gaussian_weights_is_that_of_the_formula() -> None:
    # 0.5 log2(2 pi e sigma^2) - log2(2 bound): Cover and Thomas, theorem 8.3.1.
    weights, sigma, bound = weights_like(1024, 512, dtype=torch.float32), 0.02, 1e-3
    expected = 0.5 * math.log2(2 * math.pi * math.e * sigma**2) - math.log2(2 * bound)
    assert entropy(weights, bound) == pytest.approx(expected, abs=0.01)
