import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, T5Config

from offsim.errors import InputError
from offsim.model.experts import shape_of
from offsim.model.layouts import BIG
from offsim.model.load import load_dense
from tests.families import FAMILIES, family

WEIGHTS = "model.safetensors"


def without(folder: Path, *parts: str) -> None:
    """Take the tensors out of a checkpoint whose names have one of these parts."""
    tensors = load_file(folder / WEIGHTS)
    kept = {name: t for name, t in tensors.items() if not any(part in name for part in parts)}
    assert len(kept) < len(tensors)
    save_file(kept, folder / WEIGHTS, {"format": "pt"})


def changed(folder: Path, **fields: object) -> None:
    """Change fields of the configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("name", FAMILIES)
def test_all_but_the_matrices_of_experts_is_loaded(name: str, tmp_path: Path) -> None:
    model = family(name)
    model.save_pretrained(tmp_path)
    dense = load_dense(tmp_path)
    assert type(dense) is type(model)
    assert not dense.training
    assert shape_of(dense) == shape_of(model)
    own = dict(model.named_parameters())
    found = dict(dense.named_parameters())
    assert own.keys() == found.keys()
    for key, parameter in found.items():
        assert parameter.is_meta == (".experts." in key and key.endswith(BIG)), key
        assert parameter.shape == own[key].shape
        assert parameter.is_meta or torch.equal(parameter, own[key]), key
    buffers = dict(dense.named_buffers())
    assert any(key.endswith("inv_freq") for key in buffers)
    for key, buffer in model.named_buffers():
        assert torch.equal(buffers[key], buffer), key


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("qwen3-moe", (".experts.",)),
        ("mixtral", (".experts.",)),
        ("granitemoe", ("input_linear", "output_linear")),
        ("gpt-oss", ("experts.gate_up_proj", "experts.down_proj")),
    ],
)
def test_the_matrices_need_not_be_there(name: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    model = family(name)
    model.save_pretrained(tmp_path)
    if name == "gpt-oss":  # its biases are dense and have to be
        biases = {k: t for k, t in load_file(tmp_path / WEIGHTS).items() if "proj_bias" in k}
        without(tmp_path, *parts)
        tensors = load_file(tmp_path / WEIGHTS) | biases
        save_file(tensors, tmp_path / WEIGHTS, {"format": "pt"})
    else:
        without(tmp_path, *parts)
    dense = load_dense(tmp_path)
    assert torch.equal(dense.lm_head.weight, model.lm_head.weight)


def test_weights_come_in_the_dtype_that_is_asked_for(tmp_path: Path) -> None:
    family("olmoe").to(torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in load_dense(tmp_path).parameters()} == {torch.float32}
    assert load_dense(tmp_path, torch.bfloat16).lm_head.weight.dtype == torch.bfloat16


def test_quantised_experts_do_not_matter(tmp_path: Path) -> None:
    model = family("gpt-oss")
    model.save_pretrained(tmp_path)
    changed(tmp_path, quantization_config={"quant_method": "mxfp4"})
    tensors = load_file(tmp_path / WEIGHTS)
    for key in [key for key in tensors if key.endswith(tuple(f"experts.{big}" for big in BIG))]:
        del tensors[key]
        tensors[f"{key}_blocks"] = torch.zeros(1, dtype=torch.uint8)
        tensors[f"{key}_scales"] = torch.zeros(1, dtype=torch.uint8)
    save_file(tensors, tmp_path / WEIGHTS, {"format": "pt"})
    dense = load_dense(tmp_path)
    assert torch.equal(dense.lm_head.weight, model.lm_head.weight)


def in_fp8(folder: Path, block: int) -> dict[str, torch.Tensor]:
    """Store projections of a checkpoint in FP8 with scales of blocks; what they then stand for."""
    tensors, meant = load_file(folder / WEIGHTS), {}
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        weights = tensors[name]
        rows, columns = (-(-size // block) for size in weights.shape)
        scales = 0.01 * (1 + torch.arange(rows * columns).float().view(rows, columns))
        wide = scales.repeat_interleave(block, 0).repeat_interleave(block, 1)
        wide = wide[: weights.shape[0], : weights.shape[1]]
        tensors[name] = (weights / wide).to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = scales
        meant[name] = (tensors[name].float() * wide).bfloat16().float()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    quantisation = {"quant_method": "fp8", "weight_block_size": [block, block]}
    changed(folder, quantization_config=quantisation)
    return meant


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dense_weights_in_fp8_are_multiplied_by_their_scales(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    model = family("deepseek-v3")
    model.save_pretrained(tmp_path)
    meant = in_fp8(tmp_path, block=12)  # the last block of a row or column is cut
    dense = load_dense(tmp_path, dtype)
    seen = 0
    for name, parameter in dense.named_parameters():
        if not parameter.is_meta:
            own = meant.get(name, dict(model.named_parameters())[name])
            assert torch.equal(parameter.float(), own), name
            seen += name in meant
    assert seen == 3 * 4 + 3 + 2 * 3, "attention, the dense layer, shared experts"


def test_fp8_without_scales_is_refused(tmp_path: Path) -> None:
    family("deepseek-v3").save_pretrained(tmp_path)
    in_fp8(tmp_path, block=12)
    without(tmp_path, "layers.1.self_attn.o_proj.weight_scale_inv")
    with pytest.raises(InputError, match=r"layers\.1\.self_attn\.o_proj\.weight is in FP8, and"):
        load_dense(tmp_path)


@pytest.mark.parametrize("how", [{"quant_method": "fp8"}, {"quant_method": "gptq"}])
def test_other_quantisations_of_dense_weights_are_refused(
    how: dict[str, str], tmp_path: Path
) -> None:
    family("deepseek-v3").save_pretrained(tmp_path)
    changed(tmp_path, quantization_config=how)
    with pytest.raises(InputError, match=r"dense weights are quantised \(\w+\).*to bf16"):
        load_dense(tmp_path)


def test_a_missing_dense_weight_is_named(tmp_path: Path) -> None:
    family("gpt-oss").save_pretrained(tmp_path)
    without(tmp_path, "layers.1.mlp.experts.down_proj_bias")
    with pytest.raises(InputError, match=r"lacks model\.layers\.1\.mlp\.experts\.down_proj_bias"):
        load_dense(tmp_path)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it has no config\.json"):
        load_dense(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "of-nobody"}')
    with pytest.raises(InputError, match=r"config\.json cannot be used.*of-nobody"):
        load_dense(tmp_path)
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a t5 is not a causal language model"):
        load_dense(tmp_path)
    family("mixtral").config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_dense(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"\x08" + b"\x00" * 20)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_dense(tmp_path)


def test_a_model_without_experts_is_refused(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="LlamaForCausalLM has no fused experts"):
        load_dense(tmp_path)
