"""The events of a run. Times are seconds on the run's own clock."""

from dataclasses import dataclass, field
from typing import Literal

from offsim.policy.cache import Decision

Label = Literal["MEASURED", "SIMULATED", "ESTIMATED"]
Stage = Literal["disk", "host decode", "host compute", "link", "device decode"]
STAGES: tuple[Stage, ...] = ("disk", "host decode", "host compute", "link", "device decode")
"""In the order in which a load passes them; few loads have all of them on their path."""
SELDOM: frozenset[str] = frozenset({"disk", "host compute"})
"""Stages that are named only where a policy uses them."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stage of a load, from when it was served to when it was done, s."""

    stage: Stage
    start: float
    end: float


@dataclass(slots=True)
class Load:
    """One expert on its way to the device, or what stands for it.

    An expert that is computed on the host sends activations in its place; one that is kept
    compressed on the device only passes the device decoder.

    Attributes:
        layer: MoE layer.
        expert: id in that layer.
        link_bytes: bytes that cross the link.
        submitted: when it was asked for, s.
        spans: its stages in order.
        ahead: whether it was fetched before it was asked for.
        used: whether it was asked for while it was there or on its way.
        disk_bytes: read from disk for it.
        ends_with: last stage of its path; None where not all of it came so far before it was given
            up, or the run was over.
    """

    layer: int
    expert: int
    link_bytes: int
    submitted: float
    spans: list[Span] = field(default_factory=list)
    ahead: bool = False
    used: bool = True
    disk_bytes: int = 0
    ends_with: Stage | None = "device decode"

    @property
    def arrived(self) -> bool:
        """Whether all of it has passed the last stage of its path."""
        return any(span.stage == self.ends_with for span in self.spans)


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
        request: whose it is; the first of them where it is of several.
        phase: 0 where it has tokens of a prompt, else 1, decode.
        start: s.
        end: when its token was known, s.
        decisions: one a layer.
        loads: in the order in which they were asked for.
        waits: in order.
        late: experts asked for while a prefetch still brought them.
        emits: the requests that get an output token from it; None: the one that it is of.
    """

    request: int
    phase: int
    start: float
    end: float = 0.0
    decisions: list[Decision] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    late: int = 0
    emits: tuple[int, ...] | None = None

    @property
    def emitting(self) -> tuple[int, ...]:
        """The requests that get an output token from it."""
        return (self.request,) if self.emits is None else self.emits


@dataclass(slots=True)
class RunRecord:
    """All steps of a run, and whether they were measured or simulated.

    Attributes:
        label: of every number in it.
        steps: in order.
        arrivals: when each request came, s; for those not named, when their first step started.
    """

    label: Label
    steps: list[StepRecord] = field(default_factory=list)
    arrivals: dict[int, float] = field(default_factory=dict)

    def decisions(self) -> list[Decision]:
        """The decision log: one entry a layer and step."""
        return [decision for step in self.steps for decision in step.decisions]
