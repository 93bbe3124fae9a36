"""The events of a run. Times are seconds on the run's own clock."""

from dataclasses import dataclass, field
from typing import Literal

from offsim.policy.cache import Decision

Label = Literal["MEASURED", "SIMULATED", "ESTIMATED"]
Stage = Literal["host decode", "link", "device decode"]
STAGES: tuple[Stage, ...] = ("host decode", "link", "device decode")


@dataclass(frozen=True, slots=True)
class Span:
    """A stage of a load, from when it was served to when it was done, s."""

    stage: Stage
    start: float
    end: float


@dataclass(slots=True)
class Load:
    """One expert on its way to the device.

    Attributes:
        layer: MoE layer.
        expert: id in that layer.
        link_bytes: bytes that cross the link.
        submitted: when it was asked for, s.
        spans: its stages in order.
    """

    layer: int
    expert: int
    link_bytes: int
    submitted: float
    spans: list[Span] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wait:
    """Compute standing still for a load, s."""

    start: float
    end: float
    load: Load


@dataclass(slots=True)
class StepRecord:
    """One forward pass.

    Attributes:
        request: whose it is.
        phase: 0 prefill, 1 decode.
        start: s.
        end: when its token was known, s.
        decisions: one a layer.
        loads: in the order in which they were asked for.
        waits: in order.
    """

    request: int
    phase: int
    start: float
    end: float = 0.0
    decisions: list[Decision] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)


@dataclass(slots=True)
class RunRecord:
    """All steps of a run, and whether they were measured or simulated."""

    label: Label
    steps: list[StepRecord] = field(default_factory=list)

    def decisions(self) -> list[Decision]:
        """The decision log: one entry a layer and step."""
        return [decision for step in self.steps for decision in step.decisions]
