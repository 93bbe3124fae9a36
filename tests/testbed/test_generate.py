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


def test_answers_do_not_depend_on_drafts(model: PreTrainedModel) -> None:
    expected = answers(model, PROMPTS, longest=12)
    wrong_later = [answer[:2] + "~" + answer[3:] for answer in expected]
    cut = [answer[:1] for answer in expected]
    longer = [answer + "xyz" for answer in expected]
    two_lines = [f"{answer}\nmore" for answer in expected]
    other = ["~~~"] * len(PROMPTS)
    for drafts in (expected, wrong_later, cut, longer, two_lines, other, [""] * len(PROMPTS)):
        for batch in (1, 3, 64):
            found = answers(model, PROMPTS, longest=12, batch=batch, drafts=drafts)
            assert found == expected


def test_drafts_are_cut_at_the_longest(model: PreTrainedModel) -> None:
    whole = answers(model, PROMPTS, longest=12)
    expected = [answer[:3] for answer in whole]
    assert answers(model, PROMPTS, longest=3, drafts=whole) == expected


def test_right_drafts_take_one_pass(model: PreTrainedModel) -> None:
    drafts = answers(model, PROMPTS, longest=12)
    passes = []
    hook = model.register_forward_pre_hook(lambda *_: passes.append(1))
    answers(model, PROMPTS, longest=12, drafts=drafts)
    hook.remove()
    assert len(passes) == 1
