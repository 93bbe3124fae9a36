"""What a task is: it makes items from a seed and scores an answer for content and for format."""

import re
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from random import Random
from typing import ClassVar

HELD_OUT_SHARE = 8
"""One prompt in this many is never trained on; a hash of the prompt decides which."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its expected answer.

    Attributes:
        prompt: what the model reads.
        answer: what it should write, up to but without the end of the line.
        content: the part of the answer that carries its meaning, as it stands in the box.
    """

    prompt: str
    answer: str
    content: str


class Task(ABC):
    """A family of items. A new task is a subclass with a name and `make`, and a line in TASKS."""

    name: ClassVar[str]
    title: ClassVar[str]
    held_out: ClassVar[bool] = True
    """False where the task is to remember, so that its test items are its training items."""

    @abstractmethod
    def make(self, rng: Random) -> Item:
        """Draw one item, from the training and the held-out part alike."""

    def content_right(self, item: Item, output: str) -> bool:
        """PIA: the last word or number that the model wrote is the right one, boxed or not."""
        words = re.findall(r"[A-Za-z0-9]+", output)
        return bool(words) and words[-1] == item.content

    def format_right(self, item: Item, output: str) -> bool:
        """ICA: content right AND written as asked: nothing but one box that holds it."""
        return output == f"[{item.content}]"


def boxed(prompt: str, content: str) -> Item:
    """An item whose whole answer is its content in a box."""
    return Item(prompt, f"[{content}]", content)


def letters(rng: Random, shortest: int, longest: int) -> str:
    """A random word of lower-case letters."""
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(shortest, longest)))


def is_held_out(prompt: str) -> bool:
    """Whether a prompt is set aside for tests. Depends on the text alone, never on a seed."""
    return zlib.crc32(prompt.encode()) % HELD_OUT_SHARE == 0


def sample(task: Task, count: int, seed: int, *, held_out: bool) -> list[Item]:
    """Draw items from one side of the split.

    Args:
        task: the task; one that remembers (`held_out` False) has no split.
        count: how many items.
        seed: the draw is a function of the task and this number.
        held_out: True for test items, False for training items.

    Returns:
        `count` items; a prompt may come twice where the task has few.
    """
    rng = Random(f"{task.name}/{seed}/{held_out}")
    items: list[Item] = []
    while len(items) < count:
        item = task.make(rng)
        if not task.held_out or is_held_out(item.prompt) == held_out:
            items.append(item)
    return items
