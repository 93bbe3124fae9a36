"""Time stamps of compute, from which a calibration is made."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class LayerTimes:
    """When one layer of one step did what; seconds on the run's clock.

    Attributes:
        tokens: in the step.
        enter: the experts were called.
        asked: all missing experts were asked for.
        misses: how many.
        experts: tokens, start and end of each expert that was run.
        leave: the weighted sum was done.
    """

    tokens: int
    enter: float
    asked: float = 0.0
    misses: int = 0
    experts: list[tuple[int, float, float]] = field(default_factory=list)
    leave: float = 0.0


@dataclass(slots=True)
class StepTimes:
    """When one step did what."""

    tokens: int
    start: float
    layers: list[LayerTimes] = field(default_factory=list)
    end: float = 0.0
