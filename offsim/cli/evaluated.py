"""What `offsim evaluate` found, for machines and as tables."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from offsim.cli import display

if TYPE_CHECKING:
    from offsim.accuracy import Difference, WeightError
    from offsim.accuracy.comparison import Comparison
    from offsim.accuracy.harness import Scored

    Own = dict[str, dict[str, Comparison]]
    """By task, and of several together, the scores."""
    OfHarness = list[tuple[Scored, list[Scored]]]
    """Each metric without an error, and with it under each seed."""

ALL_TASKS = "all"
"""Name of several tasks together."""
UNCORRECTED = "intervals are of 95 % each, not corrected for their number"


def own_facts(found: "Own", perturbed: bool) -> dict[str, Any]:
    """The embedded tasks for machines."""
    scores = {score for of in found.values() for score in of}
    corrected = {score: _of_tasks(found, score) for score in scores}
    return {
        task: {
            score: _facts(one, perturbed, corrected[score].get(task)) for score, one in of.items()
        }
        for task, of in found.items()
    }


def _of_tasks(found: "Own", score: str) -> dict[str, float]:
    """McNemar's p of each task corrected for their number; that of all together is its own."""
    from offsim.accuracy import holm

    tasks = [name for name in found if name != ALL_TASKS]
    corrected = holm([found[name][score].test.p for name in tasks])
    return dict(zip(tasks, corrected.tolist(), strict=True))


def _facts(one: "Comparison", perturbed: bool, corrected: float | None) -> dict[str, Any]:
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


def _judged(
    before: "Scored", after: "list[Scored]"
) -> "tuple[Difference | None, Comparison | None]":
    """The change where items have numbers, and its test where they are right or wrong."""
    import numpy as np

    from offsim.accuracy import difference
    from offsim.accuracy.comparison import compare

    runs = [before, *after]
    if not after or not all(one.paired for one in runs):
        return None, None
    values = np.stack([one.values for one in after])
    binary = all(one.binary for one in runs)
    compared = compare(before.values == 1, values == 1) if binary else None
    return difference(before.values, values), compared


def _judged_all(
    scored: "OfHarness",
) -> "list[tuple[Difference | None, Comparison | None, float | None]]":
    """Change and test of each metric, and its p corrected for the number of all tests."""
    from offsim.accuracy import holm

    found = [_judged(before, after) for before, after in scored]
    tested = [compared.test.p for _, compared in found if compared is not None]
    corrected = iter(holm(tested).tolist())
    return [(change, one, None if one is None else next(corrected)) for change, one in found]


def scored_facts(scored: "OfHarness") -> list[dict[str, Any]]:
    """The metrics of the harness for machines."""
    judged = _judged_all(scored)
    return [_metric(*one, *of) for one, of in zip(scored, judged, strict=True)]


def _metric(
    before: "Scored",
    after: "list[Scored]",
    change: "Difference | None",
    compared: "Comparison | None",
    corrected: float | None,
) -> dict[str, Any]:
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


def _between(one: "Difference", sign: str = "") -> str:
    mean, low, high = (round(value, 3) + 0.0 for value in (one.mean, one.low, one.high))  # no -0
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def show_own(found: "Own", errors: "list[WeightError]") -> None:
    """One table for ICA and one for PIA."""
    import pandas as pd

    for score in ("ica", "pia"):
        scores = {name: of[score] for name, of in found.items()}
        corrected = _of_tasks(found, score)
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
    if errors:
        typer.echo(
            f"p of the tasks corrected for their number (Holm); {UNCORRECTED}; detectable: the "
            "smallest change that so many items show in one seed (power 80 %)"
        )


def _under(errors: "list[WeightError]") -> str:
    """What tables are of."""
    if not errors:
        return "without an error"
    first = errors[0]
    size = "" if first.bound is None else f" {first.bound}"
    seeds = f", {len(errors)} seeds" if len(errors) > 1 else ""
    return f"without an error and with {first.source}{size} in {first.scope}{seeds}"


def show_scored(scored: "OfHarness", errors: "list[WeightError]") -> None:
    """One table of all metrics of the harness."""
    import numpy as np
    import pandas as pd

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
