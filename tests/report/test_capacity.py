import pytest

from offsim.report.capacity import capacity_figure
from offsim.study.capacity import Capacity, Load, Target

LOADS = (
    Load(1.0, 0.2, 0.01, 30.0, 1.0, True),
    Load(2.0, 0.4, 0.02, 50.0, 1.5, True),
    Load(4.0, 3.0, 0.05, 60.0, 4.0, False),
)


def test_both_latencies_and_the_target_are_drawn() -> None:
    found = Capacity("SIMULATED", Target(ttft_s=0.5), 100, 3, LOADS)
    figure = capacity_figure(found, "raw")
    ttft, tpot = figure.axes
    assert list(ttft.lines[0].get_ydata()) == pytest.approx([200, 400, 3000])
    assert list(tpot.lines[0].get_ydata()) == pytest.approx([10, 20, 50])
    assert [text.get_text() for text in ttft.texts] == ["target"]
    assert not tpot.texts
    assert figure.get_suptitle() == "A machine holds 2 requests/s: raw"
    assert "SIMULATED" in {text.get_text() for text in figure.texts}


def test_a_machine_that_holds_nothing_is_said_to() -> None:
    found = Capacity("SIMULATED", Target(ttft_s=0.1), 100, 3, LOADS[2:])
    assert capacity_figure(found, "raw").get_suptitle() == "A machine holds no rate: raw"
