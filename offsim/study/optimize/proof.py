"""The answer of `offsim optimize` and what it is held against, run and evaluated for real.

Nothing is fitted: the runs have prompts of their own, and what is read and asked is not what the
sensitivity was measured on, but for its passages of prose, of which it read the first.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from offsim import __version__
from offsim.accuracy import Difference, Questions, Texts, difference, embedded_texts
from offsim.accuracy.comparison import Comparison, compare
from offsim.accuracy.sensitivity import Ranged, Sensitivity
from offsim.codec import codec_named
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.policy.bounds import Bounds
from offsim.policy.decider import live_decider
from offsim.policy.policy import Policy
from offsim.policy.precision import Low
from offsim.policy.prefetchers.registry import prefetcher_named
from offsim.runtime.store import ExpertStore
from offsim.study.calibrate import this_machine
from offsim.study.case import Case
from offsim.study.check import Checked, Checker, Scenario
from offsim.study.dictated import read_under
from offsim.study.optimize.answer import Optimized
from offsim.study.optimize.around import Around, prices, swings, winners
from offsim.study.optimize.ladder import ladder_of
from offsim.study.optimize.proof_file import Both, Kind, Proof, Way
from offsim.study.plan import Progress, part
from offsim.study.prepare import Key, under
from offsim.study.study import by_place, recorded_under
from offsim.study.subject import ModelSubject
from offsim.testbed.tasks import TASKS

BELOW = 0.35
"""Share of a token's router weight below which a miss comes coarse in adaptive rivals: the lesser
expert of two, where it has little."""
RUN_SEED, ASKED_SEED = 83, 1009
"""Of the prompts that are run, and of the items and tasks that are asked and read."""


@dataclass(frozen=True)
class Effort:
    """How much is run and asked.

    Attributes:
        requests: that are run; each way answers them in its own words, so that few say little.
        tokens: written for each.
        repeats: of each run, interleaved.
        sequences: of text that are read, half solved tasks and half prose.
        length: tokens of each.
        items: asked of each task.
    """

    requests: int = 8
    tokens: int = 24
    repeats: int = 5
    sequences: int = 64
    length: int = 128
    items: int = 100


@dataclass(frozen=True)
class Rival:
    """One way to store the experts.

    Attributes:
        name: for people.
        kind: of its bounds.
        policy: codec and bounds.
        bounds: of every matrix, where it has any and they are of the optimised codec.
    """

    name: str
    kind: Kind
    policy: Policy
    bounds: Bounds | None = None


def rivals(case: Case, sensitivity: Sensitivity, found: Optimized) -> list[Rival]:
    """The answer and what it is held against.

    That is zones, no compression and other codecs, every single bound of the ladder, and each with
    the next looser one for misses of low router weight.
    """
    codec = case.policy.codec
    made = [Rival("optimised", "optimised", _with(case, found.bounds), found.bounds)]
    if (table := found.zones.bounds) is not None:
        made.append(Rival(found.zones.name, "zones", _with(case, table), table))
    for figures in case.calibration.codecs:
        policy = case.policy.model_copy(
            update={"codec": figures.codec, "bound": figures.bound, "bounds": None}
        )
        if figures.codec != codec:
            kind: Kind = "raw" if figures.codec == "raw" else "other"
            made.append(Rival(policy.storage, kind, policy))
        elif 0 < figures.bound <= sensitivity.ladder[-1]:
            table = Bounds(default=Bound(figures.bound))
            made.append(Rival(f"one bound, {figures.bound:g}", "uniform", policy, table))
    single = sorted(
        (one.policy for one in made if one.kind == "uniform"), key=lambda policy: policy.bound
    )
    return made + [_adaptive(*pair) for pair in pairwise(single)]


def _adaptive(tight: Policy, loose: Policy) -> Rival:
    """Misses of low weight come under the looser bound."""
    low = Low(codec=loose.codec, bound=loose.bound, below=BELOW)
    name = f"{tight.bound:g}, and {loose.bound:g} below a weight of {BELOW:g}"
    return Rival(name, "adaptive", tight.model_copy(update={"low": low}))


def prove(
    subject: ModelSubject,
    case: Case,
    sensitivity: Sensitivity,
    found: Optimized,
    effort: Effort = Effort(),
    progress: Progress = lambda *_: None,
) -> Proof:
    """Run and evaluate the answer and its rivals.

    Args:
        subject: the embedded model.
        case: that was optimised; its policy, calibration, link and profile hold here too.
        sensitivity: that was optimised by.
        found: the answer.
        effort: how much is run and asked.
        progress: for a display.

    Raises:
        InputError: no live run can have the policy, the link has no pace, or the calibration is of
            another model.
    """
    shown = case.calibration.model
    if shown != subject.facts:
        raise InputError(
            f"the calibration is of {shown.name}, and what can be run and asked is "
            f"{subject.facts.name}"
        )
    if case.link_bytes_per_s is None:
        raise InputError("a proof runs over a link with a pace; give --link paced, or MB/s")
    shape = (shown.layers, shown.experts, shown.top_k)
    live_decider(case.policy, shape, lambda _: 0, case.profile)  # refuses what cannot run
    contest = rivals(case, sensitivity, found)
    stores = _stores(subject, contest, part(progress, 0.0, 0.15))
    asked = subject.checked(effort.requests, RUN_SEED)
    gate = prefetcher_named(case.policy.prefetch)
    lookahead = case.policy.distance if gate is not None and gate.gated else 0
    static = {key: store for key, store in stores.items() if store.low is None}
    recordings = recorded_under(
        subject, static, asked, effort.tokens, part(progress, 0.15, 0.25), lookahead
    )
    for policy in (rival.policy for rival in contest):
        recordings.setdefault(policy.blobs, recordings[policy.key])
    scenarios = [Scenario(rival.policy, case.link_bytes_per_s) for rival in contest]
    checker = Checker(subject, scenarios, stores, asked, effort.tokens, case.profile)
    for number in range(effort.repeats):
        begin, end = (0.25 + 0.45 * at / effort.repeats for at in (number, number + 1))
        checker.repeat(part(progress, begin, end))
    checked = checker.compare(recordings, case.calibration)
    losses = _losses(subject, stores, contest, effort, part(progress, 0.7, 1.0))
    ways = [
        _way(rival, one, sensitivity, *losses[rival.policy.blobs])
        for rival, one in zip(contest, checked, strict=True)
    ]
    plain = case.policy.model_copy(update={"codec": "raw", "bound": 0.0, "bounds": None})
    return Proof(
        offsim=__version__,
        machine=this_machine(),
        model=shown,
        budget=str(found.budget),
        nats=found.nats,
        goal=found.goal,
        by=found.by,
        policy=str(plain).removeprefix("raw, "),
        link_bytes_per_s=case.link_bytes_per_s,
        exact=found.found.exact,
        gap=found.found.gap,
        simulations=found.found.simulations,
        requests=effort.requests,
        tokens=effort.tokens,
        sequences=effort.sequences,
        items=effort.items * len(TASKS),
        ways=ways,
        around=_around(case, sensitivity, contest, ways, found),
    )


def _around(
    case: Case,
    sensitivity: Sensitivity,
    contest: Sequence[Rival],
    ways: Sequence[Way],
    found: Optimized,
) -> Around | None:
    """What the answer depends on; the map needs something to compare with."""
    if all(rival.kind != "raw" for rival in contest):
        return None

    def seconds(asked: Case) -> float:
        metrics = asked.predict()
        return metrics.tpot_s if found.goal == "tpot" else metrics.ttft_s

    answer, most = replace(case, policy=contest[0].policy), max(found.nats, ways[0].kl.mean)
    within = {
        rival.name: rival.policy
        for rival, way in zip(contest, ways, strict=True)
        if way.kl.mean <= most
    }
    ladder = ladder_of(sensitivity, case.calibration, case.policy.codec, found.by)
    return Around(
        now_s=seconds(answer),
        swings=swings(answer, seconds),
        winners=winners(case, within, seconds),
        prices=prices(case, ladder, found.nats, seconds),
    )


def _way(
    rival: Rival,
    one: Checked,
    sensitivity: Sensitivity,
    kl: Difference,
    asked: Comparison | None,
) -> Way:
    return Way(
        name=rival.name,
        kind=rival.kind,
        codec=rival.policy.codec,
        bounds=rival.bounds,
        tpot=_both(one, "tpot_s"),
        ttft=_both(one, "ttft_s"),
        link_bytes=one.measured.link_bytes,
        kl_estimated=None if rival.bounds is None else sensitivity.predict(rival.bounds).kl,
        kl=_ranged(kl),
        ica=None if asked is None else asked.after.mean,
        ica_change=None if asked is None else _ranged(asked.change),
        decisions_equal=one.decisions_equal,
    )


def _both(one: Checked, metric: str) -> Both:
    band = one.band.get(metric)
    return Both(
        simulated=getattr(one.predicted, metric),
        measured=getattr(one.measured, metric),
        low=None if band is None else band.low,
        high=None if band is None else band.high,
        repeats=[getattr(metrics, metric) for metrics in one.repeats],
    )


def _ranged(found: Difference) -> Ranged:
    return Ranged(mean=found.mean, low=found.low, high=found.high)


def _with(case: Case, table: Bounds) -> Policy:
    return case.policy.model_copy(update={"bound": 0.0, "bounds": table})


def _stores(
    subject: ModelSubject, contest: Sequence[Rival], progress: Progress
) -> dict[Key, ExpertStore]:
    """The experts under each rival."""
    stores: dict[Key, ExpertStore] = {}
    places = subject.facts.layers * subject.facts.experts
    for number, rival in enumerate(contest):
        begin, end = (at / len(contest) for at in (number, number + 1))
        tell = by_place(part(progress, begin, end), f"compressing: {rival.name}", places)
        policy = rival.policy
        if policy.key not in stores:
            codec = codec_named(policy.codec)
            stores[policy.key] = subject.store(codec, policy.bounds or policy.bound, tell)
        if policy.low is not None:  # its bounds are rivals too, which come before
            coarse = stores[policy.low.codec, policy.low.bound]
            stores[policy.blobs] = replace(stores[policy.key], low=coarse)
    return stores


def _losses(
    subject: ModelSubject,
    stores: Mapping[Key, ExpertStore],
    contest: Sequence[Rival],
    effort: Effort,
    progress: Progress,
) -> dict[Key, tuple[Difference, Comparison | None]]:
    """What each rival does to texts and answers; to texts alone where it has to run for that."""
    progress("asking the model without an error", 0.0)
    read = list(_fresh(effort))
    texts = Texts(subject.model, read)
    questions = Questions(subject.model, effort.items, ASKED_SEED)
    right, none = questions.unperturbed.ica(), texts.unperturbed.kl
    found: dict[Key, tuple[Difference, Comparison | None]] = {}
    for number, rival in enumerate(contest):
        progress(f"asking it: {rival.name}", (number + 1) / (len(contest) + 1))
        policy, store = rival.policy, stores[rival.policy.blobs]
        if policy.low is not None:
            reading, _ = read_under(subject.model, texts, read, store, policy)
            found[policy.blobs] = difference(none, reading.kl), None
            continue
        lossy = under(subject.model, store)
        kl = difference(none, texts.read(lossy).kl)
        found[policy.blobs] = kl, compare(right, questions.ask(lossy).ica())
    return found


def _fresh(effort: Effort) -> Iterator[list[int]]:
    """Solved tasks by another seed than a sensitivity's, and prose behind what it reads."""
    drawn = embedded_texts(2 * effort.sequences, effort.length, ASKED_SEED)
    half = effort.sequences // 2
    yield from drawn[: effort.sequences - half]
    yield from drawn[len(drawn) - half :]
