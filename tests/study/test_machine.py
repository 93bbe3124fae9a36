import platform
from pathlib import Path

import pytest

from offsim.study import machine


def test_the_cpu_has_the_name_that_the_system_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "CPUINFO", info)
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert machine.cpu_name() == platform.machine()
    info.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2: GHz\nmodel name\t: other\n")
    assert machine.cpu_name() == "Some CPU @ 2: GHz"
