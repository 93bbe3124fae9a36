"""Expert weights of a checkpoint folder, without loading the model."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from offsim.errors import InputError

FLOATS = ("BF16", "F16", "F32")


def sample_experts(folder: Path, count: int) -> torch.Tensor:
    """Rows of expert matrices, spread evenly over the experts of all layers.

    Args:
        folder: safetensors files, named as in Hugging Face checkpoints.
        count: weights wanted; whole rows are taken, and fewer where the checkpoint has fewer.

    Returns:
        [rows, width] of the stored dtype; width is the commonest row length of the experts.

    Raises:
        InputError: no safetensors file, one that is damaged, or no experts in bf16, fp16 or f32.
    """
    places = list(_matrices(folder))
    if not places:
        raise InputError(f"{folder}: no tensor is named like an expert's and has 2 or 3 axes")
    kept = [place for place in places if place[2] in FLOATS]
    if not kept:
        raise InputError(
            f"{folder}: its experts are stored as {places[0][2]}; offsim compresses bf16, fp16 and "
            "f32, so use the checkpoint that they were made from"
        )
    (width, dtype), _ = Counter((shape[-1], dtype) for *_, dtype, shape in kept).most_common(1)[0]
    kept = [place for place in kept if place[2] == dtype and place[3][-1] == width]
    rows_wanted = max(1, count // width)
    each = max(1, -(-rows_wanted // len(kept)))
    every = max(1, len(kept) * each // rows_wanted)
    rows = [_rows(file, name, shape, each) for file, name, _, shape in kept[::every]]
    return torch.cat(rows)[:rows_wanted].contiguous()


def _matrices(folder: Path) -> Iterator[tuple[Path, str, str, list[int]]]:
    """File, name, dtype and shape of every expert matrix."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: no .safetensors file in this folder")
    for file in files:
        try:
            with safe_open(file, "pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118  # not a dict
                    if "experts" not in name or "shared" in name or name.endswith("bias"):
                        continue
                    place = tensors.get_slice(name)
                    if len(place.get_shape()) in (2, 3):
                        yield file, name, place.get_dtype(), place.get_shape()
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file}: not a safetensors file ({error})") from error


def _rows(file: Path, name: str, shape: list[int], rows: int) -> torch.Tensor:
    """The first rows of a matrix, or of each of a stack of matrices in turn."""
    with safe_open(file, "pt") as tensors:
        place = tensors.get_slice(name)
        part: torch.Tensor = place[:rows] if len(shape) == 2 else place[:, : -(-rows // shape[0])]
    return part.reshape(-1, shape[-1])[:rows]
