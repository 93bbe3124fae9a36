"""What each thing costs: a calibration seen through one policy and one link speed."""

from collections.abc import Sequence
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from offsim.calibration.schema import Calibration, CodecFigures, at_size
from offsim.policy.policy import Policy
from offsim.record.events import STAGES
from offsim.simulate.clock import Ints, rate_of, whole
from offsim.simulate.plan import Kinds, Machine

HOST_DECODE, LINK, DEVICE_DECODE = (
    STAGES.index(s) for s in ("host decode", "link", "device decode")
)


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
        self.calibration, self.transfer = calibration, policy.transfer
        self.codec: CodecFigures = calibration.codec(policy.codec, policy.bound)
        self.link_bytes_per_s = link_bytes_per_s
        # The same few token counts are asked for in every layer and step.
        self._warm_s = cache(self._interpolated_warm_s)
        self._warm_expert_s = cache(partial(at_size, calibration.compute.expert))
        self.load = cache(self._load)
        self._head_s = cache(partial(at_size, calibration.compute.head))

    def before_experts_s(self, layer: int, tokens: int) -> float:
        """Dense part of a layer and the dispatch of its experts, caches warm, s."""
        return self._warm_s(layer > 0, tokens)

    def expert_s(self, tokens: int) -> float:
        """One expert that serves `tokens` tokens, s."""
        return self._warm_expert_s(tokens)

    def head_s(self, tokens: int) -> float:
        """From the last layer to the token, s."""
        return self._head_s(tokens)

    def link_bytes(self, layer: int, expert: int) -> int:
        """Bytes that cross the link: the blob, or the stored bytes where the host decodes."""
        if self.codec.placement == "host":
            return self.calibration.model.expert_bytes
        return self.codec.blob_bytes[layer][expert]

    def link_s(self, nbytes: float) -> float:
        """One transfer, s: the copy itself, or the pace and its overshoot where that is longer."""
        link = self.calibration.link
        copy = link.latency_s + nbytes / link.bytes_per_s
        if self.link_bytes_per_s is None:
            return copy
        return max(copy, nbytes / self.link_bytes_per_s + link.overshoot_s.value)

    def chunks(self, nbytes: int) -> int:
        """In how many equal parts a load of so many bytes moves."""
        part = self.transfer.chunk_bytes
        return 1 if part is None else max(1, -(-nbytes // part))

    def stages_s(self, nbytes: int) -> list[float]:
        """[stages] s that a load of so many bytes over the link takes in each, all its chunks."""
        chunks = self.chunks(nbytes)
        seconds = [0.0] * len(STAGES)
        seconds[LINK] = chunks * self.link_s(nbytes / chunks)
        if self.codec.unpack_s is None:
            seconds[DEVICE_DECODE] = self.codec.decode_s.value
        else:
            seconds[HOST_DECODE] = self.codec.decode_s.value
            seconds[DEVICE_DECODE] = self.codec.unpack_s.value
        return seconds

    def _load(self, layer: int, expert: int) -> tuple[int, ...]:
        """What a load of an expert costs: ps in each stage, chunks, bytes over the link."""
        nbytes = self.link_bytes(layer, expert)
        stages = (whole(seconds) for seconds in self.stages_s(nbytes))
        return (*stages, self.chunks(nbytes), nbytes)

    def kinds(self) -> tuple[Kinds, npt.NDArray[np.int32]]:
        """The kinds of loads, and which one each expert is of, [layers, experts]."""
        model = self.calibration.model
        places = [(layer, e) for layer in range(model.layers) for e in range(model.experts)]
        loads = [self.load(*place) for place in places]
        place_of = {load: kind for kind, load in enumerate(sorted(set(loads)))}
        kind_of = np.array([place_of[load] for load in loads], np.int32)
        return kinds_of(list(place_of)), kind_of.reshape(model.layers, model.experts)

    def machine(self) -> Machine:
        """What the engines know of the machine."""
        handover, compute = self.calibration.handover, self.calibration.compute
        first = HOST_DECODE if self.codec.placement == "host" else LINK
        between = [whole(handover.between_s.value)] * len(STAGES)
        between[first] = whole(handover.start_s.value)
        servers = [1] * len(STAGES)
        servers[HOST_DECODE], servers[LINK] = self.transfer.decoders, self.transfer.channels
        points = [(0.0, 0.0), *((point.idle_s, point.extra.value) for point in compute.cooling)]
        return Machine(
            submit=whole(handover.submit_s.value),
            wake=whole(handover.wake_s.value),
            handover=_ints(between),
            servers=_ints(servers),
            # Only the decoder of the codec's placement contends with compute; unpacking is a copy.
            decoder=HOST_DECODE if self.codec.placement == "host" else DEVICE_DECODE,
            compute_rate=rate_of(self.codec.compute_slowdown),
            decode_rate=rate_of(self.codec.decode_slowdown),
            pipelined=self.transfer.pipelined,
            cooling_idle=_ints([whole(idle) for idle, _ in points]),
            cooling_extra=_ints([whole(extra) for _, extra in points]),
            still_cold=float(compute.still_cold),
        )

    def _interpolated_warm_s(self, later: bool, tokens: int) -> float:
        compute = self.calibration.compute
        dense = compute.dense if later else compute.first
        return at_size(dense, tokens) + at_size(compute.dispatch, tokens)


def kinds_of(loads: Sequence[tuple[int, ...]]) -> Kinds:
    """Kinds of loads as `Costs.load` tells what they cost."""
    table = np.array(loads, np.int64).reshape(-1, len(STAGES) + 2)
    return Kinds.of(table[:, :-2], table[:, -2], table[:, -1])


def _ints(values: list[int]) -> Ints:
    return np.array(values, np.int64)
