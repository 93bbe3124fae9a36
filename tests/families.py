"""Tiny random models of every family of architectures that offsim drives."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    DeepseekV2Config,
    DeepseekV3Config,
    GptOssConfig,
    GraniteMoeConfig,
    MixtralConfig,
    OlmoeConfig,
    PhimoeConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)
from transformers.models.auto import AutoModelForCausalLM

EXPERTS, TOP_K, HIDDEN, WIDTH = 8, 3, 32, 16
COMMON = {
    "vocab_size": 128,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_experts_per_tok": TOP_K,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,  # wide, so that the router and the tokens vary
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
WIDE = {"intermediate_size": WIDTH, "num_local_experts": EXPERTS}
NARROW = {"intermediate_size": 24, "moe_intermediate_size": WIDTH}
LATENT = {
    "first_k_dense_replace": 1,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": EXPERTS,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "mixtral": lambda: MixtralConfig(**COMMON, **WIDE),
    "qwen2-moe": lambda: Qwen2MoeConfig(
        **COMMON, **NARROW, num_experts=EXPERTS, mlp_only_layers=[1]
    ),
    "qwen3-moe": lambda: Qwen3MoeConfig(**COMMON, **NARROW, num_experts=EXPERTS, head_dim=16),
    "olmoe": lambda: OlmoeConfig(**COMMON, num_experts=EXPERTS, intermediate_size=WIDTH),
    "deepseek-v2": lambda: DeepseekV2Config(**COMMON, **NARROW, **LATENT, rope_parameters=ROPE),
    "deepseek-v3": lambda: DeepseekV3Config(
        **COMMON, **NARROW, **LATENT, n_group=2, topk_group=1, rope_parameters=ROPE
    ),
    "gpt-oss": lambda: GptOssConfig(**COMMON, **WIDE, head_dim=16, rope_parameters=ROPE),
    # The router of Phi-MoE chooses two, whatever the configuration says.
    "phimoe": lambda: PhimoeConfig(
        **COMMON | {"num_experts_per_tok": 2}, **WIDE, rope_parameters=ROPE
    ),
    "granitemoe": lambda: GraniteMoeConfig(**COMMON, **WIDE),
}
MOE_LAYERS = dict.fromkeys(FAMILIES, 3) | {"qwen2-moe": 2, "deepseek-v2": 2, "deepseek-v3": 2}
"""The others are dense."""


def family(name: str, **changes: Any) -> PreTrainedModel:
    """A random model in float32 whose weights are bf16 values, biases and routers included.

    Args:
        name: a key of FAMILIES.
        **changes: attributes of the configuration.
    """
    config = FAMILIES[name]()
    for field, value in changes.items():
        setattr(config, field, value)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                # What starts as zeros or in small spread would hide an error.
                if key.endswith("bias") or not parameter.std() > 0:
                    parameter.add_(0.3 * torch.randn_like(parameter))
            for key, buffer in model.named_buffers():
                if key.endswith("e_score_correction_bias"):
                    buffer.add_(0.1 * torch.randn_like(buffer))
    # What is not saved, as rotary frequencies are, stays in float32.
    for key, tensor in model.state_dict(keep_vars=True).items():
        assert not key.endswith("inv_freq")
        tensor.data = tensor.data.to(torch.bfloat16).float()
    return model.eval()
