"""Training batches as a pure function of the seed and the step, so that training can resume."""

from random import Random

import numpy as np
import numpy.typing as npt

from offsim.testbed import tokenizer
from offsim.testbed.prose import paragraphs
from offsim.testbed.tasks import TASKS, is_held_out

PROSE_SHARE = 0.25
PROMPT_WEIGHT = 0.1
TASK_WEIGHTS = {"recall": 3.0, "chain": 2.0, "word": 2.0, "facts": 0.5, "long": 0.0}
"""How often a task is drawn, against 1 for those not named; `long` only tests."""


def batch(
    seed: int, step: int, rows: int, length: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """One training batch.

    Args:
        seed: of the whole training.
        step: index of the batch.
        rows: sequences.
        length: tokens a sequence.

    Returns:
        Ids [rows, length + 1] int64, and the loss weight of each id as a target, same shape,
        float32: 1 on answers and prose, 0.1 on prompts.
    """
    rng = Random(f"train/{seed}/{step}")
    ids = np.zeros((rows, length + 1), np.int64)
    weights = np.zeros((rows, length + 1), np.float32)
    for row in range(rows):
        make = _prose_row if row < round(rows * PROSE_SHARE) else _task_row
        tokens, loss = make(rng, length + 1)
        ids[row], weights[row] = tokens, loss
    return ids, weights


def _prose_row(rng: Random, length: int) -> tuple[list[int], list[float]]:
    text = "\n"
    while len(text) < 2 * length:
        text += rng.choice(paragraphs(held_out=False)) + "\n"
    start = rng.randrange(length)
    return tokenizer.encode(text[start : start + length]), [1.0] * length


def _task_row(rng: Random, length: int) -> tuple[list[int], list[float]]:
    names = list(TASKS)
    shares = [TASK_WEIGHTS.get(name, 1.0) for name in names]
    tokens, loss = [tokenizer.END], [0.0]
    while len(tokens) < length:
        task = TASKS[rng.choices(names, shares)[0]]
        item = task.make(rng)
        if task.held_out and is_held_out(item.prompt):
            continue
        tokens += tokenizer.encode(f"{item.prompt}{item.answer}\n")
        loss += [PROMPT_WEIGHT] * len(item.prompt) + [1.0] * (len(item.answer) + 1)
    return tokens[:length], loss[:length]
