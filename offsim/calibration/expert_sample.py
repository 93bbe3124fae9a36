"""Codecs on a sample of whole experts: which experts, and what is measured of each.

A codec gets the three matrices of an expert, as in a store, so a bound in `sigma` is of each expert
by itself.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from offsim.calibration.curve import CHUNK, entropy
from offsim.calibration.expert_notes import Design, Kind, Notes, Point, Row
from offsim.calibration.measure import timed
from offsim.codec import Codec, codec_named, decode
from offsim.codec.bounds import Bound
from offsim.codec.expert import ExpertBlob, encode_expert
from offsim.errors import InputError
from offsim.model.experts import Experts, ExpertShape

Place = tuple[int, int]
"""MoE layer and expert."""
ROWS_FROM = 32
"""Experts from which rows come, if they have so many: reading all could take hours."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is measured of each expert.

    Attributes:
        codecs: which.
        bounds: for those that take one.
        repeats: of each timing, of which the median is taken.
        seed: of the sample.
    """

    codecs: Sequence[Codec]
    bounds: Sequence[Bound]
    repeats: int = 1
    seed: int = 0


def stratified(shape: ExpertShape, count: int, seed: int) -> list[Place]:
    """Experts drawn without replacement, as many of each layer as of any other, or one more.

    A larger sample of the same seed has all of a smaller one.

    Args:
        shape: of the experts.
        count: experts wanted, at least 1.
        seed: of the drawing.

    Returns:
        In rising order; all experts where there are no more than `count`.

    Raises:
        InputError: a count below 1.
    """
    return sorted(_drawn(shape, count, seed))


def _drawn(shape: ExpertShape, count: int, seed: int) -> list[Place]:
    """The same in the order of drawing: one of each layer, in some order, and again."""
    if count < 1:
        raise InputError(f"a sample has at least 1 expert, not {count}")
    generator = np.random.default_rng(seed)
    of_layer = [generator.permutation(shape.experts) for _ in range(shape.layers)]
    turns = (generator.permutation(shape.layers) for _ in range(shape.experts))
    places = [(int(s), int(of_layer[s][turn])) for turn, order in enumerate(turns) for s in order]
    return places[:count]


def sample_rows(experts: Experts, count: int) -> torch.Tensor:
    """Rows of gate and up matrices, spread evenly over layers, some of their experts, and rows.

    Args:
        experts: where they come from; one is in memory at a time.
        count: weights wanted; whole rows are taken, and fewer where there are fewer.

    Returns:
        [rows, hidden] in the dtype in which experts are read.

    Raises:
        InputError: an expert cannot be read.
    """
    shape = experts.shape
    rows = max(1, min(count // shape.hidden, 2 * shape.width * shape.layers * shape.experts))
    least = -(-rows // (2 * shape.width))
    places = stratified(shape, min(rows, max(ROWS_FROM, least)), 0)
    found = []
    for number, place in enumerate(places):
        each = rows // len(places) + (number < rows % len(places))
        gate, up, _ = experts.matrices(*place)
        at = (torch.arange(each) * 2 + 1) * shape.width // each  # of gate, then of up
        found += [gate[at[at < shape.width]], up[at[at >= shape.width] - shape.width]]
    return torch.cat(found)


def measure_sample(
    experts: Experts,
    name: str,
    count: int,
    asked: Asked,
    out: Path | None = None,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> list[Row]:
    """Measure a sample of whole experts.

    Args:
        experts: where they come from; one is in memory at a time.
        name: of the checkpoint.
        count: experts wanted.
        asked: of each.
        out: folder, where each measured expert is noted at once; what is noted is not measured
            again, and a larger sample goes on from a smaller one.
        progress: told what is measured next, and the share done, 0..1.

    Returns:
        A row for each expert of the sample, by layer and expert.

    Raises:
        InputError: as for `stratified`, a weight that is not finite, or a folder with rows of
            another design.
        FormatError: a file in the folder is not one of these.
    """
    notes = None
    if out is not None:
        design = design_of(experts, name, asked.codecs, asked.bounds, asked.repeats, asked.seed)
        notes = Notes(out, design, Row)

    def made(layer: int, expert: int) -> Row:
        return Row(layer=layer, expert=expert, points=_points(experts, layer, expert, asked))

    return noted(stratified(experts.shape, count, asked.seed), notes, made, progress)


def noted(
    places: Sequence[Place],
    notes: Notes[Kind] | None,
    made: Callable[[int, int], Kind],
    progress: Callable[[str, float], None],
) -> list[Kind]:
    """A row for each of these experts, from the notes or made, and noted then.

    Args:
        places: the experts.
        notes: of earlier rows; None for none.
        made: measures the expert of a layer.
        progress: told what is measured next, and the share done, 0..1.

    Raises:
        FormatError: a line of the notes is not one.
    """
    rows = []
    for number, (layer, expert) in enumerate(places):
        row = notes.find(layer, expert) if notes is not None else None
        if row is None:
            progress(f"expert {expert} of MoE layer {layer}", number / len(places))
            row = made(layer, expert)
            if notes is not None:
                notes.add(row)
        rows.append(row)
    return rows


def design_of(
    experts: Experts,
    name: str,
    codecs: Sequence[object],
    bounds: Sequence[object],
    repeats: int,
    seed: int,
) -> Design:
    """What notes of a sample are of; for its checksum, one expert is read.

    Args:
        experts: that are sampled.
        name: of the checkpoint.
        codecs: as users write them.
        bounds: likewise.
        repeats: of each timing.
        seed: of the sample.
    """
    shape, checksum = experts.shape, 0
    for matrix in experts.matrices(*_drawn(shape, 1, seed)[0]):
        checksum = zlib.crc32(matrix.view(torch.uint8).numpy().data, checksum)
    return Design(
        weights=name,
        layers=shape.layers,
        experts=shape.experts,
        crc32=checksum,
        codecs=tuple(map(str, codecs)),
        bounds=tuple(map(str, bounds)),
        repeats=repeats,
        seed=seed,
    )


def _points(experts: Experts, layer: int, expert: int, asked: Asked) -> tuple[Point, ...]:
    matrices = experts.matrices(layer, expert)
    return tuple(
        _point(matrices, codec, bound, asked.repeats)
        for codec in asked.codecs
        for bound in (asked.bounds if codec.promise == "bound" else [None])
    )


def _point(
    matrices: Sequence[torch.Tensor], codec: Codec, bound: Bound | None, repeats: int
) -> Point:
    found = encode_expert(matrices, codec, [bound] * len(matrices) if bound else 0.0)
    errors = [_errors(before, found.decoded(place)) for place, before in enumerate(matrices)]
    count = sum(matrix.numel() for matrix in matrices)
    absolute = max(blob.header.bound for blob in found.blobs)
    ideal = None
    if bound and absolute:
        ideal = entropy(torch.cat([matrix.flatten() for matrix in matrices]), absolute)
    copy_s, encode_s, decode_s = _times(matrices, found, repeats)
    return Point(
        codec=str(codec),
        asked=str(bound or ""),
        bound=absolute,
        fallbacks=sum(blob.header.codec != codec.name for blob in found.blobs),
        stored_bytes=found.stored_bytes,
        blob_bytes=found.nbytes,
        ideal_bits=ideal,
        largest_error=max(largest for largest, _ in errors),
        rmse=(sum(squares for _, squares in errors) / count) ** 0.5,
        copy_s=copy_s,
        encode_s=encode_s,
        decode_s=decode_s,
    )


def _errors(before: torch.Tensor, after: torch.Tensor) -> tuple[float, float]:
    """Largest |x - x'| of two matrices and the sum of its squares, in float64, part by part."""
    largest, squares = 0.0, 0.0
    parts = (matrix.reshape(-1).split(CHUNK) for matrix in (before, after))
    for one, other in zip(*parts, strict=True):
        error = one.double().sub_(other.double())
        largest = max(largest, float(error.abs().max()))
        squares += float(error.square_().sum())
    return largest, squares


def _times(
    matrices: Sequence[torch.Tensor], found: ExpertBlob, repeats: int
) -> tuple[float, float, float]:
    """Median seconds of a copy, of encoding and of decoding the three matrices, interleaved."""
    headers = [blob.header for blob in found.blobs]
    codecs = [codec_named(header.codec, header.options) for header in headers]

    def encode_all() -> None:
        for matrix, codec, header in zip(matrices, codecs, headers, strict=True):
            codec.encode(matrix, header.codec_bound)

    works: list[Callable[[], object]] = [
        lambda: [matrix.clone() for matrix in matrices],
        encode_all,
        lambda: [decode(blob) for blob in found.blobs],
    ]
    samples = [[timed(work, 1, warm_up=not turn)[0] for work in works] for turn in range(repeats)]
    copy_s, encode_s, decode_s = (median(column) for column in zip(*samples, strict=True))
    return copy_s, encode_s, decode_s
