"""Accuracy of a model on the embedded tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from offsim.testbed import tokenizer
from offsim.testbed.generate import answers
from offsim.testbed.prose import paragraphs
from offsim.testbed.tasks import TASKS, Item, sample


@dataclass(frozen=True, slots=True)
class Score:
    """How one task went.

    Attributes:
        task: its name.
        items: how many were asked.
        pia: share with the right content, 0..1.
        ica: share with the right content in the right format, 0..1.
    """

    task: str
    items: int
    pia: float
    ica: float


@dataclass(frozen=True, slots=True)
class Answered:
    """What a model wrote for the items of one task.

    Attributes:
        task: its name.
        outputs: one an item, up to the end of the line.
        pia: [items] bool, whether the content is right.
        ica: [items] bool, whether content and format are right.
    """

    task: str
    outputs: tuple[str, ...]
    pia: npt.NDArray[np.bool_]
    ica: npt.NDArray[np.bool_]


def held_out_items(
    items: int, seed: int = 0, tasks: Sequence[str] | None = None
) -> dict[str, list[Item]]:
    """Held-out items by task (of `facts`, which is learned by heart, any).

    Args:
        items: of each task.
        seed: of the draw.
        tasks: names; all where None.
    """
    names = tasks if tasks is not None else TASKS
    return {name: sample(TASKS[name], items, seed, held_out=True) for name in names}


def answered(
    model: PreTrainedModel,
    asked: Mapping[str, Sequence[Item]],
    drafts: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Answered]:
    """Ask items of several tasks together.

    Args:
        model: a causal language model over the embedded vocabulary.
        asked: items by task.
        drafts: for each of them what the model will probably write, which saves time and changes
            nothing; the right answers where None.
    """
    prompts = [item.prompt for items in asked.values() for item in items]
    if drafts is None:
        drafts = {name: [item.answer for item in items] for name, items in asked.items()}
    guesses = [draft for name in asked for draft in drafts[name]]
    outputs = iter(answers(model, prompts, drafts=guesses))
    results = {}
    for name, items in asked.items():
        task, lines = TASKS[name], tuple(islice(outputs, len(items)))
        pairs = list(zip(items, lines, strict=True))
        pia = np.array([task.content_right(*pair) for pair in pairs], np.bool_)
        ica = np.array([task.format_right(*pair) for pair in pairs], np.bool_)
        results[name] = Answered(name, lines, pia, ica)
    return results


def task_scores(
    model: PreTrainedModel, items: int, seed: int = 0, tasks: Sequence[str] | None = None
) -> list[Score]:
    """Ask held-out items of each task (of `facts`, which is learned by heart, any).

    Args:
        model: a causal language model over the embedded vocabulary.
        items: items a task.
        seed: of the draw of items.
        tasks: names; all where None.
    """
    results = answered(model, held_out_items(items, seed, tasks))
    return [
        Score(name, items, float(one.pia.mean()), float(one.ica.mean()))
        for name, one in results.items()
    ]


@torch.inference_mode()
def prose_bits(model: PreTrainedModel, rows: int = 64, length: int = 128) -> float:
    """Bits a character on held-out prose: mean cross-entropy of the next byte, base 2."""
    text = "\n".join(paragraphs(held_out=True))
    ids = torch.tensor(tokenizer.encode(text[: rows * length])).view(-1, length)
    logits = model(input_ids=ids).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    return float(loss) / float(torch.log(torch.tensor(2.0)))
