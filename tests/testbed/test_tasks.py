import re
from random import Random

import pytest

from offsim.testbed import tokenizer
from offsim.testbed.tasks import TASKS, Item, Task, is_held_out, sample
from offsim.testbed.tasks.facts import CAPITALS

EACH_TASK = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
SPLIT_TASKS = [task for task in TASKS.values() if task.held_out]
COUNT = 200


def items(task: Task) -> list[Item]:
    return sample(task, COUNT, seed=0, held_out=True)


def solved(name: str, prompt: str) -> str:
    """The right content, worked out from the prompt alone and apart from the tasks."""
    numbers = [int(number) for number in re.findall(r"\d+", prompt)]
    if name in ("add", "sub", "chain", "long"):
        return str(sum(int(term) for term in re.findall(r"[+-]?\d+", prompt.rstrip("="))))
    if name == "word":
        return str(numbers[0] + numbers[1] - sum(numbers[2:]))
    if name == "recall":
        return dict(pair for pair in prompt[:-3].split(" "))[prompt[-2]]
    if name == "facts":
        return CAPITALS[prompt.removeprefix("capital of ").removesuffix("? ")]
    word = prompt.split(" ")[1].removesuffix("=")
    changes = {"copy": word, "reverse": word[::-1], "sort": "".join(sorted(word))}
    return {**changes, "upper": word.upper()}[name]


def test_names() -> None:
    assert list(TASKS) == [task.name for task in TASKS.values()]
    assert len({task.title for task in TASKS.values()}) == len(TASKS) == 11


@EACH_TASK
def test_content_is_right(task: Task) -> None:
    for item in items(task):
        assert item.content == solved(task.name, item.prompt), item


@EACH_TASK
def test_its_own_answer_scores_both(task: Task) -> None:
    for item in items(task):
        assert task.content_right(item, item.answer), item
        assert task.format_right(item, item.answer), item


@EACH_TASK
def test_wrong_content_fails_both(task: Task) -> None:
    for item in items(task):
        for wrong in (item.content + "9", "x" + item.content, "0zz"):
            answer = item.answer.replace(f"[{item.content}]", f"[{wrong}]")
            assert answer != item.answer
            assert not task.content_right(item, answer), (item, answer)
            assert not task.format_right(item, answer), (item, answer)


@EACH_TASK
def test_right_content_without_a_box_is_right_in_content_alone(task: Task) -> None:
    for item in items(task):
        c = item.content
        for output in (c, f"{c}]", f"[{c}", f"({c})", f"[{c}].", f"is {c}", f"[[{c}]]", f"[ {c} ]"):
            assert task.content_right(item, output), (item, output)
            assert not task.format_right(item, output), (item, output)


@EACH_TASK
def test_nothing_useful_fails_both(task: Task) -> None:
    item = items(task)[0]
    for output in ("", " ", "[]", "[.]", "?!", f"[{item.content}] or [zz]"):
        assert not task.content_right(item, output)
        assert not task.format_right(item, output)


def test_word_problems_leave_the_steps_free_but_not_the_box() -> None:
    task = TASKS["word"]
    item = Item("Tom has 2 pens, buys 3. How many? ", "2+3=5;[5]", "5")
    assert task.format_right(item, "[5]")
    assert task.format_right(item, "nonsense;[5]")
    assert not task.format_right(item, "[3][5]")
    assert not task.format_right(item, "2+3=5;[5];")


def test_steps_of_word_problems_are_right() -> None:
    for item in items(TASKS["word"]):
        *steps, box = item.answer.split(";")
        assert box == f"[{item.content}]"
        for step in steps:
            left, right = step.split("=")
            a, sign, b = re.fullmatch(r"(\d+)([+-])(\d+)", left).groups()
            assert int(right) == (int(a) + int(b) if sign == "+" else int(a) - int(b))
        assert steps[-1].endswith(f"={item.content}")


@EACH_TASK
def test_items_are_in_the_vocabulary_and_on_one_line(task: Task) -> None:
    for item in items(task):
        assert tokenizer.decode(tokenizer.encode(item.prompt + item.answer)).isprintable()
        assert len(item.prompt) + len(item.answer) < 128


@EACH_TASK
@pytest.mark.parametrize("held_out", [True, False])
def test_sample_is_a_function_of_its_arguments(task: Task, held_out: bool) -> None:
    first = sample(task, 50, 3, held_out=held_out)
    sample(task, 7, 4, held_out=held_out)
    assert sample(task, 50, 3, held_out=held_out) == first
    assert sample(task, 20, 3, held_out=held_out) == first[:20]
    assert sample(task, 50, 4, held_out=held_out) != first
    assert len(first) == 50


def test_tasks_draw_apart_from_each_other() -> None:
    copies = [item.content for item in sample(TASKS["copy"], 20, 0, held_out=True)]
    uppers = [item.content.lower() for item in sample(TASKS["upper"], 20, 0, held_out=True)]
    assert copies != uppers


@pytest.mark.parametrize("task", SPLIT_TASKS, ids=lambda task: task.name)
def test_sides_of_the_split_are_disjoint(task: Task) -> None:
    test = {item.prompt for item in sample(task, COUNT, 0, held_out=True)}
    train = {item.prompt for item in sample(task, COUNT, 0, held_out=False)}
    assert not test & train
    assert all(map(is_held_out, test))
    assert not any(map(is_held_out, train))


@pytest.mark.parametrize("task", SPLIT_TASKS, ids=lambda task: task.name)
def test_about_one_in_eight_is_held_out(task: Task) -> None:
    rng = Random(0)
    prompts = {task.make(rng).prompt for _ in range(3000)}
    assert 0.09 < sum(map(is_held_out, prompts)) / len(prompts) < 0.16


def test_the_split_stays_what_it_is() -> None:
    # Another split would let trained prompts into the tests of a checkpoint already trained.
    assert [n for n in range(40) if is_held_out(f"{n}+{n}=")] == [7, 17, 20, 29, 32]


def test_facts_have_no_split() -> None:
    task = TASKS["facts"]
    assert not task.held_out
    both = [{i.prompt for i in sample(task, 500, 0, held_out=side)} for side in (True, False)]
    assert both[0] == both[1]
    assert len(both[0]) == len(CAPITALS)
