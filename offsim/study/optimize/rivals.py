"""The ways to store the experts that an answer is held against."""

from dataclasses import dataclass
from itertools import pairwise

from offsim.accuracy.sensitivity import Sensitivity
from offsim.accuracy.sensitivity_parts import Ranged
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bounds import Bounds, Form
from offsim.policy.policy import Policy
from offsim.policy.precision import Low
from offsim.study.case import Case
from offsim.study.optimize.answer import Optimized
from offsim.study.optimize.proof_file import Kind

BELOW = 0.35
"""Share of a token's router weight below which a miss comes coarse in adaptive rivals: the lesser
expert of two, where it has little."""


@dataclass(frozen=True)
class Rival:
    """One way to store the experts.

    Attributes:
        name: for people.
        kind: of its bounds.
        policy: codec and bounds.
        bounds: of every matrix, where it has any and they are of the optimised codec.
        loss: ESTIMATED, nats a token; None where the sensitivity does not say.
    """

    name: str
    kind: Kind
    policy: Policy
    bounds: Bounds | None = None
    loss: Ranged | None = None


def rivals(case: Case, sensitivity: Sensitivity, found: Optimized) -> list[Rival]:
    """The answer and what it is held against.

    That is zones, no compression and other codecs, every single bound of the ladder, and each with
    the next looser one for misses of low router weight.
    """
    codec = case.policy.codec

    def lossy(name: str, kind: Kind, policy: Policy, table: Bounds) -> Rival:
        return Rival(name, kind, policy, table, sensitivity.predict(table).kl)

    made = [lossy("optimised", "optimised", _with(case, found.bounds), found.bounds)]
    if (table := found.zones.bounds) is not None:
        made.append(lossy(found.zones.name, "zones", _with(case, table), table))
    for figures in case.calibration.codecs:
        if figures.codec == "raw":
            made.append(Rival("raw", "raw", case.policy.uncompressed()))
            continue
        policy = case.policy.model_copy(
            update={"codec": figures.codec, "bound": figures.bound, "bounds": None}
        )
        if figures.codec != codec:
            loss = _loss(sensitivity, figures.codec)
            made.append(Rival(policy.storage, "other", policy, loss=loss))
        elif 0 < figures.bound <= sensitivity.ladder[-1]:
            table = Bounds(default=Bound(figures.bound))
            made.append(lossy(f"one bound, {figures.bound:g}", "uniform", policy, table))
    single = sorted(
        (one.policy for one in made if one.kind == "uniform"), key=lambda policy: policy.bound
    )
    return made + [_adaptive(*pair) for pair in pairwise(single)]


def _adaptive(tight: Policy, loose: Policy) -> Rival:
    """Misses of low weight come under the looser bound."""
    low = Low(codec=loose.codec, bound=loose.bound, below=BELOW)
    name = f"{tight.bound:g}, and {loose.bound:g} below a weight of {BELOW:g}"
    return Rival(name, "adaptive", tight.model_copy(update={"low": low}))


def _loss(sensitivity: Sensitivity, codec: str) -> Ranged | None:
    """What a codec that takes no bound loses everywhere, as far as that was measured."""
    try:
        return sensitivity.everywhere(Form(None, codec)).kl
    except InputError:
        return None


def _with(case: Case, table: Bounds) -> Policy:
    return case.policy.model_copy(update={"bound": 0.0, "bounds": table})
