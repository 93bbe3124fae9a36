"""Prompts from a file, as token ids of a model."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offsim.errors import InputError
from offsim.files import read_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIELDS = ("prompt", "ids")
"""Of a line of JSON: a text, or token ids."""
Prompt = str | list[int]


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file: .txt has a text a line, .jsonl an object a line (FIELDS).

    Empty lines count for nothing.

    Raises:
        InputError: it cannot be read, is of another kind, has no prompt, or a line is not one.
    """
    kinds: dict[str, Callable[[str], Prompt]] = {".txt": str, ".jsonl": _of_json}
    if path.suffix not in kinds:
        raise InputError(
            f"{path}: prompts are in a .txt file, one a line, or a .jsonl file with the field "
            f"{' or '.join(FIELDS)}"
        )
    prompts = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            prompts.append(kinds[path.suffix](line))
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from error
    if not prompts:
        raise InputError(f"{path}: there is no prompt in it")
    return prompts


def _of_json(line: str) -> Prompt:
    """The prompt of a line.

    Raises:
        InputError: not an object with a prompt.
    """
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON ({error})") from error
    found = [value[name] for name in FIELDS if name in value] if isinstance(value, dict) else []
    if len(found) != 1 or not found[0]:
        raise InputError(f"not an object with one of {' and '.join(FIELDS)}, not empty")
    prompt: Any = found[0]
    is_ids = isinstance(prompt, list) and all(type(one) is int and one >= 0 for one in prompt)
    if not (isinstance(prompt, str) if "prompt" in value else is_ids):
        raise InputError("prompt is a text, and ids are whole numbers from 0")
    return prompt  # type: ignore[no-any-return]


def ids_of(
    prompts: Sequence[Prompt],
    vocabulary: int,
    room: int,
    tokenizer: "PreTrainedTokenizerBase | None",
) -> list[list[int]]:
    """Prompts as ids of tokens.

    Args:
        prompts: texts and ids.
        vocabulary: ids are below it.
        room: the most tokens that a prompt may have.
        tokenizer: of the model; None where no prompt is a text.

    Raises:
        InputError: an id that the model does not know, a prompt that is too long or of no token.
    """
    asked: list[list[int]] = []
    for number, prompt in enumerate(prompts, 1):
        if isinstance(prompt, str):
            assert tokenizer is not None
            ids = [int(one) for one in tokenizer(prompt)["input_ids"]]
        else:
            ids = prompt
        if not ids or max(ids) >= vocabulary:
            raise InputError(
                f"prompt {number} has {'no token' if not ids else f'the id {max(ids)}'}; it takes "
                f"at least one, below {vocabulary}"
            )
        if len(ids) > room:
            raise InputError(
                f"prompt {number} has {len(ids)} tokens and the model has room for {room} beside "
                "what is written; shorten it"
            )
        asked.append(ids)
    return asked
