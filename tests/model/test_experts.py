import itertools

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel

from offsim.errors import InputError
from offsim.model.experts import (
    MATRICES,
    ExpertShape,
    ExpertWeights,
    change_experts,
    distinct,
    expert_modules,
    matrices_of,
    mixed,
    shape_of,
    top_k_of,
)

HIDDEN, WIDTH = 32, 24


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def experts(count: int) -> list[ExpertWeights]:
    return [
        ExpertWeights(random(2 * WIDTH, HIDDEN, seed=2 * e), random(HIDDEN, WIDTH, seed=2 * e + 1))
        for e in range(count)
    ]


def test_shape_sizes() -> None:
    shape = ExpertShape(layers=3, experts=4, hidden=32, width=24)
    assert shape.values == 3 * 32 * 24
    assert shape.bytes == 2 * shape.values


def test_shape_of_a_model(tiny_model: PreTrainedModel) -> None:
    assert shape_of(tiny_model) == ExpertShape(3, 4, 32, 32, 2)
    assert shape_of(tiny_model, dtype_bytes=4).bytes == 3 * 32 * 32 * 4


def test_modules_are_in_layer_order(tiny_model: PreTrainedModel) -> None:
    layers = tiny_model.model.layers
    assert expert_modules(tiny_model) == [layer.mlp.experts for layer in layers]


def test_model_without_experts_is_refused() -> None:
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    with pytest.raises(InputError, match="LlamaForCausalLM has no fused experts"):
        expert_modules(LlamaForCausalLM(config))


def test_top_k_is_read_by_any_of_its_names(tiny_model: PreTrainedModel) -> None:
    assert top_k_of(tiny_model) == 2
    tiny_model.config = PreTrainedConfig()
    tiny_model.config.moe_topk = 5
    assert top_k_of(tiny_model) == 5
    del tiny_model.config.moe_topk
    with pytest.raises(InputError, match="does not say how many experts a token takes"):
        top_k_of(tiny_model)


def test_layers_that_differ_are_refused(tiny_model: PreTrainedModel) -> None:
    module = expert_modules(tiny_model)[1]
    module.down_proj = torch.nn.Parameter(torch.zeros(2, 32, 32))
    with pytest.raises(InputError, match="layers with different experts"):
        shape_of(tiny_model)


def test_matrices_are_views_in_order(tiny_model: PreTrainedModel) -> None:
    module = expert_modules(tiny_model)[1]
    gate, up, down = matrices_of(module, 2)
    assert MATRICES == ("gate", "up", "down")
    assert torch.equal(gate, module.gate_up_proj[2, :32])
    assert torch.equal(up, module.gate_up_proj[2, 32:])
    assert torch.equal(down, module.down_proj[2])
    down.zero_()
    assert not module.down_proj[2].any()
    assert module.down_proj[1].any()


def test_change_experts_visits_every_matrix_once(tiny_model: PreTrainedModel) -> None:
    seen = []

    def change(layer: int, expert: int, matrix: int, weights: torch.Tensor) -> torch.Tensor:
        seen.append((layer, expert, matrix))
        return torch.full_like(weights, 100 * layer + 10 * expert + matrix)

    change_experts(tiny_model, change)
    assert seen == list(itertools.product(range(3), range(4), range(3)))
    for layer, expert, matrix in seen:
        weights = matrices_of(expert_modules(tiny_model)[layer], expert)[matrix]
        assert (weights == 100 * layer + 10 * expert + matrix).all()


def test_change_experts_leaves_the_rest_alone(tiny_model: PreTrainedModel) -> None:
    before = {name: p.detach().clone() for name, p in tiny_model.named_parameters()}
    change_experts(tiny_model, lambda _layer, _expert, _matrix, weights: weights + 1)
    for name, parameter in tiny_model.named_parameters():
        difference = 1.0 if ".experts." in name else 0.0
        assert torch.equal(parameter, before[name] + difference), name


def test_change_experts_changes_the_logits(tiny_model: PreTrainedModel) -> None:
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        before = tiny_model(input_ids=ids).logits
        same = tiny_model(input_ids=ids).logits
    change_experts(tiny_model, lambda _layer, _expert, _matrix, weights: 2 * weights)
    with torch.inference_mode():
        after = tiny_model(input_ids=ids).logits
    assert torch.equal(before, same)
    assert not torch.allclose(before, after)


def test_flat_slot_holds_gate_up_down_one_after_the_other() -> None:
    shape = ExpertShape(1, 1, HIDDEN, WIDTH)
    parts = [random(WIDTH, HIDDEN, seed=1), random(WIDTH, HIDDEN, seed=2)]
    parts.append(random(HIDDEN, WIDTH, seed=3))
    flat = torch.cat([part.flatten() for part in parts])
    expert = ExpertWeights.over(flat, shape)
    assert torch.equal(expert.gate_up, torch.cat(parts[:2]))
    assert torch.equal(expert.down, parts[2])
    flat.zero_()
    assert not expert.gate_up.any()
    assert not expert.down.any()


def test_expert_is_a_swiglu() -> None:
    (expert,) = experts(1)
    hidden = random(5, HIDDEN, seed=9)
    gate, up = expert.gate_up[:WIDTH].double(), expert.gate_up[WIDTH:].double()
    x = hidden.double()
    a = x @ gate.T
    expected = (a * torch.sigmoid(a) * (x @ up.T)) @ expert.down.double().T
    torch.testing.assert_close(expert(hidden).double(), expected, rtol=1e-4, atol=1e-3)


def test_distinct_keeps_router_order() -> None:
    assert distinct([[2, 0], [0, 3], [2, 1]]) == [2, 0, 3, 1]
    assert distinct([[3, 1]]) == [3, 1]


@pytest.mark.parametrize("tokens", [1, 2, 5, 17])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_mixed_does_not_depend_on_the_order_to_the_bit(tokens: int, dtype: torch.dtype) -> None:
    ffns = [ExpertWeights(e.gate_up.to(dtype), e.down.to(dtype)) for e in experts(4)]
    hidden = random(tokens, HIDDEN, seed=7).to(dtype)
    scores = random(tokens, 4, seed=8)
    weights, ids = torch.topk(scores.softmax(-1), 3)
    weights = weights.to(dtype)
    wanted = distinct(ids.tolist())
    results = [
        mixed(hidden, ids, weights, [(e, ffns[e]) for e in order])
        for order in itertools.permutations(wanted)
    ]
    assert len(results) > 5
    assert results[0].shape == (tokens, HIDDEN)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("tokens", [1, 2, 5, 17])
def test_mixed_is_the_weighted_sum(tokens: int) -> None:
    ffns = experts(4)
    hidden = random(tokens, HIDDEN, seed=7)
    weights, ids = torch.topk(random(tokens, 4, seed=8).softmax(-1), 2)
    out = mixed(hidden, ids, weights, ((e, ffns[e]) for e in distinct(ids.tolist())))
    for token in range(tokens):
        expected = sum(
            weights[token, slot] * ffns[int(ids[token, slot])](hidden[token : token + 1])[0]
            for slot in range(2)
        )
        torch.testing.assert_close(out[token], expected, rtol=1e-4, atol=1e-3)
