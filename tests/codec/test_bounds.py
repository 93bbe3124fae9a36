import math

import pytest
import torch

from offsim.codec.bounds import KINDS, Bound
from offsim.errors import InputError

from .checks import weights_like


@pytest.mark.parametrize("text", ["0.001", "rel:0.01", "mean-abs:0.5", "sigma:0.05"])
def test_text_and_back(text: str) -> None:
    assert str(Bound.parse(text)) == text


def test_abs_may_be_written_out() -> None:
    assert Bound.parse("abs:0.001") == Bound.parse("1e-3") == Bound(1e-3)


@pytest.mark.parametrize("text", ["", "abs", "rel:", "rel:x", ":1", "psnr:3", "rel:-1", "0", "nan"])
def test_what_is_not_a_bound_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Bound.parse(text)


def test_an_unknown_kind_is_refused_with_the_kinds_there_are() -> None:
    with pytest.raises(InputError, match=f"'psnr'; there are {', '.join(KINDS)}"):
        Bound.parse("psnr:60")


MATRICES = [torch.tensor([[1.0, -3.0]]).bfloat16(), torch.tensor([5.0, 0.0]).bfloat16()]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("abs", 0.5), ("rel", 4.0), ("mean-abs", 1.125), ("sigma", 0.5 * math.sqrt(8.1875))],
)
def test_statistics_are_those_of_all_matrices(kind: str, expected: float) -> None:
    # 1, -3, 5 and 0: range 8, mean magnitude 2.25, mean 0.75, variance 35/4 - 0.5625.
    assert Bound(0.5, kind).absolute(MATRICES) == pytest.approx(expected, rel=1e-15)  # type: ignore[arg-type]


def test_statistics_do_not_lose_precision_in_bf16() -> None:
    weights = weights_like(300, 300)
    expected = float(weights.double().abs().mean())
    assert Bound(1.0, "mean-abs").absolute([weights]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["rel", "mean-abs", "sigma"])
def test_weights_without_spread_have_the_bound_0(kind: str) -> None:
    assert Bound(0.5, kind).absolute([torch.zeros(4)]) == 0.0  # type: ignore[arg-type]
    assert Bound(0.5, kind).absolute([torch.empty(0)]) == 0.0  # type: ignore[arg-type]
