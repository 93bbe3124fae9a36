"""Runs of a study that were made up, so that what they say is known."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from offsim.accuracy import Scope
from offsim.files import write_text
from offsim.study.paper.design import Cell, Depth, Entry, entries
from offsim.study.paper.folder import BASE, Identity, Outcome, as_text, claim, outcome_path
from offsim.study.paper.plan import QUESTIONS, Plan
from offsim.study.paper.sizes import Sizes
from offsim.study.paper.uneven import Uneven, UnevenTable, tight_scopes

DEPTH = Depth(9, 8, 2)
PLAN = Plan(mixed=40, chains=200, seeds=3, sequences=4, length=8, requests=2, tokens=2)
RIGHT = 0.95
"""Share of right answers without an error."""
UNEVEN = Uneven(
    model="0" * 16,
    codec="cuszp",
    weights=8000,
    tables=tuple(
        UnevenTable(
            name=name,
            scope=Scope(scope),
            alpha=alpha,
            tight=alpha / 2,
            loose=alpha * 2,
            bytes=4010,
            uniform_bytes=4000,
        )
        for alpha in (0.3, 0.8)
        for name, scope in tight_scopes(8).items()
    ),
)
Share = Callable[[Entry], float]


def made(
    out: Path,
    parts: Iterable[str],
    ica: Share,
    pia: Share | None = None,
    plan: Plan = PLAN,
    sizes: Sizes | None = None,
    uneven: Uneven | None = None,
) -> list[Entry]:
    """Leave runs of some parts in which such shares of the items are right.

    Each item has a difficulty, which all runs share; seeds move it a little.
    """
    claim(out, Identity(model="made", digest="0" * 16, plan=plan))
    for questions in QUESTIONS:
        _write(out / "runs" / f"{BASE}-{questions}.0.json", plan, questions, None, RIGHT, RIGHT, 0)
    known = [entry for part in parts for entry in entries(part, DEPTH, sizes, uneven)]
    for entry in known:
        shares = ica(entry), (pia or ica)(entry)
        for seed in range(entry.cell.seeds(plan.seeds)):
            path = outcome_path(out, entry.cell.name, seed)
            _write(path, plan, entry.cell.questions, entry.cell, *shares, seed)
    return known


def _write(
    path: Path, plan: Plan, questions: str, cell: Cell | None, ica: float, pia: float, seed: int
) -> None:
    count = plan.a_task(questions) * len(QUESTIONS[questions])
    difficulty = np.random.default_rng(1).permutation(count) / count
    moved = np.random.default_rng(2 + seed).normal(0, 0.005 * (cell is not None), count)
    errors = [] if cell is None else cell.errors(seed)
    outcome = Outcome(
        questions=questions,
        error=errors[0] if errors else None,
        over=errors[1] if len(errors) > 1 else None,
        ica=as_text(difficulty + moved < ica),
        pia=as_text(difficulty + moved < pia),
        kl=(RIGHT - ica,) * (plan.sequences if questions == "mixed" else 0),
        seconds=1.0,
    )
    write_text(path, outcome.model_dump_json())
