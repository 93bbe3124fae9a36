import re
from pathlib import Path

import numpy as np
import pytest

from offsim.accuracy.sensitivity import Sensitivity
from offsim.errors import InputError
from offsim.files import write_json
from offsim.report.sensitivity import (
    experts_figure,
    figures,
    joints_figure,
    layers_figure,
    matrices_figure,
)
from offsim.report.sensitivity_page import write_sensitivity_report
from offsim.report.style import png
from offsim.study.sensitivity import sensitivity
from offsim.study.sensitivity_design import Timing
from tests.report.test_page import _read
from tests.study.sensitive import EXPERTS, FACTS, LAYERS, QuadraticMeter, options


def measured(folder: Path, minutes: float, patch: pytest.MonkeyPatch) -> Sensitivity:
    patch.setattr("offsim.study.sensitivity.timed", lambda *_: Timing(cell_s=0.5, ask_s=0.5))
    return sensitivity(folder, options(minutes), QuadraticMeter())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Sensitivity:
    with pytest.MonkeyPatch.context() as patch:
        return measured(tmp_path_factory.mktemp("found"), 2, patch)


def texts(figure: object) -> str:
    return " ".join(text.get_text() for text in figure.findobj() if hasattr(text, "get_text"))  # type: ignore[attr-defined]


def test_there_is_a_figure_for_what_was_measured(
    found: Sensitivity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(figures(found)) == {"layers", "matrices", "experts", "joints"}
    assert set(figures(measured(tmp_path, 0.01, monkeypatch))) == {"layers", "joints"}


def test_layers_show_every_measured_point_and_the_model(found: Sensitivity) -> None:
    figure = layers_figure(found)
    heat, curves = figure.axes
    assert len(heat.texts) == FACTS.layers * len(found.ladder)
    points = {str(line.get_label()): line for line in curves.get_lines()}
    for layer, cost in enumerate(LAYERS):
        shown = np.asarray(points[str(layer)].get_ydata(), float)
        assert shown == pytest.approx(cost * np.array(found.ladder) ** 2)
    assert {"MEASURED", "ESTIMATED"} <= {text.get_text() for text in figure.texts}
    assert "in every layer" in texts(figure)


def test_a_fall_is_in_the_title(found: Sensitivity) -> None:
    fallen = found.rises[1].model_copy(update={"falls": (found.cells[0].bound,)})
    rises = (found.rises[0], fallen, found.rises[2])
    assert "in 1 of 3 layers it falls" in texts(
        layers_figure(found.model_copy(update={"rises": rises}))
    )


def test_bars_are_as_high_as_what_was_measured(found: Sensitivity) -> None:
    figure = matrices_figure(found)
    bounds = sorted({cell.bound.value for cell in found.cells if cell.place.matrix})
    heights = sorted(bar.get_height() for bar in figure.axes[0].patches)  # type: ignore[attr-defined]
    cells = [c for c in found.cells if c.place.matrix and c.bound.value == bounds[0]]
    assert heights == pytest.approx(sorted(cell.kl.mean for cell in cells))
    assert "down 50.0 %" in texts(figure)


def test_the_experts_that_cost_most_are_counted(found: Sensitivity) -> None:
    figure = experts_figure(found)
    costs = np.sort(np.outer(LAYERS, EXPERTS).ravel())[::-1]
    half = int((costs.cumsum() < costs.sum() / 2).sum()) + 1
    assert f"comes from {half} of 12" in texts(figure)
    assert len(figure.axes[0].texts) == costs.size


def test_joint_injections_are_points_of_predicted_over_measured(found: Sensitivity) -> None:
    scatter, drop = joints_figure(found).axes
    points = [line.get_xydata()[0].tolist() for line in scatter.get_lines()[1:]]  # type: ignore[index, union-attr]
    assert points == [[joint.kl.mean, joint.predicted.mean] for joint in found.joints]
    markers = [line for line in drop.get_lines() if line.get_marker() == "o"]
    assert len(markers) == len(found.joints)


def test_the_picture_is_a_function_of_the_file(found: Sensitivity) -> None:
    image = png(matrices_figure(found))
    assert image.startswith(b"\x89PNG")
    assert image == png(matrices_figure(found))


def test_the_page_is_whole_and_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(tmp_path, 2, monkeypatch)
    path = write_sensitivity_report(tmp_path)
    page, text = _read(path), path.read_text(encoding="utf-8")
    assert not page.open
    assert "script" not in page.tags
    assert "://" not in re.sub(r"base64,[^\"]*", "", text)
    drawn = {file.stem for file in tmp_path.glob("*.png")}
    assert drawn == {"layers", "matrices", "experts", "joints"}
    assert len(page.images) == 4
    assert "rises with the bound in all 3 layers: at every step in 3 of them" in page.text
    assert "all are within 25%, up to a predicted KL of" in page.text
    assert found.machine is not None
    assert f"{found.machine.cores} cores" in page.text
    assert "says nothing of another one" in page.text
    assert "[ESTIMATED]: curve" in page.text
    before = path.read_bytes()
    assert write_sensitivity_report(tmp_path).read_bytes() == before


def test_an_older_file_has_a_page_that_says_what_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measured(tmp_path, 0.01, monkeypatch)
    older = found.model_copy(
        update={"machine": None, "offsim": None, "seconds": None, "additivity": None}
    )
    write_json(tmp_path / "sensitivity.json", older.model_dump(mode="json", exclude_none=True))
    page = _read(write_sensitivity_report(tmp_path, tmp_path / "other" / "page.html"))
    assert "on a machine and at a time that the file does not say" in page.text
    assert "time of all injections not in the file" in page.text
    assert "Do losses add up?" not in page.text
    assert len(page.images) == 1


def test_a_folder_without_a_sensitivity_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sensitivity\.json: no such file; make the folder with"):
        write_sensitivity_report(tmp_path)
