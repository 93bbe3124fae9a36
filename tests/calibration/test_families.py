"""The rules by which configs are read, against the models that transformers makes of them."""

from typing import Any

import pytest
from transformers import PreTrainedModel

from offsim.calibration.families import FAMILIES, window_of
from offsim.calibration.shapes import GroupedAttention, LatentAttention
from tests.families import FAMILIES as MODELS
from tests.families import family


def of_layer(model: PreTrainedModel, layer: int, *parts: str) -> int:
    """Weights of the matrices of a layer whose names have one of these parts."""
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if f".layers.{layer}." in name
        and parameter.ndim > 1
        and not name.endswith("bias")
        and any(part in name for part in parts)
    )


def test_there_is_a_row_for_each_architecture() -> None:
    assert set(FAMILIES) == {made().model_type for made in MODELS.values()}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *((name, {}) for name in MODELS),
        ("qwen2-moe", {"mlp_only_layers": [0, 2]}),
        ("qwen2-moe", {"mlp_only_layers": [], "decoder_sparse_step": 2}),
        ("qwen3-moe", {"mlp_only_layers": [2], "decoder_sparse_step": 1}),
        ("qwen3-moe", {"decoder_sparse_step": 3}),
        ("deepseek-v2", {"first_k_dense_replace": 2}),
        ("deepseek-v3", {"first_k_dense_replace": 0}),
    ],
)
def test_layers_with_experts_are_those_of_the_model(name: str, changes: dict[str, Any]) -> None:
    model = family(name, **changes)
    row = FAMILIES[model.config.model_type]
    for layer in range(3):
        has = of_layer(model, layer, ".experts.") > 0
        assert row.sparse(model.config, layer) == has, layer


@pytest.mark.parametrize("name", MODELS)
def test_sizes_are_those_of_the_model(name: str) -> None:
    model = family(name)
    config, row = model.config, FAMILIES[model.config.model_type]
    layer = next(layer for layer in range(3) if row.sparse(config, layer))
    experts, width = getattr(config, row.experts), getattr(config, row.width)
    hidden = config.hidden_size
    assert experts * 3 * hidden * width == of_layer(model, layer, ".experts.")
    assert 3 * hidden * row.shared_width(config) == of_layer(
        model, layer, *(f"shared_expert{s}.{part}_proj" for s in ("", "s") for part in PROJECTIONS)
    )
    attention = row.attention(config)
    assert attention.weights(hidden) == of_layer(model, layer, "self_attn")
    assert row.biased == any(key.endswith("experts.down_proj_bias") for key in model.state_dict())


PROJECTIONS = ("gate", "up", "down")


def test_attention_of_each_kind() -> None:
    config = MODELS["olmoe"]()
    config.num_attention_heads, config.num_key_value_heads = 4, None
    found = FAMILIES["olmoe"].attention(config)
    assert found == GroupedAttention(kind="gqa", heads=4, kv_heads=4, head_dim=8)
    latent = FAMILIES["deepseek_v3"].attention(MODELS["deepseek-v3"]())
    assert isinstance(latent, LatentAttention)
    assert (latent.q_rank, latent.cached) == (8, 16)


def test_windows_shorter_than_the_context() -> None:
    config = MODELS["gpt-oss"]()
    assert [window_of(config, layer) for layer in range(3)] == [None] * 3  # 128 of 128 tokens
    config.sliding_window = 16
    kinds = [kind == "sliding_attention" for kind in config.layer_types]
    assert [window_of(config, layer) == 16 for layer in range(3)] == kinds
    assert set(kinds) == {True, False}
    mixtral = MODELS["mixtral"]()
    assert window_of(mixtral, 0) is None
    mixtral.sliding_window = 16
    assert window_of(mixtral, 0) == 16
