import copy
import math

import pytest
import torch
from transformers import PreTrainedModel

from offsim.errors import InputError
from offsim.study.paper import sizes as measured
from offsim.study.paper.sizes import SIZED, Sizes, blob_bytes, sizes_of


@pytest.fixture
def larger(tiny_model: PreTrainedModel) -> PreTrainedModel:
    """One layer of two Gaussian experts, large enough for the headers of blobs not to count."""
    config = copy.copy(tiny_model.config)
    config.num_hidden_layers, config.num_experts, config.moe_intermediate_size = 1, 2, 1024
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return type(tiny_model)(config).eval()


@pytest.fixture
def sizes(larger: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> Sizes:
    monkeypatch.setattr(measured, "LOG2_ALPHAS", (-4.0, 1.0))
    monkeypatch.setattr(measured, "LOG2_STEP", 0.05)
    monkeypatch.setattr(measured, "QUANTISERS", ("rtn-int4",))
    return sizes_of(larger, "0" * 16, (0.3,))


def test_blobs_of_equal_size_are_equally_large(larger: PreTrainedModel, sizes: Sizes) -> None:
    met = [p for p in sizes.points if p.sized_to and p.sized_to != p.key]
    assert {(p.source, p.sized_to) for p in met} == {
        ("sz3", "cuszp 0.3"),
        ("cuszp", "rtn-int4"),
        ("sz3", "rtn-int4"),
    }
    for point in met:
        assert point.bytes == pytest.approx(sizes.reference(point).bytes, rel=0.03)
        assert point.bytes == blob_bytes(larger, point.source, point.alpha)


def test_an_ideal_code_is_smaller_than_any(sizes: Sizes) -> None:
    ideal = sizes.point("uniform", 0.3)
    assert ideal is not None
    for name in SIZED:
        own = sizes.point(name, 0.3)
        assert own is not None
        assert sizes.bits(own) > sizes.bits(ideal)
    # Of a Gaussian: its differential entropy less that of a step (mean|w| is 0.8 sigma).
    step = 2 * 0.3 * math.sqrt(2 / math.pi)
    assert sizes.bits(ideal) == pytest.approx(
        math.log2(math.sqrt(2 * math.pi * math.e) / step), abs=0.05
    )


def test_the_size_of_an_ideal_code_is_estimated(sizes: Sizes) -> None:
    labels = {point.source: point.label for point in sizes.points}
    assert labels == {
        "uniform": "ESTIMATED",
        "cuszp": "MEASURED",
        "sz3": "MEASURED",
        "rtn-int4": "MEASURED",
    }
    older = sizes.model_dump(exclude={"points": {"__all__": {"label"}}})
    assert "label" not in older["points"][0]
    assert Sizes.model_validate(older) == sizes


def test_a_size_out_of_reach_is_told(
    larger: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "LOG2_ALPHAS", (0.0, 1.0))
    with pytest.raises(
        InputError, match=r"sz3 has no bound at which it is as large as cuszp 0\.01"
    ):
        sizes_of(larger, "0" * 16, (0.01,))
