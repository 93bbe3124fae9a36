import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from offsim.accuracy.injection import Perturbed, WeightError, injected
from offsim.accuracy.scopes import Scope
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.model.experts import MATRICES, change_experts, expert_modules, matrices_of
from offsim.model.hook import Resident, handled
from offsim.testbed.load import load
from offsim.testbed.scores import answered, held_out_items
from tests.families import FAMILIES, family

IDS = torch.tensor([[5, 6, 7, 8, 90, 100], [17, 3, 44, 9, 1, 127]])


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def uniform(bound: str, scope: str = "all", seed: int = 0) -> WeightError:
    return WeightError(source="uniform", bound=Bound.parse(bound), scope=Scope(scope), seed=seed)


def matrices(handler: Perturbed, layer: int, expert: int) -> tuple[torch.Tensor, ...]:
    weights = handler.experts[layer][expert]
    return (*weights.gate_up.chunk(2), weights.down)


@pytest.mark.parametrize("source", ["uniform", "normal", "codec:sz3"])
def test_a_bound_of_zero_changes_no_bit(tiny_model: PreTrainedModel, source: str) -> None:
    with handled(tiny_model, Resident(tiny_model)):
        before = logits(tiny_model)
    with injected(tiny_model, WeightError(source=source, bound=None)) as handler:
        assert torch.equal(logits(tiny_model), before)
    assert not handler.largest.any()


@pytest.mark.parametrize("source", ["uniform", "normal", "codec:sz3", "codec:cuszp"])
def test_a_bound_of_zero_is_the_embedded_model_as_it_is(source: str) -> None:
    model = load()
    unhooked = logits(model)
    with handled(model, Resident(model)):
        before = logits(model)
    # The hook sums experts in an order of its own: without it logits differ by rounding.
    torch.testing.assert_close(before, unhooked, rtol=1e-5, atol=1e-3)
    asked = held_out_items(3, 0, ["add", "chain"])
    answers = {name: one.outputs for name, one in answered(model, asked).items()}
    with injected(model, WeightError(source=source, bound=None)):
        assert torch.equal(logits(model), before)
        found = answered(model, asked)
    assert {name: one.outputs for name, one in found.items()} == answers


def test_an_empty_scope_changes_no_bit(tiny_model: PreTrainedModel) -> None:
    with injected(tiny_model):
        before = logits(tiny_model)
    with injected(tiny_model, uniform("0.1", "!all")):
        assert torch.equal(logits(tiny_model), before)


def test_equal_weights_keep_a_statistic_of_zero(tiny_model: PreTrainedModel) -> None:
    with torch.no_grad():
        for module in expert_modules(tiny_model):
            module.gate_up_proj.fill_(0.25)
            module.down_proj.fill_(0.25)
    assert not Perturbed(tiny_model, uniform("sigma:0.5")).largest.any()


def test_an_error_changes_the_logits_and_leaves_the_model(tiny_model: PreTrainedModel) -> None:
    before = logits(tiny_model)
    with injected(tiny_model, uniform("0.1")):
        assert not torch.allclose(logits(tiny_model), before)
    assert torch.equal(logits(tiny_model), before)


def test_changed_matrices_are_those_of_the_scope(tiny_model: PreTrainedModel) -> None:
    handler = Perturbed(tiny_model, uniform("0.1", "layer:1&matrix:down|expert:2/3&matrix:up"))
    expected = np.zeros((3, 4, len(MATRICES)), np.bool_)
    expected[1, :, 2] = expected[2, 3, 1] = True
    assert np.array_equal(handler.largest > 0, expected)
    assert handler.largest.max() == pytest.approx(0.1, rel=0.01)
    module = expert_modules(tiny_model)[2]
    gate, up, down = matrices(handler, 2, 3)
    own = matrices_of(module, 3)
    assert torch.equal(gate, own[0])
    assert not torch.equal(up, own[1])
    assert torch.equal(down, own[2])


def test_what_has_no_error_is_shared(tiny_model: PreTrainedModel) -> None:
    handler = Perturbed(tiny_model, uniform("0.1", "expert:0/1&matrix:down"))
    module = expert_modules(tiny_model)[0]
    assert handler.experts[0][0].down.data_ptr() == module.down_proj[0].data_ptr()
    assert handler.experts[0][1].gate_up.data_ptr() == module.gate_up_proj[1].data_ptr()
    assert handler.experts[0][1].down.data_ptr() != module.down_proj[1].data_ptr()


def test_nested_scopes_have_the_same_noise(tiny_model: PreTrainedModel) -> None:
    inner = Perturbed(tiny_model, uniform("sigma:0.5", "expert:1/2&matrix:up"))
    outer = Perturbed(tiny_model, uniform("sigma:0.5"))
    assert torch.equal(matrices(inner, 1, 2)[1], matrices(outer, 1, 2)[1])


def test_places_and_seeds_have_noise_of_their_own(tiny_model: PreTrainedModel) -> None:
    handlers = [Perturbed(tiny_model, uniform("0.1", seed=seed)) for seed in (0, 1)]
    noise = [
        after - before
        for handler in handlers
        for layer, module in enumerate(expert_modules(tiny_model))
        for expert in range(4)
        for after, before in zip(
            matrices(handler, layer, expert), matrices_of(module, expert), strict=True
        )
    ]
    correlated = torch.corrcoef(torch.stack([one.flatten() for one in noise]))
    assert float((correlated - torch.eye(len(noise))).abs().max()) < 0.2  # 1024 values each


def test_a_statistic_is_that_of_the_expert(tiny_model: PreTrainedModel) -> None:
    with torch.no_grad():
        expert_modules(tiny_model)[0].down_proj[0] *= 100
    bound = Bound(0.5, "mean-abs")
    size = bound.absolute(matrices_of(expert_modules(tiny_model)[0], 0))
    found = Perturbed(tiny_model, uniform("mean-abs:0.5", "expert:0/0&matrix:gate"))
    assert float(found.largest[0, 0, 0]) == pytest.approx(size, rel=0.01)


def test_of_several_errors_the_last_holds_alone(tiny_model: PreTrainedModel) -> None:
    usage = np.tile([1, 4, 3, 2], (3, 1))
    cold, hot = uniform("0.2"), uniform("0.05", "top2:all")
    handler = Perturbed(tiny_model, cold, hot, usage=usage)
    assert handler.largest[:, [0, 3]] == pytest.approx(0.2, rel=0.01)
    assert handler.largest[:, [1, 2]] == pytest.approx(0.05, rel=0.01)


def test_a_codec_keeps_its_bound(tiny_model: PreTrainedModel) -> None:
    tiny_model.to(torch.bfloat16).to(torch.float32)
    error = WeightError(source="codec:cuszp", bound=Bound(0.02))
    handler = Perturbed(tiny_model, error)
    assert (handler.largest > 0).all()
    assert handler.largest.max() <= 0.02
    twice = Perturbed(tiny_model, error.model_copy(update={"seed": 7}))
    assert torch.equal(twice.experts[0][0].down, handler.experts[0][0].down)


def test_a_codec_without_a_bound(tiny_model: PreTrainedModel) -> None:
    assert (
        Perturbed(tiny_model, WeightError(source="codec:rtn-int4", bound=None)).largest > 0
    ).all()
    with pytest.raises(InputError, match="codec:rtn-int4 takes no bound"):
        WeightError(source="codec:rtn-int4", bound=Bound(0.1))


def test_blocks_nest_and_the_inner_one_holds(tiny_model: PreTrainedModel) -> None:
    with injected(tiny_model):
        plain = logits(tiny_model)
    with injected(tiny_model, uniform("0.1")):
        outer = logits(tiny_model)
        with injected(tiny_model):
            assert torch.equal(logits(tiny_model), plain)
        assert torch.equal(logits(tiny_model), outer)


def test_errors_are_values_and_survive_json() -> None:
    error = uniform("sigma:0.1", "top2:layer:0", seed=3)
    assert WeightError.model_validate_json(error.model_dump_json()) == error
    assert len({error, uniform("sigma:0.1", "top2: layer:0", seed=3)}) == 1
    assert str(error) == "uniform sigma:0.1 in top2:layer:0, seed 3"


def test_errors_of_no_known_source_are_refused() -> None:
    with pytest.raises(InputError, match="no error is called 'laplace'"):
        WeightError(source="laplace", bound=Bound(0.1))


def test_a_scope_of_another_model_is_refused(tiny_model: PreTrainedModel) -> None:
    with pytest.raises(InputError, match="the model has layers 0 to 2"):
        Perturbed(tiny_model, uniform("0.1", "layer:3"))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_errors_as_its_weights_do(name: str) -> None:
    """An injected error gives what the same error written into the weights gives."""
    model = family(name)
    codec = WeightError(source="codec:cuszp", bound=Bound(0.02), scope=Scope("matrix:up,down"))
    handler = Perturbed(model, codec)
    assert (handler.largest[:, :, 1:] > 0).all()
    assert not handler.largest[:, :, 0].any()
    with torch.inference_mode():
        with handled(model, Resident(model)):
            before = logits(model)
        with injected(model, codec):
            found = logits(model)
        change_experts(
            model,
            lambda layer, expert, matrix, _: handler.experts[layer][expert].matrices[matrix],
        )
        with handled(model, Resident(model)):
            expected = logits(model)
    assert torch.equal(found, expected)
    assert not torch.equal(found, before)
