"""Size, error and speed of codecs over a ladder of bounds, on a sample of weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from offsim.calibration.measure import timed
from offsim.codec import Codec, decode, encode
from offsim.codec.bounded import largest_error


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One codec at one bound, MEASURED on one thread.

    Attributes:
        codec: its name.
        bound: absolute, unit of the weights.
        ratio: stored bytes over payload bytes, against the stored dtype.
        bits_per_weight: of the payload.
        largest_error: in the stored dtype.
        encode_bytes_per_s: stored bytes a second of the codec with its bound verified.
        decode_bytes_per_s: stored bytes a second.
    """

    codec: str
    bound: float
    ratio: float
    bits_per_weight: float
    largest_error: float
    encode_bytes_per_s: float
    decode_bytes_per_s: float


def curve(
    weights: torch.Tensor,
    codecs: Sequence[Codec],
    bounds: Sequence[float],
    repeats: int = 5,
    progress: Callable[[], None] = lambda: None,
) -> list[CurvePoint]:
    """Measure codecs over bounds.

    Args:
        weights: any shape, stored dtype.
        codecs: which.
        bounds: absolute.
        repeats: of each timing, of which the median is taken.
        progress: called after each point.
    """
    stored = weights.numel() * weights.element_size()
    points = []
    for codec in codecs:
        for bound in bounds:
            blob = encode(weights, codec, bound)
            encode_s = _median(timed(lambda c=codec, b=bound: encode(weights, c, b), repeats, 1))  # type: ignore[misc]
            decode_s = _median(timed(lambda b=blob: decode(b), repeats))  # type: ignore[misc]
            points.append(
                CurvePoint(
                    codec=str(codec),
                    bound=bound,
                    ratio=blob.ratio,
                    bits_per_weight=8 * weights.element_size() / blob.ratio,
                    largest_error=largest_error(weights, decode(blob)),
                    encode_bytes_per_s=stored / encode_s,
                    decode_bytes_per_s=stored / decode_s,
                )
            )
            progress()
    return points


def _median(samples: list[float]) -> float:
    return sorted(samples)[len(samples) // 2]
