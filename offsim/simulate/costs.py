"""What each thing costs: a calibration seen through one policy and one link speed."""

from dataclasses import dataclass
from functools import cache, partial

from offsim.calibration.schema import Calibration, CodecFigures, at_size, extra_after
from offsim.policy.policy import Policy
from offsim.record.events import Stage


@dataclass(frozen=True, slots=True)
class StageCost:
    """One stage of a load: its name and how long it is served, s."""

    stage: Stage
    seconds: float


class Costs:
    """Seconds and bytes of everything that a step does.

    Args:
        calibration: of the machine and model.
        policy: whose codec and bound must be in the calibration.
        link_bytes_per_s: pace of the link; None for the machine's own.

    Raises:
        InputError: the codec and bound were not calibrated.
    """

    def __init__(
        self, calibration: Calibration, policy: Policy, link_bytes_per_s: float | None
    ) -> None:
        self.calibration = calibration
        self.codec: CodecFigures = calibration.codec(policy.codec, policy.bound)
        self.link_bytes_per_s = link_bytes_per_s
        handover = calibration.handover
        self.submit_s = handover.submit_s.value
        self.start_s = handover.start_s.value
        self.between_s = handover.between_s.value
        self.wake_s = handover.wake_s.value
        # The same few token counts are asked for in every layer and step.
        self._warm_s = cache(self._interpolated_warm_s)
        self._warm_expert_s = cache(partial(at_size, calibration.compute.expert))

    def before_experts_s(self, layer: int, tokens: int) -> float:
        """Dense part of a layer and the dispatch of its experts, caches warm, s."""
        return self._warm_s(layer > 0, tokens)

    def coldness_s(self, before_s: float, idle_s: float) -> float:
        """What compute loses to cold caches after a layer.

        Args:
            before_s: what it lost after the layer before, s.
            idle_s: how long it stood idle in this one, s.
        """
        compute = self.calibration.compute
        lost = extra_after(compute.cooling, idle_s) if idle_s else 0.0
        return max(compute.still_cold * before_s, lost)

    def expert_s(self, tokens: int) -> float:
        """One expert that serves `tokens` tokens, s."""
        return self._warm_expert_s(tokens)

    def head_s(self, tokens: int) -> float:
        """From the last layer to the token, s."""
        return at_size(self.calibration.compute.head, tokens)

    def link_bytes(self, layer: int, expert: int) -> int:
        """Bytes that cross the link: the blob, or the stored bytes where the host decodes."""
        if self.codec.placement == "host":
            return self.calibration.model.expert_bytes
        return self.codec.blob_bytes[layer][expert]

    def link_s(self, nbytes: int) -> float:
        """One transfer, s: the copy itself, or the pace and its overshoot where that is longer."""
        link = self.calibration.link
        copy = link.latency_s + nbytes / link.bytes_per_s
        if self.link_bytes_per_s is None:
            return copy
        return max(copy, nbytes / self.link_bytes_per_s + link.overshoot_s.value)

    def stages(self, layer: int, expert: int) -> list[StageCost]:
        """The stages of a load, in order."""
        link = StageCost("link", self.link_s(self.link_bytes(layer, expert)))
        if self.codec.unpack_s is None:
            return [link, StageCost("device decode", self.codec.decode_s.value)]
        return [
            StageCost("host decode", self.codec.decode_s.value),
            link,
            StageCost("device decode", self.codec.unpack_s.value),
        ]

    def _interpolated_warm_s(self, later: bool, tokens: int) -> float:
        compute = self.calibration.compute
        dense = compute.dense if later else compute.first
        return at_size(dense, tokens) + at_size(compute.dispatch, tokens)
