import copy

import pytest
import torch
from transformers import PreTrainedModel
from transformers.models.auto import AutoModelForCausalLM

from offsim.errors import InputError
from offsim.model.depth import keep_first
from offsim.model.experts import expert_modules
from offsim.model.generate import greedy_tokens
from offsim.model.hook import Resident, handled
from tests.families import FAMILIES, family

KEPT = dict.fromkeys(FAMILIES, 2) | {"qwen2-moe": 3, "deepseek-v2": 3, "deepseek-v3": 3}
"""Layers with the first two MoE layers; the other ones are dense."""


def made_shorter(name: str, model: PreTrainedModel, layers: int) -> PreTrainedModel:
    """A model that was built with so many layers, with the weights of another."""
    config = FAMILIES[name]()
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    short = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    told = short.load_state_dict(model.state_dict(), strict=False)
    assert not told.missing_keys
    return short


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_the_model_that_was_built_with_fewer_layers(name: str) -> None:
    model = family(name)
    expected = made_shorter(name, model, KEPT[name])
    cut = copy.deepcopy(model)
    keep_first(cut, 2)
    assert len(expert_modules(cut)) == 2
    assert cut.config.num_hidden_layers == KEPT[name]
    ids = torch.tensor([[5, 6, 7, 90]])
    with torch.inference_mode(), handled(cut, Resident(cut)):
        found = cut(input_ids=ids).logits
    with torch.inference_mode(), handled(expected, Resident(expected)):
        assert torch.equal(found, expected(input_ids=ids).logits)
    with handled(cut, Resident(cut)), handled(expected, Resident(expected)):
        assert greedy_tokens(cut, [5, 6, 7], 6) == greedy_tokens(expected, [5, 6, 7], 6)


@pytest.mark.parametrize("layers", [0, 4])
def test_layers_that_are_not_there_are_refused(layers: int) -> None:
    with pytest.raises(InputError, match=f"has 3 MoE layers, not {layers}"):
        keep_first(family("mixtral"), layers)
