"""What the experts cost as a policy stores them: one form for all, or a table of them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offsim.calibration.schema import Calibration, CodecFigures, Figure, KeptFigures
from offsim.errors import InputError
from offsim.policy.bounds import MATRICES
from offsim.policy.policy import Policy

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Stored:
    """The experts of a model under the codec and the bounds of a policy.

    Attributes:
        figures: of the codec; where forms differ, of all experts together: bytes are those of each
            expert, times the mean over experts, each slowdown the mean over matrices weighted by
            the time that each takes to decode, errors, encoding and fallbacks the largest.
        decode_s: [layers, experts] s, one expert each.
        unpack_s: [layers, experts] s, likewise; None where nothing is unpacked.
    """

    figures: CodecFigures
    decode_s: Floats
    unpack_s: Floats | None


def stored(calibration: Calibration, policy: Policy) -> Stored:
    """What the calibration knows of the experts as a policy stores them.

    An expert whose matrices have several forms is taken to decode in the mean of the times that
    it would take under each one's form. That is an approximation: what one matrix takes was not
    measured.

    Raises:
        InputError: the codec was not calibrated at each bound, the bytes of single matrices are
            asked for and not known, or the table has a bound that is not absolute, or is about
            layers or experts that the model does not have; or the codec for misses of low weight
            was not calibrated at its bound, or decodes elsewhere.
    """
    own, low = _of_every_load(calibration, policy), policy.low
    if low is not None:
        place, coarse = own.figures.placement, calibration.codec(low.codec, low.bound)
        if coarse.placement != place:
            raise InputError(
                f"codec {policy.codec} decodes on the {place} and {low.codec}, for misses of low "
                f"weight, on the {coarse.placement}; take two that decode in one place"
            )
    return own


def _of_every_load(calibration: Calibration, policy: Policy) -> Stored:
    """The same, of experts that do not come coarse."""
    shape = (calibration.model.layers, calibration.model.experts)
    codecs, at = _calibrated(calibration, policy)
    if len(codecs) == 1:
        return _alike(codecs[0], shape)
    if len({one.placement for one in codecs}) > 1:
        where = {f"{one.codec} on the {one.placement}": None for one in codecs}
        raise InputError(
            f"not all experts are decoded in one place: {', '.join(where)}; take codecs that are"
        )
    decode_s = _of_experts([one.decode_s for one in codecs], at)
    unpacks = [one.unpack_s for one in codecs if one.unpack_s is not None]
    unpack_s = _of_experts(unpacks, at) if unpacks else None
    return Stored(_together(codecs, at), decode_s, unpack_s)


def calibrated(calibration: Calibration, policy: Policy) -> list[CodecFigures]:
    """The figures of the codec and bound that each matrix has, each once.

    Raises:
        InputError: a codec was not calibrated at one of them, or the table has a bound that is
            not absolute, or is about layers or experts that the model does not have.
    """
    return _calibrated(calibration, policy)[0]


def _calibrated(calibration: Calibration, policy: Policy) -> tuple[list[CodecFigures], Places]:
    """The same, and which of them each matrix has, [layers, experts, 3]."""
    shape = (calibration.model.layers, calibration.model.experts)
    if policy.bounds is None:
        one = calibration.codec(policy.codec, policy.bound)
        return [one], np.zeros((*shape, len(MATRICES)), np.intp)
    forms, at = policy.bounds.table(*shape)
    for form in forms:
        if form.bound is not None and form.bound.kind != "abs":
            raise InputError(
                f"bound {form.bound} is another number for each expert; a simulation takes tables "
                "of absolute bounds only"
            )
    return [
        calibration.codec(
            form.codec or policy.codec, 0.0 if form.bound is None else form.bound.value
        )
        for form in forms
    ], at


def _alike(codec: CodecFigures, shape: tuple[int, int]) -> Stored:
    """All experts in one form."""
    unpack_s = None if codec.unpack_s is None else np.full(shape, codec.unpack_s.value)
    return Stored(codec, np.full(shape, codec.decode_s.value), unpack_s)


def _of_experts(figures: list[Figure], at: Places) -> Floats:
    """[layers, experts] s: the mean over the matrices, exact where all three have one form."""
    seconds = np.array([figure.value for figure in figures])[at]
    return np.where(_whole(at), seconds[..., 0], seconds.mean(-1))


def _whole(at: Places) -> npt.NDArray[np.bool_]:
    """[layers, experts] whether all matrices of an expert have one form."""
    same: npt.NDArray[np.bool_] = (at == at[..., :1]).all(-1)
    return same


def _together(codecs: list[CodecFigures], at: Places) -> CodecFigures:
    """The figures of all experts together, as `Stored` says.

    Args:
        codecs: [forms] codecs at their bounds.
        at: [layers, experts, 3] which of them each matrix has.
    """
    nbytes = _bytes(codecs, at)
    decode_s = np.array([one.decode_s.value for one in codecs])[at]
    first = codecs[0]
    packed = first.ratio * np.sum(first.blob_bytes) / max(1, int(nbytes.sum()))
    unpacks = [one.unpack_s for one in codecs if one.unpack_s is not None]
    measured = all(one.label == "MEASURED" for one in codecs)
    loosest = max(codecs, key=lambda one: one.bound)
    return loosest.model_copy(
        update={
            "label": "MEASURED" if measured else "ESTIMATED",
            "blob_bytes": nbytes.tolist(),
            "matrix_bytes": None,
            "sampled": None,  # of one bound alone
            "ratio": float(packed),
            "largest_error": max(one.largest_error for one in codecs),
            "fallbacks": max(one.fallbacks for one in codecs),
            "encode_s": max((one.encode_s for one in codecs), key=lambda figure: figure.value),
            "decode_s": _mean([one.decode_s for one in codecs], at),
            "alone_s": _mean([one.alone_s or one.decode_s for one in codecs], at),
            "kept": _kept(codecs, at),
            "chunk_s": max(one.chunk_s for one in codecs),
            "arrival_s": max(one.arrival_s for one in codecs),
            "unpack_s": _mean(unpacks, at) if unpacks else None,
            "compute_slowdown": weighted([one.compute_slowdown for one in codecs], at, decode_s),
            "expert_slowdown": weighted([one.experts_slowdown for one in codecs], at, decode_s),
            "decode_slowdown": weighted([one.decode_slowdown for one in codecs], at, decode_s),
        }
    )


def _kept(codecs: list[CodecFigures], at: Places) -> KeptFigures | None:
    """Of blobs that the device keeps; None where that is not known of all."""
    kept = [one.kept for one in codecs if one.kept is not None]
    if len(kept) < len(codecs):
        return None
    return kept[0].model_copy(update={"decode_s": _mean([one.decode_s for one in kept], at)})


def _bytes(codecs: list[CodecFigures], at: Places) -> npt.NDArray[np.int64]:
    """[layers, experts] bytes of each expert's blob."""
    whole = _whole(at)
    nbytes = np.zeros(whole.shape, np.int64)
    for number, codec in enumerate(codecs):
        mine = at == number
        all_three = whole & mine[..., 0]
        nbytes[all_three] = np.array(codec.blob_bytes)[all_three]
        parts = mine & ~whole[..., None]
        if not parts.any():
            continue
        if codec.matrix_bytes is None:
            raise InputError(
                "the matrices of an expert are stored differently, and the calibration does not "
                f"have the bytes of the single matrices under {codec.codec} {codec.bound:g}; "
                "calibrate again"
            )
        nbytes += np.where(parts, np.array(codec.matrix_bytes), 0).sum(-1)
    return nbytes


def _mean(figures: list[Figure], at: Places) -> Figure:
    """The mean over all matrices, of each number."""

    def mean(name: str) -> float:
        return float(np.array([getattr(figure, name) for figure in figures])[at].mean())

    return Figure(
        label="MEASURED" if all(f.label == "MEASURED" for f in figures) else "ESTIMATED",
        value=mean("value"),
        p10=mean("p10"),
        p90=mean("p90"),
        samples=min(figure.samples for figure in figures),
    )


def weighted(values: list[float], at: Places, weights: Floats) -> float:
    """The weighted mean of values, the plain one where nothing has a weight.

    Args:
        values: [values]
        at: which of them each entry has.
        weights: of each entry, 0 or more; of the shape of `at`.
    """
    least, most = min(values), max(values)
    if least == most:
        return least
    if not weights.any():
        weights = np.ones_like(weights)
    mean = float((np.array(values)[at] * weights).sum() / weights.sum())
    return min(max(mean, least), most)
