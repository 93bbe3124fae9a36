"""Where the configs of each architecture say how their experts and attention are laid out.

Names and rules are those of transformers' configuration and modeling files of the architecture. A
new one is a row of `FAMILIES`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from transformers import PretrainedConfig

from offsim.calibration.shapes import GroupedAttention, LatentAttention

Attention = GroupedAttention | LatentAttention


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture.

    Attributes:
        experts: field with the routed experts of a layer.
        width: field with the width of one.
        attention: of a config.
        shared_width: width of what serves every token of a layer beside the routed experts.
        sparse: whether a layer, by its number, has experts.
        biased: whether its experts have biases.
    """

    experts: str
    width: str
    attention: Callable[[PretrainedConfig], Attention]
    shared_width: Callable[[PretrainedConfig], int] = lambda config: 0
    sparse: Callable[[PretrainedConfig, int], bool] = lambda config, layer: True
    biased: bool = False


def grouped(config: PretrainedConfig) -> GroupedAttention:
    """Attention with keys and values for groups of queries."""
    heads = config.num_attention_heads
    return GroupedAttention(
        kind="gqa",
        heads=heads,
        kv_heads=config.num_key_value_heads or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
    )


def latent(config: PretrainedConfig) -> LatentAttention:
    """Multi-head latent attention."""
    return LatentAttention(
        kind="mla",
        heads=config.num_attention_heads,
        q_rank=config.q_lora_rank,
        kv_rank=config.kv_lora_rank,
        nope_dim=config.qk_nope_head_dim,
        rope_dim=config.qk_rope_head_dim,
        value_dim=config.v_head_dim,
    )


def every_step(config: PretrainedConfig, layer: int) -> bool:
    """Every layer that a step ends on, without those that are named as having none."""
    named = layer in (config.mlp_only_layers or ())
    return not named and (layer + 1) % config.decoder_sparse_step == 0


def after_the_first(config: PretrainedConfig, layer: int) -> bool:
    """Every layer that a step begins on, from a first one on."""
    step = getattr(config, "moe_layer_freq", None) or 1
    return layer >= config.first_k_dense_replace and layer % step == 0


def some_experts(config: PretrainedConfig) -> int:
    """So many experts as wide as a routed one."""
    return int(config.n_shared_experts or 0) * int(config.moe_intermediate_size)


DEEPSEEK = Family(
    "n_routed_experts", "moe_intermediate_size", latent, some_experts, after_the_first
)
FAMILIES = {
    "mixtral": Family("num_local_experts", "intermediate_size", grouped),
    "phimoe": Family("num_local_experts", "intermediate_size", grouped),
    "granitemoe": Family("num_local_experts", "intermediate_size", grouped),
    "gpt_oss": Family("num_local_experts", "intermediate_size", grouped, biased=True),
    "olmoe": Family("num_experts", "intermediate_size", grouped),
    "qwen2_moe": Family(
        "num_experts",
        "moe_intermediate_size",
        grouped,
        lambda config: int(config.shared_expert_intermediate_size),
        every_step,
    ),
    "qwen3_moe": Family("num_experts", "moe_intermediate_size", grouped, sparse=every_step),
    "deepseek_v2": DEEPSEEK,
    "deepseek_v3": DEEPSEEK,
}
"""By `model_type` of the config."""


def window_of(config: PretrainedConfig, layer: int) -> int | None:
    """Tokens that a layer attends to at most; None where that is all that the model can have."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not window or window >= config.max_position_embeddings:
        return None
    slides = kinds is None or kinds[layer] == "sliding_attention"
    return int(window) if slides else None
