from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from offsim.errors import InputError
from offsim.testbed.generated import (
    FEWEST,
    USUAL_CACHE,
    GeneratedModel,
    beyond_cache,
    generated_model,
    last_level_cache,
)

SHAPE = (3, 4, 16, 24)


def test_weights_are_a_function_of_the_seed() -> None:
    one, same, other = (generated_model(SHAPE, seed=seed) for seed in (1, 1, 2))
    for mine, again, others in zip(
        one.matrices(2, 3), same.matrices(2, 3), other.matrices(2, 3), strict=True
    ):
        assert mine.dtype == torch.bfloat16
        assert torch.equal(mine, again)
        assert not torch.equal(mine, others)
    assert [tuple(m.shape) for m in one.matrices(0, 0)] == [(24, 16), (24, 16), (16, 24)]


def test_weights_have_the_spread_that_was_asked_for() -> None:
    wide = generated_model((1, 1, 256, 256), sigma=0.5, dtype="f32")
    for weights in wide.matrices(0, 0):
        assert weights.dtype == torch.float32
        assert float(weights.std()) == pytest.approx(0.5, rel=0.02)
        assert float(weights.mean()) == pytest.approx(0.0, abs=0.01)


def test_experts_share_weights_only_where_there_are_fewer() -> None:
    every = {(layer, expert) for layer in range(3) for expert in range(4)}
    own = generated_model(SHAPE)
    assert len({own.identity(*place) for place in every}) == 12
    shared = generated_model(SHAPE, distinct=5)
    found = {place: shared.identity(*place) for place in every}
    assert set(found.values()) <= set(range(5))
    assert len(set(found.values())) > 2
    assert found == {p: generated_model(SHAPE, distinct=5).identity(*p) for p in every}
    by_identity: dict[int, torch.Tensor] = {}
    for place, identity in found.items():
        first = by_identity.setdefault(identity, shared.matrices(*place)[0])
        assert torch.equal(first, shared.matrices(*place)[0])
    flat = [tuple(weights.flatten().tolist()) for weights in by_identity.values()]
    assert len(set(flat)) == len(flat)


def test_there_are_distinct_experts_enough_for_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsim.testbed.generated.last_level_cache", lambda: 1000)
    assert beyond_cache(100, 99) == 40
    assert beyond_cache(100, 7) == 7
    large = generated_model((5, 5, 16, 16))
    assert large.shape.bytes > 1000
    assert large.distinct == FEWEST
    assert generated_model((1, 3, 16, 16)).distinct == 3


@pytest.mark.parametrize(("projections", "layers"), [(0, 3), (2, 3), (4, 1)])
def test_a_step_passes_each_layer_once(projections: int, layers: int) -> None:
    model = generated_model((layers, *SHAPE[1:]), projections=projections)
    ids, weights = torch.zeros(5, 2, dtype=torch.int64), torch.ones(5, 2)
    asked = []

    def handler(
        layer: int, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        asked.append(layer)
        assert float(hidden.square().mean()) == pytest.approx(1.0, rel=1e-3)
        return hidden

    start = model.start(5)
    out = model.forward(start, [(ids, weights)] * layers, handler)
    assert asked == list(range(layers))
    assert out.shape == start.shape
    assert bool(out.isfinite().all())
    assert torch.equal(out, model.forward(start, [(ids, weights)] * layers, handler))
    assert model.dense_bytes == 4 * projections * 16 * 16
    assert (model.dense_copies == 0) == (projections == 0)


def test_layers_repeat_dense_parts_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsim.testbed.generated.last_level_cache", lambda: 2048)
    model = generated_model(SHAPE, projections=4)
    assert model.dense_bytes == 4096
    assert model.dense_copies == 2


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"shape": (0, 4, 16, 16)}, "the layers is at least 1, not 0"),
        ({"shape": (1, 4, -1, 16)}, "the hidden size is at least 1, not -1"),
        ({"shape": (1, 4, 16, 0)}, "the intermediate size is at least 1, not 0"),
        ({"distinct": 0}, "the number of distinct experts is at least 1, not 0"),
        ({"dtype": "f64"}, "experts are stored as bf16, fp16, f32, not f64"),
        ({"sigma": 0.0}, "sigma of generated weights is a positive number, not 0"),
        ({"sigma": float("nan")}, "positive number, not nan"),
        ({"projections": -1}, "0 or more matrix products, not -1"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        generated_model(**{"shape": SHAPE, **changed})


def test_bytes_and_dtype_agree() -> None:
    shape = replace(generated_model(SHAPE).shape, dtype_bytes=4)
    with pytest.raises(InputError, match=r"4 B a weight cannot be torch\.bfloat16"):
        GeneratedModel(shape, 3)


def test_the_largest_cache_is_found(tmp_path: Path) -> None:
    assert last_level_cache(tmp_path) == USUAL_CACHE
    for number, text in enumerate(("48K\n", "3M\n", "2048K\n", "odd\n")):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        (folder / "size").write_text(text)
    assert last_level_cache(tmp_path) == 3 << 20
