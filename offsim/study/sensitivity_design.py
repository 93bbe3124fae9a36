"""Which errors are injected to measure a sensitivity: what fits into a budget of time.

A design depends on nothing but its options, the model's shape and use of experts, and how long a
trial takes; the same of these give the same design.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from offsim.accuracy import Scope, WeightError, source_named
from offsim.accuracy.scopes import Usage
from offsim.accuracy.sensitivity_parts import ModelFacts, Place
from offsim.codec import codec_named
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bounds import MATRICES, Bounds, BoundText, Rule, Strict

By = Literal["layer", "matrix", "expert"]
Varied = Literal["layers", "matrices", "experts", "codecs"]

LADDER = tuple(Bound(2.0**power, "sigma") for power in range(-7, 2))
"""On the embedded model the divergence of a layer goes from 1e-5 to 1 nat a token over these."""
MATRIX_RUNGS, EXPERT_RUNGS = 3, 1
"""Rungs, about the middle of the ladder, at which these are measured."""
MOST_SEEDS = 10
JOINT_SEED = 1_000_000
"""From here on seeds are those of joint injections, whose noise no cell has."""
JOINT_SHARE = 0.25
"""Of the budget that joint injections may take."""
LEAST_JOINTS, MOST_JOINTS = 6, 36
REACH = 0.35
"""Of the ladder in its logarithm: to where the bounds of the mildest joint injection go."""
NARROW = 0.25
"""Every other joint injection has bounds from this share of its largest one."""


class Options(Strict):
    """What is to be measured.

    Attributes:
        source: of the error.
        also: codecs that take no bound, whose error is measured for whole layers too.
        bounds: the ladder: rising, of one kind.
        by: the finest places that are measured.
        seed: of texts, items, noise and joint injections.
        minutes: the budget.
        sequences: of text.
        tokens: of each.
        items: of each embedded task, asked under joint injections.

    Raises:
        InputError: bounds that do not rise or are of several kinds, a source that takes none, or
            another codec that takes one, loses nothing, or is named twice.
    """

    source: str = "codec:cuszp"
    also: tuple[str, ...] = ()
    bounds: tuple[BoundText, ...] = LADDER
    by: By = "expert"
    seed: int = Field(default=0, ge=0)
    minutes: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    sequences: int = Field(default=64, ge=2)
    tokens: int = Field(default=128, ge=2)
    items: int = Field(default=30, ge=1)

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if len(self.bounds) < 2:
            raise InputError("a ladder has two bounds or more; give them as sigma:0.1,sigma:0.2")
        if len({bound.kind for bound in self.bounds}) > 1:
            raise InputError("the bounds of a ladder are of one kind; give all of them as sigma")
        values = [bound.value for bound in self.bounds]
        if sorted(set(values)) != values:
            raise InputError("the bounds of a ladder rise; give them from small to large")
        if not source_named(self.source).takes_bound:
            raise InputError(f"{self.source} takes no bound, so that no ladder can be measured")
        if len({codec_named(name) for name in self.also}) < len(self.also):
            raise InputError(f"--also {','.join(self.also)}: one of them is named twice")
        for name in self.also:
            if codec_named(name).promise != "none":
                does = "loses nothing" if codec_named(name).promise == "exact" else "takes a bound"
                raise InputError(
                    f"--also {name}: it {does}; name codecs that take none and lose something, "
                    "such as rtn-int4"
                )
        return self

    @property
    def ladder(self) -> tuple[float, ...]:
        """Values of the bounds, rising."""
        return tuple(bound.value for bound in self.bounds)


class Timing(Strict):
    """How long trials take.

    Attributes:
        cell_s: to inject an error and to read the texts, s.
        ask_s: to ask the items besides, s.
    """

    cell_s: float = Field(gt=0, allow_inf_nan=False)
    ask_s: float = Field(ge=0, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Trial:
    """One injection.

    Attributes:
        key: what tells it apart from the others of its design.
        errors: what is injected.
        place: where, for a cell; None for a joint injection.
        bound: of a cell; None for one of a codec that takes none.
        codec: of a cell, where it takes no bound.
        varied: what has bounds of its own, for a joint injection.
        bounds: of a joint injection.
    """

    key: str
    errors: tuple[WeightError, ...]
    place: Place | None = None
    bound: Bound | None = None
    codec: str | None = None
    varied: Varied | None = None
    bounds: Bounds | None = None


@dataclass(frozen=True, slots=True)
class Design:
    """All trials in their order.

    Attributes:
        trials: cells first, joint injections last.
        seconds: that they take by the timing, s.
        summary: all this in a sentence.
    """

    trials: tuple[Trial, ...]
    seconds: float
    summary: str


def designed(options: Options, model: ModelFacts, usage: Usage, timing: Timing) -> Design:
    """The trials that fit into the budget.

    A part of it goes to joint injections. The rest goes to cells, in this order as far as it
    reaches: whole layers at the ends and the middle of the ladder and under codecs that take no
    bound, at the other rungs, matrices, experts (the most used of each layer first), and all of
    these but those codecs again with other seeds where the source has any. What belongs together
    is taken whole or not at all. The first of these and a few joint injections are taken even if
    they do not fit.

    Args:
        options: what is asked for.
        model: its shape.
        usage: activations on the texts, [layers, experts].
        timing: of a trial.
    """
    budget_s = 60 * options.minutes
    joint_s = timing.cell_s + timing.ask_s
    count = int(np.clip(JOINT_SHARE * budget_s / joint_s, LEAST_JOINTS, MOST_JOINTS))
    left_s = budget_s - count * joint_s
    trials: list[Trial] = []
    for number, group in enumerate(_groups(options, model, usage)):
        if number and (len(trials) + len(group)) * timing.cell_s > left_s:
            break
        trials += group
    have = {_kind(trial) for trial in trials}
    varied: list[Varied] = ["layers"]
    varied += ["matrices"] if "matrix" in have else []
    varied += ["experts"] if "expert" in have else []
    varied += ["codecs"] if options.also else []
    joints = list(_joints(options, model, count, varied))
    seconds = len(trials) * timing.cell_s + count * joint_s
    return Design((*trials, *joints), seconds, _summary(options, trials, count, seconds))


def _summary(options: Options, trials: Sequence[Trial], joints: int, seconds: float) -> str:
    rungs = len({trial.bound for trial in trials if trial.bound is not None})
    seeds = len({trial.errors[0].seed for trial in trials})
    kinds = [_kind(trial) for trial in trials]
    parts = [
        f"{kinds.count(kind)} of {name}"
        for kind, name in (("layer", "layers"), ("matrix", "matrices"), ("expert", "experts"))
        if kind in kinds
    ]
    over = seconds > 60 * options.minutes
    return (
        f"{', '.join((options.source, *options.also))}: {len(trials)} cells "
        f"({', '.join(parts)}) at {rungs} bounds with "
        f"{seeds} seed{'' if seeds == 1 else 's'}, and {joints} joint injections; about "
        f"{seconds / 60:.2g} of {options.minutes:g} minutes"
        + ("; this is the least that can be measured" if over else "")
    )


def _kind(trial: Trial) -> By:
    place = trial.place
    if place is None or place.expert is not None:
        return "expert"
    return "layer" if place.matrix is None else "matrix"


def _groups(options: Options, model: ModelFacts, usage: Usage) -> Iterator[list[Trial]]:
    """Cells that are measured together or not at all, the most needed first."""
    first = _ends_and_middle(len(options.bounds))
    others = [rung for rung in range(len(options.bounds)) if rung not in first]
    about = _from_the_middle(len(options.bounds))
    layers = [Place(layer=layer) for layer in range(model.layers)]
    hottest = np.argsort(-usage, axis=1, kind="stable")
    unbounded = [_unbounded(name, place) for name in options.also for place in layers]
    seeds = MOST_SEEDS if source_named(options.source).seeded else 1
    for seed in range(options.seed, options.seed + seeds):

        def cells(places: Sequence[Place], rungs: Sequence[int], seed: int = seed) -> list[Trial]:
            return [
                _cell(options, place, options.bounds[r], seed) for r in rungs for place in places
            ]

        yield cells(layers, first) + (unbounded if seed == options.seed else [])
        for rung in others:
            yield cells(layers, [rung])
        if options.by != "layer":
            matrices = [Place(layer=p.layer, matrix=name) for p in layers for name in MATRICES]
            for rung in about[:MATRIX_RUNGS]:
                yield cells(matrices, [rung])
        if options.by == "expert":
            for rank in range(model.experts):
                experts = [Place(layer=p.layer, expert=int(hottest[p.layer, rank])) for p in layers]
                yield cells(experts, about[:EXPERT_RUNGS])


def _cell(options: Options, place: Place, bound: Bound, seed: int) -> Trial:
    error = WeightError(source=options.source, bound=bound, scope=place.scope, seed=seed)
    return Trial(f"{place.scope} {bound} {seed}", (error,), place, bound)


def _unbounded(codec: str, place: Place) -> Trial:
    error = WeightError(source=f"codec:{codec}", bound=None, scope=place.scope)
    return Trial(f"{place.scope} {codec}", (error,), place, codec=codec)


def _ends_and_middle(count: int) -> list[int]:
    return sorted({0, count // 2, count - 1})


def _from_the_middle(count: int) -> list[int]:
    """All rungs, those nearest to the middle first, of two the upper one."""
    return sorted(range(count), key=lambda rung: (abs(rung - count // 2), -rung))


def _joints(
    options: Options, model: ModelFacts, count: int, varied: Sequence[Varied]
) -> Iterator[Trial]:
    """Random bounds for every matrix, from mild to strong injections, off the rungs too.

    Where codecs that take no bound are measured, every layer of some injections is under a bound
    or, as likely as under each of them, under one of these.
    """
    drawn = np.random.default_rng(options.seed)
    kind, ladder = options.bounds[0].kind, np.log(options.ladder)
    seeded = source_named(options.source).seeded
    for number in range(count):
        reach = REACH + (1 - REACH) * (number + 1) / count
        top = float(ladder[0] + reach * (ladder[-1] - ladder[0]))
        wide = number // len(varied) % 2 == 0
        bottom = float(ladder[0]) if wide else max(float(ladder[0]), top + np.log(NARROW))

        def bound(bottom: float = bottom, top: float = top) -> Bound:
            value = float(f"{np.exp(drawn.uniform(bottom, top)):.4g}")
            return Bound(min(max(value, options.ladder[0]), options.ladder[-1]), kind)

        what = varied[number % len(varied)]
        rules = []
        for layer in range(model.layers):
            if what == "codecs" and (pick := int(drawn.integers(len(options.also) + 1))):
                rules.append(Rule(codec=options.also[pick - 1], layers=(layer,)))
            elif what in ("layers", "codecs"):
                rules.append(Rule(bound=bound(), layers=(layer,)))
            elif what == "matrices":
                rules += [
                    Rule(bound=bound(), layers=(layer,), matrices=(name,)) for name in MATRICES
                ]
            else:
                some = np.sort(drawn.permutation(model.experts)[: model.experts // 2])
                rules.append(Rule(bound=bound(), layers=(layer,)))
                if len(some):
                    chosen = tuple(some.tolist())
                    rules.append(Rule(bound=bound(), layers=(layer,), experts=chosen))
        table = Bounds(default=options.bounds[0], rules=tuple(rules))
        seed = JOINT_SEED + number + options.seed if seeded else 0
        errors = errors_of(table, model, options.source, seed)
        yield Trial(f"joint {number}", errors, varied=what, bounds=table)


def errors_of(bounds: Bounds, model: ModelFacts, source: str, seed: int) -> tuple[WeightError, ...]:
    """A table of bounds as errors to inject, one for each distinct form.

    Args:
        bounds: of every matrix.
        model: its shape.
        source: of errors where no codec is named.
        seed: of noise.

    Raises:
        InputError: the table names a layer or an expert that the model does not have.
    """
    used, at = bounds.table(model.layers, model.experts)
    return tuple(
        WeightError(
            source=source if form.codec is None else f"codec:{form.codec}",
            bound=form.bound,
            scope=Scope.of(at == number),
            seed=seed,
        )
        for number, form in enumerate(used)
    )
