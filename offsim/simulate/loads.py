"""What loads take, many at once: over the link in chunks, and through a decoder."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from offsim.calibration.schema import LinkFigures
from offsim.record.events import STAGES
from offsim.simulate.clock import PS, Ints

DISK, HOST_DECODE, HOST_COMPUTE, LINK, DEVICE_DECODE = (
    STAGES.index(s) for s in ("disk", "host decode", "host compute", "link", "device decode")
)
MOST_PS = 2.0**63
"""The first whole number that the clock cannot hold."""
Floats = npt.NDArray[np.float64]


class Lane(NamedTuple):
    """How loads cross the link.

    Attributes:
        link: as it was calibrated.
        pace: bytes/s; None for the link's own.
        part_bytes: of a chunk, at most; None where a load moves whole.
    """

    link: LinkFigures
    pace: float | None
    part_bytes: int | None

    def chunks(self, nbytes: Ints) -> Ints:
        """[loads] in how many equal parts loads of so many bytes move."""
        if self.part_bytes is None:
            return np.ones_like(nbytes)
        return np.maximum(1, -(-nbytes // self.part_bytes))

    def transfer_s(self, nbytes: Ints) -> Floats:
        """[loads] s over the link, all chunks together: copies, or the pace where it is slower."""
        chunks = self.chunks(nbytes)
        part = nbytes / chunks
        with np.errstate(over="ignore"):  # `wholes` refuses it
            seconds = self.link.latency_s + part / self.link.bytes_per_s
            if self.pace is not None:
                seconds = np.maximum(seconds, part / self.pace)
            slow: Floats = chunks * seconds
        return slow

    def stages_s(
        self, nbytes: Ints, decode_s: Floats, unpack_s: Floats | None, chunk_s: float
    ) -> Floats:
        """What loads of encoded experts take.

        Args:
            nbytes: [loads] over the link.
            decode_s: [loads] s to decode each.
            unpack_s: [loads] s to unpack each on the device, where the host decodes.
            chunk_s: that each further chunk adds to decoding on the device, s.

        Returns:
            [loads, stages] s in each, all chunks together.
        """
        seconds = np.zeros((len(nbytes), len(STAGES)))
        seconds[:, LINK] = link_s = self.transfer_s(nbytes)
        if unpack_s is not None:
            seconds[:, HOST_DECODE], seconds[:, DEVICE_DECODE] = decode_s, unpack_s
            return seconds
        # The link wakes beside a decoder as long as both work: where a load takes longer to come
        # than to be decoded, most of its chunks come while nobody decodes.
        beside = np.ones(len(nbytes))
        np.divide(decode_s, link_s, out=beside, where=link_s > 0)
        further = (self.chunks(nbytes) - 1) * np.minimum(1.0, beside)
        seconds[:, DEVICE_DECODE] = decode_s + further * chunk_s
        return seconds


def wholes(seconds: Floats) -> Ints:
    """As `clock.whole`, of an array.

    Raises:
        OverflowError: the clock cannot hold one of them.
    """
    with np.errstate(over="ignore"):
        ps = np.rint(seconds * PS)
    if not (ps < MOST_PS).all():
        raise OverflowError(f"{seconds.max():g} s are more than the clock can hold")
    return ps.astype(np.int64)


def sorted_rows(table: Ints) -> tuple[Ints, npt.NDArray[np.int32]]:
    """The distinct rows of a table, in order, and which of them each row is.

    Args:
        table: [rows, columns]

    Returns:
        [distinct, columns], and [rows].
    """
    order = np.lexsort(table.T[::-1])
    ranked = table[order]
    first = np.ones(len(table), np.bool_)
    first[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    which = np.empty(len(table), np.int32)
    which[order] = np.cumsum(first) - 1
    return ranked[first], which
