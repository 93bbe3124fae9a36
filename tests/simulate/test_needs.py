import pytest

from offsim.calibration.schema import DiskFigures
from offsim.policy.policy import Policy
from offsim.simulate.needs import Needs, needs
from tests.builders import calibration, codec_figures

MACHINE = calibration(codec_figures(), codec_figures("cuszp", 0.5, blob_bytes=400))
EXPERT = MACHINE.model.expert_bytes
"""Of three layers of four."""


@pytest.mark.parametrize(
    ("policy", "device", "host"),
    [
        ({"slots": 2}, 6 * EXPERT, 12_000),
        ({"slots": 9}, 12 * EXPERT, 12_000),
        ({"slots": 2, "scope": "global", "extra": 1}, 7 * EXPERT, 12_000),
        ({"codec": "cuszp", "bound": 0.5, "slots": 2}, 6 * EXPERT, 4_800),
        ({"codec": "cuszp", "bound": 0.5, "slots": 2, "keep": "compressed"}, 6 * EXPERT, 4_800),
        ({"codec": "cuszp", "bound": 0.5, "slots": 4, "keep": "both"}, 12 * EXPERT, 4_800),
    ],
)
def test_slots_and_blobs_are_counted(policy: dict[str, object], device: int, host: int) -> None:
    assert needs(MACHINE, Policy.model_validate(policy)) == Needs(device, host)


def test_host_memory_beneath_which_there_is_a_disk_is_no_more_than_it_has() -> None:
    disk = DiskFigures(label="MEASURED", latency_s=0.5, bytes_per_s=500.0)
    machine = MACHINE.model_copy(update={"disk": disk})
    assert needs(machine, Policy(slots=1, host_bytes=5_000)).host_bytes == 5_000
    assert needs(machine, Policy(slots=1, host_bytes=50_000)).host_bytes == 12_000
