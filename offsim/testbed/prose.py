"""English prose from the standard library, split into training and held-out paragraphs."""

from functools import cache
from pydoc_data.topics import topics

from offsim.testbed.tasks.base import is_held_out

SHORTEST = 80
"""Characters; shorter paragraphs are headings and signatures."""


@cache
def paragraphs(*, held_out: bool) -> tuple[str, ...]:
    """Paragraphs of the language reference, each on one line.

    A hash of the text decides on which side a paragraph lies, so a paragraph that the running
    Python words as the training one did stays on its side.

    Returns:
        ASCII paragraphs of at least 80 characters in a fixed order.
    """
    chosen = []
    for name in sorted(topics):
        for paragraph in topics[name].split("\n\n"):
            line = " ".join(paragraph.split())
            if len(line) >= SHORTEST and line.isascii() and is_held_out(line) == held_out:
                chosen.append(line)
    return tuple(dict.fromkeys(chosen))
