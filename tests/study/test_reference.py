import pytest

from offsim.study.reference import MIXTRAL_PCIE4, pace
from tests.builders import calibration


def test_mixtral_over_pcie4_by_hand() -> None:
    # 352.3 MB at 32 GB/s is 11.01 ms; (83.9 + 2 x 352.3) MB at 300 GB/s is 2.63 ms.
    assert MIXTRAL_PCIE4.expert_bytes / MIXTRAL_PCIE4.link_bytes_per_s == pytest.approx(
        0.01101, rel=1e-3
    )
    assert MIXTRAL_PCIE4.ratio == pytest.approx(4.189, rel=1e-3)


def test_the_pace_gives_this_machine_the_same_ratio() -> None:
    figures = calibration(dense_s=1.0, expert_s=0.5)  # a layer of 2 s; an expert of 6 bytes
    assert 6 / pace(figures) / 2.0 == pytest.approx(MIXTRAL_PCIE4.ratio)
