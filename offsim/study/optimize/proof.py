"""The answer of `offsim optimize` and what it is held against, run and evaluated for real.

Nothing is fitted: the runs have prompts of their own, and what is read and asked is not what the
sensitivity was measured on, but for its passages of prose, of which it read the first.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from offsim import __version__
from offsim.accuracy import Difference, Questions, Texts, difference, embedded_texts
from offsim.accuracy.comparison import compare
from offsim.accuracy.questions import Answers
from offsim.accuracy.sensitivity import Sensitivity
from offsim.accuracy.sensitivity_parts import Ranged
from offsim.codec import codec_named
from offsim.errors import InputError
from offsim.policy.decider import live_decider
from offsim.policy.prefetchers.registry import lookahead
from offsim.runtime.store import ExpertStore
from offsim.study.calibrate import this_machine
from offsim.study.case import Case
from offsim.study.check import Checked, Checker, Scenario
from offsim.study.dictated import read_under
from offsim.study.optimize.answer import Optimized
from offsim.study.optimize.around import Around, prices, swings, winners
from offsim.study.optimize.by_task import Judged, by_task
from offsim.study.optimize.effort import USUAL, Effort
from offsim.study.optimize.ladder import ladder_of
from offsim.study.optimize.latency import both_of
from offsim.study.optimize.proof_file import Proof, Way
from offsim.study.optimize.rivals import Rival, rivals
from offsim.study.plan import Progress, part
from offsim.study.prepare import Key, under
from offsim.study.study import by_place, recorded_under
from offsim.study.subject import ModelSubject
from offsim.testbed.tasks import TASKS

RUN_SEED, ASKED_SEED = 83, 1009
"""Of the prompts that are run, and of the items and tasks that are asked and read."""


def prove(
    subject: ModelSubject,
    case: Case,
    sensitivity: Sensitivity,
    found: Optimized,
    effort: Effort = USUAL,
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
    ahead = lookahead(case.policy.prefetch, case.policy.distance)
    static = {key: store for key, store in stores.items() if store.low is None}
    recordings = recorded_under(
        subject, static, asked, effort.tokens, part(progress, 0.15, 0.25), ahead
    )
    for policy in (rival.policy for rival in contest):
        recordings.setdefault(policy.blobs, recordings[policy.key])
    scenarios = [Scenario(rival.policy, case.link_bytes_per_s) for rival in contest]
    checker = Checker(subject, scenarios, stores, asked, effort.tokens, case.profile)
    for number in range(effort.repeats):
        begin, end = (0.25 + 0.3 * at / effort.repeats for at in (number, number + 1))
        checker.repeat(part(progress, begin, end))
    checked = checker.compare(recordings, case.calibration)
    progress("asking the model without an error", 0.55)
    questions = Questions(subject.model, effort.items, ASKED_SEED)
    losses = _losses(subject, stores, contest, questions, effort, part(progress, 0.56, 0.75))
    right = questions.unperturbed
    ways = [
        _way(rival, one, right, *losses[rival.policy.blobs])
        for rival, one in zip(contest, checked, strict=True)
    ]
    single = sorted(
        (rival for rival in contest if rival.kind == "uniform"), key=lambda one: one.policy.bound
    )
    each = [losses[rival.policy.key][1] for rival in single]
    answers = [one for one in each if one is not None]
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
        by_task=None
        if len(single) < 2
        else by_task(
            subject,
            case,
            {rival.policy.key: stores[rival.policy.key] for rival in single},
            _loosest_within(single, found.nats),
            Judged(right, answers),
            f"{found.goal}_s",
            effort,
            part(progress, 0.75, 1.0),
        ),
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
    ladder = ladder_of(sensitivity, case.calibration, found.codecs, found.by)
    return Around(
        now_s=seconds(answer),
        swings=swings(answer, seconds),
        winners=winners(case, within, seconds),
        prices=prices(case, ladder, found.nats, seconds),
    )


def _loosest_within(single: Sequence[Rival], nats: float) -> int:
    """The place of the loosest of some bounds, which rise, that loses no more than was allowed."""
    losses = [np.inf if one.loss is None else one.loss.mean for one in single]
    return max(np.flatnonzero(np.array(losses) <= nats).tolist(), default=0)


def _way(
    rival: Rival,
    one: Checked,
    right: Answers,
    kl: Difference,
    answers: Answers | None,
) -> Way:
    asked = None if answers is None else compare(right.ica(), answers.ica())
    return Way(
        name=rival.name,
        kind=rival.kind,
        codec=rival.policy.codec,
        bounds=rival.bounds,
        tpot=both_of(one, "tpot_s"),
        ttft=both_of(one, "ttft_s"),
        link_bytes=one.measured.link_bytes,
        kl_estimated=rival.loss,
        kl=Ranged.of(kl),
        ica=None if asked is None else asked.after.mean,
        ica_change=None if asked is None else Ranged.of(asked.change),
        decisions_equal=one.decisions_equal,
    )


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
    questions: Questions,
    effort: Effort,
    progress: Progress,
) -> dict[Key, tuple[Difference, Answers | None]]:
    """What each rival does to texts and answers; to texts alone where it has to run for that."""
    progress("reading texts without an error", 0.0)
    read = list(_fresh(effort))
    texts = Texts(subject.model, read)
    none = texts.unperturbed.kl
    found: dict[Key, tuple[Difference, Answers | None]] = {}
    for number, rival in enumerate(contest):
        progress(f"asking it: {rival.name}", (number + 1) / (len(contest) + 1))
        policy, store = rival.policy, stores[rival.policy.blobs]
        if policy.low is not None:
            reading, _ = read_under(subject.model, texts, read, store, policy)
            found[policy.blobs] = difference(none, reading.kl), None
            continue
        lossy = under(subject.model, store)
        kl = difference(none, texts.read(lossy).kl)
        found[policy.blobs] = kl, questions.ask(lossy)
    return found


def _fresh(effort: Effort) -> Iterator[list[int]]:
    """Solved tasks by another seed than a sensitivity's, and prose behind what it reads."""
    drawn = embedded_texts(2 * effort.sequences, effort.length, ASKED_SEED)
    half = effort.sequences // 2
    yield from drawn[: effort.sequences - half]
    yield from drawn[len(drawn) - half :]
