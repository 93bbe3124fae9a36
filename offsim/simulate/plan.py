"""What an engine is given: all that was decided, as arrays; no choice is left but when."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from offsim.record.events import STAGES
from offsim.simulate.clock import Ints

Ids = npt.NDArray[np.int32]
NONE = -1


class Machine(NamedTuple):
    """What the engines know of the machine. Times in ps.

    Attributes:
        submit: compute's own time to ask for one load.
        fetch: the same for one that is fetched ahead.
        wake: from the end of a load to compute going on.
        handover: [stages] from a job's arrival to its service where the station stood idle.
        handover_kept: the same at the device's decoder, for a blob that the device keeps.
        servers: [stages] how many serve each stage.
        decoder: index of the stage that contends with compute.
        compute_rate: how many times longer compute takes while a decoder serves, in 1/2^RATE_BITS,
            but for experts.
        expert_rate: how many times longer experts take then, likewise.
        decode_rate: how many times longer decoding takes while compute works, likewise.
        arrival: ps that compute, where it works, loses to a load that has crossed the link, for
            each chunk that it moved in.
        pipelined: whether a chunk goes on to the next stage alone, or waits for the last one.
        cooling_idle: [points] see `clock.coldness`; at least one point, the first is 0.
        cooling_extra: [points] see there.
        still_cold: see there.
    """

    submit: int
    fetch: int
    wake: int
    handover: Ints
    handover_kept: int
    servers: Ints
    decoder: int
    compute_rate: int
    expert_rate: int
    decode_rate: int
    arrival: int
    pipelined: bool
    cooling_idle: Ints
    cooling_extra: Ints
    still_cold: float


class Kinds(NamedTuple):
    """Loads that cost the same are of one kind.

    Attributes:
        stages: [kinds, stages] ps in each stage, all chunks together, at least 1 for each chunk;
            0: not on its path. Every load that brings something is on the path of the link.
        chunks: [kinds] how many parts a load moves in.
        nbytes: [kinds] over the link.
        disk_bytes: [kinds] from disk.
        resident: [kinds] whether the expert is there already, compressed: it is only decoded.
    """

    stages: Ints
    chunks: Ints
    nbytes: Ints
    disk_bytes: Ints
    resident: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        stages: Ints,
        chunks: Ints,
        nbytes: Ints,
        disk_bytes: Ints | None = None,
        resident: npt.NDArray[np.bool_] | None = None,
    ) -> "Kinds":
        """Kinds whose durations are rounded up to what the clock can count.

        Without the last two nothing comes from disk, and nothing is there already.
        """
        if disk_bytes is None:
            disk_bytes = np.zeros_like(nbytes)
        if resident is None:
            resident = np.zeros(len(chunks), np.bool_)
        least = chunks[:, None]
        stages = np.where(stages > 0, np.maximum(stages, least), 0)
        for stage, passed in (("link", ~resident), ("device decode", resident)):
            at = STAGES.index(stage)
            stages[:, at] = np.maximum(stages[:, at], np.where(passed, chunks, 0))
        return cls(stages, chunks, nbytes, disk_bytes, resident)


class Plan(NamedTuple):
    """Some steps of a simulation. Lookup `q` is layer `q % layers` of step `q // layers`.

    Load ids go on from plan to plan in the order in which loads are asked for: those of a lookup,
    and then what is prefetched once its layer is done. `x_to[i]` is where the entries of `i` end
    and those of `i + 1` begin; the first begin at 0.

    Attributes:
        layers: MoE layers.
        first_load: id of the first load of this plan.
        begin: [steps] ps, a step starts no earlier.
        head: [steps] index in `durations`: from the last layer to the token.
        before: [lookups] index in `durations`: from the layer's start to its lookup.
        uses_to: [lookups] ends of each lookup's uses.
        run: [uses] index in `durations`: compute of each distinct expert, in router order.
        load: [uses] id of the load that this use may have to wait for; NONE where resident.
        demands_to: [lookups] index of the first load that is not a demand of the lookup.
        loads_to: [lookups] index of the first load of the next lookup.
        kind: [loads] row in `Kinds`.
        drops_to: [loads] ends of each load's drops.
        drop: [drops] ids of earlier loads that are given up when this one takes their place.
        durations: ps; what the indices above point to.
        kinds: what the loads cost.
        recurs: whether the same kinds and durations come again and again, so that it pays to
            remember how a layer went.
    """

    layers: int
    first_load: int
    begin: Ints
    head: Ids
    before: Ids
    uses_to: Ids
    run: Ids
    load: Ids
    demands_to: Ids
    loads_to: Ids
    kind: Ids
    drops_to: Ids
    drop: Ids
    durations: Ints
    kinds: Kinds
    recurs: bool

    @property
    def steps(self) -> int:
        """How many."""
        return len(self.begin)


class Clocks(NamedTuple):
    """When the steps of a plan happened. Times in ps since the simulation began.

    Attributes:
        start: [steps]
        end: [steps] the token is known.
        stall: [steps, stages + 1] compute waited for each stage; the last is the hand-over.
        late: [steps] experts asked for while a prefetch still brought them.
        waits: [uses, 2] compute stood still for this use; NONE where it did not. Empty where
            events are not kept.
    """

    start: Ints
    end: Ints
    stall: Ints
    late: Ints
    waits: Ints

    @classmethod
    def of(cls, plan: Plan, *, events: bool) -> "Clocks":
        """Room for what happens in a plan."""
        steps = plan.steps
        return cls(
            np.zeros(steps, np.int64),
            np.zeros(steps, np.int64),
            np.zeros((steps, len(STAGES) + 1), np.int64),
            np.zeros(steps, np.int64),
            np.full((len(plan.run) if events else 0, 2), NONE, np.int64),
        )


class LoadClocks(NamedTuple):
    """When the loads of a simulation happened. Times in ps since it began.

    Attributes:
        asked: [loads] when each was asked for.
        served: [loads, stages, 2] start of the first and end of the last chunk; NONE where never.
        moved: [loads] chunks that crossed the link.
    """

    asked: Ints
    served: Ints
    moved: Ints
