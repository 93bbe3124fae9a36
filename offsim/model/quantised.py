"""Weights that a checkpoint stores in 8 or 4 bits with scales, as the bf16 that they stand for."""

from pathlib import Path

import torch

from offsim.errors import InputError

BLOCK = (128, 128)
"""Rows and columns under one scale of an FP8 checkpoint (DeepSeek-V3, arXiv 2412.19437, 3.3.2)."""
GROUP = 32
"""Weights under one scale of MXFP4 (OCP Microscaling Formats v1.0, section 5.2)."""
PER_BYTE = 2
"""Weights of four bits in a byte."""
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Magnitudes of a 4-bit weight by its three low bits (the same, table 5); the fourth is the
sign."""


def block_of(file: Path, said: object) -> tuple[int, int]:
    """Rows and columns under one scale.

    Args:
        file: config that says it.
        said: its `weight_block_size`.

    Raises:
        InputError: these are not two positive numbers.
    """
    if isinstance(said, list | tuple) and len(said) == 2:
        rows, columns = said
        if isinstance(rows, int) and isinstance(columns, int) and min(rows, columns) > 0:
            return rows, columns
    raise InputError(
        f"{file}: quantization_config.weight_block_size is {said}, not rows and columns"
    )


def from_fp8(
    weights: torch.Tensor, scales: torch.Tensor, block: tuple[int, int] = BLOCK
) -> torch.Tensor:
    """The weights of an FP8 matrix.

    Args:
        weights: [rows, columns] float8_e4m3fn.
        scales: [rows / block, columns / block, both rounded up] float32, by which the weights of a
            block are multiplied.
        block: rows and columns of a block; the last ones may be cut.

    Returns:
        [rows, columns] bf16; the product is taken in float32 and rounded once.

    Raises:
        InputError: scales of another shape.
    """
    expected = tuple(-(-size // step) for size, step in zip(weights.shape, block, strict=True))
    if tuple(scales.shape) != expected:
        raise InputError(
            f"FP8 weights {list(weights.shape)} in blocks of {block[0]} x {block[1]} have scales "
            f"{list(expected)}, not {list(scales.shape)}"
        )
    wide = weights.float()
    columns = scales.float().repeat_interleave(block[1], dim=1)[:, : weights.shape[1]]
    for number, rows in enumerate(wide.split(block[0])):
        rows.mul_(columns[number])
    return wide.bfloat16()


def from_mxfp4(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The weights of an MXFP4 matrix.

    Args:
        blocks: [rows, groups, 16] uint8, two weights each, the first in the low four bits.
        scales: [rows, groups] uint8, exponents of two with a bias of 127; 255 is not a number.

    Returns:
        [rows, 32 groups] bf16; exact, since a weight has two significant bits.

    Raises:
        InputError: other shapes.
    """
    if blocks.ndim != 3 or blocks.shape[2] != GROUP // PER_BYTE or blocks.shape[:2] != scales.shape:
        raise InputError(
            f"MXFP4 weights are blocks [rows, groups, {GROUP // PER_BYTE}] with scales "
            f"[rows, groups], not {list(blocks.shape)} with {list(scales.shape)}"
        )
    rows, groups = scales.shape
    magnitudes = torch.tensor(E2M1)
    nibbles = torch.cat([magnitudes, -magnitudes])
    pairs = torch.stack([nibbles.repeat(16), nibbles.repeat_interleave(16)], dim=1)
    weights = torch.empty(rows, groups, GROUP, dtype=torch.bfloat16)
    steps = scales.contiguous().view(torch.float8_e8m0fnu).float()
    at_once = max(1, (1 << 20) // max(1, groups * GROUP))  # float32 copies stay small
    for start in range(0, rows, at_once):
        part = blocks[start : start + at_once]
        values = pairs.index_select(0, part.reshape(-1).int()).view(len(part), groups, GROUP)
        weights[start : start + at_once] = values * steps[start : start + at_once].unsqueeze(-1)
    return weights.view(rows, groups * GROUP)
