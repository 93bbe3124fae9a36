"""What the embedded model is asked in a study: prompts from its own tasks."""

from collections.abc import Sequence
from random import Random

from offsim.testbed import tokenizer
from offsim.testbed.tasks import TASKS, sample


def prompts(
    requests: int, seed: int, examples: int = 2, tasks: Sequence[str] | None = None
) -> list[list[int]]:
    """Prompts of mixed tasks: some solved examples and then a question.

    Args:
        requests: how many.
        seed: of the draw; calibration and check use different ones.
        examples: solved items before each question.
        tasks: names of those that are mixed; all where None.

    Returns:
        Ids of each prompt, of about 20 to 150 tokens.
    """
    rng = Random(f"workload/{seed}")
    made = []
    for _ in range(requests):
        names = rng.choices(list(TASKS) if tasks is None else tasks, k=examples + 1)
        items = [sample(TASKS[n], 1, rng.randrange(1 << 30), held_out=True)[0] for n in names]
        solved = "".join(f"{item.prompt}{item.answer}\n" for item in items[:-1])
        made.append(tokenizer.encode("\n" + solved + items[-1].prompt))
    return made
