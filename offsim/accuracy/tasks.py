"""Accuracy per task with its confidence interval."""

from collections.abc import Callable
from dataclasses import dataclass

from scipy.stats import binomtest
from transformers import PreTrainedModel

from offsim.testbed.scores import task_scores
from offsim.testbed.tasks import TASKS

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How a model does on one task, MEASURED.

    Attributes:
        task: its name.
        items: held-out items asked (of `facts`, learned by heart, any).
        pia: share with the right content, 0..1.
        pia_low: lower end of its 95 % Wilson interval; `pia_high` the upper one.
        pia_high: see there.
        ica: share with the right content in the right format, 0..1.
        ica_low: as for pia.
        ica_high: as for pia.
    """

    task: str
    items: int
    pia: float
    pia_low: float
    pia_high: float
    ica: float
    ica_low: float
    ica_high: float


def accuracy(
    model: PreTrainedModel,
    items: int,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Accuracy]:
    """Ask a model the same held-out items of every embedded task.

    Args:
        model: over the embedded vocabulary.
        items: items a task.
        seed: of the draw; the same seed asks every model the same items.
        progress: told the name of each task before it is asked.
    """
    results = []
    for name in TASKS:
        progress(name)
        (score,) = task_scores(model, items, seed, [name])
        pia, ica = (_interval(share, items) for share in (score.pia, score.ica))
        results.append(Accuracy(name, items, score.pia, *pia, score.ica, *ica))
    return results


def _interval(share: float, items: int) -> tuple[float, float]:
    test = binomtest(round(share * items), items)
    interval = test.proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)
