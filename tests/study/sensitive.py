"""A model whose sensitivity is known, in place of one that takes time to measure."""

import numpy as np

from offsim.accuracy.scopes import Places
from offsim.accuracy.sensitivity_parts import ModelFacts
from offsim.codec.bounds import Bound
from offsim.study.sensitivity_design import Options, Trial
from offsim.study.sensitivity_result import Outcome, Unperturbed

SEQUENCES, ITEMS = 6, 11
LAYERS = np.array([1.0, 4.0, 2.0])
EXPERTS = np.array([0.4, 0.3, 0.2, 0.1])
MATRICES = np.array([0.2, 0.3, 0.5])
OF_SEQUENCES = np.linspace(0.8, 1.2, SEQUENCES)
FACTS = ModelFacts(name="toy", layers=3, experts=4, hidden=8, width=8)
USAGE = np.array([[4, 3, 2, 1], [1, 2, 3, 4], [10, 20, 5, 5]])
LADDER = tuple(Bound(2.0**power, "sigma") for power in range(-5, 0))
UNBOUNDED = {"codec:rtn-int8": 2.0**-6, "codec:rtn-int4": 2.0**-3}
"""Of codecs that take no bound, the one that loses as much."""


def options(minutes: float = 10.0, **changes: object) -> Options:
    asked: dict[str, object] = {"source": "uniform", "bounds": LADDER, "minutes": minutes}
    return Options.model_validate(asked | changes)


class QuadraticMeter:
    """KL = most * (1 - exp(-x / most)) with x the sum over all matrices of cost * bound^2.

    Attributes:
        measured: keys of the trials that were measured.
        after: trials after which a measurement is interrupted.
    """

    def __init__(self, most: float = 1e9, after: int | None = None) -> None:
        self.model = FACTS
        self.usage = USAGE
        self.unperturbed = Unperturbed(np.full(SEQUENCES, 2.0), np.ones(ITEMS, np.bool_))
        self.most = most
        self.after = after
        self.measured: list[str] = []

    def measure(self, trial: Trial, ask: bool) -> Outcome:
        if self.after is not None and len(self.measured) == self.after:
            raise KeyboardInterrupt
        self.measured.append(trial.key)
        costs = LAYERS[:, None, None] * EXPERTS[None, :, None] * MATRICES
        total = 0.0
        for error in trial.errors:
            mask = error.scope.mask(Places(FACTS.layers, FACTS.experts))
            size = UNBOUNDED[error.source] if error.bound is None else error.bound.value
            total += float(costs[mask].sum()) * size**2
        kl = -self.most * np.expm1(-total * OF_SEQUENCES / self.most)
        wrong = min(ITEMS, int(10 * kl.mean()))
        right = (0,) * wrong + (1,) * (ITEMS - wrong)
        return Outcome(
            key=trial.key,
            kl=tuple(kl.tolist()),
            nll=tuple((2.0 + kl).tolist()),
            ica=right if ask else None,
        )
