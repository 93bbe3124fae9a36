import sys
from types import ModuleType
from typing import Any

import pytest
from transformers import AutoConfig

from offsim.cli.probes import models
from offsim.model import hook
from tests.families import FAMILIES


def test_the_architectures_are_those_that_offsim_drives() -> None:
    def plain(name: str) -> str:
        return name.replace("-", "").replace("_", "")

    assert sorted(map(plain, models.ARCHITECTURES)) == sorted(map(plain, FAMILIES))


def test_all_of_them_are_driven_here() -> None:
    found = models.architectures()
    assert found.state == "works"
    assert found.here.startswith("9 of 9 ")


@pytest.mark.parametrize("name", ["llama", "jetmoe", "nosuchmodel"])
def test_another_architecture_is_not(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(models, "ARCHITECTURES", ("olmoe", name))
    found = models.architectures()
    assert found.state == "FAILS"
    assert found.here.startswith(f"1 of 2 are driven (olmoe); {name}: ")


def test_no_memory_is_taken_for_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    of = AutoConfig.for_model

    def seen(name: str, **changes: Any) -> Any:
        config = of(name, **changes)
        sizes.append(config.hidden_size)
        return config

    monkeypatch.setattr(AutoConfig, "for_model", seen)
    assert models.refused_by("deepseek_v3") == ""
    assert sizes == [7168]  # of the published model: tens of GB, were they allocated


def test_the_hook_is_there() -> None:
    assert models.hook().state == "works"


def test_a_function_that_is_not_registered_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "NAME", "another")
    assert models.hook().state == "FAILS"


def test_transformers_without_the_hook_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "transformers.integrations.moe"
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    found = models.hook()
    assert found.state == "missing"
    assert "ALL_EXPERTS_FUNCTIONS" in found.here


def test_the_embedded_model_computes_the_same_through_the_hook() -> None:
    found = models.embedded()
    assert found.state == "works"
    assert found.here.startswith("9 layers of 8 experts; ")


def test_other_logits_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "mixed", lambda hidden, *_: hidden)
    assert models.embedded().state == "FAILS"
