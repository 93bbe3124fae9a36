from pathlib import Path

import pytest
import torch

from offsim.errors import InputError
from offsim.model.quantised import block_of, from_fp8, from_mxfp4

CODES = (0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6)
"""What the sixteen codes of four bits stand for."""


def blocks_of(codes: torch.Tensor) -> torch.Tensor:
    """Codes [rows, groups, 32] as bytes, the first of two in the low four bits."""
    return (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)


def test_each_code_and_each_exponent_of_mxfp4() -> None:
    codes = torch.arange(16).repeat(2).expand(3, 2, 32)
    scales = torch.tensor([[127, 128], [126, 0], [252, 120]], dtype=torch.uint8)
    found = from_mxfp4(blocks_of(codes), scales)
    assert found.dtype == torch.bfloat16
    for row, (first, second) in enumerate(scales.tolist()):
        for place, scale in ((0, first), (32, second)):
            expected = [code * 2.0 ** (scale - 127) for code in CODES] * 2
            assert found[row, place : place + 32].tolist() == expected


def test_the_first_weight_of_a_byte_is_the_low_half() -> None:
    blocks = torch.full((1, 1, 16), 0x70, dtype=torch.uint8)  # low 0, high 6
    found = from_mxfp4(blocks, torch.full((1, 1), 127, dtype=torch.uint8))
    assert found.tolist() == [[0, 6] * 16]


def test_many_rows_are_unpacked_in_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, (200, 200, 32), generator=generator)  # more than fit at once
    scales = torch.randint(120, 134, (200, 200), generator=generator, dtype=torch.uint8)
    expected = torch.tensor(CODES)[codes] * 2.0 ** (scales.float() - 127).unsqueeze(-1)
    assert torch.equal(from_mxfp4(blocks_of(codes), scales).float(), expected.flatten(1))


def test_a_scale_of_255_is_no_number() -> None:
    blocks = torch.full((1, 1, 16), 0x22, dtype=torch.uint8)
    found = from_mxfp4(blocks, torch.full((1, 1), 255, dtype=torch.uint8))
    assert found.isnan().all()


@pytest.mark.parametrize(
    ("blocks", "scales"), [((2, 3, 8), (2, 3)), ((2, 48), (2, 3)), ((2, 3, 16), (3, 2))]
)
def test_other_shapes_than_those_of_mxfp4(blocks: tuple[int, ...], scales: tuple[int, ...]) -> None:
    zeros = [torch.zeros(shape, dtype=torch.uint8) for shape in (blocks, scales)]
    with pytest.raises(InputError, match=r"MXFP4 weights are blocks \[rows, groups, 16\]"):
        from_mxfp4(*zeros)


def test_fp8_is_multiplied_block_by_block() -> None:
    weights = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, -9]]).to(torch.float8_e4m3fn)
    scales = torch.tensor([[1.0, 10], [0.5, 3]])
    found = from_fp8(weights, scales, (2, 2))  # the last blocks are cut
    assert found.dtype == torch.bfloat16
    assert found.tolist() == [[1, 2, 30], [4, 5, 60], [3.5, 4, -27]]


def test_the_product_is_rounded_once() -> None:
    weight, scale = torch.full((1, 1), 1.75), torch.full((1, 1), 1 + 1.5 * 2**-8)
    found = from_fp8(weight.to(torch.float8_e4m3fn), scale)
    assert torch.equal(found, (weight * scale).bfloat16())
    assert not torch.equal(found, weight.bfloat16() * scale.bfloat16())


def test_scales_of_another_shape() -> None:
    weights = torch.zeros(130, 4).to(torch.float8_e4m3fn)
    assert from_fp8(weights, torch.ones(2, 1)).shape == (130, 4)
    with pytest.raises(InputError, match=r"128 x 128 have scales \[2, 1\], not \[1, 2\]"):
        from_fp8(weights, torch.ones(1, 2))


def test_rows_and_columns_of_a_block() -> None:
    assert block_of(Path("config.json"), [64, 32]) == (64, 32)


@pytest.mark.parametrize("said", [None, 128, [128], [128, 0], [128, "x"], [1, 2, 3], [1.5, 2]])
def test_what_is_no_block(said: object) -> None:
    with pytest.raises(InputError, match=r"config\.json: quantization_config\.weight_block_size"):
        block_of(Path("config.json"), said)
