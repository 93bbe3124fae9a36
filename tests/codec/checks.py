"""Checkers that the tests of all codecs share."""

import hashlib
import math

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

from offsim.codec import CODECS, Codec, codec_named, decode, encode
from offsim.codec.blob import Blob
from offsim.errors import InputError

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def _works(name: str) -> bool:
    try:
        codec_named(name)
    except InputError:  # an extra that is not installed, or no device
        return False
    return True


HERE = [name for name in CODECS if _works(name)]
LOSSY = [name for name in HERE if CODECS[name].promise == "bound"]
BOUNDS = st.floats(1e-6, 1.0)
EXAMPLES = 20 * settings.default.max_examples // len(DTYPES)
"""For each dtype, so that a property of a codec is tried 2,000 times; `--hypothesis-profile long`
takes 40,000."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def weights_like(*shape: int, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(0, 0.02, shape).astype(np.float32)
    return torch.from_numpy(values).to(dtype)


WORDS = {torch.bfloat16: np.uint16, torch.float16: np.uint16, torch.float32: np.uint32}
EXPONENT = {torch.bfloat16: 0x7F80, torch.float16: 0x7C00, torch.float32: 0x7F800000}
SHAPES = st.one_of(
    st.tuples(),
    st.tuples(st.integers(0, 130)),
    st.tuples(st.integers(1, 9), st.integers(1, 33)),
    st.tuples(st.integers(1, 5), st.integers(0, 5), st.integers(1, 7)),
)


@st.composite
def tensors(draw: st.DrawFn, dtype: torch.dtype, shortest: int = 0) -> torch.Tensor:
    """Finite tensors of up to three axes.

    Any bits, so all magnitudes at once; denormals and zeros; one value throughout; one of each
    kind among weights; weights of any scale.
    """
    shape = draw(SHAPES.filter(lambda shape: math.prod(shape) >= shortest))
    count, word = math.prod(shape), WORDS[dtype]
    kind = draw(st.sampled_from(("bits", "denormal", "constant", "weights", "mixed")))
    if kind in ("weights", "mixed"):
        seed, scale = draw(st.integers(0, 2**32)), 10.0 ** draw(st.integers(-9, 4))
        values = torch.from_numpy(np.random.default_rng(seed).normal(0, scale, count)).to(dtype)
        values = torch.nan_to_num(values, posinf=0.0, neginf=0.0)
    if kind != "weights":
        size = word().itemsize * (1 if kind == "constant" else count)
        bits = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), word)
        top = word(EXPONENT[dtype])
        keep = ~top if kind == "denormal" else ~word(0)
        bits = np.where(bits & keep & top == top, word(0), bits & keep)
        drawn = torch.from_numpy(np.resize(bits, count)).view(dtype)
        values = (
            torch.where(torch.arange(count) % 7 == 3, drawn, values) if kind == "mixed" else drawn
        )
    return values.view(shape)


def assert_bound_kept(weights: torch.Tensor, codec: Codec, bound: float) -> Blob:
    blob = encode(weights, codec, bound)
    back = decode(Blob.from_bytes(blob.to_bytes()))
    assert back.dtype == weights.dtype
    assert back.shape == weights.shape
    if codec.promise == "none":
        bound = blob.header.bound
    if codec.promise == "exact":
        assert_same_bits(weights, back)
    if weights.numel():
        assert float((back.double() - weights.double()).abs().max()) <= bound
    return blob


def assert_same_bits(before: torch.Tensor, after: torch.Tensor) -> None:
    assert after.dtype == before.dtype
    assert after.shape == before.shape
    if before.numel():
        whole = [part.clone(memory_format=torch.contiguous_format) for part in (before, after)]
        assert torch.equal(*(part.view(-1).view(torch.uint8) for part in whole))
