import pytest
import torch
from transformers import PreTrainedModel

from offsim.errors import InputError
from offsim.model.experts import expert_modules, matrices_of, shape_of
from offsim.model.hook import Fetched, Resident, handled

IDS = torch.tensor([[5, 6, 7, 8, 90, 100], [17, 3, 44, 9, 1, 127]])


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def is_restored(model: PreTrainedModel, before: str) -> bool:
    return model.config._experts_implementation == before and not any(
        hasattr(module, "offsim") for module in expert_modules(model)
    )


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
def test_resident_handler_gives_the_model_s_own_logits(
    tiny_model: PreTrainedModel, implementation: str
) -> None:
    tiny_model.set_experts_implementation(implementation)
    before = logits(tiny_model)
    with handled(tiny_model, Resident(tiny_model)):
        within = logits(tiny_model)
    torch.testing.assert_close(within, before, rtol=0, atol=1e-5)
    assert torch.equal(logits(tiny_model), before)


def test_handler_is_called_once_a_layer_with_the_router_s_choice(
    tiny_model: PreTrainedModel,
) -> None:
    resident = Resident(tiny_model)
    calls = []

    def handler(
        layer: int, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        calls.append((layer, hidden.shape, ids.shape, ids.dtype, weights.shape))
        return resident(layer, hidden, ids, weights)

    with handled(tiny_model, handler):
        logits(tiny_model)
    expected = [(layer, (12, 32), (12, 2), torch.int64, (12, 2)) for layer in range(3)]
    assert calls == expected


def test_what_the_handler_returns_goes_on(tiny_model: PreTrainedModel) -> None:
    before = logits(tiny_model)
    with handled(tiny_model, lambda _layer, hidden, _ids, _weights: torch.zeros_like(hidden)):
        assert not torch.allclose(logits(tiny_model), before)


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
def test_implementation_is_restored(tiny_model: PreTrainedModel, implementation: str) -> None:
    tiny_model.set_experts_implementation(implementation)
    with handled(tiny_model, Resident(tiny_model)):
        assert tiny_model.config._experts_implementation == "offsim"
    assert is_restored(tiny_model, implementation)


def test_implementation_is_restored_after_an_exception(tiny_model: PreTrainedModel) -> None:
    before, own = tiny_model.config._experts_implementation, logits(tiny_model)

    def failing(*_: object) -> torch.Tensor:
        raise RuntimeError("the handler failed")

    with pytest.raises(RuntimeError, match="the handler failed"), handled(tiny_model, failing):
        logits(tiny_model)
    assert is_restored(tiny_model, before)
    assert torch.equal(logits(tiny_model), own)


def test_blocks_can_follow_each_other(tiny_model: PreTrainedModel) -> None:
    before = tiny_model.config._experts_implementation
    results = []
    for _ in range(3):
        with handled(tiny_model, Resident(tiny_model)):
            results.append(logits(tiny_model))
    assert all(torch.equal(results[0], other) for other in results)
    assert is_restored(tiny_model, before)


def test_model_without_experts_is_refused() -> None:
    class Plain(torch.nn.Linear):
        pass

    with pytest.raises(InputError, match="Plain has no fused experts"):
        Resident(Plain(2, 2))


def test_resident_sees_later_changes_of_the_weights(tiny_model: PreTrainedModel) -> None:
    with handled(tiny_model, Resident(tiny_model)):
        before = logits(tiny_model)
        with torch.no_grad():
            expert_modules(tiny_model)[0].down_proj.zero_()
        assert not torch.allclose(logits(tiny_model), before)


def test_blocks_may_nest(tiny_model: PreTrainedModel) -> None:
    ids = torch.tensor([[10, 40, 41]])
    resident = Resident(tiny_model)
    calls: list[int] = []

    def counting(layer: int, *rest: torch.Tensor) -> torch.Tensor:
        calls.append(layer)
        return resident(layer, *rest)

    with handled(tiny_model, counting):
        with handled(tiny_model, resident):
            tiny_model(input_ids=ids)
        assert calls == []
        tiny_model(input_ids=ids)
    assert calls == [0, 1, 2]


class Counted:
    """The experts of a model, with a note of what was read."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.modules, self.shape = expert_modules(model), shape_of(model)
        self.read: list[tuple[int, int]] = []

    def identity(self, layer: int, expert: int) -> tuple[int, int]:
        return layer, expert

    def matrices(self, layer: int, expert: int) -> list[torch.Tensor]:
        self.read.append((layer, expert))
        return [weights.bfloat16() for weights in matrices_of(self.modules[layer], expert)]


@pytest.mark.parametrize("room", [0, 1, 5, 12])
def test_fetched_experts_give_the_bits_of_resident_ones(
    tiny_model: PreTrainedModel, room: int
) -> None:
    with handled(tiny_model, Resident(tiny_model)):
        expected = logits(tiny_model)
    experts = Counted(tiny_model)
    handler = Fetched(tiny_model, experts, room * 4 * experts.shape.values)
    with handled(tiny_model, handler):
        assert torch.equal(logits(tiny_model), expected)
        first = list(experts.read)
        assert torch.equal(logits(tiny_model), expected)
    assert len(first) == len(set(first)) <= 12
    # Room for all: nothing is read twice. Room for less: what was used last is read last.
    assert (len(experts.read) == len(first)) == (room == 12)
    assert len(handler._kept) == min(max(1, room), len(first))


def test_the_experts_used_last_are_kept(tiny_model: PreTrainedModel) -> None:
    experts = Counted(tiny_model)
    handler = Fetched(tiny_model, experts, 2 * 4 * experts.shape.values)
    hidden, weight = torch.ones(1, 32), torch.ones(1, 1)
    for expert in (0, 1, 0, 2, 0, 1):
        handler(0, hidden, torch.tensor([[expert]]), weight)
    assert experts.read == [(0, 0), (0, 1), (0, 2), (0, 1)]
