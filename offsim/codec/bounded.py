"""Encoding under a promise: no weight is off by more than the bound, in its stored dtype.

A codec works on float32. Rounding its result back to bf16 adds up to half a unit in the last
place, which breaks the bound where it is not a multiple of that unit. So each blob is decoded,
cast and compared once when it is made, and the codec's own bound is tightened until the promise
holds; if it never does, the tensor is stored raw and the blob says so.
"""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from offsim.codec.base import Buffer, Codec, check_size
from offsim.codec.blob import DTYPE_NAMES, MOST_AXES, Blob
from offsim.codec.raw import Raw
from offsim.codec.registry import codec_named
from offsim.errors import CodecError, InputError

MANTISSA_BITS = {torch.bfloat16: 7, torch.float16: 10, torch.float32: 23}
EXPONENT_BITS = {torch.bfloat16: 8, torch.float16: 5, torch.float32: 8}
WORDS = {2: torch.int16, 4: torch.int32}
CHUNK = 1 << 16
"""Values that are looked at together: their float64 copies stay in the cache of a core."""
MANY = 1 << 20
"""Values from which on it pays to try a bound on the first CHUNK of them."""
NUDGE = 1 - 2.0**-12
"""Room for the float32 rounding of a codec, 1 part in 4096."""


def encode(weights: torch.Tensor, codec: Codec, bound: float = 0.0) -> Blob:
    """Compress a tensor so that |x - x'| <= bound in its own dtype, verified.

    Args:
        weights: any shape; bf16, fp16 or float32; finite.
        codec: what compresses; one that promises no bound ignores it.
        bound: absolute error, > 0, in the unit of the weights.

    Returns:
        The blob; its codec is `raw` where the codec could not keep its promise. `header.bound` is
        the bound asked for, 0 where the weights come back exactly, and the largest error found
        where the codec takes no bound.

    Raises:
        InputError: a dtype that is not one of the three, a value that is not finite, or a bound
            that is not a positive number.
    """
    if weights.dtype not in DTYPE_NAMES:
        raise InputError(f"weights of dtype {weights.dtype}; offsim stores {list(DTYPE_NAMES)}")
    if weights.ndim > MOST_AXES:
        raise InputError(f"a tensor of {weights.ndim} axes; a blob has at most {MOST_AXES}")
    weights = weights.detach().contiguous()
    if weights.numel() == 1:  # counts as contiguous with any stride, but not to be seen as bytes
        weights = weights.clone(memory_format=torch.contiguous_format)
    check_finite(weights)
    if codec.promise == "bound":
        check_bound(bound)
    else:
        bound = 0.0
    found = _kept(weights, codec, bound) if weights.numel() else (b"", bound, bound)
    if found is None:
        codec = Raw()
        found = codec.encode(weights, 0.0), bound, 0.0
    payload, bound, tightened = found
    return Blob.of(
        payload,
        codec=codec.name,
        options=codec.options(),
        dtype=DTYPE_NAMES[weights.dtype],
        shape=tuple(weights.shape),
        bound=bound,
        codec_bound=tightened,
    )


def _kept(weights: torch.Tensor, codec: Codec, bound: float) -> tuple[Buffer, float, float] | None:
    """Payload, bound and codec bound under which the promise was seen to hold; None for never."""
    shape, dtype = tuple(weights.shape), weights.dtype
    asked = _bounds_to_try(weights, codec, bound) if codec.promise == "bound" else [0.0]
    for tightened in asked:
        try:  # SZ3 can write what it cannot read
            payload = codec.encode(weights, tightened)
            back = codec.decode(payload, shape, dtype, tightened)
        except CodecError:
            continue
        if codec.promise == "exact":
            if torch.equal(back.view(-1).view(torch.uint8), weights.view(-1).view(torch.uint8)):
                return payload, 0.0, 0.0
            continue
        if codec.promise == "none":
            error = largest_error(weights, back)
            if math.isfinite(error):
                return payload, error, 0.0
        elif largest_error(weights, back, enough=bound) <= bound:
            return payload, bound, tightened
    return None


def decode(blob: Blob) -> torch.Tensor:
    """The tensor of a blob, in its stored dtype and shape.

    Raises:
        CodecError: the payload is not a stream of the codec that the header names, no such codec
            is known here, or there is no memory for the tensor.
    """
    header = blob.header
    if not blob.count:
        check_size(header.codec, blob.payload, 0, header.shape)
        return torch.empty(header.shape, dtype=blob.torch_dtype)
    try:
        codec = codec_named(header.codec, header.options)
        return codec.decode(blob.payload, header.shape, blob.torch_dtype, header.codec_bound)
    except InputError as error:
        raise CodecError(f"this blob cannot be decoded here: {error}") from error
    except MemoryError as error:
        raise CodecError(f"no memory for {blob.count} values of {header.dtype}") from error


def check_finite(weights: torch.Tensor) -> None:
    """Refuse NaN and infinities.

    Raises:
        InputError: with the position and value of the first.
    """
    for flat in weights.reshape(-1).split(CHUNK):  # of no values: one part, without any
        # As integers and without the sign, numbers keep their order and infinity follows them.
        word = WORDS[flat.itemsize]
        magnitudes = flat.view(word) & torch.iinfo(word).max
        infinity = torch.tensor(math.inf, dtype=flat.dtype).view(word)
        if len(flat) and bool(magnitudes.max() >= infinity):
            position = tuple((~torch.isfinite(weights)).nonzero()[0].tolist())
            raise InputError(f"the weight at {list(position)} is {float(weights[position])}")


def check_bound(bound: float) -> None:
    """Refuse a bound that is not a positive finite number.

    Raises:
        InputError: it is not.
    """
    if not (math.isfinite(bound) and bound > 0):
        raise InputError(f"an error bound is a positive number, not {bound:g}")


def largest_error(before: torch.Tensor, after: torch.Tensor, enough: float = math.inf) -> float:
    """Largest |x - x'| of two tensors of one shape, in float64; 0 for empty ones.

    Args:
        before: any shape and dtype.
        after: of the same shape.
        enough: once an error above this was found, it is returned, be it the largest or not.

    Returns:
        The error in the unit of the weights; NaN where one of those that were looked at is.
    """
    largest = 0.0
    parts = (flat.reshape(-1).split(CHUNK) for flat in (before, after))
    for one, other in zip(*parts, strict=True):
        if len(one):
            error = float(one.double().sub_(other.double()).abs_().max())
            if not error <= enough:  # NaN too
                return error
            largest = max(largest, error)
    return largest


def _holds(weights: torch.Tensor, codec: Codec, bound: float) -> bool:
    """Whether the codec keeps a bound that it is given as it is."""
    try:
        payload = codec.encode(weights, bound)
        back = codec.decode(payload, tuple(weights.shape), weights.dtype, bound)
    except CodecError:
        return False
    return largest_error(weights, back, enough=bound) <= bound


def _bounds_to_try(weights: torch.Tensor, codec: Codec, bound: float) -> Iterator[float]:
    """Bounds for the codec, loosest first.

    The bound itself is left out where a few of many weights show that it does not survive the cast.
    """
    many = weights.numel() >= MANY
    if not many or _holds(weights.view(-1)[:CHUNK], codec, bound):
        yield bound
    fitted = _fitted(weights, bound)
    if fitted < bound:
        yield fitted
    yield fitted * NUDGE
    yield 2.0 ** math.floor(math.log2(bound))
    yield bound / 2 * NUDGE


def _fitted(weights: torch.Tensor, bound: float) -> float:
    """The loosest codec bound that survives the cast, from the units in the last place present.

    The weights lie on the grid of their dtype. An error below (n + 1/2) units is rounded to at
    most n units; so with n = floor(bound / unit), a codec bound of (n + 1/2) units is enough in
    that binade, and the least over all binades is enough everywhere (up to values that cross into
    another binade, which the check catches).
    """
    units = np.exp2(_exponents(weights) - float(MANTISSA_BITS[weights.dtype]))
    return float(np.min((np.floor(bound / units) + 0.5) * units, initial=bound))


def _exponents(weights: torch.Tensor) -> npt.NDArray[np.int64]:
    """Each floor(log2 |x|) that is there; of finite weights, without zeros.

    It is the exponent's field of a number, less its bias, and is found in denormals as they come:
    their field is 0.
    """
    shift, bits = MANTISSA_BITS[weights.dtype], EXPONENT_BITS[weights.dtype]
    counts = np.zeros(1 << bits, np.int64)
    denormals = set[int]()
    for flat in weights.reshape(-1).split(CHUNK):
        words = flat.view(WORDS[flat.itemsize]).numpy()
        fields = words >> shift & (1 << bits) - 1
        found = np.bincount(fields, minlength=len(counts))
        counts += found
        if found[0]:
            small = flat[torch.from_numpy(fields == 0)].double().abs().numpy()
            denormals.update((np.frexp(small[small > 0])[1] - 1).tolist())
    normal = np.flatnonzero(counts[1:]) + 1 - ((1 << bits - 1) - 1)
    return np.append(normal, np.array(sorted(denormals), np.int64))
