import weakref
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from offsim.codec import codec_named, encode
from offsim.codec.bounded import largest_error
from offsim.codec.bounds import Bound
from offsim.codec.expert import ExpertBlob, encode_expert
from offsim.errors import InputError

from .checks import HERE, assert_same_bits, weights_like

SHAPES = ((24, 16), (24, 16), (16, 24))


def matrices() -> list[torch.Tensor]:
    return [weights_like(*shape, seed=seed) for seed, shape in enumerate(SHAPES)]


def decoded(expert: ExpertBlob) -> list[torch.Tensor]:
    return [expert.decoded(matrix) for matrix in range(3)]


@pytest.mark.parametrize("name", HERE)
def test_matrices_come_back_in_order_and_within_the_bound(name: str) -> None:
    expert = encode_expert(matrices(), codec_named(name), 1e-3)
    for before, after, blob in zip(matrices(), decoded(expert), expert.blobs, strict=True):
        assert after.shape == before.shape
        assert after.dtype == torch.bfloat16
        assert largest_error(before, after) <= blob.header.bound
        assert blob.header.bound <= 1e-3 or name.startswith("rtn")


@pytest.mark.parametrize("name", HERE)
def test_each_matrix_is_a_blob_of_its_own(name: str) -> None:
    expert = encode_expert(matrices(), codec_named(name), 1e-3)
    for matrix, blob in zip(matrices(), expert.blobs, strict=True):
        assert blob.to_bytes() == encode(matrix, codec_named(name), 1e-3).to_bytes()


@pytest.mark.parametrize("name", HERE)
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
    with pytest.raises(InputError, match=r"the weight at \[0, 0\] is nan"):
        encode_expert(bad, codec_named("cuszp"), 1e-3)


def test_a_bound_for_each_matrix() -> None:
    bounds = (Bound(1e-3), Bound(1e-2), Bound(0.5, "mean-abs"))
    expert = encode_expert(matrices(), codec_named("cuszp"), bounds)
    mean = float(torch.cat([matrix.view(-1) for matrix in matrices()]).double().abs().mean())
    wanted = (1e-3, 1e-2, pytest.approx(mean / 2))
    assert [blob.header.bound for blob in expert.blobs] == list(wanted)
    for before, after, blob in zip(matrices(), decoded(expert), expert.blobs, strict=True):
        assert largest_error(before, after) <= blob.header.bound
    assert len({blob.nbytes for blob in expert.blobs}) == 3


def test_a_codec_for_each_matrix() -> None:
    codecs = [codec_named(name) for name in ("rtn-int4", "cuszp", "raw")]
    expert = encode_expert(iter(matrices()), codecs, (None, Bound(0.5, "sigma"), None))
    assert [blob.header.codec for blob in expert.blobs] == ["rtn-int4", "cuszp", "raw"]
    for before, after, blob in zip(matrices(), decoded(expert), expert.blobs, strict=True):
        assert largest_error(before, after) <= blob.header.bound
    assert_same_bits(expert.decoded(2), matrices()[2])


def test_a_codec_that_takes_a_bound_needs_one() -> None:
    codecs = [codec_named(name) for name in ("rtn-int4", "cuszp", "raw")]
    with pytest.raises(InputError, match="positive number"):
        encode_expert(matrices(), codecs, (None, None, None))


def test_weights_that_are_all_equal_are_stored_raw_under_a_relative_bound() -> None:
    same = [torch.full((4, 4), 0.5).bfloat16()] * 3
    expert = encode_expert(same, codec_named("sz3"), (Bound(0.1, "sigma"),) * 3)
    assert {blob.header.codec for blob in expert.blobs} == {"raw"}
    assert_same_bits(expert.decoded(0), same[0])


def one_at_a_time() -> Iterator[torch.Tensor]:
    """The matrices, each made once the one before it is gone."""
    for seed, shape in enumerate(SHAPES):
        made = weights_like(*shape, seed=seed)
        gone = weakref.ref(made)
        yield made
        del made
        assert gone() is None


@pytest.mark.parametrize("bounds", [1e-3, (Bound(1e-3),) * 3])
@pytest.mark.parametrize("name", ["cuszp", "sz3", "raw"])
def test_one_matrix_is_held_at_a_time(name: str, bounds: float | Sequence[Bound]) -> None:
    found = encode_expert(one_at_a_time(), codec_named(name), bounds)
    assert_same_blobs(found, encode_expert(matrices(), codec_named(name), bounds))


def test_a_statistic_is_of_all_matrices_that_come_one_at_a_time() -> None:
    codec, bounds = codec_named("cuszp"), (Bound(0.5, "sigma"),) * 3
    found = encode_expert(iter(matrices()), codec, bounds)
    assert_same_blobs(found, encode_expert(matrices(), codec, bounds))


def assert_same_blobs(found: ExpertBlob, expected: ExpertBlob) -> None:
    for one, other in zip(found.blobs, expected.blobs, strict=True):
        assert one.to_bytes() == other.to_bytes()
