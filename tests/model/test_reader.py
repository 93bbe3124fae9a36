"""The experts of checkpoints, one at a time, in every way in which they are stored."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from offsim.errors import InputError, OffsimError
from offsim.model.experts import ExpertShape, expert_modules, matrices_of, shape_of
from offsim.model.reader import CheckpointExperts, open_experts
from offsim.model.shards import Shards
from tests.families import EXPERTS, FAMILIES, MOE_LAYERS, family

HIDDEN, WIDTH = 64, 32
Tensors = dict[str, torch.Tensor]
PREFIX = "model.layers.{}.mlp."


def checkpoint(folder: Path, tensors: Mapping[str, torch.Tensor], **config: Any) -> Path:
    """A folder with these tensors, of a model of two layers."""
    save_file({name: one.contiguous() for name, one in tensors.items()}, folder / "a.safetensors")
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 2} | config))
    return folder


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def each(layers: int = 2, experts: int = 3, block: str = PREFIX) -> Tensors:
    """Experts with a tensor for each matrix."""
    shapes = {"gate": (WIDTH, HIDDEN), "up": (WIDTH, HIDDEN), "down": (HIDDEN, WIDTH)}
    return {
        f"{block.format(layer)}experts.{expert}.{name}_proj.weight": drawn(
            100 * layer + 10 * expert + number, *shape
        )
        for layer in range(layers)
        for expert in range(experts)
        for number, (name, shape) in enumerate(shapes.items())
    }


def matrices(tensors: Tensors, layer: int, expert: int, block: str = PREFIX) -> list[torch.Tensor]:
    """Gate, up and down out of `each`."""
    start = f"{block.format(layer)}experts.{expert}."
    return [tensors[f"{start}{name}_proj.weight"] for name in ("gate", "up", "down")]


def assert_same(found: CheckpointExperts, tensors: Tensors, dtype: torch.dtype) -> None:
    """All experts of `found` are those of `each`, to the last bit."""
    shape = found.shape
    assert shape == ExpertShape(2, 3, HIDDEN, WIDTH, dtype.itemsize)
    for layer in range(shape.layers):
        for expert in range(shape.experts):
            pairs = zip(
                found.matrices(layer, expert), matrices(tensors, layer, expert), strict=True
            )
            for read, expected in pairs:
                assert read.dtype == dtype
                assert read.is_contiguous()
                assert torch.equal(read, expected.to(dtype))


def refused(folder: Path) -> str:
    """Why a checkpoint is not read, which is one sentence."""
    with pytest.raises(OffsimError) as told:
        open_experts(folder)
    assert len(str(told.value).splitlines()) == 1
    return str(told.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", FAMILIES)
def test_matrices_are_those_of_the_model_in_memory(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = family(name).to(dtype)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    experts, modules = open_experts(tmp_path), expert_modules(model)
    assert experts.shape == shape_of(model, dtype.itemsize)
    assert len(experts.layer_numbers) == MOE_LAYERS[name]
    assert (experts.packed, experts.note) == (False, "")
    assert experts.stored_bytes == experts.shape.bytes
    for layer, module in enumerate(modules):
        for expert in range(EXPERTS):
            assert experts.identity(layer, expert) == (layer, expert)
            found = experts.matrices(layer, expert)
            for read, own in zip(found, matrices_of(module, expert), strict=True):
                assert read.dtype == dtype
                assert read.is_contiguous()
                assert torch.equal(read, own)


@pytest.mark.parametrize(
    ("name", "numbers"), [("qwen2-moe", (0, 2)), ("deepseek-v3", (1, 2)), ("mixtral", (0, 1, 2))]
)
def test_dense_layers_are_left_out(name: str, numbers: tuple[int, ...], tmp_path: Path) -> None:
    family(name).save_pretrained(tmp_path)
    assert open_experts(tmp_path).layer_numbers == numbers


def stacked(tensors: Tensors, layer: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gate, up and down of all experts of a layer, the expert first."""
    gate, up, down = zip(*(matrices(tensors, layer, expert) for expert in range(3)), strict=True)
    return torch.stack(gate), torch.stack(up), torch.stack(down)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("layout", ["w1", "fused", "granite", "gpt-oss"])
def test_layouts_of_hand_made_checkpoints(layout: str, dtype: torch.dtype, tmp_path: Path) -> None:
    plain, stored = each(), {}
    for layer in range(2):
        gate, up, down = (part.to(dtype) for part in stacked(plain, layer))
        block = PREFIX.format(layer)
        if layout == "w1":
            for number in range(3):
                for name, part in (("w1", gate), ("w3", up), ("w2", down)):
                    stored[f"{block}experts.{number}.{name}.weight"] = part[number].clone()
        elif layout == "fused":
            stored[f"{block}experts.gate_up_proj"] = torch.cat([gate, up], 1)
            stored[f"{block}experts.down_proj"] = down
        elif layout == "granite":
            stored[f"{block}input_linear.weight"] = torch.cat([gate, up], 1)
            stored[f"{block}output_linear.weight"] = down
        else:
            turns = torch.stack([gate, up], 2).flatten(1, 2)
            stored[f"{block}experts.gate_up_proj"] = turns.transpose(1, 2)
            stored[f"{block}experts.gate_up_proj_bias"] = torch.zeros(3, 2 * WIDTH)
            stored[f"{block}experts.down_proj"] = down.transpose(1, 2)
    experts = open_experts(checkpoint(tmp_path, stored))
    assert_same(experts, {name: one.to(dtype) for name, one in plain.items()}, dtype)


def fp8(tensors: Tensors, block: tuple[int, int]) -> tuple[Tensors, Tensors]:
    """The same in FP8 with scales of blocks, and what they then stand for."""
    stored, meant = {}, {}
    for name, weights in tensors.items():
        rows, columns = (-(-size // step) for size, step in zip(weights.shape, block, strict=True))
        scales = 0.01 * (1 + torch.arange(rows * columns).float().view(rows, columns))
        stored[name] = (weights.float() * 40).to(torch.float8_e4m3fn)
        stored[f"{name}_scale_inv"] = scales
        wide = scales.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
        wide = wide[: weights.shape[0], : weights.shape[1]]
        meant[name] = (stored[name].float() * wide).bfloat16()
    return stored, meant


@pytest.mark.parametrize("block", [None, (24, 20)])
def test_fp8_with_scales_of_blocks(block: tuple[int, int] | None, tmp_path: Path) -> None:
    stored, meant = fp8(each(), block or (128, 128))
    how = {"quant_method": "fp8"} | ({"weight_block_size": list(block)} if block else {})
    checkpoint(tmp_path, stored, quantization_config=how)
    with pytest.warns(UserWarning, match="FP8, .* bits a weight.*leave little to compress"):
        experts = open_experts(tmp_path)
    assert_same(experts, meant, torch.bfloat16)
    assert (experts.stored_as, experts.packed) == ("FP8", True)
    blocks = 1 if block is None else 2 * 4  # of each matrix, 32 x 64 or 64 x 32
    scales = 4 * (3 if block is None else blocks + blocks + 3 * 2)
    assert experts.stored_bytes == 3 * HIDDEN * WIDTH + scales


def mxfp4(seed: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random blocks and scales of three experts."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (3, rows, columns // 32, 16), generator=generator)
    scales = torch.randint(118, 132, (3, rows, columns // 32), generator=generator)
    return blocks.to(torch.uint8), scales.to(torch.uint8)


def in_mxfp4(layers: int = 2) -> Tensors:
    stored = {}
    for layer in range(layers):
        for number, (name, rows, columns) in enumerate(
            (("gate_up_proj", 2 * WIDTH, HIDDEN), ("down_proj", HIDDEN, WIDTH))
        ):
            blocks, scales = mxfp4(2 * layer + number, rows, columns)
            stored[f"{PREFIX.format(layer)}experts.{name}_blocks"] = blocks
            stored[f"{PREFIX.format(layer)}experts.{name}_scales"] = scales
    return stored


def test_mxfp4_is_what_transformers_makes_of_it(tmp_path: Path) -> None:
    stored = in_mxfp4()
    checkpoint(tmp_path, stored, quantization_config={"quant_method": "mxfp4"})
    with pytest.warns(UserWarning, match=r"MXFP4, 4\.25 bits a weight"):
        experts = open_experts(tmp_path)
    assert experts.shape == ExpertShape(2, 3, HIDDEN, WIDTH)
    assert experts.stored_bytes == 3 * HIDDEN * WIDTH * 17 // 32
    for layer in range(2):
        both, down = (
            convert_moe_packed_tensors(
                stored[f"{PREFIX.format(layer)}experts.{name}_blocks"],
                stored[f"{PREFIX.format(layer)}experts.{name}_scales"],
            )
            for name in ("gate_up_proj", "down_proj")
        )  # [experts, in, out], as gpt-oss computes with
        for expert in range(3):
            gate, up, out = experts.matrices(layer, expert)
            assert torch.equal(gate, both[expert, :, 0::2].t())
            assert torch.equal(up, both[expert, :, 1::2].t())
            assert torch.equal(out, down[expert].t())


def test_a_matrix_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    tensors = each()
    found = open_experts(checkpoint(tmp_path, tensors)).each_matrix(1, 2)
    assert torch.equal(next(found), matrices(tensors, 1, 2)[0])
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(InputError, match=r"a\.safetensors: no such file"):
        next(found)


def test_layers_that_predict_later_tokens_are_left_out(tmp_path: Path) -> None:
    tensors = each() | each(1, 3, "model.layers.2.mlp.") | each(1, 3, "mtp.layers.{}.mlp.")
    assert_same(open_experts(checkpoint(tmp_path, tensors)), tensors, torch.bfloat16)


def test_shared_experts_are_left_out(tmp_path: Path) -> None:
    tensors = each()
    for layer in range(2):
        for name in ("gate_up_proj", "down_proj"):
            tensors[f"{PREFIX.format(layer)}shared_experts.{name}.weight"] = drawn(0, 4, 4)
        tensors[f"model.layers.{layer}.shared_mlp.input_linear.weight"] = drawn(0, 4, 4)
        tensors[f"model.layers.{layer}.shared_mlp.output_linear.weight"] = drawn(0, 4, 4)
    assert_same(open_experts(checkpoint(tmp_path, tensors)), tensors, torch.bfloat16)


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    tensors = each()
    (checkpoint(tmp_path, tensors) / "config.json").unlink()
    assert_same(open_experts(tmp_path), tensors, torch.bfloat16)


UP_11 = "model.layers.1.mlp.experts.1.up_proj.weight"
WRONG: dict[str, tuple[Tensors, dict[str, Any], str]] = {
    "a missing expert": (
        {name: one for name, one in each().items() if name != UP_11},
        {},
        f"no file has the tensor {UP_11}; download it again",
    ),
    "another width": (
        each() | {UP_11: drawn(0, WIDTH + 1, HIDDEN)},
        {},
        f"{UP_11} is BF16 [33, 64], that of the first expert BF16 [32, 64]",
    ),
    "another dtype": (
        each() | {UP_11: drawn(0, WIDTH, HIDDEN).half()},
        {},
        f"{UP_11} is F16 [32, 64], that of the first expert BF16",
    ),
    "another number of experts": (
        each(1) | each(1, 2, "model.layers.1.mlp."),
        {},
        "model.layers.0.mlp.* has 3 experts as gate_proj, up_proj and down_proj of each expert, "
        "model.layers.1.mlp.* 2",
    ),
    "matrices that do not fit": (
        {name: one for name, one in each().items() if "down" not in name}
        | {name: one.t() for name, one in each().items() if "down" in name},
        {},
        "which do not fit each other",
    ),
    "integers": (
        {name: one.to(torch.int8) for name, one in each().items()},
        {},
        "is stored as I8; offsim reads BF16, F16, F32, FP8 and MXFP4",
    ),
    "no experts": ({"model.layers.0.mlp.up_proj.weight": drawn(0, 4, 4)}, {}, "no MoE checkpoint"),
    "another quantisation": (
        {
            f"{PREFIX.format(0)}experts.0.{name}_proj.qweight": torch.zeros(2, 2, dtype=torch.int32)
            for name in ("gate", "up", "down")
        },
        {"quantization_config": {"quant_method": "gptq"}},
        "I32 [2, 2], quantised by gptq)",
    ),
    "two models": (
        each() | each(2, 3, "model.other.layers.{}.mlp."),
        {},
        "layer 0 has experts twice",
    ),
    "fp8 without scales": (
        {name: one.to(torch.float8_e4m3fn) for name, one in each().items()},
        {},
        "experts.0.gate_proj.weight_scale_inv; offsim reads FP8 with scales of blocks",
    ),
    "a block that is none": (
        fp8(each(), (128, 128))[0],
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": 128}},
        "config.json: quantization_config.weight_block_size is 128, not rows and columns",
    ),
    "mxfp4 without scales": (
        {name: one for name, one in in_mxfp4().items() if not name.endswith("down_proj_scales")},
        {},
        "no file has the tensor model.layers.0.mlp.experts.down_proj_scales",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_read_is_one_sentence(case: str, tmp_path: Path) -> None:
    tensors, config, says = WRONG[case]
    assert says in refused(checkpoint(tmp_path, tensors, **config))


def test_scales_that_do_not_fit_are_refused_when_they_are_read(tmp_path: Path) -> None:
    stored, _ = fp8(each(), (24, 20))  # the config says nothing, so blocks are 128 x 128
    experts = CheckpointExperts(Shards(checkpoint(tmp_path, stored)))
    with pytest.raises(InputError, match="in blocks of 128 x 128 have scales"):
        experts.matrices(0, 0)
