"""What the trials of a sensitivity say: intervals, the additive model, and how right it is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from offsim import __version__
from offsim.accuracy import difference
from offsim.accuracy.scopes import Usage
from offsim.accuracy.sensitivity import Sensitivity
from offsim.accuracy.sensitivity_fit import judged, terms
from offsim.accuracy.sensitivity_parts import (
    Cell,
    CodecLoss,
    Joint,
    ModelFacts,
    Place,
    Ranged,
    Rise,
    Sample,
    Terms,
)
from offsim.codec.bounds import Bound
from offsim.policy.bounds import MATRICES, Form, Strict
from offsim.study.calibrate import this_machine
from offsim.study.sensitivity_design import Design, Options, Trial

Floats = npt.NDArray[np.float64]


class Outcome(Strict):
    """What one trial gave, MEASURED; a line of the table on disk.

    Attributes:
        key: of the trial.
        kl: divergence of each sequence, nats a token.
        nll: negative log-likelihood of each sequence, nats a token.
        ica: whether each item was answered rightly, 0 or 1; None for a cell.
        seconds: that it took, s; None in folders that do not say.
    """

    key: str
    kl: tuple[float, ...]
    nll: tuple[float, ...]
    ica: tuple[int, ...] | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Unperturbed:
    """The model without an error.

    Attributes:
        nll: negative log-likelihood of each sequence, [sequences] float64, nats a token.
        ica: whether each item is answered rightly, [items] bool.
    """

    nll: Floats
    ica: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Measured:
    """One place and bound: divergence and log-likelihood [seeds, sequences], nats a token."""

    kl: Floats
    nll: Floats


Measured = Mapping[tuple[Place, Bound], _Measured]


def result(
    options: Options,
    model: ModelFacts,
    usage: Usage,
    unperturbed: Unperturbed,
    design: Design,
    outcomes: Mapping[str, Outcome],
) -> Sensitivity:
    """The file, from all trials of a design.

    Args:
        options: what was asked for.
        model: its shape.
        usage: activations on the texts, [layers, experts].
        unperturbed: the model without an error.
        design: its trials.
        outcomes: of each of them, by key.
    """
    measured = dict(_gathered(design, outcomes))
    rungs = _rungs(options, model, measured)
    seconds = [outcomes[trial.key].seconds for trial in design.trials]
    known = [one for one in seconds if one is not None]
    facts = Sensitivity(
        offsim=__version__,
        machine=this_machine(),
        seconds=sum(known) if len(known) == len(seconds) else None,
        model=model,
        source=options.source,
        kind=options.bounds[0].kind,
        ladder=tuple(bound.value for bound in rungs),
        sample=Sample(
            sequences=options.sequences,
            tokens=options.tokens,
            items=len(unperturbed.ica),
            seeds=max(len(one.kl) for one in measured.values()),
            nll=float(unperturbed.nll.mean()),
            ica=float(unperturbed.ica.mean()),
        ),
        cells=tuple(
            _cell(place, bound, one, unperturbed) for (place, bound), one in measured.items()
        ),
        terms=_terms(rungs, model, usage, measured),
        unbounded=tuple(_unbounded(name, design, outcomes) for name in options.also),
        rises=tuple(_rise(layer, rungs, measured) for layer in range(model.layers)),
    )
    joints = [
        _joint(trial, outcomes[trial.key], facts, unperturbed)
        for trial in design.trials
        if trial.place is None and _within(trial, rungs)
    ]
    return facts.model_copy(update={"joints": tuple(joints), "additivity": judged(joints)})


def _gathered(
    design: Design, outcomes: Mapping[str, Outcome]
) -> Iterator[tuple[tuple[Place, Bound], _Measured]]:
    """Outcomes of the seeds of each cell together, in the order of the design."""
    seeds: dict[tuple[Place, Bound], list[Outcome]] = {}
    for trial in design.trials:
        if trial.place is not None and trial.bound is not None:
            seeds.setdefault((trial.place, trial.bound), []).append(outcomes[trial.key])
    for cell, found in seeds.items():
        kl, nll = (np.array([getattr(one, name) for one in found]) for name in ("kl", "nll"))
        yield cell, _Measured(kl, nll)


def _unbounded(codec: str, design: Design, outcomes: Mapping[str, Outcome]) -> CodecLoss:
    """What a codec that takes no bound does to each layer, in their order."""
    found = [outcomes[trial.key].kl for trial in design.trials if trial.codec == codec]
    return CodecLoss(
        codec=codec, kl=tuple(_ranged(np.zeros(len(kl)), np.array(kl)) for kl in found)
    )


def _rungs(options: Options, model: ModelFacts, measured: Measured) -> list[Bound]:
    """The bounds at which every layer was measured."""
    layers = [Place(layer=layer) for layer in range(model.layers)]
    return [
        bound for bound in options.bounds if all((place, bound) in measured for place in layers)
    ]


def _within(trial: Trial, rungs: Sequence[Bound]) -> bool:
    return trial.bounds is not None and all(
        rule.bound is None or rule.bound.value <= rungs[-1].value for rule in trial.bounds.rules
    )


def _ranged(before: npt.NDArray[np.generic], after: npt.NDArray[np.generic]) -> Ranged:
    return Ranged.of(difference(before, after))


def _cell(place: Place, bound: Bound, one: _Measured, unperturbed: Unperturbed) -> Cell:
    return Cell(
        place=place,
        bound=bound,
        seeds=len(one.kl),
        kl=_ranged(np.zeros(one.kl.shape[1]), one.kl),
        nll=_ranged(unperturbed.nll, one.nll),
    )


def _terms(rungs: Sequence[Bound], model: ModelFacts, usage: Usage, measured: Measured) -> Terms:
    kl = np.empty((model.layers, len(rungs), 3))
    for layer in range(model.layers):
        for number, bound in enumerate(rungs):
            values = measured[Place(layer=layer), bound].kl
            one = _ranged(np.zeros(values.shape[1]), values)
            kl[layer, number] = one.mean, one.low, one.high
    of_matrices = [
        [
            [_mean(measured, Place(layer=layer, matrix=name), bound) for name in MATRICES]
            for bound in rungs
        ]
        for layer in range(model.layers)
    ]
    matrices = np.array(of_matrices)
    matrices = matrices[:, np.isfinite(matrices).all((0, 2))]
    at = {bound for place, bound in measured if place.expert is not None}
    experts = np.full((model.layers, model.experts), np.nan)
    for bound in at:  # all experts are measured at one bound
        for layer, expert in np.ndindex(*experts.shape):
            experts[layer, expert] = _mean(measured, Place(layer=layer, expert=expert), bound)
    return terms(
        [bound.value for bound in rungs], kl, matrices if matrices.size else None, experts, usage
    )


def _mean(measured: Measured, place: Place, bound: Bound) -> float:
    found = measured.get((place, bound))
    return float("nan") if found is None else float(found.kl.mean())


def _rise(layer: int, rungs: Sequence[Bound], measured: Measured) -> Rise:
    kl = [measured[Place(layer=layer), bound].kl for bound in rungs]
    rises, falls = True, []
    for before, after, bound in zip(kl, kl[1:], rungs[1:], strict=False):
        seeds = min(len(before), len(after))
        step = after[:seeds] - before[:seeds]  # of the same seeds: noise of a seed is only scaled
        change = _ranged(np.zeros(step.shape[1]), step)
        rises &= change.mean > 0
        if change.high < 0:
            falls.append(bound)
    return Rise(layer=layer, rises=rises, falls=tuple(falls))


def _joint(trial: Trial, outcome: Outcome, facts: Sensitivity, unperturbed: Unperturbed) -> Joint:
    assert trial.bounds is not None
    assert trial.varied is not None
    drop = None
    if outcome.ica is not None:
        drop = _ranged(np.array(outcome.ica, np.float64), unperturbed.ica.astype(np.float64))
    return Joint(
        varied=trial.varied,
        bounds=trial.bounds,
        kl=_ranged(np.zeros(len(outcome.kl)), np.array(outcome.kl)),
        nll=_ranged(unperturbed.nll, np.array(outcome.nll)),
        ica_drop=drop,
        predicted=facts.sum_of_terms(trial.bounds),
    )


def cell_table(found: Sensitivity) -> pd.DataFrame:
    """Cells and their terms, a row each; losses in nats a token, empty where a place is all."""
    rows = []
    for cell in found.cells:
        term = found.term(cell.place, Form(cell.bound)) if _on(cell, found) else None
        rows.append(
            {
                "layer": cell.place.layer,
                "expert": cell.place.expert,
                "matrix": cell.place.matrix,
                "bound": str(cell.bound),
                "value": cell.bound.value,
                "seeds": cell.seeds,
                "kl_measured": cell.kl.mean,
                "kl_low": cell.kl.low,
                "kl_high": cell.kl.high,
                "nll_measured": cell.nll.mean,
                "nll_low": cell.nll.low,
                "nll_high": cell.nll.high,
                "kl_estimated": None if term is None else term.mean,
            }
        )
    return pd.DataFrame(rows).astype({"expert": "Int64"})


def _on(cell: Cell, found: Sensitivity) -> bool:
    return cell.bound.value <= found.ladder[-1]


def joint_table(found: Sensitivity) -> pd.DataFrame:
    """Held-out joint injections, a row each; losses in nats a token, the drop of ICA a share."""
    return pd.DataFrame(
        [
            {
                "varied": joint.varied,
                "kl_measured": joint.kl.mean,
                "kl_low": joint.kl.low,
                "kl_high": joint.kl.high,
                "kl_estimated": joint.predicted.mean,
                "error": joint.predicted.mean / joint.kl.mean - 1 if joint.kl.mean else None,
                "nll_measured": joint.nll.mean,
                "ica_drop_measured": joint.ica_drop.mean if joint.ica_drop else None,
                "ica_drop_low": joint.ica_drop.low if joint.ica_drop else None,
                "ica_drop_high": joint.ica_drop.high if joint.ica_drop else None,
            }
            for joint in found.joints
        ]
    )
