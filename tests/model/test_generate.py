import pytest
import torch
from transformers import PreTrainedModel

from offsim.errors import InputError
from offsim.model.generate import end_tokens, greedy_tokens

PROMPTS = [[5], [5, 6, 7], [100, 3, 44, 44, 9, 71, 2]]


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_tokens_are_those_of_generate(tiny_model: PreTrainedModel, prompt: list[int]) -> None:
    ids = torch.tensor([prompt])
    out = tiny_model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12
    )
    assert greedy_tokens(tiny_model, prompt, 12) == out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_tokens_are_those_of_computing_everything_anew(
    tiny_model: PreTrainedModel, prompt: list[int]
) -> None:
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(6):
            ids.append(int(tiny_model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert greedy_tokens(tiny_model, prompt, 6) == ids[len(prompt) :]


def test_passes_are_observed_in_order(tiny_model: PreTrainedModel) -> None:
    log: list[tuple[str, int]] = []
    lengths: list[int] = []
    tiny_model.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: lengths.append(kwargs["input_ids"].shape[1]),
        with_kwargs=True,
    )
    written = greedy_tokens(
        tiny_model,
        [5, 6, 7],
        3,
        before=lambda step: log.append(("before", step)),
        after=lambda step: log.append(("after", step)),
    )
    assert len(written) == 3
    assert lengths == [3, 1, 1]
    assert log == [(when, step) for step in range(3) for when in ("before", "after")]


def test_the_end_of_text_token_does_not_stop_it(tiny_model: PreTrainedModel) -> None:
    written = greedy_tokens(tiny_model, [5, 6, 7], 4)
    tiny_model.config.eos_token_id = written[0]
    tiny_model.generation_config.eos_token_id = written[0]
    assert greedy_tokens(tiny_model, [5, 6, 7], 4) == written


def test_tokens_that_stop_it_do(tiny_model: PreTrainedModel) -> None:
    written = greedy_tokens(tiny_model, [5, 6, 7], 8)
    passes: list[int] = []
    for place in range(8):
        passes.clear()
        found = greedy_tokens(
            tiny_model, [5, 6, 7], 8, after=passes.append, stop={written[place], 200}
        )
        end = written.index(written[place]) + 1
        assert found == written[:end]
        assert passes == list(range(end))
    assert greedy_tokens(tiny_model, [5, 6, 7], 8, stop={200}) == written


def test_tokens_that_end_a_text(tiny_model: PreTrainedModel) -> None:
    with pytest.raises(InputError, match="Qwen3MoeForCausalLM: neither generation_config"):
        end_tokens(tiny_model)
    tiny_model.config.eos_token_id = 7
    assert end_tokens(tiny_model) == {7}
    tiny_model.generation_config.eos_token_id = [8, 9]
    assert end_tokens(tiny_model) == {8, 9}


def test_nothing_wanted_is_nothing_computed(tiny_model: PreTrainedModel) -> None:
    assert greedy_tokens(tiny_model, [5], 0) == []
