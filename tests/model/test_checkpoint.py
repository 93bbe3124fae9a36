from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from offsim.errors import InputError
from offsim.model.checkpoint import sample_experts
from offsim.testbed.load import CHECKPOINT


def marked(rows: int, width: int, mark: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.full((rows, width), float(mark), dtype=dtype)


def test_rows_come_from_all_over_the_checkpoint(tmp_path: Path) -> None:
    for layer in range(4):
        name = "model.layers.{}.mlp.experts.{}.up_proj.weight"
        tensors = {
            name.format(layer, expert): marked(8, 16, 10 * layer + expert) for expert in (0, 1)
        }
        tensors[f"model.layers.{layer}.mlp.shared_experts.up_proj.weight"] = marked(8, 16, 99)
        tensors[f"model.layers.{layer}.self_attn.q_proj.weight"] = marked(8, 16, 98)
        tensors[f"model.layers.{layer}.mlp.experts.0.bias"] = torch.full((16,), 97.0)
        save_file(tensors, tmp_path / f"model-{layer}.safetensors")
    sample = sample_experts(tmp_path, 8 * 16)
    assert sample.shape == (8, 16)
    assert sorted(set(sample[:, 0].tolist())) == [0, 1, 10, 11, 20, 21, 30, 31]
    few = sample_experts(tmp_path, 4 * 16)
    assert {int(value) // 10 for value in few[:, 0]} == {0, 1, 2, 3}


def test_fewer_where_there_are_fewer(tmp_path: Path) -> None:
    save_file({"experts.0.w": marked(3, 4, 1)}, tmp_path / "a.safetensors")
    assert sample_experts(tmp_path, 1 << 20).shape == (3, 4)


def test_stacked_experts_are_sampled_each(tmp_path: Path) -> None:
    stack = torch.arange(4.0).view(4, 1, 1).expand(4, 6, 8).contiguous().half()
    save_file({"layers.0.experts.gate_up_proj": stack}, tmp_path / "a.safetensors")
    sample = sample_experts(tmp_path, 4 * 8)
    assert sample.dtype == torch.float16
    assert sample[:, 0].tolist() == [0, 1, 2, 3]


def test_the_commonest_row_length_is_taken(tmp_path: Path) -> None:
    tensors = {f"experts.{n}.up": marked(2, 8, n) for n in range(3)}
    tensors["experts.0.down"] = marked(2, 6, 9)
    save_file(tensors, tmp_path / "a.safetensors")
    assert sample_experts(tmp_path, 1000).shape == (6, 8)


def test_embedded_checkpoint() -> None:
    sample = sample_experts(CHECKPOINT, 1 << 16)
    assert sample.shape == (512, 128)
    assert sample.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"experts.0.w": torch.zeros(2, 4, dtype=torch.uint8)}, "stored as U8"),
        ({"mlp.w": torch.zeros(2, 4)}, "no tensor is named like an expert's"),
        (None, "no .safetensors file"),
    ],
)
def test_without_experts(
    tensors: dict[str, torch.Tensor] | None, message: str, tmp_path: Path
) -> None:
    if tensors:
        save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=message):
        sample_experts(tmp_path, 10)


def test_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"not one")
    with pytest.raises(InputError, match=r"a\.safetensors: not a safetensors file"):
        sample_experts(tmp_path, 10)
