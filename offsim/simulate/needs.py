"""What a policy needs: memory for experts, on the device and in the host."""

from dataclasses import dataclass

from offsim.calibration.schema import Calibration
from offsim.policy.policy import Policy
from offsim.simulate.costs import Costs


@dataclass(frozen=True)
class Needs:
    """Memory for experts alone, without dense weights, KV cache and buffers.

    Attributes:
        device_bytes: of what the device keeps when it is full.
        host_bytes: of blobs in host memory.
    """

    device_bytes: int
    host_bytes: int


def needs(calibration: Calibration, policy: Policy) -> Needs:
    """What a policy needs on a machine and model.

    Args:
        calibration: of both.
        policy: whose codecs are in it.

    Raises:
        InputError: as for `offsim.simulate.costs.Costs`.
    """
    model = calibration.model
    blobs = sum(
        sum(map(sum, codec.blob_bytes)) for codec in Costs(calibration, policy, None).codecs
    )
    every = model.layers * model.experts * model.expert_bytes
    most = {"decoded": every, "compressed": blobs, "both": every + blobs}[policy.keep]
    slots = sum(policy.pools(model.layers)) * model.expert_bytes
    return Needs(
        device_bytes=min(slots, most),
        host_bytes=blobs if policy.host_bytes is None else min(policy.host_bytes, blobs),
    )
