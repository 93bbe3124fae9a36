"""Sizes of the blobs of all experts of a checkpoint, of all of them or by a sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from offsim.calibration.expert_notes import Notes, Size, SizeRow
from offsim.calibration.expert_sample import design_of, noted, stratified
from offsim.calibration.expert_summary import ratio_interval
from offsim.calibration.schema import CodecFigures, Sampled
from offsim.codec import codec_named
from offsim.codec.bounded import largest_error
from offsim.codec.expert import encode_expert
from offsim.model.experts import Experts, ExpertShape

SEED = 0
"""Of the sample, as that of `offsim codecs bench`."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of all experts under one codec and bound.

    Attributes:
        shape: of the experts.
        matrix_bytes: [layers, experts, 3] of gate, up and down.
        fallbacks: matrices that were stored raw, of the experts that were compressed.
        largest_error: of the same, in the stored dtype.
        sampled: which they were; None for all.
    """

    shape: ExpertShape
    matrix_bytes: npt.NDArray[np.int64]
    fallbacks: int
    largest_error: float
    sampled: Sampled | None

    def put_into(self, figures: CodecFigures) -> CodecFigures:
        """The figures of a codec with these sizes in place of its own."""
        of_all = self.shape.layers * self.shape.experts * self.shape.bytes
        changes = {
            "label": figures.label if self.sampled is None else "ESTIMATED",
            "blob_bytes": self.matrix_bytes.sum(2).tolist(),
            "matrix_bytes": self.matrix_bytes.tolist(),
            "ratio": of_all / int(self.matrix_bytes.sum()),
            "fallbacks": self.fallbacks,
            "largest_error": self.largest_error,
            "sampled": self.sampled,
        }
        return figures.model_copy(update=changes)


def measure_sizes(
    experts: Experts,
    name: str,
    count: int,
    keys: Sequence[tuple[str, float]],
    out: Path | None = None,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> list[Sizes]:
    """Compress a sample of whole experts under each codec and bound.

    Args:
        experts: where they come from; one is in memory at a time.
        name: of the checkpoint.
        count: experts wanted, drawn as for `offsim.calibration.expert_sample.stratified`.
        keys: codecs, as users write them, and absolute bounds.
        out: folder, where each expert is noted at once; what is noted is not compressed again, and
            a larger sample goes on from a smaller one.
        progress: told what is compressed next, and the share done, 0..1.

    Returns:
        The sizes of all experts, by codec and bound. An expert outside of the sample has the mean
        of those of its layer, or of all where its layer has none.

    Raises:
        InputError: a count below 1, a weight that is not finite, or a folder with notes of another
            design.
        FormatError: a file in the folder is not one of these.
    """
    codecs = [(codec_named(codec), bound) for codec, bound in keys]
    notes = None
    if out is not None:
        named = [f"{codec}:{bound!r}" for codec, bound in codecs]
        notes = Notes(out, design_of(experts, name, named, (), 1, SEED), SizeRow)

    def made(layer: int, expert: int) -> SizeRow:
        matrices, sizes = experts.matrices(layer, expert), []
        for codec, bound in codecs:
            found = encode_expert(matrices, codec, bound)
            gate, up, down = (blob.nbytes for blob in found.blobs)
            errors = (largest_error(one, found.decoded(n)) for n, one in enumerate(matrices))
            size = Size(
                matrix_bytes=(gate, up, down),
                fallbacks=sum(blob.header.codec != codec.name for blob in found.blobs),
                largest_error=max(errors),
            )
            sizes.append(size)
        return SizeRow(layer=layer, expert=expert, sizes=tuple(sizes))

    rows = noted(stratified(experts.shape, count, SEED), notes, made, progress)
    return [_of_all(experts.shape, rows, number) for number in range(len(keys))]


def raw_sizes(shape: ExpertShape) -> Sizes:
    """Sizes of experts as they are stored, which nothing has to be measured for."""
    whole = (shape.layers, shape.experts, 3)
    return Sizes(
        shape, np.full(whole, shape.bytes // 3), fallbacks=0, largest_error=0, sampled=None
    )


def _of_all(shape: ExpertShape, rows: Sequence[SizeRow], number: int) -> Sizes:
    """The sizes of all experts under one of the codecs and bounds."""
    seen = np.array([row.sizes[number].matrix_bytes for row in rows])
    layers, experts = np.array([(row.layer, row.expert) for row in rows]).T
    everything = len(rows) == shape.layers * shape.experts
    means = np.broadcast_to(seen.mean(0), (shape.layers, 3)).copy()
    for layer in set(layers.tolist()):
        means[layer] = seen[layers == layer].mean(0)
    nbytes = np.rint(np.repeat(means[:, None], shape.experts, axis=1)).astype(np.int64)
    nbytes[layers, experts] = seen
    blobs = seen.sum(1)
    low, high = ratio_interval(np.full(len(rows), float(shape.bytes)), blobs * 1.0, everything)
    p10, p90 = np.quantile(blobs, (0.1, 0.9))
    sampled = Sampled(
        experts=len(rows),
        ratio_low=None if np.isnan(low) else low,
        ratio_high=None if np.isnan(high) else high,
        p10_bytes=round(p10),
        p90_bytes=round(p90),
    )
    return Sizes(
        shape=shape,
        matrix_bytes=nbytes,
        fallbacks=sum(row.sizes[number].fallbacks for row in rows),
        largest_error=max(row.sizes[number].largest_error for row in rows),
        sampled=None if everything else sampled,
    )
