"""What the embedded model is asked in a study: prompts from its own tasks."""

from random import Random

from offsim.testbed import tokenizer
from offsim.testbed.tasks import TASKS, sample


def prompts(requests: int, seed: int, examples: int = 2) -> list[list[int]]:
    """Prompts of mixed tasks: some solved examples and then a question.

    Args:
        requests: how many.
        seed: of the draw; calibration and check use different ones.
        examples: solved items before each question.

    Returns:
        Ids of each prompt, of about 20 to 100 tokens.
    """
    rng = Random(f"workload/{seed}")
    made = []
    for number in range(requests):
        text = "\n"
        for place in range(examples):
            item = sample(TASKS[rng.choice(list(TASKS))], 1, seed + 1000 * place + number, held_out=True)[0]
            text += f"{item.prompt}{item.answer}\n"
        asked = sample(TASKS[rng.choice(list(TASKS))], 1, seed + number, held_out=True)[0]
        made.append(tokenizer.encode(text + asked.prompt))
    return made
