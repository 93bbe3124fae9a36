from pathlib import Path

import pytest

from offsim.calibration.schema import Calibration
from offsim.files import read_yaml

MACHINES = sorted((Path(__file__).parents[2] / "calibration" / "machines").glob("*.yaml"))


def test_there_is_a_calibration() -> None:
    assert MACHINES


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.stem)
def test_a_committed_calibration_is_whole_and_keeps_its_bounds(path: Path) -> None:
    calibration = read_yaml(path, Calibration)
    assert {"raw", "sz3", "cuszp"} <= {figures.codec for figures in calibration.codecs}
    assert all(figures.largest_error <= figures.bound for figures in calibration.codecs)
    assert calibration.compute.expert[0].seconds.label == "MEASURED"
