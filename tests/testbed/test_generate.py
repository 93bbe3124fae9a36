import pytest
import torch
from transformers import PreTrainedModel

from offsim.testbed import tokenizer
from offsim.testbed.generate import answers

PROMPTS = ["47+85=", "85-47=", "copy kjdhf=", "a4 k7 c2 m9 k?", "1+1=", "copy abcde=", "2+2="]


@pytest.fixture
def model(tiny_model: PreTrainedModel) -> PreTrainedModel:
    """The tiny model, made to end its lines now and then and never to write padding."""
    head = tiny_model.lm_head.weight
    with torch.no_grad():
        head[tokenizer.END] = 2.5 * head[tokenizer.END]
        head[tokenizer.PAD] = -head[tokenizer.END]
    return tiny_model


def one_by_one(model: PreTrainedModel, prompt: str, longest: int) -> str:
    """The same without cache and without other prompts beside it."""
    ids, written = tokenizer.encode("\n" + prompt), []
    with torch.inference_mode():
        for _ in range(longest):
            token = int(model(input_ids=torch.tensor([ids + written])).logits[0, -1].argmax())
            if token == tokenizer.END:
                break
            written.append(token)
    return tokenizer.decode(written)


@pytest.mark.parametrize("batch", [1, 2, 128])
def test_batched_answers_are_those_of_each_prompt_alone(model: PreTrainedModel, batch: int) -> None:
    expected = [one_by_one(model, prompt, 12) for prompt in PROMPTS]
    assert answers(model, PROMPTS, longest=12, batch=batch) == expected
    lengths = {len(answer) for answer in expected}
    assert len(lengths) > 2, "rows that all end together prove little"


def test_answers_are_cut_at_the_longest(model: PreTrainedModel) -> None:
    whole = answers(model, PROMPTS, longest=12)
    assert answers(model, PROMPTS, longest=3) == [answer[:3] for answer in whole]


def test_order_of_the_prompts_is_kept(model: PreTrainedModel) -> None:
    forwards = answers(model, PROMPTS, longest=8)
    assert answers(model, PROMPTS[::-1], longest=8) == forwards[::-1]


def test_same_prompt_twice_gives_the_same_answer(model: PreTrainedModel) -> None:
    first, second = answers(model, ["1+1=", "1+1="], longest=8)
    assert first == second


def test_no_prompts_no_answers(model: PreTrainedModel) -> None:
    assert answers(model, []) == []
