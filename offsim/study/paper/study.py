"""The whole paper study: measure what is missing, then write every table of what is there."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedModel

from offsim import __version__
from offsim.errors import FormatError
from offsim.files import read_json, read_text, replacing, write_json
from offsim.model.experts import shape_of
from offsim.study.calibrate import this_machine
from offsim.study.paper.comparisons import comparisons_table
from offsim.study.paper.design import PARTS, Entry, entries
from offsim.study.paper.estimates import base_table, cells_table, tasks_table
from offsim.study.paper.plan import QUESTIONS, Plan
from offsim.study.paper.results import Results
from offsim.study.paper.run import SIZES, UNEVEN, Ground, measure
from offsim.study.paper.sizes import Sizes
from offsim.study.paper.takeaways import takeaways_table
from offsim.study.paper.tolerance import tolerance_table
from offsim.study.paper.uneven import Uneven
from offsim.study.plan import Progress, part
from offsim.trace.statistics import use_table

SUMMARY = "paper.json"


def paper_study(
    model: PreTrainedModel,
    name: str,
    plan: Plan,
    out: Path,
    parts: Sequence[str] = tuple(PARTS),
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Measure some parts of the paper study and leave the tables of all that is measured.

    Args:
        model: over the embedded vocabulary.
        name: of it.
        plan: how much is measured.
        out: folder; runs that it has already are not done again.
        parts: keys of PARTS.
        progress: for a display.

    Returns:
        What is in paper.json: its `calls` are those that the folder has had, with their parts, the
        runs that each made, and its wall time, s; that of this one is None until `finished`.

    Raises:
        InputError: no such part, the folder is of another design or cannot be written.
        FormatError: a file in the folder is not what it should be.
    """
    ground = Ground(model, name, plan, out)
    measure(ground, parts, part(progress, 0.0, 0.95))
    progress("intervals and tables", 0.95)
    path, tables_at = out / SIZES, out / UNEVEN
    sizes = read_json(path, Sizes) if path.exists() else None
    uneven = read_json(tables_at, Uneven) if tables_at.exists() else None
    known = [entry for one in PARTS for entry in entries(one, ground.depth, sizes, uneven)]
    results = Results(out, plan)
    tables = _tables(known, results, ground, sizes)
    for table, frame in tables.items():
        with replacing(out / f"{table}.csv") as partial:
            frame.to_csv(partial, index=False)
    facts = _facts(ground, known, results)
    call = {"parts": list(dict.fromkeys(parts)), "runs": len(ground.made), "seconds": None}
    facts["calls"] = [*_calls(out), call]
    write_json(out / SUMMARY, facts)
    return facts


def finished(out: Path, facts: dict[str, Any], seconds: float) -> None:
    """Keep how long a call took from its start to the end, in the facts and in paper.json.

    Args:
        out: folder of the study.
        facts: that `paper_study` gave.
        seconds: of wall time, with start-up, what was asked without an error, and the page.
    """
    facts["calls"][-1]["seconds"] = seconds
    write_json(out / SUMMARY, facts)


def _calls(out: Path) -> list[object]:
    """Earlier calls of a folder; none of one from before they were kept."""
    path = out / SUMMARY
    if not path.exists():
        return []
    try:
        calls = json.loads(read_text(path)).get("calls", [])
    except (json.JSONDecodeError, AttributeError) as error:
        raise FormatError(f"{path}: cannot be parsed: {error}; remove it") from error
    return list(calls)


def _tables(
    known: Sequence[Entry], results: Results, ground: Ground, sizes: Sizes | None
) -> dict[str, pd.DataFrame]:
    there = [entry for entry in known if results.has(entry.cell)]
    asked = [name for name in QUESTIONS if any(e.cell.questions == name for e in there)]
    tasks = tasks_table(there, results)
    return {
        "cells": cells_table(there, results, sizes),
        "tasks": tasks,
        "base": base_table(results, asked),
        "takeaways": takeaways_table(there, results, ground.trace),
        "comparisons": comparisons_table(there, results),
        "tolerance": tolerance_table(tasks[tasks["part"] == "layers"]),
        "usage": use_table(ground.trace),
    }


def _facts(ground: Ground, known: Sequence[Entry], results: Results) -> dict[str, Any]:
    shape, plan = shape_of(ground.model), ground.plan
    by_part = {
        one: {
            "cells": len(cells),
            "measured": sum(results.has(cell) for cell in cells),
            "seconds": sum(run.seconds for cell in cells for run in results.runs(cell)),
        }
        for one in PARTS
        for cells in [{entry.cell for entry in known if entry.part == one}]
    }
    return {
        "offsim": __version__,
        "label": "MEASURED",
        "model": ground.name,
        "digest": ground.identity.digest,
        "machine": this_machine().model_dump(mode="json"),
        "layers": shape.layers,
        "experts": shape.experts,
        "top_k": ground.depth.top_k,
        "plan": plan.model_dump(mode="json"),
        "items": {name: plan.a_task(name) * len(tasks) for name, tasks in QUESTIONS.items()},
        "parts": by_part,
    }
