from email.message import Message
from importlib import metadata

import pytest

from offsim.cli.probes import cuda, extras, packages
from offsim.cli.probes.base import Group, examine
from offsim.cli.probes.cuda import Device, Driver

DEVICE = Device("some GPU", 80_000_000_000, (9, 0))
WANTS = (
    "numpy>=2",
    'here>=1; extra == "one"',
    'here[part]>=1; extra == "gpu-cu12"',
    'absent>=1; extra == "gpu-cu12"',
    'absent==1; extra == "gpu-cu13"',
    'elsewhere; sys_platform == "none" and extra == "empty"',
    'old>=2; extra == "zfp"',
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """An offsim with few extras, on a machine with two packages and no device."""
    text = Message()
    for line in WANTS:
        text["Requires-Dist"] = line
    for name in ("zfp", "one", "gpu-cu12", "gpu-cu13", "empty"):
        text["Provides-Extra"] = name
    versions = {"here": "1.5+cpu", "numpy": "2.1", "old": "1.9"}
    monkeypatch.setattr(metadata, "metadata", lambda _: text)
    monkeypatch.setattr(packages, "installed", versions.get)
    monkeypatch.setattr(cuda, "driver", lambda: None)


def test_an_extra_is_what_it_adds() -> None:
    assert packages.extras() == ["empty", "gpu-cu12", "gpu-cu13", "one", "zfp"]
    assert [one.name for one in packages.requirements()] == ["numpy"]
    assert [one.name for one in packages.requirements("one")] == ["here"]
    assert packages.requirements("empty") == []


def test_each_extra_is_a_row() -> None:
    rows = {row.what: row.found for row in examine([Group("extras", extras.probes)])}
    assert str(rows["extra one"]) == "works: here 1.5+cpu"
    assert str(rows["extra empty"]) == "works: needs nothing on this system"
    assert str(rows["extra zfp"]) == "missing: old 1.9 (wants >=2)"
    assert rows["extra zfp"].remedy == "pip install 'offsim[zfp]'"
    assert str(rows["extra gpu-cu12"]) == "missing: no absent, the rest is there"


@pytest.mark.parametrize(
    ("driver", "remedies"),
    [
        (None, []),
        (Driver((13, 0), ()), []),
        (Driver((12, 8), (DEVICE,)), ["gpu-cu12"]),
        (Driver((13, 1), (DEVICE,)), ["gpu-cu13"]),
        (Driver((14, 0), (DEVICE,)), ["gpu-cu13"]),
    ],
)
def test_of_the_extras_for_cuda_the_one_that_fits_is_named(
    monkeypatch: pytest.MonkeyPatch, driver: Driver | None, remedies: list[str]
) -> None:
    monkeypatch.setattr(cuda, "driver", lambda: driver)
    named = [name for name in ("gpu-cu12", "gpu-cu13") if extras.extra(name).remedy]
    assert named == remedies


def test_without_metadata_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: str) -> Message:
        raise metadata.PackageNotFoundError("offsim")

    monkeypatch.setattr(metadata, "metadata", none)
    (row,) = examine([Group("extras", extras.probes)])
    assert row.found.state == "missing"
    assert row.found.remedy == "pip install -e ."
