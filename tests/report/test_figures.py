import io
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import matplotlib.image as images
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from offsim.report import trace_figure
from offsim.report.data import StudyData, load_study
from offsim.report.figures import (
    breakdown_figure,
    calibration_figure,
    compute_figure,
    policies_figure,
    predicted_figure,
)
from offsim.report.heatmaps import accuracy_figure
from offsim.report.rate_distortion import rate_distortion_figure
from offsim.report.style import codec_colour, png
from offsim.report.text import bound_text, percent, policies
from tests.report.conftest import made_trace

NAMES = (
    "calibration",
    "rate_distortion",
    "compute",
    "policies",
    "breakdown",
    "predicted",
    "accuracy",
    "usage",
)
BOTH = ("policies", "breakdown", "predicted")


def _figure(name: str, data: StudyData) -> Figure:
    return {
        "calibration": lambda: calibration_figure(data.curve, data.codecs),
        "rate_distortion": lambda: rate_distortion_figure(data.curve, "weights"),
        "compute": lambda: compute_figure(data.compute),
        "policies": lambda: policies_figure(data.check),
        "breakdown": lambda: breakdown_figure(data.breakdown, data.check),
        "predicted": lambda: predicted_figure(data.check),
        "accuracy": lambda: accuracy_figure(data.accuracy),
        "usage": lambda: trace_figure(data.trace),
    }[name]()


def _texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def _pixels(image: bytes) -> np.ndarray:
    return np.asarray(images.imread(io.BytesIO(image), format="png"))


@pytest.mark.parametrize("name", NAMES)
def test_figure(name: str, study_folder: Path) -> None:
    before, settings = plt.get_fignums(), dict(mpl.rcParams)
    data = load_study(study_folder)
    figure = _figure(name, data)
    image = png(figure)
    assert png(_figure(name, data)) == image
    pixels = _pixels(image)
    assert pixels.shape[1] >= 1600
    assert len(np.unique(pixels[..., :3].sum(axis=2))) > 10
    texts = _texts(figure)
    said = {text.get_text() for text in texts}
    assert "MEASURED" in said
    assert ("SIMULATED" in said) == (name in BOTH)
    assert figure.get_suptitle()
    assert min(text.get_fontsize() for text in texts) >= 9
    assert plt.get_fignums() == before
    assert dict(mpl.rcParams) == settings
    _check_nothing_is_cut(figure)


def _check_nothing_is_cut(figure: Figure) -> None:
    inside = figure.bbox.padded(1)
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = {id(tick) for axis in axes for tick in axis.get_ticklabels(which="both")}
    for text in _texts(figure):
        box = text.get_window_extent()
        # ticks beyond the limits of their axis exist and are not drawn
        if id(text) not in ticks:
            assert inside.x0 <= box.x0 < box.x1 <= inside.x1, text
            assert inside.y0 <= box.y0 < box.y1 <= inside.y1, text
    heads = [text.get_window_extent() for text in figure.texts]
    assert not any(one.overlaps(other) for one, other in combinations(heads, 2))


@pytest.mark.parametrize(("layers", "experts"), [(1, 2), (48, 128)])
def test_trace_of_any_size(layers: int, experts: int) -> None:
    assert len(np.unique(_pixels(png(trace_figure(made_trace(layers, experts)))))) > 10


def test_trace_without_neighbours() -> None:
    figure = trace_figure(made_trace(tokens=2))
    assert "no adjacent tokens" in {text.get_text() for text in _texts(figure)}


def test_figure_may_be_saved_plainly(tmp_path: Path) -> None:
    trace_figure(made_trace()).savefig(tmp_path / "use.png")
    trace_figure(made_trace()).savefig(tmp_path / "use.svg")
    assert (tmp_path / "use.png").stat().st_size > 1000


def test_one_scenario(study_folder: Path) -> None:
    one = load_study(study_folder).check.head(1)
    assert len(policies_figure(one).axes) == 1
    assert predicted_figure(one).get_suptitle().startswith("0 of 1")


def test_mean_outside_its_band(study_folder: Path) -> None:
    compute = load_study(study_folder).compute
    compute["p90_ms"] = 0.95 * compute["ms"]
    assert compute_figure(compute).axes


def test_four_links_and_a_further_member(study_folder: Path) -> None:
    check = load_study(study_folder).check
    check["link_MB_per_s"] = np.resize([10.0, 20.0, 40.0, 80.0], len(check))
    check.insert(4, "prefetch", ["none", "next"] * (len(check) // 2))
    assert sum(axes.get_visible() for axes in policies_figure(check).axes) == 4
    assert policies(check)[:2] == ["raw, 1 slot, none", "raw, 1 slot, next"]


def test_bars_say_what_was_measured(study_folder: Path) -> None:
    check = load_study(study_folder).check
    figure = policies_figure(check)
    widths = [patch.get_width() for axes in figure.axes for patch in axes.patches]
    assert sorted(widths) == pytest.approx(sorted(1e3 * check["tpot_measured"]))


def test_stacks_sum_to_the_step(study_folder: Path) -> None:
    data = load_study(study_folder)
    figure = breakdown_figure(data.breakdown, data.check)
    widths = sum(patch.get_width() for axes in figure.axes for patch in axes.patches)
    assert widths == pytest.approx(1e3 * float(data.breakdown["seconds"].sum()))


def test_colours_are_distinct_and_constant() -> None:
    known = ("raw", "cuszp", "sz3")
    assert len({codec_colour(codec) for codec in known}) == 3
    assert codec_colour("new") == codec_colour("new") not in {codec_colour(c) for c in known}


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        (2.0**-7, "2⁻⁷"),
        (2.0**-11, "2⁻¹¹"),
        (0.5, "2⁻¹"),
        (2.0**-4.5, "2⁻⁴·⁵"),
        (0.0441942, "2⁻⁴·⁵"),
        (0.003, "0.003"),
        (0.0442, "0.0442"),
        (1.0, "1"),
        (0, "0"),
    ],
)
def test_bound_text(bound: float, text: str) -> None:
    assert bound_text(bound) == text


def test_percent() -> None:
    assert percent(0.0523) == "5.2 %"
    assert percent(-0.0523, signed=True) == "-5.2 %"
    assert percent(np.nan) == "n/a"
