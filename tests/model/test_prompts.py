from pathlib import Path
from typing import Any

import pytest

from offsim.errors import InputError
from offsim.model.prompts import ids_of, read_prompts


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def words(text: str) -> Any:
    """A tokenizer that gives each letter its code."""
    return {"input_ids": [ord(one) for one in text]}


def test_a_text_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    path = written(tmp_path, "p.txt", "one two\n\n  \nthrée\n")
    assert read_prompts(path) == ["one two", "thrée"]


def test_lines_of_json_have_a_text_or_ids(tmp_path: Path) -> None:
    path = written(tmp_path, "p.jsonl", '{"prompt": "one", "n": 1}\n\n{"ids": [3, 0]}\n')
    assert read_prompts(path) == ["one", [3, 0]]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.csv", "one", r"in a \.txt file, one a line, or a \.jsonl file"),
        ("p.txt", "\n \n", "there is no prompt in it"),
        ("p.jsonl", "", "there is no prompt in it"),
        ("p.jsonl", '{"prompt": "a"}\n{', r"p\.jsonl, line 2: not JSON"),
        ("p.jsonl", "[1]", "line 1: not an object with one of prompt and ids"),
        ("p.jsonl", '{"text": "a"}', "not an object with one of"),
        ("p.jsonl", '{"prompt": "a", "ids": [1]}', "not an object with one of"),
        ("p.jsonl", '{"prompt": ""}', "not empty"),
        ("p.jsonl", '{"prompt": [1]}', "prompt is a text"),
        ("p.jsonl", '{"ids": "a"}', "ids are whole numbers"),
        ("p.jsonl", '{"ids": [1.5]}', "ids are whole numbers"),
        ("p.jsonl", '{"ids": [true]}', "ids are whole numbers"),
        ("p.jsonl", '{"ids": [-1]}', "ids are whole numbers"),
    ],
)
def test_what_is_no_prompt_is_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_prompts(written(tmp_path, name, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt: cannot be read"):
        read_prompts(tmp_path / "none.txt")


def test_texts_become_ids_and_ids_stay() -> None:
    assert ids_of(["ab", [3]], 128, 2, words) == [[97, 98], [3]]
    assert ids_of([[3, 4]], 5, 2, None) == [[3, 4]]


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ([5], "prompt 2 has the id 5; it takes at least one, below 5"),
        ("", "prompt 2 has no token"),
        ([1, 2, 3], "prompt 2 has 3 tokens and the model has room for 2"),
    ],
)
def test_prompts_that_are_not_for_the_model_are_named(prompt: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        ids_of([[0], prompt], 5, 2, words)
