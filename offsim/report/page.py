"""The report of a study: one self-contained HTML page, and its figures as PNG files."""

import base64
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from offsim.files import replacing, write_text
from offsim.report import tables
from offsim.report.data import StudyData, load_study
from offsim.report.figures import (
    breakdown_figure,
    calibration_figure,
    compute_figure,
    policies_figure,
    predicted_figure,
)
from offsim.report.findings import answer, cautions
from offsim.report.heatmaps import accuracy_figure, trace_figure
from offsim.report.rate_distortion import rate_distortion_figure
from offsim.report.style import png
from offsim.report.templates import style_sheet, template_named

PAGE = "report.html"
"""Name of the page in the study's folder."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure of the page.

    Attributes:
        source: the PNG as a data URI.
        alt: what it shows, for those who do not see it.
    """

    source: str
    alt: str


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a study and its figures.

    The same folder gives the same bytes.

    Args:
        folder: that `offsim study --out` wrote.
        out: file of the page, by default report.html in the folder; the figures go into a folder
            `figures` beside it.

    Returns:
        The file of the page.

    Raises:
        InputError: a file of the study is missing, or the page cannot be written.
        FormatError: a file of the study is not what a study writes.
    """
    data = load_study(folder)
    page = out if out is not None else folder / PAGE
    pictures = {}
    for name, figure in _figures(data).items():
        image = png(figure)
        with replacing(page.parent / "figures" / f"{name}.png") as partial:
            partial.write_bytes(image)
        source = "data:image/png;base64," + base64.b64encode(image).decode("ascii")
        pictures[name] = Picture(source, figure.get_suptitle())
    write_text(page, _html(data, pictures))
    return page


def _figures(data: StudyData) -> dict[str, Figure]:
    """The figures by their file names."""
    return {
        "calibration": calibration_figure(data.curve, data.codecs),
        "rate_distortion": rate_distortion_figure(data.curve, "weights of the model"),
        "compute": compute_figure(data.compute),
        "usage": trace_figure(data.trace),
        "policies": policies_figure(data.check),
        "breakdown": breakdown_figure(data.breakdown, data.check),
        "predicted": predicted_figure(data.check),
        "accuracy": accuracy_figure(data.accuracy),
    }


def _html(data: StudyData, pictures: dict[str, Picture]) -> str:
    """The page; every value is escaped, only the package's own style sheet is not."""
    return template_named("report.html").render(
        css=style_sheet(),
        summary=data.summary,
        answer=answer(data),
        cautions=cautions(data),
        figures=pictures,
        machine=tables.machine_table(data),
        link=tables.link_facts(data),
        handover=tables.handover_table(data),
        copies=tables.copies_table(data),
        codecs=tables.codecs_table(data),
        usage=tables.usage_table(data),
        best=tables.best_table(data),
        errors=tables.errors_table(data),
        scenarios=tables.scenarios_table(data),
        ica=tables.accuracy_table(data, "ica"),
        pia=tables.accuracy_table(data, "pia"),
        versions=tables.versions_table(data),
    )
