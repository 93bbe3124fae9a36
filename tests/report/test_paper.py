import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from offsim.errors import FormatError, InputError
from offsim.files import write_json
from offsim.report.paper import write_paper_report
from offsim.report.paper_data import PaperData, load_paper
from offsim.report.paper_figures import rate_figure, tasks_figure
from offsim.report.paper_tables import sources_table
from offsim.study.paper.comparisons import comparisons_table
from offsim.study.paper.design import PARTS, Entry
from offsim.study.paper.estimates import base_table, cells_table, tasks_table
from offsim.study.paper.results import Results
from offsim.study.paper.takeaways import takeaways_table
from offsim.study.paper.tolerance import tolerance_table
from offsim.trace.statistics import use_table
from tests.builders import trace_of
from tests.report.test_page import _read
from tests.study.paper.made import PLAN, RIGHT, UNEVEN, made

TRACE = trace_of([[[0, 1]] * 9, [[1, 2]] * 9])


def study(out: Path, *parts: str) -> Path:
    def ica(entry: Entry) -> float:
        return RIGHT - 0.2 * entry.level

    known, results = made(out, parts, ica, uneven=UNEVEN), Results(out, PLAN)
    tasks = tasks_table(known, results)
    tables = {
        "cells": cells_table(known, results, None),
        "tasks": tasks,
        "base": base_table(results, ["mixed", "chains"]),
        "takeaways": takeaways_table(known, results, TRACE),
        "comparisons": comparisons_table(known, results),
        "tolerance": tolerance_table(tasks[tasks["part"] == "layers"]),
        "usage": use_table(TRACE),
    }
    for name, table in tables.items():
        table.to_csv(out / f"{name}.csv", index=False)
    counted = {one: {"cells": 3, "measured": 3 * (one in parts), "seconds": 60.0} for one in PARTS}
    facts = {
        "offsim": "0",
        "model": "made",
        "layers": 9,
        "experts": 8,
        "top_k": 2,
        "plan": PLAN.model_dump(),
        "items": {"mixed": 440, "chains": 400},
        "parts": counted,
        "machine": {"cpu": "x", "cores": 2, "measured_on": "2026-01-01"},
    }
    write_json(out / "paper.json", facts)
    return out


def test_the_page_is_whole_and_alone(tmp_path: Path) -> None:
    path = write_paper_report(study(tmp_path, "6", "9", "matrices"))
    page, text = _read(path), path.read_text(encoding="utf-8")
    assert not page.open
    assert "script" not in page.tags
    assert "://" not in re.sub(r"base64,[^\"]*", "", text)
    drawn = {file.stem for file in (tmp_path / "figures").iterdir()}
    assert drawn == {"depth", "parts"}
    assert len(page.images) == len(drawn)
    assert "says nothing of a large one" in page.text
    assert "Table 6: all experts of one layer" in page.text
    assert "33 / 71" in page.text  # the paper's, beside ours
    assert "58 / ? (PIA unreadable)" in page.text
    assert "This is a quick look" in page.text
    assert (
        "Not all cells are measured of the parts 3, 4, 5, 7, 8, codecs, experts, layers, real, "
        "uneven:" in page.text
    )
    assert (
        text.count("MEASURED</span>") == len(page.images) + page.tags.count("table") - 1
    )  # of facts


def test_two_bounds_of_the_size_of_one_are_on_the_page(tmp_path: Path) -> None:
    page = _read(write_paper_report(study(tmp_path, "uneven")))
    assert "Two bounds of the size of one, in all experts, by cuszp" in page.text
    assert "mean-abs:0.6, mean-abs:0.15 in top4:all" in page.text
    assert "down tight, gate and up loose against one bound" in page.text
    assert "not corrected for the number of these 8 pairs" in page.text


def test_what_is_not_measured_is_not_shown(tmp_path: Path) -> None:
    page = _read(write_paper_report(study(tmp_path, "8")))
    assert page.images == []
    assert "Table 8" in page.text
    assert "Table 6:" in page.text  # in the list of what is measured
    assert "Matrices, and hot and cold experts" not in page.text


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"paper\.json.*offsim study paper --out"):
        load_paper(tmp_path)
    study(tmp_path, "8")
    table = pd.read_csv(tmp_path / "cells.csv").drop(columns="p_holm")
    table.to_csv(tmp_path / "cells.csv", index=False)
    with pytest.raises(FormatError, match=r"cells\.csv: it lacks the column p_holm"):
        load_paper(tmp_path)
    (tmp_path / "cells.csv").unlink()
    with pytest.raises(InputError, match=r"cells\.csv: no such table"):
        load_paper(tmp_path)


def test_the_map_of_tasks_has_a_panel_for_each(tmp_path: Path) -> None:
    data = load_paper(study(tmp_path, "layers"))
    figure = tasks_figure(_of(data, tasks=data.tasks[data.tasks["task"].isin(["add", "sub"])]))
    drawn = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title(loc="left") for axis in drawn] == ["all tasks", "add", "sub"]
    shown = {text.get_text() for text in drawn[0].texts}
    assert shown == {"-10", "-20", "-30"}  # points, at 0.5, 1 and 1.5 sigma
    assert not [axis for axis in figure.axes if axis.axison and not axis.texts]


def test_bits_are_drawn_of_what_has_a_size(tmp_path: Path) -> None:
    data = load_paper(study(tmp_path, "6"))
    cells = data.cells.assign(
        part="codecs",
        how="equal bound",
        source=["sz3", "sz3", "rtn-int8"] * 4,
        bound=range(12),
        bits=range(12),
    )
    cells.loc[cells["bits"] > 5, "bits"] = float("nan")
    figure = rate_figure(_of(data, cells=cells))
    lines = {line.get_label(): line.get_xdata() for line in figure.axes[0].lines}
    assert list(lines["sz3"]) == [0, 1, 3, 4]


def test_bits_of_an_ideal_code_are_estimated(tmp_path: Path) -> None:
    data = load_paper(study(tmp_path, "6"))
    cells = data.cells.assign(part="codecs", how="equal bound", bits=4.5, bound=range(12))
    labels = {"uniform": "ESTIMATED", "sz3": "MEASURED"}
    cells["source"] = ["uniform", "sz3"] * 6
    cells["bits_label"] = cells["source"].map(labels)
    found = _of(data, cells=cells)
    table = sources_table(found)
    assert table.labels == ("MEASURED", "ESTIMATED")
    assert {(row[0].text, row[4].text) for row in table.rows} == {
        ("uniform", "4.500 (ESTIMATED)"),
        ("sz3", "4.500"),
    }
    figure = rate_figure(found)
    assert "ESTIMATED" in {text.get_text() for text in figure.texts}
    (legend,) = figure.legends
    assert any("ESTIMATED" in text.get_text() for text in legend.get_texts())


def _of(data: PaperData, **tables: pd.DataFrame) -> PaperData:
    return replace(data, **tables)  # type: ignore[arg-type]
