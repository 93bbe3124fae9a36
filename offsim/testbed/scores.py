"""Accuracy of a model on the embedded tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from offsim.testbed import tokenizer
from offsim.testbed.generate import answers
from offsim.testbed.prose import paragraphs
from offsim.testbed.tasks import TASKS, sample


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
    scores = []
    for name in tasks if tasks is not None else TASKS:
        task = TASKS[name]
        drawn = sample(task, items, seed, held_out=True)
        outputs = answers(model, [item.prompt for item in drawn])
        pairs = list(zip(drawn, outputs, strict=True))
        pia = sum(task.content_right(item, output) for item, output in pairs) / items
        ica = sum(task.format_right(item, output) for item, output in pairs) / items
        scores.append(Score(name, items, pia, ica))
    return scores


@torch.inference_mode()
def prose_bits(model: PreTrainedModel, rows: int = 64, length: int = 128) -> float:
    """Bits a character on held-out prose: mean cross-entropy of the next byte, base 2."""
    text = "\n".join(paragraphs(held_out=True))
    ids = torch.tensor(tokenizer.encode(text[: rows * length])).view(-1, length)
    logits = model(input_ids=ids).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    return float(loss) / float(torch.log(torch.tensor(2.0)))
