from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    DbrxConfig,
    JetMoeConfig,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LongcatFlashConfig,
    NllbMoeConfig,
    NllbMoeForConditionalGeneration,
    PreTrainedModel,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
)
from transformers.models.auto import AutoModelForCausalLM

from offsim.errors import InputError
from offsim.model.experts import ExpertWeights, expert_modules, matrices_of
from offsim.model.hook import Resident
from offsim.model.layouts import Layout

DECODER = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 16,
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
}
ENCODER = {"vocab_size": 64, "d_model": 32, "num_experts": 4}
UNSUPPORTED: dict[str, Callable[[], PreTrainedModel]] = {
    "JetMoe": lambda: AutoModelForCausalLM.from_config(JetMoeConfig(**DECODER, kv_channels=16)),
    "Dbrx": lambda: AutoModelForCausalLM.from_config(
        DbrxConfig(
            d_model=32,
            n_heads=2,
            n_layers=1,
            vocab_size=64,
            ffn_config={"hidden_size": 32, "ffn_hidden_size": 16, "moe_num_experts": 4},
            attn_config={"kv_n_heads": 2, "rope_theta": 1e4},
        )
    ),
    "Llama4": lambda: Llama4ForCausalLM(
        Llama4TextConfig(**DECODER, head_dim=16, intermediate_size_mlp=16)
    ),
    "NllbMoe": lambda: NllbMoeForConditionalGeneration(
        NllbMoeConfig(
            **ENCODER,
            encoder_layers=1,
            decoder_layers=1,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_sparse_step=1,
            decoder_sparse_step=1,
        )
    ),
    "SwitchTransformers": lambda: SwitchTransformersForConditionalGeneration(
        SwitchTransformersConfig(
            **ENCODER,
            d_kv=16,
            d_ff=16,
            num_heads=2,
            num_layers=2,
            num_decoder_layers=2,
            num_sparse_encoder_layers=1,
            num_sparse_decoder_layers=1,
        )
    ),
    "LongcatFlash": lambda: AutoModelForCausalLM.from_config(
        LongcatFlashConfig(
            vocab_size=64,
            hidden_size=32,
            num_layers=1,
            num_attention_heads=2,
            ffn_hidden_size=16,
            expert_ffn_hidden_size=16,
            n_routed_experts=4,
            moe_topk=2,
            kv_lora_rank=8,
            q_lora_rank=8,
            qk_nope_head_dim=8,
            qk_rope_head_dim=8,
            v_head_dim=8,
        )
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_cannot_be_driven_is_named_with_what_it_lacks(name: str) -> None:
    with torch.device("meta"):
        model = UNSUPPORTED[name]()
    with pytest.raises(InputError) as refused:
        expert_modules(model)
    sentence = str(refused.value)
    assert sentence.startswith(f"{type(model).__name__} cannot be driven: its {name}")
    assert "does not run through the experts interface of transformers" in sentence
    assert "\n" not in sentence


def module_of(layout: Layout, matrices: list[torch.Tensor]) -> torch.nn.Module:
    """An experts module of one expert that keeps these matrices in a layout."""
    gate, up, down = matrices
    rows = torch.cat((gate, up))
    if layout.interleaved:
        rows = torch.stack((gate, up), 1).flatten(0, 1)
    module = torch.nn.Module()
    gate_up, down = (rows.T, down.T) if layout.transposed else (rows, down)
    module.gate_up_proj = torch.nn.Parameter(gate_up[None].contiguous())
    module.down_proj = torch.nn.Parameter(down[None].contiguous())
    module.is_transposed, module.is_concatenated = layout.transposed, not layout.interleaved
    module.has_gate, module.has_bias = True, False
    return module


@given(
    transposed=st.booleans(),
    interleaved=st.booleans(),
    width=st.integers(1, 5),
    hidden=st.integers(1, 5),
)
def test_matrices_are_read_as_they_were_written(
    transposed: bool, interleaved: bool, width: int, hidden: int
) -> None:
    layout = Layout(transposed, interleaved)
    values = torch.arange(3.0 * width * hidden)
    gate, up, down = values.view(3, -1)
    matrices = [gate.view(width, hidden), up.view(width, hidden), down.view(hidden, width)]
    module = module_of(layout, matrices)
    assert Layout.of(module) == layout
    assert layout.sizes(module) == (1, hidden, width)
    canonical = ExpertWeights.of(module, 0)
    for found, own, ready in zip(matrices_of(module, 0), matrices, canonical.matrices, strict=True):
        assert torch.equal(found, own)
        assert torch.equal(ready, own)
        found.add_(100)  # a view: what is written goes into the module
    changed = [weights + 100 for weights in matrices]
    assert torch.equal(ExpertWeights.of(module, 0).gate_up, torch.cat(changed[:2]))
    assert canonical.gate_up.is_contiguous()
    assert canonical.down.is_contiguous()


@pytest.mark.parametrize("interleaved", [False, True])
def test_outputs_are_in_the_order_of_the_module(interleaved: bool) -> None:
    layout = Layout(transposed=False, interleaved=interleaved)
    gate, up = torch.arange(6.0).view(2, 3), 10 + torch.arange(6.0).view(2, 3)
    found = layout.outputs(torch.cat((gate, up), -1))
    halves = layout.halves(found.T)
    assert torch.equal(halves[0], gate.T)
    assert torch.equal(halves[1], up.T)


def test_a_model_without_its_experts_in_memory_is_refused(tiny_model: PreTrainedModel) -> None:
    for module in expert_modules(tiny_model):
        module.down_proj = torch.nn.Parameter(module.down_proj.to("meta"))
    with pytest.raises(InputError, match="the model was loaded without its experts"):
        Resident(tiny_model)
