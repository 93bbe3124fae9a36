"""Write the model card of a trained checkpoint: `python -m offsim.testbed.card --training DIR`."""

import json
import platform
from pathlib import Path
from typing import Annotated

import typer

from offsim.files import read_text, write_text
from offsim.testbed.data import PROMPT_WEIGHT, PROSE_SHARE, TASK_WEIGHTS
from offsim.testbed.load import CHECKPOINT, load
from offsim.testbed.prose import paragraphs
from offsim.testbed.scores import prose_bits, task_scores
from offsim.testbed.tasks import TASKS
from offsim.testbed.train import ADAM_RATE, LENGTH, MUON_RATE, ROWS

CARD = """# The embedded model

A Qwen3-MoE of {parameters:.2f} M parameters, {experts:.0%} of them in experts, trained from scratch
by `offsim/testbed/train.py`. It exists so that offsim can be tried and tested end to end without a
download. What an error does to it says nothing about a large model.

| | |
| --- | --- |
| class | `{name}` of transformers |
| layers, experts, top-k | {config.num_hidden_layers}, {config.num_experts}, {top_k} |
| hidden, expert width | {config.hidden_size}, {config.moe_intermediate_size} |
| vocabulary | {config.vocab_size} ids: ASCII bytes, 0 pads |
| stored | bf16, {megabytes:.2f} MB |
| steps | {steps} of {rows} x {length} tokens ({millions:.1f} M tokens), seed {seed} |
| optimisers | Muon for matrices (rate {muon}), AdamW for the rest ({adam}) |
| schedule | linear warm-up and, over the last 40 %, linear decay |
| time | {minutes:.0f} minutes on one thread of a shared machine, pauses included, MEASURED |
| licence | Apache-2.0, as the project |

**Data.** Generated, a function of seed and step: {prose:.0%} of the sequences are prose, the
language reference in the standard library's `pydoc_data.topics` ({characters} characters);
the others are packed items of the tasks below, drawn with weight 1, but {weights}. Loss weight 1
on answers and prose, {prompt} on prompts. An eighth of all prompts, chosen by a hash of the text,
was never trained on.

**Accuracy**, MEASURED on {items} held-out items a task (Python {python}); `facts` is learned by
heart and its items are those of the training. PIA is content, ICA content and format.

| task | PIA | ICA |
| --- | --- | --- |
{scores}

Held-out prose: {bits:.2f} bits a character.
"""


def main(
    training: Annotated[Path, typer.Option(help="folder of the training, for its state.json")],
    items: Annotated[int, typer.Option(help="held-out items a task")] = 1000,
) -> None:
    """Score the shipped checkpoint and write its card beside it."""
    facts = json.loads(read_text(training / "state.json"))
    model = load()
    total = sum(p.numel() for p in model.parameters())
    in_experts = sum(p.numel() for n, p in model.named_parameters() if "experts" in n)
    scores = task_scores(model, items, seed=1)
    card = CARD.format(
        parameters=total / 1e6,
        experts=in_experts / total,
        name=type(model).__name__,
        config=model.config,
        top_k=model.config.num_experts_per_tok,
        megabytes=(CHECKPOINT / "model.safetensors").stat().st_size / 1e6,
        steps=facts["step"],
        rows=ROWS,
        length=LENGTH,
        millions=facts["step"] * ROWS * LENGTH / 1e6,
        seed=facts["seed"],
        muon=MUON_RATE,
        adam=ADAM_RATE,
        minutes=facts["seconds"] / 60,
        prose=PROSE_SHARE,
        characters=sum(map(len, paragraphs(held_out=False))),
        weights=", ".join(f"{name} {weight:g}" for name, weight in TASK_WEIGHTS.items()),
        prompt=PROMPT_WEIGHT,
        items=items,
        python=platform.python_version(),
        scores="\n".join(
            f"| {TASKS[s.task].title} (`{s.task}`) | {s.pia:.3f} | {s.ica:.3f} |" for s in scores
        ),
        bits=prose_bits(model),
    )
    write_text(CHECKPOINT / "README.md", card)


if __name__ == "__main__":
    typer.run(main)
