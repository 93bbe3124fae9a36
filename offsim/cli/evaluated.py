"""What `offsim evaluate` asks of a model, without an error and with it; for machines and as tables.

Each part asks the model as it is when it is made, and by `ask` as it then stands.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import typer

from offsim.accuracy import (
    Answers,
    Difference,
    Questions,
    Reading,
    Texts,
    WeightError,
    difference,
    holm,
    injected,
)
from offsim.accuracy.comparison import Comparison, compare, continued, diverged
from offsim.cli import display

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from offsim.accuracy.harness import HarnessTasks, Scored

ALL_TASKS = "all"
"""Name of several tasks together."""
UNCORRECTED = "intervals are of 95 % each, not corrected for their number"
Scores = dict[str, Comparison]
"""By task, and of several together."""


class Part(Protocol):
    """Something that a model is asked."""

    def ask(self, model: "PreTrainedModel") -> None:
        """Ask the model as it stands, once for each error."""

    def facts(self) -> dict[str, Any]:
        """What was found, for machines."""

    def show(self, errors: Sequence[WeightError]) -> None:
        """Print what was found."""


class OwnTasks:
    """The embedded tasks: ICA, PIA, and how far answers stay the same.

    Args:
        model: the embedded one.
        names: of the tasks.
        items: of each.
        seed: of their draw.
    """

    def __init__(self, model: "PreTrainedModel", names: list[str], items: int, seed: int) -> None:
        self._questions = Questions(model, items, seed, names)
        self._after: list[Answers] = []
        self._asked = {name: [name] for name in names}
        if len(names) > 1:
            self._asked[ALL_TASKS] = names

    def ask(self, model: "PreTrainedModel") -> None:
        """As of `Part`."""
        self._after.append(self._questions.ask(model))

    def facts(self) -> dict[str, Any]:
        """As of `Part`."""
        found: dict[str, dict[str, Any]] = {name: {} for name in self._asked}
        for score in ("ica", "pia"):
            scores = self._scores(score)
            corrected = _of_tasks(scores)
            for name, one in scores.items():
                found[name][score] = _facts(one, bool(self._after), corrected.get(name))
        if self._after:
            for name, of in self._asked.items():
                found[name] |= asdict(continued(self._after, *of))
        return {"tasks": found}

    def show(self, errors: Sequence[WeightError]) -> None:
        """A table each for ICA, PIA, and how far answers stay the same."""
        for score in ("ica", "pia"):
            scores = self._scores(score)
            corrected = _of_tasks(scores)
            rows = []
            for name, one in scores.items():
                row = {"task": name, "items": one.before.items, "without": _between(one.before)}
                if errors:
                    row |= {
                        "with": _between(one.after),
                        "change": _between(one.change, "+"),
                        "McNemar p": f"{corrected.get(name, one.test.p):.2g}",
                        "detectable": f"{one.detectable:.3f}",
                    }
                rows.append(row)
            display.show_table(f"{score.upper()} {_under(errors)} [MEASURED]", pd.DataFrame(rows))
        if not errors:
            return
        typer.echo(
            f"p of the tasks corrected for their number (Holm); {UNCORRECTED}; detectable: the "
            "smallest change that so many items show in one seed (power 80 %)"
        )
        rows = []
        for name, of in self._asked.items():
            same = continued(self._after, *of)
            rows.append(
                {
                    "task": name,
                    "items": same.exact.items,
                    "tokens before the first other one": _between(same.agreement),
                    "the same to the end": _between(same.exact),
                }
            )
        title = "Greedy answers, shares that are as without an error [MEASURED]"
        display.show_table(title, pd.DataFrame(rows))

    def _scores(self, score: str) -> Scores:
        before, after = self._questions.unperturbed, self._after or [self._questions.unperturbed]

        def of(answers: Answers, tasks: list[str]) -> Any:
            return getattr(answers, score)(*tasks)

        return {
            name: compare(of(before, tasks), np.stack([of(one, tasks) for one in after]))
            for name, tasks in self._asked.items()
        }


class ReadTexts:
    """Perplexity, and the divergence of the next-token distribution.

    Args:
        model: any.
        sequences: ids, all of one length.
    """

    def __init__(self, model: "PreTrainedModel", sequences: list[list[int]]) -> None:
        self._texts = Texts(model, sequences)
        self._after: list[Reading] = []
        self._shape = {"sequences": len(sequences), "tokens": len(sequences[0])}

    def ask(self, model: "PreTrainedModel") -> None:
        """As of `Part`."""
        self._after.append(self._texts.read(model))

    def facts(self) -> dict[str, Any]:
        """As of `Part`."""
        before = self._texts.unperturbed
        found: dict[str, Any] = {**self._shape, "perplexity_before": before.perplexity}
        if self._after:
            one = diverged(before, self._after)
            found |= {
                "perplexity": asdict(one.after),
                "nll_change": asdict(one.nll),
                "kl": asdict(one.kl),
            }
        return {"texts": found}

    def show(self, errors: Sequence[WeightError]) -> None:
        """As of `Part`."""
        before = self._texts.unperturbed
        row: dict[str, Any] = {**self._shape, "perplexity without": f"{before.perplexity:.4g}"}
        if errors:
            one = diverged(before, self._after)
            row |= {
                "with": _digits(one.after),
                "KL, nats a token": _digits(one.kl),
            }
        display.show_table(f"Texts {_under(errors)} [MEASURED]", pd.DataFrame([row]))


class HarnessMetrics:
    """Tasks of lm-evaluation-harness.

    Args:
        tasks: of it.
        model: any.
        tokenizer: of it; None for the embedded model.
    """

    def __init__(
        self,
        tasks: "HarnessTasks",
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase | None",
    ) -> None:
        from offsim.accuracy.harness import language_model

        self._tasks = tasks
        self._lm = language_model(model, tokenizer)
        with injected(model):
            self._before = tasks.ask(self._lm)
        self._after: list[list[Scored]] = []

    def ask(self, model: "PreTrainedModel") -> None:
        """As of `Part`; the model is the one that it was made with."""
        self._after.append(self._tasks.ask(self._lm))

    def facts(self) -> dict[str, Any]:
        """As of `Part`."""
        scored = self._scored()
        metrics = [
            _metric(before, after, change, compared, corrected)
            for (before, after), (change, compared, corrected) in zip(
                scored, _judged_all(scored), strict=True
            )
        ]
        return {"metrics": metrics}

    def show(self, errors: Sequence[WeightError]) -> None:
        """One table of all metrics."""
        scored = self._scored()
        rows = []
        judged = _judged_all(scored)
        for (before, after), (change, compared, corrected) in zip(scored, judged, strict=True):
            row: dict[str, Any] = {
                "task": before.task,
                "metric": f"{before.metric}, {before.filter}",
                "items": len(before.items),
                "without": f"{before.value:.3f} ± {before.stderr:.3f}",
            }
            if after:
                row |= {
                    "with": f"{np.mean([one.value for one in after]):.3f}",
                    "change": "" if change is None else _between(change, "+"),
                    "McNemar p": "" if corrected is None else f"{corrected:.2g}",
                    "detectable": "" if compared is None else f"{compared.detectable:.3f}",
                }
            rows.append(row)
        display.show_table(f"lm-evaluation-harness {_under(errors)} [MEASURED]", pd.DataFrame(rows))
        if any(one[2] is not None for one in judged):
            typer.echo(f"p corrected for the number of tests (Holm); {UNCORRECTED}")

    def _scored(self) -> "list[tuple[Scored, list[Scored]]]":
        """Each metric without an error, and with it under each seed."""
        return [(one, [run[at] for run in self._after]) for at, one in enumerate(self._before)]


def _of_tasks(scores: Scores) -> dict[str, float]:
    """McNemar's p of each task corrected for their number; that of all together is its own."""
    tasks = [name for name in scores if name != ALL_TASKS]
    corrected = holm([scores[name].test.p for name in tasks])
    return dict(zip(tasks, corrected.tolist(), strict=True))


def _facts(one: Comparison, perturbed: bool, corrected: float | None) -> dict[str, Any]:
    """A comparison for machines; without an error there is nothing to compare."""
    if not perturbed:
        return {"before": asdict(one.before)}
    return {
        **{name: asdict(getattr(one, name)) for name in ("before", "after", "change")},
        "worse": one.test.worse.tolist(),
        "better": one.test.better.tolist(),
        "mcnemar_p": one.test.p,
        **({} if corrected is None else {"mcnemar_p_holm": corrected}),
        "detectable": one.detectable,
    }


def _judged(before: "Scored", after: "list[Scored]") -> tuple[Difference | None, Comparison | None]:
    """The change where items have numbers, and its test where they are right or wrong."""
    runs = [before, *after]
    if not after or not all(one.paired for one in runs):
        return None, None
    values = np.stack([one.values for one in after])
    binary = all(one.binary for one in runs)
    compared = compare(before.values == 1, values == 1) if binary else None
    return difference(before.values, values), compared


def _judged_all(
    scored: "list[tuple[Scored, list[Scored]]]",
) -> list[tuple[Difference | None, Comparison | None, float | None]]:
    """Change and test of each metric, and its p corrected for the number of all tests."""
    found = [_judged(before, after) for before, after in scored]
    tested = [compared.test.p for _, compared in found if compared is not None]
    corrected = iter(holm(tested).tolist())
    return [(change, one, None if one is None else next(corrected)) for change, one in found]


def _metric(
    before: "Scored",
    after: "list[Scored]",
    change: Difference | None,
    compared: Comparison | None,
    corrected: float | None,
) -> dict[str, Any]:
    """A metric for machines."""
    return {
        "task": before.task,
        "metric": before.metric,
        "filter": before.filter,
        "items": len(before.items),
        "before": before.value,
        "before_stderr": before.stderr,
        "after": [one.value for one in after],
        "after_stderr": [one.stderr for one in after],
        **({"change": asdict(change)} if change is not None else {}),
        **(
            {
                "mcnemar_p": compared.test.p,
                "mcnemar_p_holm": corrected,
                "detectable": compared.detectable,
            }
            if compared is not None
            else {}
        ),
    }


def _between(one: Difference, sign: str = "") -> str:
    mean, low, high = (round(value, 3) + 0.0 for value in (one.mean, one.low, one.high))  # no -0
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _digits(one: Difference) -> str:
    return f"{one.mean:.4g} [{one.low:.4g}, {one.high:.4g}]"


def _under(errors: Sequence[WeightError]) -> str:
    """What tables are of."""
    if not errors:
        return "without an error"
    first = errors[0]
    seeds = f", {len(errors)} seeds" if len(errors) > 1 else ""
    return f"without an error and with {first.source}{first.size} in {first.scope}{seeds}"
