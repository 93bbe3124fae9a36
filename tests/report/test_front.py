import pandas as pd
import pytest

from offsim.report.front import front_figure

EVERY = pd.DataFrame(
    {
        "tpot_s": [0.01, 0.02, 0.03, 0.03],
        "device_bytes": [9e9, 2e9, 1e9, 2e8],
        "kl": [0.1, 0.0, 0.0, 0.2],
        "policy.codec": ["cuszp", "raw", "raw", "cuszp"],
        "label": ["SIMULATED"] * 4,
    }
)


def test_units_are_those_of_the_axes() -> None:
    axes = front_figure(EVERY, EVERY[:2], ["tpot_s", "device_bytes"]).axes[0]
    (faint, *codecs, line) = axes.lines
    assert list(faint.get_xdata()) == pytest.approx([10, 20, 30, 30])
    assert list(faint.get_ydata()) == pytest.approx([9, 2, 1, 0.2])
    assert [one.get_label() for one in codecs] == ["cuszp", "raw"]
    assert len(line.get_xdata()) == 2
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")
    assert axes.get_xlabel() == "TPOT, ms"


def test_what_is_estimated_is_said_to_be() -> None:
    figure = front_figure(EVERY, EVERY[:2], ["tpot_s", "device_bytes", "kl"])
    texts = {text.get_text() for text in figure.texts}
    assert {"SIMULATED", "ESTIMATED"} <= texts
    assert len(figure.axes[0].lines) == 3  # the front of three aims is no line
    assert figure.get_suptitle() == "What no other scenario beats, beside kl"
