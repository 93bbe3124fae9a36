import pandas as pd

from offsim.report.held_out import held_out_figure, spans
from offsim.report.style import png
from offsim.study.measured import Engine, held_out, model_of
from tests.study.logs import BYTES, known, logged, routed

TRACE = routed()
ENGINE = Engine(30 * BYTES)
LOG = logged(TRACE, ENGINE, known(TRACE))


def test_tokens_are_drawn_in_two_panels() -> None:
    found = held_out(LOG, TRACE, ENGINE, model=model_of(TRACE), split="alternate")
    figure = held_out_figure(found, "run.csv")
    above, below = figure.axes
    measured, simulated, baseline = above.lines
    assert list(measured.get_ydata()) == list(1e3 * found.tokens["wall_s_measured"])
    assert list(simulated.get_ydata()) == list(1e3 * found.tokens["wall_s_simulated"])
    assert baseline.get_label() == "mean of the fitted tokens"
    assert len(above.patches) == len(below.patches) == 3  # blocks that were fitted on
    assert png(figure) == png(held_out_figure(found, "run.csv"))


def test_a_log_without_parts_has_one_panel() -> None:
    log = type(LOG)("run.csv", LOG.wall_s)
    machine = known(TRACE)
    found = held_out(log, TRACE, ENGINE, model=model_of(TRACE), calibration=machine)
    figure = held_out_figure(found, "run.csv")
    assert len(figure.axes) == 1
    assert len(figure.axes[0].lines) == 2
    assert not figure.axes[0].patches
    assert png(figure).startswith(b"\x89PNG")


def test_spans() -> None:
    assert spans(pd.Series([True, True, False, True])) == [(0, 1), (3, 3)]
    assert spans(pd.Series([False])) == []
