"""A sensitivity file made up from a law, for tests."""

import numpy as np

from offsim.accuracy.sensitivity import Sensitivity
from offsim.accuracy.sensitivity_parts import LayerLoss, ModelFacts, Ranged, Sample, Terms

LADDER = (0.125, 0.25, 0.5, 1.0)
EXPERTS = (0.5, 0.25, 0.25, 0.0)
MATRICES = (0.25, 0.25, 0.5)
FACTS = ModelFacts(name="toy", layers=3, experts=4, hidden=8, width=8)


def ranged(mean: float) -> Ranged:
    return Ranged(mean=mean, low=0.5 * mean, high=2 * mean)


def layer_loss(cost: float) -> LayerLoss:
    """f(bound) = cost * bound^2, with an interval from a half to twice of it."""
    return LayerLoss(
        kl=tuple(ranged(cost * value**2) for value in LADDER),
        slope=2.0,
        experts=EXPERTS,
        matrices=MATRICES,
    )


def quadratic(*costs: float) -> Sensitivity:
    """A model whose layers cost costs[layer] * bound^2."""
    return Sensitivity(
        model=FACTS.model_copy(update={"layers": len(costs)}),
        source="uniform",
        kind="sigma",
        ladder=LADDER,
        sample=Sample(sequences=4, tokens=8, items=0, seeds=1, nll=1.0),
        cells=(),
        terms=Terms(
            curve="ladder",
            curve_errors={},
            layers=tuple(map(layer_loss, costs)),
            matrices_measured=True,
            experts_measured=4,
        ),
    )


USAGE = np.array([[8, 4, 4, 1], [1, 2, 3, 4], [5, 5, 5, 5]])
