"""Encoding under a promise: no weight is off by more than the bound, in its stored dtype.

A codec works on float32. Rounding its result back to bf16 adds up to half a unit in the last
place, which breaks the bound where it is not a multiple of that unit. So each blob is decoded,
cast and compared once when it is made, and the codec's own bound is tightened until the promise
holds; if it never does, the tensor is stored raw and the blob says so.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from offsim.codec.base import Codec
from offsim.codec.blob import DTYPE_NAMES, MOST_AXES, Blob
from offsim.codec.raw import Raw
from offsim.codec.registry import codec_named
from offsim.errors import CodecError, InputError

MANTISSA_BITS = {torch.bfloat16: 7, torch.float16: 10, torch.float32: 23}
NUDGE = 1 - 2.0**-12
"""Room for the float32 rounding of a codec, 1 part in 4096."""


def encode(weights: torch.Tensor, codec: Codec, bound: float = 0.0) -> Blob:
    """Compress a tensor so that |x - x'| <= bound in its own dtype, verified.

    Args:
        weights: any shape; bf16, fp16 or float32; finite.
        codec: what compresses; a lossless one ignores the bound.
        bound: absolute error, > 0, in the unit of the weights.

    Returns:
        The blob; its codec is `raw` where the codec could not keep the bound.

    Raises:
        InputError: a dtype that is not one of the three, a value that is not finite, or a bound
            that is not a positive number.
    """
    if weights.dtype not in DTYPE_NAMES:
        raise InputError(f"weights of dtype {weights.dtype}; offsim stores {list(DTYPE_NAMES)}")
    flat = weights.detach().contiguous().view(-1)
    finite = torch.isfinite(flat)
    if not bool(finite.all()):
        position = int((~finite).nonzero()[0])
        raise InputError(f"the weight at flat position {position} is {float(flat[position])}")
    facts = {"dtype": DTYPE_NAMES[weights.dtype], "shape": tuple(weights.shape)}
    if weights.ndim > MOST_AXES:
        raise InputError(f"a tensor of {weights.ndim} axes; a blob has at most {MOST_AXES}")
    if codec.lossless:
        bound = 0.0
    else:
        check_bound(bound)
        for tightened in _bounds_to_try(flat, bound):
            try:
                payload = codec.encode(flat, tightened)
            except CodecError:
                continue
            back = codec.decode(payload, flat.numel(), flat.dtype, tightened)
            if largest_error(flat, back) <= bound:
                named = {"codec": codec.name, "options": codec.options()}
                return Blob.of(payload, **named, **facts, bound=bound, codec_bound=tightened)
        codec = Raw()
    payload = codec.encode(flat, 0.0)
    named = {"codec": codec.name, "options": codec.options()}
    return Blob.of(payload, **named, **facts, bound=bound, codec_bound=0.0)


def decode(blob: Blob) -> torch.Tensor:
    """The tensor of a blob, in its stored dtype and shape.

    Raises:
        CodecError: the payload is not a stream of the codec that the header names.
        InputError: no such codec is known here.
    """
    header = blob.header
    codec = codec_named(header.codec, header.options)
    flat = codec.decode(blob.payload, blob.count, blob.torch_dtype, header.codec_bound)
    return flat.view(header.shape)


def check_bound(bound: float) -> None:
    """Refuse a bound that is not a positive finite number.

    Raises:
        InputError: it is not.
    """
    if not (math.isfinite(bound) and bound > 0):
        raise InputError(f"an error bound is a positive number, not {bound:g}")


def largest_error(before: torch.Tensor, after: torch.Tensor) -> float:
    """Largest |x - x'| of two tensors of one shape, in float64; 0 for empty ones."""
    if not before.numel():
        return 0.0
    return float((before.double() - after.double()).abs().max())


def _bounds_to_try(flat: torch.Tensor, bound: float) -> Iterator[float]:
    """Bounds for the codec, loosest first."""
    yield bound
    fitted = _fitted(flat, bound)
    if fitted < bound:
        yield fitted
    yield fitted * NUDGE
    yield 2.0 ** math.floor(math.log2(bound))
    yield bound / 2 * NUDGE


def _fitted(flat: torch.Tensor, bound: float) -> float:
    """The loosest codec bound that survives the cast, from the units in the last place present.

    The weights lie on the grid of their dtype. An error below (n + 1/2) units is rounded to at
    most n units; so with n = floor(bound / unit), a codec bound of (n + 1/2) units is enough in
    that binade, and the least over all binades is enough everywhere (up to values that cross into
    another binade, which the check catches).
    """
    magnitudes = flat.abs().double().numpy()
    exponents = np.unique(np.frexp(magnitudes[magnitudes > 0])[1]) - 1
    units = np.exp2(exponents - float(MANTISSA_BITS[flat.dtype]))
    return float(np.min((np.floor(bound / units) + 0.5) * units, initial=bound))
