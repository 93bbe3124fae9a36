import re

import numpy as np
import pytest

from offsim.testbed import tokenizer
from offsim.testbed.data import PROMPT_WEIGHT, PROSE_SHARE, batch
from offsim.testbed.prose import SHORTEST, paragraphs
from offsim.testbed.tasks import TASKS, is_held_out

ROWS, LENGTH = 20, 128
PROSE_ROWS = round(ROWS * PROSE_SHARE)


def task_lines(ids: np.ndarray) -> list[str]:
    """The whole lines of the task rows."""
    texts = [tokenizer.decode(row.tolist()) for row in ids[PROSE_ROWS:]]
    return [line for text in texts for line in text.split("\n")[1:-1]]


def prompt_of(line: str) -> str:
    """The part of a line before its answer: up to the `=`, `?` or `? ` that ends a question."""
    found = re.match(r".*?(\?( |(?=\[))|=(?=\[))", line)
    assert found, line
    return found[0]


def test_shapes_and_ranges() -> None:
    ids, weights = batch(0, 0, ROWS, LENGTH)
    assert ids.shape == weights.shape == (ROWS, LENGTH + 1)
    assert ids.dtype == np.int64
    assert weights.dtype == np.float32
    assert ids.min() > tokenizer.PAD
    assert ids.max() < tokenizer.VOCABULARY


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    first = batch(1, 5, ROWS, LENGTH)
    batch(1, 6, ROWS, LENGTH)
    for one, again in zip(first, batch(1, 5, ROWS, LENGTH), strict=True):
        np.testing.assert_array_equal(one, again)
    assert not np.array_equal(first[0], batch(1, 6, ROWS, LENGTH)[0])
    assert not np.array_equal(first[0], batch(2, 5, ROWS, LENGTH)[0])


def test_answers_weigh_one_and_prompts_less() -> None:
    ids, weights = batch(0, 3, ROWS, LENGTH)
    for row, loss in zip(ids[PROSE_ROWS:], weights[PROSE_ROWS:], strict=True):
        text = tokenizer.decode(row.tolist())
        assert text[0] == "\n"
        assert loss[0] == 0.0
        at = 1
        for line in text[1:].split("\n")[:-1]:
            prompt = len(prompt_of(line))
            np.testing.assert_allclose(loss[at : at + prompt], PROMPT_WEIGHT)
            answer_and_end = loss[at + prompt : at + len(line) + 1]
            np.testing.assert_array_equal(answer_and_end, 1.0)
            at += len(line) + 1


def test_prose_weighs_one_and_comes_from_the_training_side() -> None:
    ids, weights = batch(0, 3, ROWS, LENGTH)
    assert (weights[:PROSE_ROWS] == 1.0).all()
    training = "\n".join(paragraphs(held_out=False))
    for row in ids[:PROSE_ROWS]:
        parts = tokenizer.decode(row.tolist()).split("\n")
        assert all(part in training for part in parts)


def test_held_out_prompts_are_never_trained_on() -> None:
    facts = lines = 0
    for step in range(30):
        for line in task_lines(batch(0, step, ROWS, LENGTH)[0]):
            prompt = prompt_of(line)
            lines += 1
            if prompt.startswith("capital of "):
                facts += 1
            else:
                assert not is_held_out(prompt), line
    assert lines > 1000
    assert facts > 10


def test_every_task_is_trained_on() -> None:
    lines = [line for step in range(10) for line in task_lines(batch(0, step, ROWS, LENGTH)[0])]
    starts = {"copy ", "reverse ", "sort ", "upper ", "capital of "}
    assert {s for s in starts for line in lines if line.startswith(s)} == starts
    for pattern in (
        r"\d+\+\d+=\[",
        r"\d+-\d+=\[",
        r"(\d+[+-]){2,4}\d+=\[",
        r"[A-Z]\w+ has ",
        r"[a-z]\d ",
    ):
        assert any(re.match(pattern, line) for line in lines), pattern
    assert len(TASKS) == 11
    long = r"\d+([+-]\d+){5,}="  # six terms, which only test
    assert not any(re.match(long, line) for line in lines)


@pytest.mark.parametrize("held_out", [True, False])
def test_paragraphs(held_out: bool) -> None:
    found = paragraphs(held_out=held_out)
    assert len(found) > 50
    assert len(set(found)) == len(found)
    for paragraph in found:
        assert paragraph.isascii()
        assert "\n" not in paragraph
        assert len(paragraph) >= SHORTEST
        assert is_held_out(paragraph) == held_out


def test_sides_of_the_prose_are_disjoint() -> None:
    assert not set(paragraphs(held_out=True)) & set(paragraphs(held_out=False))
