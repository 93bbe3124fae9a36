"""Size, error and speed of codecs over a ladder of bounds, on a sample of weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from offsim.calibration.measure import timed
from offsim.codec import Blob, Codec, codec_named, decode, encode
from offsim.codec.bounds import Bound

CHUNK = 1 << 20
"""Weights that are looked at at a time in float64, so that copies stay small."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One codec at one bound, MEASURED on one thread.

    Attributes:
        codec: its name, with the options that are not the default.
        asked: the bound as it was stated; empty for a codec that takes none.
        bound: absolute, unit of the weights; the largest error where no bound is promised.
        fallback: whether the bound could not be kept and the weights were stored raw.
        ratio: stored bytes over payload bytes, against the stored dtype.
        bits_per_weight: of the payload.
        ideal_bits: entropy of a uniform quantiser under the same bound, bits a weight; nan for a
            codec that takes no bound.
        largest_error: in the stored dtype.
        rmse: root of the mean squared error, in the stored dtype.
        encode_bytes_per_s: stored bytes a second of the codec alone.
        decode_bytes_per_s: stored bytes a second, into fresh memory.
        encode_of_memcpy: encoding speed over that of a copy into fresh memory.
        decode_of_memcpy: the same of decoding.
    """

    codec: str
    asked: str
    bound: float
    fallback: bool
    ratio: float
    bits_per_weight: float
    ideal_bits: float
    largest_error: float
    rmse: float
    encode_bytes_per_s: float
    decode_bytes_per_s: float
    encode_of_memcpy: float
    decode_of_memcpy: float


def curve(
    weights: torch.Tensor,
    codecs: Sequence[Codec],
    bounds: Sequence[Bound],
    repeats: int = 5,
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> list[CurvePoint]:
    """Measure codecs over bounds; one that takes no bound is measured once.

    Args:
        weights: any shape, stored dtype.
        codecs: which.
        bounds: of any kind.
        repeats: of each timing, of which the median is taken.
        progress: told what is measured next, and the share done, 0..1.

    Raises:
        InputError: a weight that is not finite.
    """
    work = [(c, b) for c in codecs for b in (bounds if c.promise == "bound" else [None])]
    points = []
    for number, (codec, bound) in enumerate(work):
        progress(f"{codec} {bound or ''}", number / len(work))
        points.append(_point(weights, codec, bound, repeats))
    return points


def _point(weights: torch.Tensor, codec: Codec, bound: Bound | None, repeats: int) -> CurvePoint:
    blob = encode(weights, codec, bound.absolute([weights]) if bound else 0.0)
    errors = (weights.double() - decode(blob).double()).abs()
    copy_s, encode_s, decode_s = _times(weights, blob, repeats)
    stored = weights.numel() * weights.element_size()
    return CurvePoint(
        codec=str(codec),
        asked=str(bound or ""),
        bound=blob.header.bound,
        fallback=blob.header.codec != codec.name,
        ratio=blob.ratio,
        bits_per_weight=8 * weights.element_size() / blob.ratio,
        ideal_bits=entropy(weights, blob.header.bound) if bound else float("nan"),
        largest_error=float(errors.max()),
        rmse=float(errors.square().mean().sqrt()),
        encode_bytes_per_s=stored / encode_s,
        decode_bytes_per_s=stored / decode_s,
        encode_of_memcpy=copy_s / encode_s,
        decode_of_memcpy=copy_s / decode_s,
    )


def _times(weights: torch.Tensor, blob: Blob, repeats: int) -> tuple[float, float, float]:
    """Median seconds of a copy, of encoding and of decoding, interleaved."""
    codec = codec_named(blob.header.codec, blob.header.options)
    bound = blob.header.codec_bound
    works: list[Callable[[], object]] = [
        weights.clone,
        lambda: codec.encode(weights, bound),
        lambda: decode(blob),
    ]
    samples = [[timed(work, 1, warm_up=not turn)[0] for work in works] for turn in range(repeats)]
    copy_s, encode_s, decode_s = (median(column) for column in zip(*samples, strict=True))
    return copy_s, encode_s, decode_s


def entropy(weights: torch.Tensor, bound: float) -> float:
    """Entropy of the weights after uniform quantisation with steps of twice the bound, bits each.

    No code of single values with this bound and evenly spaced levels can be smaller on average
    (Shannon 1948); 0 bits at worst, where all weights fall into one level.

    Args:
        weights: any shape.
        bound: absolute, > 0, unit of the weights.
    """
    parts = [
        np.unique(np.rint(part.double().numpy() / (2 * bound)), return_counts=True)
        for part in weights.reshape(-1).split(CHUNK)
    ]
    levels, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
    _, level = np.unique(levels, return_inverse=True)
    shares = np.bincount(level, counts) / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0
