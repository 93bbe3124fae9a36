"""The real machine whose balance of link and compute a paced link imitates."""

from dataclasses import dataclass

from offsim.calibration.reading import at_size
from offsim.calibration.schema import Calibration


@dataclass(frozen=True, slots=True)
class Reference:
    """A model on a machine, from data sheets; every time made of it is ESTIMATED.

    Attributes:
        name: for people.
        expert_bytes: of one expert in its stored dtype.
        layer_bytes: of all weights that one token reads in a layer: attention and top-k experts.
        link_bytes_per_s: host to device.
        memory_bytes_per_s: device memory.
    """

    name: str
    expert_bytes: float
    layer_bytes: float
    link_bytes_per_s: float
    memory_bytes_per_s: float

    @property
    def ratio(self) -> float:
        """Time of one expert on the link over the compute of one layer and token.

        At batch 1 a layer takes as long as reading its weights from device memory.
        """
        transfer = self.expert_bytes / self.link_bytes_per_s
        return transfer / (self.layer_bytes / self.memory_bytes_per_s)


_EXPERT = 3 * 4096 * 14336 * 2
_ATTENTION = (2 * 4096 * 4096 + 2 * 4096 * 1024) * 2
MIXTRAL_PCIE4 = Reference(
    name="Mixtral-8x7B in bf16 over PCIe 4.0 x16",
    expert_bytes=_EXPERT,
    layer_bytes=_ATTENTION + 2 * _EXPERT,
    # Both bandwidths are those of the motivation of arXiv 2509.07727.
    link_bytes_per_s=32e9,
    memory_bytes_per_s=300e9,
)


def pace(calibration: Calibration, reference: Reference = MIXTRAL_PCIE4) -> float:
    """Bytes/s at which this machine's link has the reference's ratio of transfer to compute.

    Args:
        calibration: of this machine; gives the compute of one layer and token.
        reference: the machine to imitate.
    """
    return pace_at(layer_s(calibration), calibration.model.expert_bytes, reference)


def layer_s(calibration: Calibration) -> float:
    """Compute of one layer and token with its experts resident, s."""
    compute, top_k = calibration.compute, calibration.model.top_k
    dense = at_size(compute.dense, 1) + at_size(compute.dispatch, 1)
    return dense + top_k * at_size(compute.expert, 1)


def pace_at(layer_s: float, expert_bytes: int, reference: Reference = MIXTRAL_PCIE4) -> float:
    """Bytes/s at which an expert takes `reference.ratio` times as long as a layer.

    Args:
        layer_s: compute of one layer and token, s.
        expert_bytes: of one expert in its stored dtype.
        reference: the machine to imitate.
    """
    return expert_bytes / (reference.ratio * layer_s)
