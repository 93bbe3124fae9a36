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
        fetched: loads that were then asked for ahead.
        fetching: seconds that this took.
        experts: tokens, start and end of each expert that was run.
        leave: the weighted sum was done.
    """

    tokens: int
    enter: float
    asked: float = 0.0
    misses: int = 0
    experts: list[tuple[int, float, float]] = field(default_factory=list)
    leave: float = 0.0
    fetched: int = 0
    fetching: float = 0.0


@dataclass(slots=True)
class StepTimes:
    """When one step did what.

    Attributes:
        tokens: in the step.
        start: it began.
        layers: in order.
        end: its token was known.
        context: tokens of the request that earlier steps computed, and its layers attend to.
    """

    tokens: int
    start: float
    layers: list[LayerTimes] = field(default_factory=list)
    end: float = 0.0
    context: int = 0
