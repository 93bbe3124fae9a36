import numpy as np
import pytest

from offsim.report.breakevens import breakeven_figure
from offsim.report.style import png
from offsim.study.breakeven import breakevens
from tests.builders import codec_figures
from tests.study.cases import ALTERNATING, case


def test_each_codec_is_a_line_and_each_crossing_a_mark() -> None:
    raw = codec_figures(blob_bytes=10**9)
    pays = codec_figures("cuszp", 0.5, blob_bytes=5 * 10**8, decode_s=0.5)
    never = codec_figures("cuszp", 0.25, blob_bytes=10**9, decode_s=0.5)
    found = breakevens(case(ALTERNATING, raw, pays, never, link=1e9))
    figure = breakeven_figure(found, "lru 1")
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    assert "cuszp 0.25: never" in lines
    assert "raw" in lines
    below = next(str(label) for label in lines if str(label).startswith("cuszp 0.5: below"))
    across = np.asarray(lines[below].get_xdata())
    assert len(across) == len(found.bandwidths) + 1
    assert (np.diff(across) > 0).all()
    marks = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert [float(mark.get_xdata()[0]) for mark in marks] == pytest.approx([1.0], rel=0.01)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert png(figure) == png(breakeven_figure(found, "lru 1"))
