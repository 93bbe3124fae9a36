"""`offsim optimize`: the bound or codec of each layer that takes least within a budget."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offsim.cli import display, options
from offsim.cli.groups import Loading, Placement, Storage, grouped

if TYPE_CHECKING:
    from offsim.accuracy.sensitivity import Sensitivity
    from offsim.study.case import Case
    from offsim.study.optimize.answer import Optimized, Row
    from offsim.study.optimize.proof_file import Proof


REPEATS = 5


class By(StrEnum):
    """What has a bound, or codec, of its own."""

    LAYER = "layer"
    MATRIX = "matrix"
    EXPERT = "expert"


class Goal(StrEnum):
    """What is to be least."""

    TPOT = "tpot"
    TTFT = "ttft"


@grouped
def optimize(
    *,
    trace: options.TraceFile,
    calibration: options.CalibrationFile,
    sensitivity: Annotated[
        Path,
        typer.Option(
            help="Folder or file of `offsim sensitivity --bounds` on the model, absolute ones.",
            show_default=False,
        ),
    ],
    budget: Annotated[
        str,
        typer.Option(
            help="What may be lost: kl<=NUMBER (nats a token) or ica_drop<=NUMBER% (points).",
            show_default=False,
        ),
    ],
    codec: Annotated[
        list[str] | None,
        typer.Option(
            help="Codec, calibrated at several bounds; cuszp by default. Given again, another that "
            "a place may have in its stead, such as rtn-int4, calibrated too."
        ),
    ] = None,
    by: Annotated[By, typer.Option(help="What has a bound, or codec, of its own.")] = By.LAYER,
    goal: Annotated[Goal, typer.Option(help="What is to be least.")] = Goal.TPOT,
    out: Annotated[
        Path | None,
        typer.Option(help="Table of bounds to write (YAML), for --bounds of other commands."),
    ] = None,
    prove: Annotated[
        Path | None,
        typer.Option(
            help="Folder: run and evaluate the answer and what it is held against for real, on the "
            "embedded model, and write a page to decide by. Takes minutes.",
        ),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help=f"Runs of each with --prove; {REPEATS} by default.", min=2)
    ] = None,
    loading: Loading,
    placement: Placement,
    link: options.LinkSpeed = "paced",
    as_json: options.Json = False,
) -> None:
    """Choose the bound, or codec, of each layer for the least latency within an accuracy budget.

    What single changes are worth is simulated, an exact knapsack says which of them to make
    together, and the simulator judges that; where all choices can be simulated, they are. Losses
    are the terms of the sensitivity, ESTIMATED.

    Example: offsim optimize --trace traces/embedded.safetensors --calibration machine.yaml
    --sensitivity sensitivity --budget "kl<=0.01" --slots 3 --link 60 --prove proof
    """
    from offsim.accuracy.sensitivity import Sensitivity
    from offsim.calibration.schema import Calibration
    from offsim.cli.case import asked_policy, case_of
    from offsim.codec import codec_named
    from offsim.errors import InputError
    from offsim.files import check_writable, read_json, read_yaml, write_yaml
    from offsim.study.optimize.answer import optimize as optimized
    from offsim.study.optimize.budget import Budget
    from offsim.study.plan import part
    from offsim.trace import load_trace

    allowed = Budget.parse(budget)
    if repeats is not None and prove is None:
        raise InputError("--repeats is of a proof; give --prove DIR too, or leave it out")
    if out is not None:
        check_writable(out.parent)
    if prove is not None:
        check_writable(prove)
    file = sensitivity / "sensitivity.json" if sensitivity.is_dir() else sensitivity
    known = read_json(file, Sensitivity)
    usual, *others = dict.fromkeys(str(codec_named(name)) for name in codec or ["cuszp"])
    bounds = [c.bound for c in read_yaml(calibration, Calibration).codecs if c.codec == usual]
    if not bounds:
        raise InputError(f"{calibration}: codec {usual} is not in it; calibrate it first")
    policy = asked_policy(Storage(usual, bounds[0]), loading, placement)
    case = case_of(load_trace(trace), calibration, policy, link, loading.profile, placement)
    with display.progress(as_json) as tell:
        share = 1.0 if prove is None else 0.1
        searching = part(tell, 0.0, share)
        found = optimized(case, known, allowed, others, by.value, goal.value, searching)
        proof = None
        if prove is not None:
            proof = _proved(prove, case, known, found, repeats or REPEATS, part(tell, share, 1.0))
    if out is not None:
        write_yaml(out, found.bounds)
    if as_json:
        proved = {} if proof is None else {"proof": proof.model_dump(mode="json")}
        display.emit_json(_facts(found) | proved)
        return
    _show(found, out)
    if proof is not None and prove is not None:
        _show_proof(proof)
        typer.echo(f"report: {prove / 'report.html'}")


def _proved(
    folder: Path,
    case: "Case",
    known: "Sensitivity",
    found: "Optimized",
    repeats: int,
    tell: "display.Tell",
) -> "Proof":
    """Prove an answer, and leave the proof, its table, the bounds and the page in a folder."""
    from offsim.files import replacing, write_json, write_yaml
    from offsim.report.decision import PROOF, write_decision
    from offsim.study.optimize.effort import Effort
    from offsim.study.optimize.proof import prove as proved
    from offsim.study.optimize.proof_file import proof_table
    from offsim.study.study import embedded

    proof = proved(embedded(), case, known, found, Effort(repeats=repeats), tell)
    with replacing(folder / "proof.csv") as partial:
        proof_table(proof).to_csv(partial, index=False)
    write_yaml(folder / "bounds.yaml", found.bounds)
    write_json(folder / PROOF, proof.model_dump(mode="json"))
    write_decision(folder)
    return proof


def _show_proof(proof: "Proof") -> None:
    import pandas as pd

    from offsim.report.decision import ways_table
    from offsim.report.decision_findings import buys, known_tasks, sure

    table = ways_table(proof)
    rows = pd.DataFrame([[cell.text for cell in row] for row in table.rows], columns=table.head)
    display.show_table(f"{table.caption} [{', '.join(table.labels)}]", rows)
    for sentence in (*buys(proof), *known_tasks(proof), *sure(proof)):
        typer.echo(sentence)


def _facts(found: "Optimized") -> dict[str, Any]:
    rows = (found.best, *found.others)
    return {
        "label": found.best.metrics.label,
        "budget": {"asked": str(found.budget), "nats": found.nats},
        "goal": found.goal,
        "by": found.by,
        "gap": found.found.gap,
        "exact": found.found.exact,
        "simulations": found.found.simulations,
        "places_at_bound": found.rungs,
        "rows": [_row(row) | {"bounds": _dumped(row)} for row in rows],
    }


def _dumped(row: "Row") -> Any:
    return None if row.bounds is None else row.bounds.model_dump(mode="json")


def _row(row: "Row") -> dict[str, Any]:
    loss = row.loss
    return {
        "stored as": row.name,
        "tpot_s": row.metrics.tpot_s,
        "ttft_s": row.metrics.ttft_s,
        "link_bytes": row.metrics.link_bytes,
        "kl": 0.0 if loss is None else loss.kl.mean,
        "kl_low": 0.0 if loss is None else loss.kl.low,
        "kl_high": 0.0 if loss is None else loss.kl.high,
    }


def _show(found: "Optimized", out: Path | None) -> None:
    import pandas as pd

    from offsim.units import show_bytes, show_seconds

    rows = [
        {
            "stored as": row["stored as"],
            "TPOT": show_seconds(row["tpot_s"]),
            "TTFT": show_seconds(row["ttft_s"]),
            "over the link": show_bytes(row["link_bytes"]),
            "KL [ESTIMATED]": f"{row['kl']:.2g} ({row['kl_low']:.2g} to {row['kl_high']:.2g})",
        }
        for row in map(_row, (*found.others, found.best))
    ]
    title = f"Bounds within {found.budget}"
    if found.budget.what != "kl":
        title += f", KL {found.nats:.2g}"
    display.show_table(f"{title} [{found.best.metrics.label}]", pd.DataFrame(rows))
    places = ", ".join(f"{count} at {form}" for form, count in found.rungs.items() if count)
    typer.echo(f"stored in {sum(found.rungs.values())} places: {places}")
    typer.echo(_certainty(found))
    if out is not None:
        typer.echo(f"table of bounds: {out}, for --bounds of `offsim run`, `simulate`, `explain`")


def _certainty(found: "Optimized") -> str:
    search = found.found
    loss = found.best.loss
    said = f"{search.simulations} simulations: "
    if search.exact:
        said += "all choices within the budget; none is faster"
    elif search.gap < 1e-4:
        said += "by what single changes are worth, no choice within the budget is faster"
    else:
        said += (
            f"by what single changes are worth, another choice could be {search.gap:.1%} faster at "
            "most; together they are not worth as much"
        )
    if loss is not None and not loss.additive:
        said += (
            ". Losses of this size were not seen to add up to within 25 %: --prove measures what "
            "the table loses"
        )
    return said + "."
