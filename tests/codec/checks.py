"""Checkers that the tests of all codecs share."""

import hashlib

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from offsim.codec import Codec, decode, encode
from offsim.codec.blob import Blob

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
BOUNDS = st.floats(1e-6, 1.0)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def weights_like(*shape: int, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(0, 0.02, shape).astype(np.float32)
    return torch.from_numpy(values).to(dtype)


def tensors(dtype: torch.dtype, shortest: int = 0) -> st.SearchStrategy[torch.Tensor]:
    """Finite tensors of up to three dimensions: constants, zeros, denormals, all magnitudes."""
    top = torch.finfo(dtype).max
    weights = st.floats(-0.125, 0.125, width=32)
    anything = st.floats(-top, top, width=32)
    tiny = st.floats(-(2.0**-120), 2.0**-120, width=32)
    elements = st.sampled_from((weights, anything, tiny, st.one_of(weights, anything, tiny)))
    shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=shortest, max_side=40)
    small = shapes.filter(lambda shape: np.prod(shape) <= 100)

    def array(kind: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
        constant = st.builds(lambda shape, x: np.full(shape, x, np.float32), small, kind)
        return st.one_of(hnp.arrays(np.float32, small, elements=kind), constant)

    return elements.flatmap(array).map(lambda values: torch.from_numpy(values).to(dtype))


def assert_bound_kept(weights: torch.Tensor, codec: Codec, bound: float) -> Blob:
    blob = encode(weights, codec, bound)
    back = decode(Blob.from_bytes(blob.to_bytes()))
    assert back.dtype == weights.dtype
    assert back.shape == weights.shape
    if weights.numel():
        assert float((back.double() - weights.double()).abs().max()) <= bound
    return blob


def assert_same_bits(before: torch.Tensor, after: torch.Tensor) -> None:
    assert after.dtype == before.dtype
    assert after.shape == before.shape
    assert torch.equal(before.view(torch.uint8), after.view(torch.uint8))
