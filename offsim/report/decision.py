"""The page to decide by: what `offsim optimize --prove` recommends, what it buys, how surely."""

import base64
from pathlib import Path

from offsim.errors import InputError
from offsim.files import read_json, replacing, write_text
from offsim.report.decision_figures import frontier, places, surroundings
from offsim.report.decision_findings import GOALS, buys, known_tasks, recommended, sure
from offsim.report.page import PAGE, Picture
from offsim.report.style import small_png
from offsim.report.tables import Cell, Table
from offsim.report.templates import style_sheet, template_named
from offsim.report.text import NOTHING, bound_text, milliseconds, percent
from offsim.study.optimize.by_task import ByTask
from offsim.study.optimize.proof_file import Proof, Way
from offsim.units import show_bytes

PROOF = "proof.json"
"""The file of a proof in its folder."""
REMEDY = "make the folder with `offsim optimize --prove DIR`"


def write_decision(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a proof and its figures; the same file gives the same bytes.

    Args:
        folder: that `offsim optimize --prove` wrote.
        out: file of the page, by default report.html in the folder; the figures go beside it.

    Returns:
        The file of the page.

    Raises:
        InputError: the file of the proof is missing, or the page cannot be written.
        FormatError: it is not one.
    """
    path = folder / PROOF
    if not path.is_file():
        raise InputError(f"{path}: no such file; {REMEDY}")
    proof = read_json(path, Proof)
    page = out if out is not None else folder / PAGE
    pictures = {}
    drawn = {"frontier": frontier(proof), "bounds": places(proof)}
    if proof.around is not None:
        drawn["around"] = surroundings(proof, proof.around)
    for name, figure in drawn.items():
        image = small_png(figure)
        with replacing(page.parent / f"{name}.png") as partial:
            partial.write_bytes(image)
        source = "data:image/png;base64," + base64.b64encode(image).decode("ascii")
        pictures[name] = Picture(source, figure.get_suptitle())
    html = template_named("decision.html").render(
        css=style_sheet(),
        proof=proof,
        recommended=recommended(proof),
        buys=buys(proof),
        sure=sure(proof),
        figures=pictures,
        ways=ways_table(proof),
        known_tasks=known_tasks(proof),
        tasks=None if proof.by_task is None else tasks_table(proof, proof.by_task),
    )
    write_text(page, html)
    return page


def ways_table(proof: Proof) -> Table:
    """A row a way, the fastest first."""
    goal = GOALS[proof.goal]
    ordered = sorted(proof.ways, key=lambda way: proof.latency(way).measured)
    return Table(
        caption=f"Every way that was run: {goal} (ms), bytes over the link, KL (nats a token)",
        labels=["MEASURED", "SIMULATED", "ESTIMATED"],
        head=[
            "stored",
            f"{goal}, predicted",
            f"{goal}, measured",
            "over the link",
            "KL, predicted",
            "KL, measured",
            "right answers",
        ],
        rows=[_row(proof, way) for way in ordered],
    )


def _row(proof: Proof, way: Way) -> list[Cell]:
    both, marked = proof.latency(way), way.kind == "optimised"
    texts = [
        way.name,
        milliseconds(both.simulated),
        milliseconds(both.measured),
        show_bytes(way.link_bytes),
        NOTHING if way.kl_estimated is None else f"{way.kl_estimated.mean:.2g}",
        f"{way.kl.mean:.2g}" if way.kl.mean > 0 else "0",
        NOTHING if way.ica is None else percent(way.ica),
    ]
    return [Cell(text, marked) for text in texts]


def tasks_table(proof: Proof, found: ByTask) -> Table:
    """A row a task: its bound, and what it takes and loses under it."""
    goal = GOALS[proof.goal]
    return Table(
        caption=f"The bound of each task: {goal} (ms), change of right answers (points)",
        labels=["MEASURED", "SIMULATED"],
        head=[
            "task",
            "bound",
            f"{goal}, predicted",
            f"{goal}, measured",
            "right answers, as chosen by",
            "right answers, on other items",
        ],
        rows=[
            [
                Cell(text)
                for text in (
                    one.task,
                    bound_text(one.bound),
                    milliseconds(one.latency.simulated),
                    milliseconds(one.latency.measured),
                    percent(one.chosen_change, signed=True),
                    percent(one.ica_change.mean, signed=True),
                )
            ]
            for one in found.tasks
        ],
    )
