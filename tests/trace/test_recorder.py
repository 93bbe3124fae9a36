from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from offsim.errors import InputError
from offsim.model.hook import Resident
from offsim.model.routers import router_modules
from offsim.model.sampling import Sampling
from offsim.trace import DECODE, PREFILL, load_trace, save_trace, steps_of
from offsim.trace.format import NOWHERE
from offsim.trace.recorder import Recorder, record

from .traces import INFO

PROMPTS = ([5, 6, 7], [9, 10, 11, 12, 13, 14], [99])
COUNT = 5


def routers(model: PreTrainedModel) -> list[torch.nn.Module]:
    return [m for m in model.modules() if type(m).__name__.endswith("TopKRouter")]


def generated(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=COUNT
    )
    return out[0, len(prompt) :].tolist()


def test_a_row_for_each_token_that_was_computed(tiny_model: PreTrainedModel) -> None:
    trace, written = record(tiny_model, PROMPTS, COUNT, INFO)
    assert [len(tokens) for tokens in written] == [COUNT] * 3
    assert (trace.layers, trace.top_k) == (3, 2)
    for request, prompt in enumerate(PROMPTS):
        mine = trace.request == request
        assert mine.sum() == len(prompt) + COUNT - 1
        np.testing.assert_array_equal(trace.position[mine], np.arange(mine.sum()))
        expected = [PREFILL] * len(prompt) + [DECODE] * (COUNT - 1)
        np.testing.assert_array_equal(trace.phase[mine], expected)


def test_ids_and_weights_are_those_of_the_router(tiny_model: PreTrainedModel) -> None:
    noted: list[tuple[torch.Tensor, torch.Tensor]] = []
    hooks = [
        router.register_forward_hook(lambda _module, _inputs, out: noted.append((out[2], out[1])))
        for router in routers(tiny_model)
    ]
    assert len(hooks) == 3
    trace, _ = record(tiny_model, PROMPTS, COUNT, INFO)
    passes = [noted[start : start + 3] for start in range(0, len(noted), 3)]
    ids = torch.cat([torch.stack([layer[0] for layer in one], 1) for one in passes])
    weights = torch.cat([torch.stack([layer[1] for layer in one], 1) for one in passes])
    np.testing.assert_array_equal(trace.experts, ids.numpy())
    np.testing.assert_array_equal(trace.weights, weights.numpy().astype(np.float16))
    assert len(np.unique(trace.experts)) == 4, "a router that always says the same proves little"


def test_tokens_are_those_of_generate(tiny_model: PreTrainedModel) -> None:
    _, written = record(tiny_model, PROMPTS, COUNT, INFO)
    assert written == [generated(tiny_model, list(prompt)) for prompt in PROMPTS]
    assert len({token for tokens in written for token in tokens}) > 3


def test_tokens_are_drawn_the_same_again_whatever_others_draw(tiny_model: PreTrainedModel) -> None:
    sampling = Sampling(1.5, seed=2)
    trace, written = record(tiny_model, PROMPTS, COUNT, INFO, sampling=sampling)
    again, same = record(tiny_model, PROMPTS, COUNT, INFO, sampling=sampling)
    assert written == same
    np.testing.assert_array_equal(trace.experts, again.experts)
    greedy = record(tiny_model, PROMPTS, COUNT, INFO)[1]
    other = record(tiny_model, PROMPTS, COUNT, INFO, sampling=Sampling(1.5, seed=3))[1]
    assert written != greedy
    assert written != other
    _, first = record(tiny_model, PROMPTS[:1], COUNT, INFO, sampling=sampling)
    assert first == written[:1]
    _, cold = record(tiny_model, PROMPTS, COUNT, INFO, sampling=Sampling(1e-6))
    assert cold == greedy


def test_weights_of_a_token_sum_to_one(tiny_model: PreTrainedModel) -> None:
    trace, _ = record(tiny_model, PROMPTS, COUNT, INFO)
    np.testing.assert_allclose(trace.weights.astype(float).sum(2), 1.0, atol=2e-3)
    assert (trace.weights[:, :, 0] >= trace.weights[:, :, 1]).all()


def test_requests_do_not_see_each_other(tiny_model: PreTrainedModel) -> None:
    both, _ = record(tiny_model, PROMPTS[:2], COUNT, INFO)
    alone, _ = record(tiny_model, PROMPTS[1:2], COUNT, INFO)
    np.testing.assert_array_equal(both.experts[both.request == 1], alone.experts)


def test_one_token_is_the_prompt_pass_alone(tiny_model: PreTrainedModel) -> None:
    trace, written = record(tiny_model, PROMPTS[:1], 1, INFO)
    assert [len(tokens) for tokens in written] == [1]
    assert [(step.phase, step.tokens) for step in steps_of(trace)] == [(PREFILL, 3)]


def test_recording_is_saved_and_loaded(tiny_model: PreTrainedModel, tmp_path: Path) -> None:
    trace, _ = record(tiny_model, PROMPTS, COUNT, INFO)
    save_trace(trace, tmp_path / "x.trace")
    np.testing.assert_array_equal(load_trace(tmp_path / "x.trace").experts, trace.experts)


def test_the_model_is_left_as_it_was(tiny_model: PreTrainedModel) -> None:
    before = tiny_model.config._experts_implementation
    record(tiny_model, PROMPTS[:1], 2, INFO)
    assert tiny_model.config._experts_implementation == before


def test_recorder_passes_the_call_on(tiny_model: PreTrainedModel) -> None:
    resident = Resident(tiny_model)
    recorder = Recorder(resident)
    recorder.begin(0)
    hidden = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    ids, weights = torch.tensor([[0, 3], [2, 1]]), torch.tensor([[0.5, 0.5], [0.75, 0.25]])
    out = recorder(1, hidden, ids, weights)
    assert torch.equal(out, resident(1, hidden, ids, weights))
    ((noted_ids, noted_weights),) = recorder.passes[0]
    assert torch.equal(noted_ids, ids)
    assert torch.equal(noted_weights, weights)


def test_nothing_is_predicted_unless_asked_for(tiny_model: PreTrainedModel) -> None:
    assert record(tiny_model, PROMPTS, COUNT, INFO)[0].lookahead is None


@pytest.mark.parametrize("distance", [1, 2, 4])
def test_lookahead_is_what_later_routers_say_to_the_hidden_states_of_a_layer(
    tiny_model: PreTrainedModel, distance: int
) -> None:
    given: list[torch.Tensor] = []
    hooks = [
        router.register_forward_pre_hook(lambda _module, args: given.append(args[0]))
        for router in routers(tiny_model)
    ]
    plain, written = record(tiny_model, PROMPTS, COUNT, INFO)
    for hook in hooks:
        hook.remove()
    trace, again = record(tiny_model, PROMPTS, COUNT, INFO, lookahead=distance)
    assert again == written
    np.testing.assert_array_equal(trace.experts, plain.experts)
    assert trace.lookahead is not None
    assert trace.lookahead.shape == (trace.tokens, 3, distance, 2)
    for layer in range(3):
        hidden = torch.cat([part.reshape(-1, 32) for part in given[layer::3]])
        for ahead in range(1, distance + 1):
            found = trace.lookahead[:, layer, ahead - 1]
            if layer + ahead < 3:
                logits = torch.nn.functional.linear(
                    hidden, routers(tiny_model)[layer + ahead].weight
                )
                np.testing.assert_array_equal(found, logits.topk(2).indices.numpy())
            else:
                assert (found == NOWHERE).all()
    own = plain.experts[:, 1:]
    right = (trace.lookahead[:, :-1, 0, :, None] == own[:, :, None]).any(3).mean()
    assert 0.5 < right < 1, "a guess, better than the half that chance has"


def test_a_recording_with_lookahead_is_saved_and_loaded(
    tiny_model: PreTrainedModel, tmp_path: Path
) -> None:
    trace, _ = record(tiny_model, PROMPTS, COUNT, INFO, lookahead=2)
    save_trace(trace, tmp_path / "x.trace")
    assert trace.lookahead is not None
    again = load_trace(tmp_path / "x.trace").lookahead
    assert again is not None
    np.testing.assert_array_equal(again, trace.lookahead)


def test_a_negative_lookahead_is_refused(tiny_model: PreTrainedModel) -> None:
    with pytest.raises(InputError, match="lookahead is a number of layers, not -1"):
        record(tiny_model, PROMPTS, COUNT, INFO, lookahead=-1)


def test_a_router_that_sees_other_hidden_states_is_refused(tiny_model: PreTrainedModel) -> None:
    recorder = Recorder(Resident(tiny_model), router_modules(tiny_model), 1)
    recorder.begin(0)
    hidden = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="does not choose by the hidden states that the experts"):
        recorder(1, hidden, torch.tensor([[0, 0], [0, 0]]), torch.full((2, 2), 0.5))
