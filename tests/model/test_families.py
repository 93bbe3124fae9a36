"""Every family of architectures through the one hook."""

import copy

import pytest
import torch
from transformers import PreTrainedModel

from offsim.model.experts import (
    MATRICES,
    ExpertShape,
    ExpertWeights,
    change_experts,
    expert_modules,
    matrices_of,
    shape_of,
    top_k_of,
)
from offsim.model.hook import Resident, handled
from offsim.model.routers import ahead, predicted, router_modules
from tests.families import EXPERTS, FAMILIES, HIDDEN, MOE_LAYERS, TOP_K, WIDTH, family

IDS = torch.tensor([[5, 6, 7, 8, 90, 100], [17, 3, 44, 9, 1, 127]])


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Not to be changed."""
    return family(request.param)


def name_of(model: PreTrainedModel) -> str:
    return next(name for name in FAMILIES if isinstance(model.config, type(FAMILIES[name]())))


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def test_shape_counts_moe_layers_alone(model: PreTrainedModel) -> None:
    layers = MOE_LAYERS[name_of(model)]
    assert shape_of(model) == ExpertShape(layers, EXPERTS, HIDDEN, WIDTH)
    assert top_k_of(model) == (2 if name_of(model) == "phimoe" else TOP_K)


def test_resident_experts_give_the_logits_of_transformers_own_code(model: PreTrainedModel) -> None:
    """They differ by rounding alone: ours are as far from float64 as those of transformers are."""
    model.set_experts_implementation("eager")
    exact, own = logits(copy.deepcopy(model).double()), logits(model)
    with handled(model, Resident(model)):
        found = logits(model)
    rounding, largest = float((own - exact).abs().max()), float(own.abs().max())
    assert largest > 1
    assert 0 < rounding < 1e-5 * largest
    assert float((found - exact).abs().max()) < 2 * rounding


def test_an_expert_computes_as_its_module_does(model: PreTrainedModel) -> None:
    """One expert alone, which no sum over others can hide."""
    module, resident = expert_modules(model)[1], Resident(model)
    model.set_experts_implementation("eager")
    hidden = torch.randn(4, HIDDEN, generator=torch.Generator().manual_seed(3))
    for expert in (0, EXPERTS - 1):
        ids, weights = torch.full((4, 1), expert), torch.full((4, 1), 0.7)
        with torch.inference_mode():
            own = module(hidden, ids, weights)
            torch.testing.assert_close(resident(1, hidden, ids, weights), own, rtol=1e-5, atol=1e-5)


def test_matrices_are_those_of_the_formula(model: PreTrainedModel) -> None:
    """By hand from the module's own parameters, in float64."""
    module = expert_modules(model)[0]
    gate, up, down = (weights.double() for weights in matrices_of(module, 2))
    assert gate.shape == up.shape == (WIDTH, HIDDEN)
    assert down.shape == (HIDDEN, WIDTH)
    hidden = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(4)).double()
    if name_of(model) == "gpt-oss":
        bias = module.gate_up_proj_bias[2].double()
        a, b = hidden @ gate.T + bias[0::2], hidden @ up.T + bias[1::2]
        a, b = a.clamp(max=7.0), b.clamp(-7.0, 7.0)
        out = ((b + 1) * a * torch.sigmoid(1.702 * a)) @ down.T + module.down_proj_bias[2].double()
    else:
        a = hidden @ gate.T
        out = (a * torch.sigmoid(a) * (hidden @ up.T)) @ down.T
    model.set_experts_implementation("eager")
    ids, weights = torch.full((3, 1), 2), torch.ones(3, 1)
    with torch.inference_mode():
        own = module(hidden.float(), ids, weights)
    torch.testing.assert_close(own.double(), out, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_change_experts_changes_every_weight_of_experts_and_no_other(name: str) -> None:
    model = family(name)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    change_experts(model, lambda _layer, _expert, matrix, weights: weights + 1 + matrix)
    for key, parameter in model.named_parameters():
        difference = parameter - before[key]
        if key.endswith("experts.down_proj"):
            torch.testing.assert_close(difference, torch.full_like(difference, 3.0))
        elif key.endswith("experts.gate_up_proj"):
            assert set(difference.round().unique().tolist()) == {1.0, 2.0}
        else:
            assert not difference.any(), key
    module = expert_modules(model)[0]
    own = ExpertWeights.of(module, 1).matrices
    for matrix, weights in enumerate(matrices_of(module, 1)):
        assert torch.equal(own[matrix], weights), MATRICES[matrix]


def test_routers_are_asked_ahead(model: PreTrainedModel) -> None:
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []
    resident, routers = Resident(model), router_modules(model)

    def watching(layer: int, hidden: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        calls.append((hidden.clone(), rest[0].clone()))
        return resident(layer, hidden, *rest)

    with torch.inference_mode(), handled(model, watching):
        model(input_ids=IDS)
        assert len(calls) == len(routers) == MOE_LAYERS[name_of(model)]
        for router, (hidden, ids) in zip(routers, calls, strict=True):
            assert torch.equal(predicted(router, hidden), ids)
        (early,) = ahead(routers, 0, calls[0][0], 1)
    later = calls[1][1]
    right = (early[:, :, None] == later[:, None]).any(2).float().mean()
    assert right > top_k_of(model) / EXPERTS, "no better than chance"
