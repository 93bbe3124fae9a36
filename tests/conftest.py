"""Fixtures that several test folders share."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from offsim.trace import DECODE, Trace
from offsim.trace.format import TraceInfo

# How long an example takes says more of the machine than of the code.
settings.register_profile("usual", deadline=None)
settings.register_profile("long", deadline=None, max_examples=2000)
settings.load_profile("usual")
SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"needs the golden streams and traces of {SHARED.name}/ beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def gpt_oss_trace(shared: Path) -> Trace:
    """The first 12 requests of the recorded gpt-oss-20b decode trace."""
    path = shared / "traces" / "gpt-oss-20b_decode.npz"
    if not path.is_file():
        pytest.skip(f"needs {path.name} in shared/traces")
    with np.load(path, allow_pickle=False) as file:
        offsets = file["request_offsets"][:13]
        rows = int(offsets[-1])
        experts, weights = file["experts"][:rows], file["probs"][:rows]
    lengths = np.diff(offsets)
    return Trace(
        TraceInfo(model="openai/gpt-oss-20b", experts_per_layer=32, source="shared/traces"),
        experts=experts.astype(np.uint16),
        weights=weights,
        request=np.repeat(np.arange(12), lengths).astype(np.int32),
        position=np.concatenate([np.arange(length) for length in lengths]).astype(np.int32),
        phase=np.full(rows, DECODE, np.uint8),
    )


@pytest.fixture(scope="session")
def _tiny_model() -> Qwen3MoeForCausalLM:
    config = Qwen3MoeConfig(
        vocab_size=128,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=32,
        moe_intermediate_size=32,
        num_experts=4,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        tie_word_embeddings=False,
        max_position_embeddings=256,
        initializer_range=0.3,  # wide, so that the router and the tokens vary
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen3MoeForCausalLM(config)
    return model.to(torch.bfloat16).float().eval()


@pytest.fixture
def tiny_model(_tiny_model: Qwen3MoeForCausalLM) -> Qwen3MoeForCausalLM:
    """A random Qwen3-MoE of 3 layers and 4 experts, top-2; its weights are bf16 values."""
    return copy.deepcopy(_tiny_model)
