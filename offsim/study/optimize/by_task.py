"""One bound for each task, held against one bound for all of them.

Whoever serves requests may know which task each is of. Here the requests of a task are served one
after the other, under its bound, and each task begins with an empty cache: what was loaded under
another bound is of no use. So a run of each task under each bound tells what any choice takes, and
items of each task asked under each bound tell what it loses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offsim.accuracy import Questions, difference
from offsim.accuracy.questions import Answers
from offsim.accuracy.sensitivity_parts import Ranged
from offsim.policy.bounds import Strict
from offsim.policy.prefetchers.registry import lookahead
from offsim.runtime.store import ExpertStore
from offsim.study.case import Case
from offsim.study.check import Checked, Checker, Scenario
from offsim.study.optimize.effort import USUAL, Effort
from offsim.study.optimize.knapsack import Choice, Floats, cheapest
from offsim.study.optimize.latency import Both, both_of, mean_of
from offsim.study.plan import Progress, part
from offsim.study.prepare import Key, under
from offsim.study.study import recorded_under
from offsim.study.subject import ModelSubject
from offsim.study.workload import prompts

RUN_SEED, CHOICE_SEED = 89, 1013
"""Of the prompts that are run, and of the items that bounds are chosen by; it is judged by others,
but for tasks that have few."""
LEAST = 1e-4
"""Sum of the shares of the tasks that count as no loss; an item more or less is a hundredth."""


class Served(Strict):
    """All tasks under their bounds, each counting alike.

    Attributes:
        latency: the one that was to be least, mean over tasks.
        ica_change: of the share of items that are answered rightly, from the model without an
            error, MEASURED.
    """

    latency: Both
    ica_change: Ranged


class OfTask(Strict):
    """One task under the bound that was chosen for it.

    Attributes:
        task: by name.
        bound: absolute, in the unit of the weights.
        latency: under it.
        chosen_change: of the share of items answered rightly that it was chosen by, MEASURED.
        ica_change: the same on the items that it is judged by, MEASURED.
    """

    task: str
    bound: float
    latency: Both
    chosen_change: float
    ica_change: Ranged


class ByTask(Strict):
    """A bound for each task against one for all.

    Both are chosen alike: the fastest by SIMULATED latency that lost no more right answers than the
    loosest single bound within the budget.

    Attributes:
        single: bound for all, absolute, in the unit of the weights.
        one: what that takes and loses.
        each: the same of a bound for each task.
        gained: by how much the share of right answers of `each` is above that of `one`, paired by
            item, MEASURED.
        items: that both were judged by, together.
        tasks: and their bounds.
        decisions_equal: whether all runs decided as was simulated.
    """

    single: float
    one: Served
    each: Served
    gained: Ranged
    items: int
    tasks: list[OfTask]
    decisions_equal: bool


def choose(seconds: Floats, drops: Floats, loosest: int) -> tuple[int, Choice]:
    """The fastest single bound, and the fastest bound for each task, that lose no more than one.

    Args:
        seconds: [tasks, bounds] latency, s.
        drops: [tasks, bounds] of the share of right answers; below 0 where there are more, which
            does not make up for another task.
        loosest: index of the bound that says what may be lost, all tasks together.

    Returns:
        The index of the single bound, and [tasks] indices.
    """
    lost = np.maximum(drops, 0.0)
    allowed = float(lost[:, loosest].sum()) + LEAST
    within = np.flatnonzero(lost.sum(axis=0) <= allowed)
    single = int(within[seconds.sum(axis=0)[within].argmin()])
    choice = cheapest(seconds, lost, allowed)
    assert choice is not None, "the loosest bound for all tasks is a choice"
    return single, choice


@dataclass(frozen=True)
class Judged:
    """Right answers by which a choice is judged, MEASURED.

    Attributes:
        before: of the model without an error.
        after: [bounds] under each bound.
    """

    before: Answers
    after: Sequence[Answers]

    def under(self, choice: Choice) -> npt.NDArray[np.bool_]:
        """Whether each item is right under the bound of its task.

        Args:
            choice: [tasks] index of the bound of each.

        Returns:
            [items] bool, task after task.
        """
        pairs = zip(self.before.tasks, choice.tolist(), strict=True)
        return np.concatenate([self.after[rung].ica(task) for task, rung in pairs])


def by_task(
    subject: ModelSubject,
    case: Case,
    stores: Mapping[Key, ExpertStore],
    loosest: int,
    judged: Judged,
    metric: str,
    effort: Effort = USUAL,
    progress: Progress = lambda *_: None,
) -> ByTask:
    """Choose bounds by task, run and judge them.

    Args:
        subject: the embedded model.
        case: its policy, calibration, link and profile hold here too.
        stores: [bounds] of the case's codec, by rising bound.
        loosest: index of the single bound that says what may be lost.
        judged: answers to other items than those by which is chosen.
        metric: the latency that is to be least, a field of `offsim.record.Metrics`.
        effort: how much is run and asked.
        progress: for a display.

    Returns:
        Both choices; latencies in s, changes as shares of the items.

    Raises:
        InputError: no live run can have the policy of the case.
    """
    names = list(judged.before.tasks)
    drops = _drops(subject, stores, effort, part(progress, 0.0, 0.3))
    checked = _checked(subject, case, stores, names, effort, part(progress, 0.3, 1.0))
    both = [[both_of(one, metric) for one in row] for row in checked]
    seconds = np.array([[one.simulated for one in row] for row in both])
    single, choice = choose(seconds, drops, loosest)
    right, at = judged.before.ica(), range(len(names))

    def served(rungs: Choice) -> Served:
        change = Ranged.of(difference(right, judged.under(rungs)))
        return Served(latency=mean_of([both[n][rungs[n]] for n in at]), ica_change=change)

    alike = np.full(len(names), single)
    bounds = [bound for _, bound in stores]
    tasks = [
        OfTask(
            task=name,
            bound=bounds[rung],
            latency=row[rung],
            chosen_change=0.0 - float(drop[rung]),
            ica_change=Ranged.of(difference(judged.before.ica(name), judged.after[rung].ica(name))),
        )
        for name, rung, row, drop in zip(names, choice.tolist(), both, drops, strict=True)
    ]
    return ByTask(
        single=bounds[single],
        one=served(alike),
        each=served(choice),
        gained=Ranged.of(difference(judged.under(alike), judged.under(choice))),
        items=len(right),
        tasks=tasks,
        decisions_equal=all(one.decisions_equal for row in checked for one in row),
    )


def _drops(
    subject: ModelSubject, stores: Mapping[Key, ExpertStore], effort: Effort, progress: Progress
) -> Floats:
    """[tasks, bounds] of the share of right answers, on the items that bounds are chosen by."""
    progress("by task: asking the model without an error", 0.0)
    questions = Questions(subject.model, effort.items, CHOICE_SEED)
    right = questions.unperturbed
    columns = []
    for number, ((_, bound), store) in enumerate(stores.items()):
        progress(f"by task: asking it under {bound:g}", (number + 1) / (len(stores) + 1))
        answers = questions.ask(under(subject.model, store))
        columns.append([right.ica(name).mean() - answers.ica(name).mean() for name in right.tasks])
    return np.array(columns).T


def _checked(
    subject: ModelSubject,
    case: Case,
    stores: Mapping[Key, ExpertStore],
    names: Sequence[str],
    effort: Effort,
    progress: Progress,
) -> list[list[Checked]]:
    """[tasks][bounds] what each task takes under each bound, from an empty cache on."""
    assert case.link_bytes_per_s is not None, "a proof has a pace"
    policies = [
        case.policy.model_copy(update={"bound": bound, "bounds": None}) for _, bound in stores
    ]
    scenarios = [Scenario(policy, case.link_bytes_per_s) for policy in policies]
    ahead = lookahead(case.policy.prefetch, case.policy.distance)
    asked = [prompts(effort.task_requests, RUN_SEED, tasks=[name]) for name in names]
    checkers = [
        Checker(subject, scenarios, stores, one, effort.tokens, case.profile) for one in asked
    ]
    recordings = []
    for number, (name, one) in enumerate(zip(names, asked, strict=True)):
        progress(f"by task: recording {name}", 0.3 * number / len(names))
        recordings.append(
            recorded_under(subject, stores, one, effort.tokens, lambda *_: None, ahead)
        )
    for number in range(effort.repeats):
        for at, (name, checker) in enumerate(zip(names, checkers, strict=True)):
            done = (number + at / len(names)) / effort.repeats
            progress(f"by task: run {number + 1} of {effort.repeats}: {name}", 0.3 + 0.7 * done)
            checker.repeat()
    return [
        checker.compare(recording, case.calibration)
        for checker, recording in zip(checkers, recordings, strict=True)
    ]
