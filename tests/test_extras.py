"""The extras of pyproject.toml, and the versions that constraints.txt pins."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]


def extra(name: str) -> list[Requirement]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return [
        Requirement(one) for one in tomllib.loads(text)["project"]["optional-dependencies"][name]
    ]


def constraints() -> dict[str, SpecifierSet]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {one.name: one.specifier for one in found}


@pytest.mark.parametrize("name", ["gpu-cu12", "gpu-cu13"])
def test_everything_for_a_cuda_is_pinned(name: str) -> None:
    parts = extra(name)
    assert [len(one.specifier) for one in parts] == [1] * 4
    assert all(str(one.specifier).startswith("==") for one in parts)


def test_pins_of_cuda_13_are_those_of_the_constraints() -> None:
    pinned = constraints()
    shared = {one.name: one.specifier for one in extra("gpu-cu13") if one.name in pinned}
    assert set(shared) == {"cupy-cuda13x", "nvidia-cuda-nvrtc", "torch"}
    assert shared == {name: pinned[name] for name in shared}


@pytest.mark.parametrize("name", ["gpu", "test"])
def test_pins_satisfy_the_open_extras(name: str) -> None:
    pinned = constraints()
    for one in extra(name):
        versions = [pin.version for pin in pinned.get(one.name, ())]
        assert all(one.specifier.contains(version) for version in versions), one
