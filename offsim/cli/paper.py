"""`offsim study paper`: the base paper's tables on the embedded model, and beyond."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offsim.cli import display, options

if TYPE_CHECKING:
    import pandas as pd


def paper(
    out: Annotated[
        Path, typer.Option(help="Folder for the page and tables; runs that it has are kept.")
    ] = Path("paper"),
    parts: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            help="Only this part, a table (3 to 9) or codecs, matrices, experts, uneven, layers, "
            "real; may be given several times.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer items and seeds, and tables 6 and 7 alone.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Rebuild tables 3 to 9 of the base paper in miniature, beside its numbers, and go beyond.

    What errors in the experts of the embedded model do to its answers: the paper's Normal noise,
    uniform noise, SZ3, cuSZp and rounding to int8 and int4. Takes an hour or more on 2 cores; one
    that was cut off goes on where it was, and two that write into one folder share the work. What
    the embedded model tolerates is never what a large model tolerates.

    Example: offsim study paper --part 6 --part 7 --out paper
    """
    from offsim.files import check_writable

    started = time.perf_counter()
    check_writable(out)
    with display.progress() as tell:
        tell("starting", 0.0)
        from offsim.report.paper import write_paper_report
        from offsim.study.paper.design import PARTS
        from offsim.study.paper.plan import FULL, QUICK, QUICK_PARTS
        from offsim.study.paper.study import finished, paper_study
        from offsim.study.study import MODEL
        from offsim.testbed.load import load

        chosen = parts or (QUICK_PARTS if quick else tuple(PARTS))
        facts = paper_study(load(), MODEL, QUICK if quick else FULL, out, chosen, tell)
        tell("writing the page", 1.0)
        page = write_paper_report(out)
    finished(out, facts, time.perf_counter() - started)
    if as_json:
        display.emit_json(facts)
        return
    show_paper(facts, out)
    call = facts["calls"][-1]
    typer.echo(
        f"{call['runs']} runs in {call['seconds']:.0f} s of wall time from the start to the page "
        "[MEASURED]"
    )
    typer.echo(f"page: {page}")


def show_paper(facts: Mapping[str, Any], out: Path) -> None:
    """Print the tables that are measured beside the paper's numbers, and the takeaways."""
    import pandas as pd

    from offsim.report.paper_findings import VERDICTS
    from offsim.study.paper.numbers import BASELINES
    from offsim.study.paper.verdicts import PAPERS, joined

    cells = pd.read_csv(out / "cells.csv", dtype={"part": str, "place": str})
    for part in sorted(set(cells["part"]) & BASELINES.keys()):
        title = f"Table {part}: ICA [MEASURED] beside the paper's, changes in points"
        display.show_table(title, _beside(cells[cells["part"] == part]))
    takeaways = pd.read_csv(out / "takeaways.csv", dtype={"part": str})
    verdicts = joined(takeaways).groupby(["number", "takeaway", "overall"])["together"]
    counted = verdicts.value_counts().unstack().reindex(columns=VERDICTS)
    shown = counted.fillna(0).astype(int).reset_index().rename(columns={"overall": "verdict"})
    display.show_table(
        "The paper's takeaways, and in how many comparisons each holds here [MEASURED]", shown
    )
    typer.echo(
        f"the verdict is by levels up to {PAPERS:.0%}, the paper's own: holds where more than half "
        "of the comparisons do and none does not, does not hold the other way round, else it "
        "cannot be told; by intervals of 95 % each, not corrected for their number"
    )
    items, plan = facts["items"], facts["plan"]
    typer.echo(
        f"MEASURED on {items['mixed']} items (second set {items['chains']}) with {plan['seeds']} "
        "noise seeds a cell; what this small model tolerates says nothing of a large one"
    )


def _beside(cells: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of one table of the paper, as text."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "place": row["place"],
                "alpha": f"{row['level']:.0%}",
                "ICA": f"{row['ica']:.1%}",
                "change": f"{100 * row['ica_change']:+.1f} [{100 * row['ica_change_low']:+.1f}, "
                f"{100 * row['ica_change_high']:+.1f}]",
                "KL": f"{row['kl']:.2g}" if pd.notna(row.get("kl")) else "",
                "the paper's ICA": f"{row['paper_ica']:.0%}" if pd.notna(row["paper_ica"]) else "",
                "and change": f"{100 * (row['paper_ica'] - row['paper_ica_before']):+.0f}"
                if pd.notna(row["paper_ica"])
                else "",
            }
            for row in cells.to_dict("records")
        ]
    )
