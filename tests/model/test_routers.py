import pytest
import torch
from transformers import (
    DeepseekV3Config,
    GptOssConfig,
    MixtralConfig,
    OlmoeConfig,
    PreTrainedModel,
    Qwen2MoeConfig,
)
from transformers.models.auto import AutoModelForCausalLM

from offsim.errors import InputError
from offsim.model.hook import Resident, handled
from offsim.model.routers import ahead, check_own_choice, predicted, router_modules
from offsim.testbed.load import load

IDS = torch.tensor([[5, 6, 7, 8, 90, 100], [17, 3, 44, 9, 1, 127]])
SMALL = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "pad_token_id": 0,
}
CONFIGS = {
    "mixtral": lambda: MixtralConfig(**SMALL, num_local_experts=4),
    "qwen2": lambda: Qwen2MoeConfig(**SMALL, moe_intermediate_size=16, num_experts=4),
    "olmoe": lambda: OlmoeConfig(**SMALL, num_experts=4),
    "gpt-oss": lambda: GptOssConfig(**SMALL, head_dim=16, num_local_experts=4),
    "deepseek-v3": lambda: DeepseekV3Config(
        **SMALL,
        moe_intermediate_size=16,
        n_routed_experts=4,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
    ),
}


class Watch:
    """A handler that notes what the experts of each layer are called with."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.inner = Resident(model)
        self.calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(
        self, layer: int, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        self.calls.append((hidden.clone(), ids.clone()))
        return self.inner(layer, hidden, ids, weights)


def watched(model: PreTrainedModel) -> list[tuple[torch.Tensor, torch.Tensor]]:
    watch = Watch(model)
    with torch.inference_mode(), handled(model, watch):
        model(input_ids=IDS)
    return watch.calls


def assert_own_choice_is_predicted(model: PreTrainedModel) -> None:
    calls, routers = watched(model), router_modules(model)
    assert len(routers) == len(calls)
    with torch.inference_mode():
        for router, (hidden, ids) in zip(routers, calls, strict=True):
            assert torch.equal(predicted(router, hidden), ids)


def test_a_router_asked_with_the_hidden_states_of_its_layer_gives_what_it_chose(
    tiny_model: PreTrainedModel,
) -> None:
    assert_own_choice_is_predicted(tiny_model)


def test_a_router_that_chose_by_other_hidden_states_is_refused(tiny_model: PreTrainedModel) -> None:
    calls, routers = watched(tiny_model), router_modules(tiny_model)
    (hidden, ids), router = calls[1], routers[1]
    with torch.inference_mode():
        check_own_choice(router, 1, hidden, ids)
        with pytest.raises(
            InputError, match="TopKRouter of MoE layer 1 cannot be asked ahead: it does not choose"
        ):
            check_own_choice(router, 1, hidden, ids + 1)


def test_that_of_the_embedded_model_too() -> None:
    assert_own_choice_is_predicted(load())


@pytest.mark.parametrize("name", CONFIGS)
def test_routers_of_other_families_are_found_and_asked(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(CONFIGS[name]()).float().eval()
    routers = router_modules(model)
    layers = [layer.mlp for layer in model.model.layers if hasattr(layer.mlp, "experts")]
    beside = [getattr(block, "gate", None) or block.router for block in layers]
    assert [id(router) for router in routers] == [id(router) for router in beside]
    assert len(routers) == (2 if name == "deepseek-v3" else 3), "one of its layers is dense"
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for router in routers:
            with torch.no_grad():
                router.weight.normal_(generator=torch.Generator().manual_seed(1))
            noted = []
            hook = router.register_forward_hook(lambda _m, _i, out, noted=noted: noted.append(out))
            ids = predicted(router, hidden)
            hook.remove()
            assert ids.shape == (5, 2)
            logits = noted[0][0]
            assert logits.shape == (5, 4)
            torch.testing.assert_close(ids.sort().values, logits.topk(2).indices.sort().values)


def test_layers_ahead_are_asked_as_far_as_there_are_some(tiny_model: PreTrainedModel) -> None:
    routers = router_modules(tiny_model)
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = [predicted(router, hidden) for router in routers]
        for layer, distance, count in ((0, 1, 1), (0, 2, 2), (0, 9, 2), (1, 2, 1), (2, 1, 0)):
            found = ahead(routers, layer, hidden, distance)
            assert len(found) == count
            for ids, own in zip(found, expected[layer + 1 :], strict=False):
                assert torch.equal(ids, own)


class _Experts(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = torch.nn.Parameter(torch.zeros(2, 8, 4))
        self.down_proj = torch.nn.Parameter(torch.zeros(2, 4, 4))
        self.is_transposed = False


def test_a_model_without_a_router_is_refused() -> None:
    class Alone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = _Experts()

    for model in (Alone(), _Experts()):
        with pytest.raises(
            InputError, match=r"has no router \(gate or router\) beside the experts"
        ):
            router_modules(model)


class Biased(torch.nn.Module):
    def forward(self, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return hidden + bias


class Pair(torch.nn.Module):
    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return hidden, hidden


class Scores(torch.nn.Module):
    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return hidden, hidden.argmax(1), hidden


@pytest.mark.parametrize("router", [Biased(), Pair(), Scores(), torch.nn.Linear(4, 4)])
def test_a_router_that_answers_in_another_way_is_refused(router: torch.nn.Module) -> None:
    with pytest.raises(InputError, match=f"{type(router).__name__} cannot be asked ahead"):
        predicted(router, torch.zeros(3, 4))
