"""What a bounded error in the experts does to accuracy.

`Questions` and `Texts` hold items and what the unperturbed model makes of them; within `injected`
they measure the model with an error, item by item; `statistics` compares the two. How experts are
used, which the scope `top6:layer:0` asks for, is in `offsim.trace.statistics`.
"""

from offsim.accuracy.injection import Perturbed, WeightError, injected
from offsim.accuracy.questions import Answers, Questions
from offsim.accuracy.scopes import ALL, Places, Scope, group_layers, scaled_layer
from offsim.accuracy.sources import SOURCES, source_named
from offsim.accuracy.statistics import (
    Difference,
    McNemar,
    detectable_change,
    difference,
    holm,
    mcnemar,
)
from offsim.accuracy.tasks import Accuracy, accuracy
from offsim.accuracy.texts import Reading, Texts, embedded_texts, pieces

__all__ = [
    "ALL",
    "SOURCES",
    "Accuracy",
    "Answers",
    "Difference",
    "McNemar",
    "Perturbed",
    "Places",
    "Questions",
    "Reading",
    "Scope",
    "Texts",
    "WeightError",
    "accuracy",
    "detectable_change",
    "difference",
    "embedded_texts",
    "group_layers",
    "holm",
    "injected",
    "mcnemar",
    "pieces",
    "scaled_layer",
    "source_named",
]
