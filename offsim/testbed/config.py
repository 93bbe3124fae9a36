"""The shape of the embedded model."""

from typing import Any

from transformers import Qwen3MoeConfig

from offsim.testbed.tokenizer import END, PAD, VOCABULARY


def config() -> Qwen3MoeConfig:
    """Qwen3-MoE with 9 layers of 8 experts, top-2: 4.16 M parameters, 85 % of them in experts."""
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 128,
        "num_hidden_layers": 9,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "intermediate_size": 128,
        "moe_intermediate_size": 128,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "router_aux_loss_coef": 0.03,
        "tie_word_embeddings": True,
        "max_position_embeddings": 512,
        "pad_token_id": PAD,
        "bos_token_id": END,
        "eos_token_id": END,
    }
    return Qwen3MoeConfig(**shape)
