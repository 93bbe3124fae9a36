import copy

import pytest
import torch
from transformers import PreTrainedModel

from offsim.model.experts import ExpertWeights, expert_modules
from offsim.model.formulas import formula_of, is_plain, plain
from offsim.model.hook import Resident, handled
from tests.families import FAMILIES, HIDDEN, family

IDS = torch.tensor([[5, 6, 7, 8, 90, 100]])


@pytest.mark.parametrize("name", FAMILIES)
def test_experts_without_biases_and_with_silu_are_plain(name: str) -> None:
    model = family(name)
    assert [is_plain(module) for module in expert_modules(model)] == [name != "gpt-oss"] * len(
        expert_modules(model)
    )
    assert (formula_of(model) is plain) == (name != "gpt-oss")


def test_plain_experts_run_by_themselves(tiny_model: PreTrainedModel) -> None:
    weights = ExpertWeights.of(expert_modules(tiny_model)[0], 0)
    assert formula_of(tiny_model)(0, 0, weights) is weights


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_another_activation_is_that_of_the_model(activation: str) -> None:
    model = family("qwen3-moe", hidden_act=activation)
    assert formula_of(model) is not plain
    model.set_experts_implementation("eager")
    with torch.inference_mode():
        exact, own = copy.deepcopy(model).double()(IDS).logits, model(IDS).logits
        with handled(model, Resident(model)):
            found = model(IDS).logits
    rounding = (own - exact).abs().max()
    assert (found - exact).abs().max() < 2 * rounding < 1e-4
    silu = family("qwen3-moe")
    with torch.inference_mode():
        assert (silu(IDS).logits - own).abs().max() > 100 * rounding, "it would not be noticed"


def test_a_bias_is_the_one_that_the_model_has_when_an_expert_runs() -> None:
    """A device moves the biases of a model after its formula was made."""
    model = family("gpt-oss")
    module = expert_modules(model)[1]
    run = formula_of(model)(1, 3, ExpertWeights.of(module, 3))
    hidden = torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = run(hidden)
        model.model.layers[1].mlp.experts.down_proj_bias.data = (
            model.model.layers[1].mlp.experts.down_proj_bias.data + 1
        )
        torch.testing.assert_close(run(hidden), before + 1)
