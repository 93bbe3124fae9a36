import pytest
from transformers import Qwen3MoeForCausalLM

from offsim.codec import codec_named
from offsim.codec.bounds import Bound
from offsim.policy.bounds import Bounds
from offsim.runtime.store import ExpertStore


def test_every_matrix_keeps_the_bound_of_its_place(tiny_model: Qwen3MoeForCausalLM) -> None:
    bounds = Bounds.model_validate(
        {
            "default": 0.01,
            "rules": [
                {"bound": 0.1, "layers": [1]},
                {"bound": "sigma:0.5", "layers": [2], "experts": [0], "matrices": ["down"]},
            ],
        }
    )
    store = ExpertStore.of(tiny_model, codec_named("cuszp"), bounds)
    asked = [[[b.header.bound for b in expert.blobs] for expert in row] for row in store.blobs]
    assert asked[0] == [[0.01] * 3] * 4
    assert asked[1] == [[0.1] * 3] * 4
    assert asked[2][1:] == [[0.01] * 3] * 3
    assert asked[2][0][:2] == [0.01] * 2
    assert asked[2][0][2] == pytest.approx(0.15, rel=0.1)  # weights are N(0, 0.3)
    assert store.bound == asked[2][0][2]
    assert store.matrix_bytes[2][0] == [blob.nbytes for blob in store.blobs[2][0].blobs]
    assert store.blob_bytes == [[blob.nbytes for blob in row] for row in store.blobs]
    sizes = [sum(blob.nbytes for blob in row) for row in store.blobs]
    assert sizes[1] < sizes[2] < sizes[0]


def test_one_bound_for_all(tiny_model: Qwen3MoeForCausalLM) -> None:
    by_table = ExpertStore.of(tiny_model, codec_named("sz3"), Bounds(default=Bound(0.01, "rel")))
    assert 0 < by_table.largest_error <= by_table.bound
    by_number = ExpertStore.of(tiny_model, codec_named("sz3"), 0.01)
    assert by_number.bound == 0.01
