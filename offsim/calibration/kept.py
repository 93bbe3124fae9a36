"""From runs to what experts cost that the device keeps as blobs and decodes at each use."""

from collections.abc import Iterator, Sequence

from offsim.calibration.fit import summed
from offsim.calibration.measure import by_size
from offsim.calibration.overlap import (
    Beside,
    alone,
    decoded,
    decoding_in,
    intervals,
    within_each,
)
from offsim.calibration.schema import KeptFigures
from offsim.calibration.stamps import Observed
from offsim.record import RunRecord
from offsim.record.events import Stage

STAGE: Stage = "device decode"


def kept_figures(rounds: Sequence[Observed], decode_slowdown: float) -> KeptFigures:
    """The figures of steps in which every expert was there as a blob.

    Args:
        rounds: records and time stamps of such steps.
        decode_slowdown: by how much compute slows the decoder, at least 1.
    """
    decodes = [one for record, _ in rounds for one in _decoded(record)]
    experts = [sample for seen in rounds for sample in _undisturbed(seen)]
    return KeptFigures(decode_s=summed(alone(decodes, decode_slowdown)), expert=by_size(experts))


def _decoded(record: RunRecord) -> Iterator[Beside]:
    for in_turn in (False, True):
        yield from decoded(record, STAGE, in_turn=in_turn)


def _undisturbed(seen: Observed) -> Iterator[tuple[int, float]]:
    """Tokens of each expert beside which nothing was decoded, and what it took, s."""
    for step, times in zip(seen[0].steps, seen[1], strict=True):
        decoding = decoding_in(step, STAGE)
        experts = [expert for layer in times.layers for expert in layer.experts]
        beside = within_each(intervals([expert[1:] for expert in experts]), decoding)
        for (tokens, start, end), together in zip(experts, beside.tolist(), strict=True):
            if not together:
                yield tokens, end - start
