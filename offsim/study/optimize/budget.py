"""How much accuracy may be lost: a divergence, or a drop of in-context accuracy."""

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import isotonic_regression

from offsim.accuracy.sensitivity import Sensitivity
from offsim.errors import InputError

FORM = re.compile(r"\s*(kl|ica_drop)\s*<=\s*([0-9.eE+-]+)\s*(%?)\s*")


@dataclass(frozen=True)
class Budget:
    """What may be lost.

    Attributes:
        what: the divergence KL, nats a token, or the drop of ICA, a share of the items.
        most: of it.
    """

    what: Literal["kl", "ica_drop"]
    most: float

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read `kl<=0.01` or `ica_drop<=1%`.

        Raises:
            InputError: it is not of this form, or allows nothing.
        """
        found = FORM.fullmatch(text)
        try:
            number = float(found[2]) if found else float("nan")
        except ValueError:
            number = float("nan")
        if found is None or not 0 < number < float("inf") or (found[3] and found[1] == "kl"):
            raise InputError(f"budget {text!r} is not of the form kl<=0.01 or ica_drop<=1%")
        what: Literal["kl", "ica_drop"] = "kl" if found[1] == "kl" else "ica_drop"
        return cls(what, number / 100 if found[3] else number)

    def nats(self, sensitivity: Sensitivity) -> float:
        """The divergence that goes with it, nats a token.

        Of a drop of ICA: the largest one at which the joint injections of the sensitivity dropped
        by no more, made to rise with their divergence by isotonic regression (ESTIMATED).

        Raises:
            InputError: no injection was asked items, or even the mildest dropped by more.
        """
        if self.what == "kl":
            return self.most
        seen = sorted(
            (joint.kl.mean, joint.ica_drop.mean)
            for joint in sensitivity.joints
            if joint.ica_drop is not None
        )
        if not seen:
            raise InputError("the sensitivity asked no items; give a budget such as kl<=0.01")
        kl, drop = np.array(seen).T
        rising = isotonic_regression(drop).x
        within = kl[rising <= self.most]
        if not len(within):
            raise InputError(
                f"the mildest injection of the sensitivity, KL {kl[0]:.2g}, dropped ICA by "
                f"{rising[0]:.1%}, more than {self.most:.1%}; allow more, or give a KL"
            )
        return float(within.max())

    def __str__(self) -> str:
        return f"kl<={self.most:g}" if self.what == "kl" else f"ica_drop<={self.most:g}"
