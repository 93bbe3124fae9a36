"""The page of a paper study: self-contained HTML, and its figures as PNG files."""

import base64
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from offsim.files import replacing, write_text
from offsim.report import paper_tables as tables
from offsim.report.page import PAGE, Picture
from offsim.report.paper_data import PaperData, load_paper
from offsim.report.paper_figures import (
    depth_figure,
    parts_figure,
    rate_figure,
    real_figure,
    tasks_figure,
)
from offsim.report.paper_findings import answer, beyond, missing
from offsim.report.style import small_png
from offsim.report.templates import style_sheet, template_named
from offsim.study.paper.design import PARTS
from offsim.study.paper.numbers import BASELINES

FIGURES: dict[str, tuple[Callable[[PaperData], Figure], tuple[str, ...]]] = {
    "depth": (depth_figure, ("6", "7")),
    "real": (real_figure, ("codecs", "real")),
    "rate": (rate_figure, ("codecs",)),
    "parts": (parts_figure, ("matrices", "experts")),
    "tasks": (tasks_figure, ("layers",)),
}
"""What draws each figure, and the parts of the study of which it needs at least one."""


def write_paper_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a paper study and its figures.

    Parts that are not measured yet are left out.

    Args:
        folder: that `offsim study paper --out` wrote.
        out: file of the page, by default report.html in the folder; the figures go into a folder
            `figures` beside it.

    Returns:
        The file of the page.

    Raises:
        InputError: a file of the study is missing, or the page cannot be written.
        FormatError: a file of the study is not what a study writes.
    """
    data = load_paper(folder)
    page = out if out is not None else folder / PAGE
    pictures: dict[str, Picture | None] = dict.fromkeys(FIGURES)
    measured = set(data.cells["part"])
    for name, (make, parts) in FIGURES.items():
        if not measured & set(parts):
            continue
        figure = make(data)
        image = small_png(figure)
        with replacing(page.parent / "figures" / f"{name}.png") as partial:
            partial.write_bytes(image)
        source = "data:image/png;base64," + base64.b64encode(image).decode("ascii")
        pictures[name] = Picture(source, figure.get_suptitle())
    write_text(page, _html(data, pictures))
    return page


def _html(data: PaperData, pictures: dict[str, Picture | None]) -> str:
    """The page; every value is escaped, only the package's own style sheet is not."""
    measured = [part for part in PARTS if part in set(data.cells["part"])]
    return template_named("paper.html").render(
        css=style_sheet(),
        summary=data.summary,
        answer=answer(data),
        beyond=beyond(data),
        missing=missing(data),
        figures=pictures,
        facts=tables.facts_table(data),
        parts=tables.parts_table(data),
        takeaways=tables.takeaways_table(data),
        evidence=tables.evidence_table(data),
        papers=[tables.paper_table(data, one) for one in sorted(BASELINES) if one in measured],
        sources=tables.sources_table(data),
        pairs=tables.comparisons_table(
            data, ("codecs", "real"), "One source of errors against another, paired"
        ),
        halves=tables.comparisons_table(
            data, ("matrices", "experts"), "Matrices and halves against each other, paired"
        ),
        uneven=tables.uneven_table(data) if "uneven" in measured else None,
        against_one=tables.comparisons_table(
            data, ("uneven",), "Two bounds against one of the same size, paired"
        ),
        tolerance=tables.tolerance_table(data),
        usage=tables.usage_table(data),
    )
