import shutil
from pathlib import Path

import pytest

from offsim.cli.probes import libraries, packages
from offsim.codec import cuszp_kernels
from offsim.codec.cuszp_kernels.loops import Loops
from offsim.simulate.fast import compiled


def test_what_this_installation_has_works() -> None:
    for look in (libraries.torch, libraries.numba):
        assert look().state == "works", look
    assert libraries.required().state == "works"


def test_a_required_package_that_is_missing_or_old_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions = {"numpy": None, "scipy": "0.1"}
    installed = packages.installed
    monkeypatch.setattr(packages, "installed", lambda name: versions.get(name, installed(name)))
    found = libraries.required()
    assert found.state == "missing"
    assert "no numpy" in found.here
    assert "scipy 0.1 (wants >=" in found.here
    assert "install offsim again" in found.remedy


def test_the_core_is_compiled_or_its_absence_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = cuszp_kernels.library()
    if path is not None:
        assert libraries.core().state == "works"
    loops = Loops()
    monkeypatch.setattr(cuszp_kernels, "kernels", lambda: loops)
    monkeypatch.setattr(cuszp_kernels, "library", lambda: tmp_path / "core.so")
    assert libraries.core().state == "FAILS"  # it is there and was not loaded
    monkeypatch.setattr(cuszp_kernels, "library", lambda: None)
    found = libraries.core()
    assert found.state == "missing"
    assert loops.name in found.here
    assert "C compiler" in found.remedy


def test_the_compiler_says_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = tmp_path / "cc-of-mine"
    command.write_text("#!/bin/sh\necho 'mine 1.2'\necho more\n")
    command.chmod(0o755)
    monkeypatch.setenv("CC", f"{command} -pthread")
    assert str(libraries.compiler()) == "works: mine 1.2"


@pytest.mark.parametrize("compiled_core", [True, False])
def test_no_compiler_matters_only_without_the_core(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiled_core: bool
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    path = tmp_path if compiled_core else None
    monkeypatch.setattr(cuszp_kernels, "library", lambda: path)
    found = libraries.compiler()
    assert found.state == ("fact" if compiled_core else "missing")
    assert bool(found.remedy) != compiled_core


@pytest.mark.parametrize("there", [True, False])
def test_the_fast_engine_is_compiled_or_will_be(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(compiled, "is_compiled", lambda: there)
    found = libraries.engine()
    assert found.state == ("works" if there else "fact")
    assert ("half a minute" in found.here) != there
