"""What a sample of experts says of all of them: ratios with intervals, errors and speeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap

from offsim.calibration.expert_notes import Point, Row

CONFIDENCE, RESAMPLES = 0.95, 2000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SampledPoint:
    """One codec at one bound over a sample of experts, MEASURED on one thread.

    Attributes:
        codec: its name, with the options that are not the default.
        asked: the bound as it was stated; empty for a codec that takes none.
        bound: absolute, unit of the weights; the median over the experts.
        experts: in the sample.
        fallbacks: matrices, of three an expert, that were stored raw.
        ratio: stored bytes of the sample over its payload bytes, against the dtype it was read in.
        ratio_low: lower end of the 95 % interval over experts; nan for a single expert of many,
            the ratio where the sample is all experts.
        ratio_high: upper end.
        bits_per_weight: of the payloads.
        ideal_bits: entropy of a uniform quantiser under the same bound, bits a weight, the mean
            over the experts; nan for a codec that takes no bound.
        largest_error: in the stored dtype.
        rmse: root of the mean squared error, in the stored dtype.
        encode_bytes_per_s: stored bytes a second of the codec alone, the median over the experts.
        decode_bytes_per_s: stored bytes a second, into fresh memory, likewise.
        encode_of_memcpy: encoding speed over that of a copy into fresh memory, likewise.
        decode_of_memcpy: the same of decoding.
    """

    codec: str
    asked: str
    bound: float
    experts: int
    fallbacks: int
    ratio: float
    ratio_low: float
    ratio_high: float
    bits_per_weight: float
    ideal_bits: float
    largest_error: float
    rmse: float
    encode_bytes_per_s: float
    decode_bytes_per_s: float
    encode_of_memcpy: float
    decode_of_memcpy: float


def summarised(
    rows: Sequence[Row], dtype_bytes: int, population: int, seed: int = 0
) -> list[SampledPoint]:
    """Summarise a sample.

    Args:
        rows: one an expert, with the same points in the same order.
        dtype_bytes: of a weight in the dtype in which it was read.
        population: experts that the sample was drawn from; of all of them, a ratio is exact.
        seed: of the bootstrap.
    """
    columns = zip(*(row.points for row in rows), strict=True)
    return [_summary(column, dtype_bytes, population, seed) for column in columns]


def _summary(points: Sequence[Point], dtype_bytes: int, population: int, seed: int) -> SampledPoint:
    def of(name: str) -> Floats:
        return np.array([getattr(point, name) for point in points], np.float64)

    stored, blobs, first = of("stored_bytes"), of("blob_bytes"), points[0]
    copy_s, encode_s, decode_s = of("copy_s"), of("encode_s"), of("decode_s")
    ratio = float(stored.sum() / blobs.sum())
    low, high = ratio_interval(stored, blobs, len(points) == population, seed)
    return SampledPoint(
        codec=first.codec,
        asked=first.asked,
        bound=float(np.median(of("bound"))),
        experts=len(points),
        fallbacks=int(of("fallbacks").sum()),
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        bits_per_weight=8 * dtype_bytes / ratio,
        ideal_bits=float(of("ideal_bits").mean()),
        largest_error=float(of("largest_error").max()),
        rmse=float(np.sqrt(np.square(of("rmse")).mean())),
        encode_bytes_per_s=float(np.median(stored / encode_s)),
        decode_bytes_per_s=float(np.median(stored / decode_s)),
        encode_of_memcpy=float(np.median(copy_s / encode_s)),
        decode_of_memcpy=float(np.median(copy_s / decode_s)),
    )


def ratio_interval(
    stored: Floats, blobs: Floats, everything: bool, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of a ratio: percentiles of a bootstrap over experts.

    Layers are not held fixed in it, so it is too wide rather than too narrow where they differ; of
    fewer than about ten experts it is too narrow, as bootstraps are.

    Args:
        stored: [experts] bytes of each expert of the sample in the stored dtype.
        blobs: [experts] of its payloads.
        everything: whether the sample is all experts, so that the ratio is exact.
        seed: of the bootstrap.

    Returns:
        Its ends; nan for a single expert of many.
    """
    if everything:
        exact = float(stored.sum() / blobs.sum())
        return exact, exact
    if len(stored) < 2:
        return float("nan"), float("nan")
    found = bootstrap(
        (stored, blobs),
        lambda stored, blobs, axis: stored.sum(axis=axis) / blobs.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
