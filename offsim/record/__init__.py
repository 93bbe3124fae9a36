"""What happened: steps, loads and decisions, as the simulator and the real run both write it."""

from offsim.record.events import Load, RunRecord, Span, StepRecord, Wait
from offsim.record.metrics import Metrics, metrics_of

__all__ = ["Load", "Metrics", "RunRecord", "Span", "StepRecord", "Wait", "metrics_of"]
