import numpy as np
import pytest
import torch

from offsim.codec import CODECS, codec_named, encode
from offsim.codec.expert import ExpertBlob, encode_expert
from offsim.errors import InputError

from .checks import assert_same_bits, weights_like

SHAPES = ((24, 16), (24, 16), (16, 24))


def matrices() -> list[torch.Tensor]:
    return [weights_like(*shape, seed=seed) for seed, shape in enumerate(SHAPES)]


def decoded(expert: ExpertBlob) -> list[torch.Tensor]:
    return [expert.decoded(matrix) for matrix in range(3)]


@pytest.mark.parametrize("name", CODECS)
def test_matrices_come_back_in_order_and_within_the_bound(name: str) -> None:
    expert = encode_expert(matrices(), codec_named(name), 1e-3)
    for before, after in zip(matrices(), decoded(expert), strict=True):
        assert after.shape == before.shape
        assert after.dtype == torch.bfloat16
        assert float((after.double() - before.double()).abs().max()) <= 1e-3


@pytest.mark.parametrize("name", CODECS)
def test_each_matrix_is_a_blob_of_its_own(name: str) -> None:
    expert = encode_expert(matrices(), codec_named(name), 1e-3)
    for matrix, blob in zip(matrices(), expert.blobs, strict=True):
        assert blob.to_bytes() == encode(matrix, codec_named(name), 1e-3).to_bytes()


@pytest.mark.parametrize("name", CODECS)
def test_sizes(name: str) -> None:
    expert = encode_expert(matrices(), codec_named(name), 1e-3)
    assert expert.stored_bytes == 3 * 24 * 16 * 2
    assert expert.nbytes == sum(len(blob.payload) for blob in expert.blobs)


def test_raw_has_the_stored_size_and_the_same_bits() -> None:
    expert = encode_expert(matrices(), codec_named("raw"), 0.0)
    assert expert.nbytes == expert.stored_bytes
    for before, after in zip(matrices(), decoded(expert), strict=True):
        assert_same_bits(before, after)


def test_payloads_are_read_only_views() -> None:
    expert = encode_expert(matrices(), codec_named("cuszp"), 1e-3)
    for blob, payload in zip(expert.blobs, expert.payloads(), strict=True):
        assert payload.dtype == np.uint8
        assert payload.tobytes() == bytes(blob.payload)
        assert not payload.flags.writeable
        assert not payload.flags.owndata


def test_one_bad_matrix_refuses_the_expert() -> None:
    bad = matrices()
    bad[2][0, 0] = torch.nan
    with pytest.raises(InputError, match="position 0"):
        encode_expert(bad, codec_named("cuszp"), 1e-3)
