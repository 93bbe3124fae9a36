"""What each thing costs: a calibration seen through one policy and one link speed."""

from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial

import numpy as np
import numpy.typing as npt

from offsim.calibration.reading import at_size, foresight_s, nearest_foresight
from offsim.calibration.schema import Calibration, CodecFigures, ForesightFigures, HandoverFigures
from offsim.errors import InputError
from offsim.policy.policy import Policy
from offsim.policy.tiers import Sizes
from offsim.record.events import STAGES
from offsim.simulate.clock import Ints, rate_of, whole
from offsim.simulate.loads import (
    DEVICE_DECODE,
    DISK,
    HOST_COMPUTE,
    HOST_DECODE,
    LINK,
    Lane,
    sorted_rows,
    wholes,
)
from offsim.simulate.mixture import stored, weighted
from offsim.simulate.plan import Kinds, Machine

ACTIVATION_BYTES = 2
"""Of one number of a hidden state on the link: bf16."""
COLUMNS = len(STAGES) + 4
"""Of what a load costs, see `Costs.load`."""
CHUNKS, NBYTES, DISK_BYTES = range(len(STAGES), COLUMNS - 1)


class Costs:
    """Seconds and bytes of everything that a step does.

    Args:
        calibration: of the machine and model.
        policy: whose codecs must be in the calibration, at their bounds or at all of its table.
        link_bytes_per_s: pace of the link; None for the machine's own.

    Raises:
        InputError: a codec and bound were not calibrated, or see `mixture.stored` and
            `check_placement`.
    """

    def __init__(
        self, calibration: Calibration, policy: Policy, link_bytes_per_s: float | None
    ) -> None:
        self.calibration, self.policy = calibration, policy
        self.stored = stored(calibration, policy)
        self.codec: CodecFigures = self.stored.figures
        check_placement(policy, calibration, self.codec)
        self.link_bytes_per_s = link_bytes_per_s
        part_bytes = policy.transfer.chunk_bytes
        self._lane = Lane(calibration.link, link_bytes_per_s, part_bytes)
        self.coarse = self._all_coarse()
        # The same few token counts are asked for in every layer and step.
        self._warm_s = cache(self._interpolated_warm_s)
        self._warm_expert_s = cache(partial(at_size, calibration.compute.expert))
        self.load = cache(self._load)
        self._answers: dict[str, Callable[..., tuple[int, ...]]] = {
            "load": self.load,
            "on_host": cache(self._on_host),
            "decoding": cache(self._decoding),
        }
        self._head_s = cache(partial(at_size, calibration.compute.head))

    def _all_coarse(self) -> "Costs | None":
        """The costs as if everything came coarse; None where nothing does."""
        low = self.policy.low
        if low is None:
            return None
        alone = {"codec": low.codec, "bound": low.bound, "bounds": None, "low": None}
        policy = self.policy.model_copy(update=alone)
        return Costs(self.calibration, policy, self.link_bytes_per_s)

    @property
    def codecs(self) -> list[CodecFigures]:
        """Figures of the policy's codec, and of the one for misses of low weight, if any."""
        return [self.codec] if self.coarse is None else [self.codec, self.coarse.codec]

    def before_experts_s(self, layer: int, tokens: int, earlier: int = 0) -> float:
        """Dense part of a layer, dispatch of its experts and foresight, caches warm, s.

        Args:
            layer: MoE layer.
            tokens: of the step.
            earlier: sum over these of the tokens of their requests that earlier steps computed.
        """
        return self._warm_s(layer > 0, tokens) + earlier * self.attention_s

    @property
    def attention_s(self) -> float:
        """What each token adds to each layer for each earlier token of its request, s."""
        attention = self.calibration.compute.attention_s
        return 0.0 if attention is None else attention.value

    def expert_s(self, tokens: int) -> float:
        """One expert that serves `tokens` tokens, s."""
        return self._warm_expert_s(tokens)

    def kept_expert_s(self, tokens: int) -> float:
        """The same of one that was decoded for this use from a blob that the device keeps, s."""
        kept = self.codec.kept
        return self.expert_s(tokens) if kept is None else at_size(kept.expert, tokens)

    def head_s(self, tokens: int) -> float:
        """From the last layer to the token, s."""
        return self._head_s(tokens)

    def link_bytes(self, layer: int, expert: int) -> int:
        """Bytes that cross the link: the blob, or the stored bytes where the host decodes."""
        if self.codec.placement == "host":
            return self.calibration.model.expert_bytes
        return self.codec.blob_bytes[layer][expert]

    @property
    def sizes(self) -> Sizes:
        """Bytes of experts in host memory and on the device."""
        blobs = self.codec.blob_bytes
        return Sizes(lambda key: blobs[key[0]][key[1]], self.calibration.model.expert_bytes)

    def disk_s(self, nbytes: int) -> float:
        """One read from disk, s; 0 on a machine without one."""
        disk = self.calibration.disk
        return 0.0 if disk is None else disk.latency_s + nbytes / disk.bytes_per_s

    def host_expert_s(self, tokens: int) -> float:
        """One expert that serves `tokens` tokens, computed on the host, s."""
        return at_size(self.calibration.compute.host_expert, tokens)

    def activation_bytes(self, tokens: int) -> int:
        """Bytes of the hidden states of so many tokens to the host and back."""
        return 2 * tokens * self.calibration.model.hidden * ACTIVATION_BYTES

    @property
    def overshoot_s(self) -> float:
        """From the end of a transfer to when a paced link is seen to be through with it, s."""
        return 0.0 if self.link_bytes_per_s is None else self.calibration.link.overshoot_s.value

    def transfer_s(self, nbytes: int) -> float:
        """So many bytes over the link, in all the parts that they move in, s."""
        return float(self._lane.transfer_s(np.array([nbytes]))[0])

    def stages_s(self, nbytes: int) -> list[float]:
        """[stages] s that a load takes in each, all its chunks; it decodes in the mean of all.

        Args:
            nbytes: over the link.
        """
        unpack = self.codec.unpack_s
        seconds: list[list[float]] = self._lane.stages_s(
            np.array([nbytes]),
            np.array([self.codec.decode_s.value]),
            None if unpack is None else np.array([unpack.value]),
            self.codec.chunk_s,
        ).tolist()
        return seconds[0]

    @cached_property
    def _loads(self) -> Ints:
        """[layers * experts, COLUMNS] what a load of each takes from host memory; see `_load`."""
        model = self.calibration.model
        if self.codec.placement == "host":
            nbytes = np.full(model.layers * model.experts, model.expert_bytes)
        else:
            blobs = self.codec.blob_bytes[: model.layers]  # of a run of the first layers alone
            nbytes = np.array(blobs, np.int64).reshape(-1)
        unpack = self.stored.unpack_s
        table = np.zeros((len(nbytes), COLUMNS), np.int64)
        table[:, : len(STAGES)] = wholes(
            self._lane.stages_s(
                nbytes,
                self.stored.decode_s.reshape(-1),
                None if unpack is None else unpack.reshape(-1),
                self.codec.chunk_s,
            )
        )
        table[:, CHUNKS], table[:, NBYTES] = self._lane.chunks(nbytes), nbytes
        return table

    def asked(self, what: str, *about: int) -> tuple[int, ...]:
        """What a load costs: `load`, `on_host` or `decoding`, whose arguments are below."""
        return self._answers[what](*about)

    def _load(
        self, layer: int, expert: int, from_disk: bool = False, coarse: bool = False
    ) -> tuple[int, ...]:
        """What a load of an expert costs.

        Args:
            layer: of the expert.
            expert: its id there.
            from_disk: whether its blob is read from disk first.
            coarse: whether it is the blob for misses of low weight.

        Returns:
            [COLUMNS] ps in each stage, chunks, bytes over the link, bytes from disk, and 1 where
            nothing is brought and what is there is decoded, else 0.
        """
        if coarse and self.coarse is not None:
            return self.coarse.load(layer, expert, from_disk)
        cost: list[int] = self._loads[layer * self.calibration.model.experts + expert].tolist()
        if from_disk:
            cost[DISK], cost[DISK_BYTES] = self._from_disk(layer, expert)
        return tuple(cost)

    def _on_host(self, layer: int, expert: int, tokens: int, from_disk: bool) -> tuple[int, ...]:
        """The same of an expert that the host computes: only hidden states cross the link."""
        nbytes = self.activation_bytes(tokens)
        seconds = [0.0] * len(STAGES)
        if self.codec.placement == "host":
            seconds[HOST_DECODE] = float(self.stored.decode_s[layer, expert])
        seconds[HOST_COMPUTE] = self.host_expert_s(tokens)
        # It ends with the link: nobody comes after it to whom the overshoot could be counted.
        seconds[LINK] = self.transfer_s(nbytes) + self.overshoot_s
        disk_ps, disk_bytes = self._from_disk(layer, expert) if from_disk else (0, 0)
        ps = [*map(whole, seconds)]
        ps[DISK] = disk_ps
        chunks = int(self._lane.chunks(np.array([nbytes]))[0])
        return (*ps, chunks, nbytes, disk_bytes, 0)

    def _decoding(self, layer: int, expert: int) -> tuple[int, ...]:
        """The same of an expert that is on the device, compressed."""
        seconds = [0.0] * len(STAGES)
        seconds[DEVICE_DECODE] = float(self.stored.decode_s[layer, expert])
        if (kept := self.codec.kept) is not None:
            seconds[DEVICE_DECODE] *= kept.decode_s.value / self.codec.decode_s.value
        return (*map(whole, seconds), 1, 0, 0, 1)

    def _from_disk(self, layer: int, expert: int) -> tuple[int, int]:
        """What it takes to read an expert's blob, ps, and its bytes."""
        nbytes = self.codec.blob_bytes[layer][expert]
        return whole(self.disk_s(nbytes)), nbytes

    def kinds(self) -> tuple[Kinds, npt.NDArray[np.int32]]:
        """The kinds of loads, and which one each expert is of, [layers, experts]."""
        kinds, kind_of = sorted_rows(self._loads)
        return kinds_of(kinds), kind_of.reshape(self.stored.decode_s.shape)

    def machine(self, handover: HandoverFigures | None = None) -> Machine:
        """What the engines know of the machine.

        Args:
            handover: in place of those of the calibration.
        """
        handover, compute = handover or self.calibration.handover, self.calibration.compute
        first = HOST_DECODE if self.codec.placement == "host" else LINK
        between = [whole(handover.between_s.value)] * len(STAGES)
        # Asked for in an idle moment: by the first stage of a usual load, or by one before it.
        for stage in (DISK, HOST_COMPUTE, first) if first == LINK else (DISK, first):
            between[stage] = whole(handover.start_s.value)
        # The link goes on with what waits, while who decodes hears of its end only then.
        between[DEVICE_DECODE] += whole(self.overshoot_s)
        # Who decodes after an idle spell takes longer; what takes no shorter than no time is lost.
        decoder = HOST_DECODE if self.codec.placement == "host" else DEVICE_DECODE
        woken = np.mean([codec.woken_s for codec in self.codecs])
        between[decoder] = max(0, between[decoder] + whole(float(woken)))
        servers = [1] * len(STAGES)
        servers[HOST_DECODE], servers[LINK] = (
            self.policy.transfer.decoders,
            self.policy.transfer.channels,
        )
        # Nobody serves a stage that no load passes: the fast engine looks at every server.
        servers[DISK] *= self.policy.host_bytes is not None
        servers[HOST_DECODE] *= first == HOST_DECODE
        servers[HOST_COMPUTE] *= self.policy.host_tokens > 0
        points = [(0.0, 0.0), *((point.idle_s, point.extra.value) for point in compute.cooling)]
        return Machine(
            submit=whole(handover.submit_s.value),
            fetch=whole(self._fetch_s(handover)),
            wake=whole(handover.wake_s.value),
            handover=_ints(between),
            handover_kept=whole(handover.start_s.value),
            servers=_ints(servers),
            # Only the decoder of the codec's placement contends with compute; unpacking is a copy.
            decoder=decoder,
            compute_rate=rate_of(self._slowdown([c.compute_slowdown for c in self.codecs])),
            expert_rate=rate_of(self._slowdown([c.experts_slowdown for c in self.codecs])),
            decode_rate=rate_of(self._slowdown([c.decode_slowdown for c in self.codecs])),
            arrival=whole(float(np.mean([codec.arrival_s for codec in self.codecs]))),
            pipelined=self.policy.transfer.pipelined,
            cooling_idle=_ints([whole(idle) for idle, _ in points]),
            cooling_extra=_ints([whole(extra) for _, extra in points]),
            still_cold=float(compute.still_cold),
        )

    def _slowdown(self, values: list[float]) -> float:
        """One of both codecs, as if as many loads came coarse as not."""
        decode_s = np.array([codec.decode_s.value for codec in self.codecs])
        return weighted(values, np.arange(len(values)), decode_s)

    def _interpolated_warm_s(self, later: bool, tokens: int) -> float:
        compute = self.calibration.compute
        dense = compute.dense if later else compute.first
        foresight = float(self.foresight_s(np.array([tokens]))[0])
        return at_size(dense, tokens) + at_size(compute.dispatch, tokens) + foresight

    def foresight_s(self, tokens: Ints) -> npt.NDArray[np.float64]:
        """What the prefetcher adds to a lookup of steps of so many tokens, [steps] s."""
        return foresight_s(self._foresight, self.policy.prefetch, self.policy.distance, tokens)

    def _fetch_s(self, handover: HandoverFigures) -> float:
        """Compute's own time to ask for one load ahead, s."""
        known = nearest_foresight(self._foresight, self.policy.prefetch, self.policy.distance)
        return handover.submit_s.value if known is None or known.fetch_s is None else known.fetch_s

    @property
    def _foresight(self) -> list[ForesightFigures]:
        """Of prefetchers beside this codec."""
        return self.codec.foresight or self.calibration.compute.foresight


def kinds_of(loads: Sequence[tuple[int, ...]] | Ints) -> Kinds:
    """Kinds of loads as `Costs.load` tells what they cost."""
    table = np.array(loads, np.int64).reshape(-1, COLUMNS)
    # Contiguous whether there is one kind or several: else compiled code is compiled for each.
    chunks, nbytes, disk, resident = np.ascontiguousarray(table[:, len(STAGES) :].T)
    return Kinds.of(table[:, : len(STAGES)], chunks, nbytes, disk, resident.astype(np.bool_))


def check_placement(policy: Policy, calibration: Calibration, codec: CodecFigures) -> None:
    """Refuse a policy that places experts where the calibration or the codec cannot have them.

    Args:
        policy: any.
        calibration: of the machine.
        codec: figures of the policy's codec.

    Raises:
        InputError: there is host memory and no disk beneath it, the host is to compute and its
            speed is not known or its decoder's is not, experts are to be kept as blobs under a
            codec that does not decode on the device, or any of these is asked for while misses
            of low weight come coarse.
    """
    if policy.placed and policy.low is not None:
        raise InputError(
            "misses of low weight come coarse only where host memory holds all blobs, the device "
            f"computes alone and keeps experts decoded, not with {policy}"
        )
    if policy.host_bytes is not None and calibration.disk is None:
        raise InputError(
            "host memory has a size and the calibration has no disk beneath it; calibrate anew, "
            "or add `disk`"
        )
    if policy.host_tokens:
        if codec.placement == "device" and set(policy.codecs) != {"raw"}:
            raise InputError(
                f"codec {policy.codec} decodes on the device, so that the host cannot compute with "
                "its blobs; take raw or a host codec"
            )
        if not calibration.compute.host_expert:
            raise InputError(
                "the host is to compute experts and the calibration does not say how fast; "
                "calibrate anew, or add `compute.host_expert`"
            )
    if policy.keep != "decoded" and (codec.placement == "host" or "raw" in policy.codecs):
        raise InputError(
            f"codec {policy.storage} does not decode on the device, so that experts cannot "
            "be kept compressed there; take a device codec"
        )


def _ints(values: list[int]) -> Ints:
    return np.array(values, np.int64)
