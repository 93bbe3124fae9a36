import pytest
from transformers import Qwen3MoeForCausalLM

from offsim.codec import codec_named
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bounds import Bounds
from offsim.policy.policy import Policy
from offsim.runtime.run import run_offloaded
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


def test_a_policy_under_another_codec_or_bound_is_refused(tiny_model: Qwen3MoeForCausalLM) -> None:
    fine, wide = Bounds(default=Bound(2.0**-8)), Bounds(default=Bound(2.0**-6))
    by_table = ExpertStore.of(tiny_model, codec_named("cuszp"), fine)
    by_number = ExpertStore.of(tiny_model, codec_named("cuszp"), 2.0**-8)
    raw = ExpertStore.of(tiny_model, codec_named("raw"), 0.0)
    number = Policy(codec="cuszp", bound=2.0**-8)
    table = Policy(codec="cuszp", bounds=fine)
    for store, policy in ((by_table, table), (by_number, number), (raw, Policy())):
        store.check(policy)
        assert store.policy() == policy
        assert store.policy(slots=1).slots == 1
    for store, policy in (
        (by_table, number),
        (by_table, Policy(codec="cuszp", bounds=wide)),
        (by_number, table),
        (by_number, Policy(codec="cuszp", bound=2.0**-7)),
        (by_number, Policy(codec="cuszp:mode=plain", bound=2.0**-8)),
        (by_number, Policy(codec="sz3", bound=2.0**-8)),
        (raw, number),
    ):
        with pytest.raises(InputError, match=r"the experts are stored under .* policy asks for"):
            store.check(policy)
    with pytest.raises(InputError, match="stored under raw and the policy asks for cuszp"):
        run_offloaded(tiny_model, raw, number, [[10, 40]], 2)
