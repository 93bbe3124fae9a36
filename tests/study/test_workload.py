from offsim.study.workload import prompts
from offsim.testbed import tokenizer


def test_prompts_are_a_function_of_the_seed() -> None:
    assert prompts(5, 1) == prompts(5, 1)
    assert prompts(5, 1) != prompts(5, 2)


def test_prompts_are_questions_after_solved_examples() -> None:
    for ids in prompts(20, 3):
        lines = tokenizer.decode(ids).split("\n")
        assert lines[0] == ""
        assert [line.endswith("]") for line in lines[1:]] == [True, True, False]


def test_prompts_of_one_task_have_no_other() -> None:
    lines = [
        line
        for ids in prompts(5, 3, tasks=["upper"])
        for line in tokenizer.decode(ids).split("\n")[1:]
    ]
    assert {line.split(" ")[0] for line in lines} == {"upper"}
