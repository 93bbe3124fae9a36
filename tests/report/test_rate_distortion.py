from dataclasses import asdict

import pandas as pd
import pytest

from offsim.calibration.curve import curve
from offsim.codec import codec_named
from offsim.codec.bounds import Bound
from offsim.report.rate_distortion import rate_distortion_figure
from offsim.report.style import png
from tests.codec.checks import weights_like


@pytest.fixture(scope="module")
def points() -> pd.DataFrame:
    names = ("raw", "cuszp", "cuszp:mode=plain", "sz3", "rtn-int4")
    codecs = [codec_named(name) for name in names]
    found = curve(weights_like(64, 64), codecs, [Bound(2.0**p) for p in (-9, -8, -7)], 1)
    return pd.DataFrame([asdict(point) for point in found])


def test_every_codec_has_a_line_and_the_ideal_is_lowest(points: pd.DataFrame) -> None:
    figure = rate_distortion_figure(points, "weights")
    error, speed = figure.axes
    lines = {str(line.get_label()): line for line in error.get_lines()}
    ideal = lines.pop("ideal: entropy of a uniform quantiser")
    assert set(lines) == set(points["codec"])
    for name in ("cuszp", "sz3"):
        assert (lines[name].get_xdata() > sorted(ideal.get_xdata())).all()
    assert list(lines["raw"].get_xdata()) == [16, 16]
    assert len(speed.get_lines()) == 1 + points["codec"].nunique()
    assert "MEASURED" in [text.get_text() for text in figure.texts]


def test_the_picture_is_a_function_of_the_table(points: pd.DataFrame) -> None:
    image = png(rate_distortion_figure(points, "weights"))
    assert image.startswith(b"\x89PNG")
    assert image == png(rate_distortion_figure(points, "weights"))
