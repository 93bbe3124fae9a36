import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from offsim.codec import Codec, encode
from offsim.codec.rtn import GROUPS, RtnInt4, RtnInt8
from offsim.errors import CodecError, InputError

from .checks import DTYPES, tensors, weights_like

KINDS = (RtnInt8, RtnInt4)
EACH = pytest.mark.parametrize("kind", KINDS)
TOP = {RtnInt8: 127, RtnInt4: 7}
MANTISSA_BITS = {torch.bfloat16: 7, torch.float16: 10, torch.float32: 23}
MEASURED = [
    (RtnInt8, "128", 8.125, 4.168e-4, 1.294e-4),
    (RtnInt8, "32", 8.5, 4.120e-4, 1.070e-4),
    (RtnInt4, "128", 4.125, 7.599e-3, 2.348e-3),
    (RtnInt4, "64", 4.25, 7.599e-3, 2.154e-3),
    (RtnInt4, "32", 4.5, 7.599e-3, 1.940e-3),
]
"""Of 4096 x 1024 weights from N(0, 0.02): bits a weight, largest and root-mean-square error."""


def there_and_back(codec: Codec, weights: torch.Tensor) -> torch.Tensor:
    return codec.decode(codec.encode(weights, 0.0), tuple(weights.shape), weights.dtype, 0.0)


@pytest.mark.parametrize(("kind", "group", "bits", "largest", "rms"), MEASURED)
def test_sizes_and_errors_are_those_that_were_measured(
    kind: type[Codec], group: str, bits: float, largest: float, rms: float
) -> None:
    weights = weights_like(4096, 1024).float()
    codec = kind(group=group)
    assert len(codec.encode(weights, 0.0)) * 8 == bits * weights.numel()
    errors = there_and_back(codec, weights).double() - weights.double()
    assert float(errors.abs().max()) == pytest.approx(largest, rel=5e-4)
    assert float(errors.square().mean().sqrt()) == pytest.approx(rms, rel=5e-4)


@EACH
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(derandomize=True, max_examples=200, deadline=None)
@given(data=st.data(), group=st.sampled_from(GROUPS))
def test_errors_stay_within_half_a_step_of_the_group(
    kind: type[Codec], dtype: torch.dtype, data: st.DataObject, group: str
) -> None:
    weights = data.draw(tensors(dtype, shortest=1))
    top = TOP[kind]
    try:
        back = there_and_back(kind(group=group), weights)
    except CodecError:
        assert float(weights.abs().max()) / top >= 65504
        return
    assert back.dtype == dtype
    assert back.shape == weights.shape
    assert bool(torch.isfinite(back).all())
    flat = weights.reshape(-1).double()
    for before, after in zip(
        flat.split(int(group)), back.reshape(-1).double().split(int(group)), strict=True
    ):
        largest = float(before.abs().max())
        half_step = largest / top / 2 * (1 + 2**-10)
        denormal_scale = (top + 1) * 2**-25
        cast = (largest + half_step) * 2.0 ** -(MANTISSA_BITS[dtype] + 1) + 2**-25
        assert float((before - after).abs().max()) <= half_step + denormal_scale + cast


@EACH
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (3, 5, 7), (127,), (129,), (2,) * 8])
def test_shape_comes_back_and_a_short_last_group_costs_only_its_values(
    kind: type[Codec], shape: tuple[int, ...]
) -> None:
    codec = kind()
    weights = weights_like(*shape)
    count = weights.numel()
    bits = 8 if kind is RtnInt8 else 4
    assert len(codec.encode(weights, 0.0)) == 2 * -(-count // 128) + -(-count * bits // 8)
    assert there_and_back(codec, weights).shape == shape


def test_layout_is_that_of_the_module_text() -> None:
    weights = torch.tensor([7.0, -3.5, 1.0])
    assert RtnInt4().encode(weights, 0.0) == b"\x00\x3c" + bytes([4 << 4 | 15, 9])
    assert RtnInt8().encode(weights * 127 / 7, 0.0) == b"\x00\x3c" + bytes([127, 256 - 64, 18])


@EACH
def test_multiples_of_the_step_come_back_exactly(kind: type[Codec]) -> None:
    top = TOP[kind]
    weights = torch.arange(-top, top + 1).float() / 64
    assert torch.equal(there_and_back(kind(), weights), weights)


@EACH
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, -1e-40, 2.0**-30])
def test_groups_too_small_for_a_scale_become_zero(kind: type[Codec], value: float) -> None:
    weights = torch.full((200,), value)
    weights[:128] = TOP[kind] / 128
    back = there_and_back(kind(), weights)
    assert torch.equal(back[:128], weights[:128])
    assert torch.equal(back[128:], torch.zeros(72))


@EACH
@pytest.mark.parametrize("value", [65521.0 * 127, 1e30, torch.finfo(torch.float32).max])
def test_scale_beyond_float16_is_refused_and_stored_raw(kind: type[Codec], value: float) -> None:
    weights = torch.tensor([1.0, -value])
    with pytest.raises(CodecError, match="more than float16 holds"):
        kind().encode(weights, 0.0)
    assert encode(weights, kind()).header.codec == "raw"


@EACH
def test_largest_scale_is_taken(kind: type[Codec]) -> None:
    weights = torch.tensor([65504.0 * TOP[kind], 0.0])
    assert torch.equal(there_and_back(kind(), weights), weights)


@EACH
def test_largest_float16_does_not_become_infinite(kind: type[Codec]) -> None:
    weights = torch.tensor([65504.0, -65504.0, 1.0], dtype=torch.float16)
    assert torch.equal(there_and_back(kind(), weights)[:2], weights[:2])


@EACH
def test_error_that_was_found_is_in_the_header(kind: type[Codec]) -> None:
    weights = weights_like(64, 64, dtype=torch.float32)
    blob = encode(weights, kind())
    found = float((there_and_back(kind(), weights).double() - weights.double()).abs().max())
    assert blob.header.codec == kind.name
    assert blob.header.bound == found > 0


@EACH
def test_is_a_device_codec_that_promises_nothing(kind: type[Codec]) -> None:
    codec = kind()
    assert codec.placement == "device"
    assert codec.promise == "none"
    assert codec.options() == {"group": "128"}
    assert str(codec) == codec.name
    assert str(kind(group="32")) == f"{codec.name}:group=32"


@EACH
@pytest.mark.parametrize("group", ["0", "16", "-128", "128.0", "", "many", " 128"])
def test_other_groups_are_refused(kind: type[Codec], group: str) -> None:
    with pytest.raises(InputError, match=f"no group '{group}'; it has 32, 64, 128"):
        kind(group=group)


@EACH
@pytest.mark.parametrize("shape", [(300,), (3, 99)], ids=str)
def test_payload_of_another_size_is_refused(kind: type[Codec], shape: tuple[int, ...]) -> None:
    payload = kind().encode(weights_like(*shape), 0.0)
    for size in range(len(payload)):
        with pytest.raises(CodecError, match="values take"):
            kind().decode(payload[:size], shape, torch.bfloat16, 0.0)
    with pytest.raises(CodecError, match="values take"):
        kind().decode(payload + b"\0", shape, torch.bfloat16, 0.0)
    with pytest.raises(CodecError, match="values take"):
        kind().decode(payload, (1 << 40,), torch.bfloat16, 0.0)


@EACH
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_flipped_bits_are_refused_or_give_finite_weights(
    kind: type[Codec], dtype: torch.dtype
) -> None:
    payload = kind().encode(weights_like(5, 41, dtype=dtype), 0.0)
    for at in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[at // 8] ^= 1 << at % 8
        try:
            back = kind().decode(bytes(damaged), (5, 41), dtype, 0.0)
        except CodecError:
            continue
        assert back.shape == (5, 41)
        assert bool(torch.isfinite(back).all())


@EACH
@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, -1.0, -0.0])
def test_scale_that_no_encoder_writes_is_refused(kind: type[Codec], scale: float) -> None:
    payload = np.float16(scale).tobytes() + kind().encode(torch.ones(8), 0.0)[2:]
    with pytest.raises(CodecError, match="scale"):
        kind().decode(payload, (8,), torch.float32, 0.0)


@EACH
def test_decoded_tensor_is_memory_of_its_own(kind: type[Codec]) -> None:
    payload = bytearray(kind().encode(weights_like(256), 0.0))
    back = kind().decode(memoryview(payload), (256,), torch.bfloat16, 0.0)
    before = back.clone()
    payload[:] = bytes(len(payload))
    assert torch.equal(back, before)
    back.zero_()
