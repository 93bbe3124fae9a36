"""Train the embedded model: `python -m offsim.testbed.train --out DIR`. Seeded and resumable.

Kill it at any time and start it again with the same --out: it goes on from the last saved step
and ends with the same weights (on the same machine and thread count).
"""

import json
import os
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import Progress, TextColumn
from safetensors.torch import load_file, save_file
from transformers import Qwen3MoeForCausalLM

from offsim.testbed.config import config
from offsim.testbed.data import batch
from offsim.testbed.muon import Muon

ROWS, LENGTH = 20, 128
MUON_RATE, ADAM_RATE = 5e-3, 2e-3
WARM_UP, DECAY_SHARE = 100, 0.4
SAVE_EVERY = 200


def rate(step: int, steps: int) -> float:
    """Share of the full learning rate: linear warm-up, flat, linear decay over the last 40 %."""
    return min(1.0, (step + 1) / WARM_UP, (steps - step) / (steps * DECAY_SHARE))


def loss_of(model: Qwen3MoeForCausalLM, seed: int, step: int) -> torch.Tensor:
    """Weighted cross-entropy of one batch plus the router's load-balancing loss."""
    ids, weights = (torch.from_numpy(part) for part in batch(seed, step, ROWS, LENGTH))
    out = model(input_ids=ids[:, :-1], output_router_logits=True)
    each = torch.nn.functional.cross_entropy(
        out.logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    target = weights[:, 1:].flatten()
    balance = model.config.router_aux_loss_coef * out.aux_loss
    loss: torch.Tensor = (each * target).sum() / target.sum() + balance
    return loss


class Trainer:
    """Model, optimisers and their place on disk."""

    def __init__(self, out: Path, steps: int, seed: int) -> None:
        self.out, self.steps, self.seed = out, steps, seed
        torch.manual_seed(seed)
        self.model = Qwen3MoeForCausalLM(config())
        self.model.set_experts_implementation("grouped_mm")
        named = dict(self.model.named_parameters())
        is_matrix = {name: p.ndim >= 2 and "embed" not in name for name, p in named.items()}
        self.names = sorted(named, key=lambda name: not is_matrix[name])
        self.muon = Muon([named[n] for n in self.names if is_matrix[n]], MUON_RATE)
        self.adam = torch.optim.AdamW(
            [named[n] for n in self.names if not is_matrix[n]], ADAM_RATE, weight_decay=0.0
        )
        self.step, self.seconds = 0, 0.0
        if (self.out / "state.json").exists():
            self._resume()

    def advance(self) -> float:
        """Train on one batch; returns its loss (nats, weighted mean)."""
        started = time.perf_counter()
        share = rate(self.step, self.steps)
        self.muon.param_groups[0]["lr"] = MUON_RATE * share
        self.adam.param_groups[0]["lr"] = ADAM_RATE * share
        loss = loss_of(self.model, self.seed, self.step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in (self.muon, self.adam):
            optimiser.step()
            optimiser.zero_grad()
        self.step += 1
        self.seconds += time.perf_counter() - started
        return float(loss.detach())

    def save(self) -> None:
        """Write the state; state.json is renamed into place last, and names the tensors file."""
        self.out.mkdir(parents=True, exist_ok=True)
        tensors = dict(self.model.named_parameters())
        for name, parameter in list(tensors.items()):
            for optimiser in (self.muon, self.adam):
                for key, value in optimiser.state.get(parameter, {}).items():
                    tensors[f"{key}/{name}"] = value
        file = self.out / f"state-{self.step}.safetensors"
        save_file({name: t.detach().contiguous() for name, t in tensors.items()}, file)
        facts = {"step": self.step, "steps": self.steps, "seed": self.seed}
        partial = self.out / "state.json.partial"
        partial.write_text(json.dumps({**facts, "seconds": self.seconds, "file": file.name}))
        os.replace(partial, self.out / "state.json")
        for old in self.out.glob("state-*.safetensors"):
            if old != file:
                old.unlink()

    def _resume(self) -> None:
        facts = json.loads((self.out / "state.json").read_text())
        if (facts["steps"], facts["seed"]) != (self.steps, self.seed):
            raise typer.BadParameter(f"{self.out} holds a training with other --steps or --seed")
        tensors = load_file(self.out / facts["file"])
        named = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(tensors[name])
        for key, value in tensors.items():
            kind, _, name = key.partition("/")
            if name:
                parameter = named[name]
                optimiser = self.adam if f"exp_avg/{name}" in tensors else self.muon
                optimiser.state[parameter][kind] = value
        self.step, self.seconds = facts["step"], facts["seconds"]


def export(trainer: Trainer, folder: Path) -> None:
    """Write the trained model as a bf16 checkpoint folder (config.json, model.safetensors)."""
    model = Qwen3MoeForCausalLM(config())
    model.load_state_dict(trainer.model.state_dict())
    model.bfloat16().save_pretrained(folder)


def main(
    out: Annotated[Path, typer.Option(help="folder for the state and the finished checkpoint")],
    steps: Annotated[int, typer.Option(help="batches of 20 x 128 tokens")] = 6000,
    seed: Annotated[int, typer.Option(help="of the weights and the data")] = 0,
    threads: Annotated[int, typer.Option(help="compute threads")] = 1,
) -> None:
    """Train the embedded model, or go on with a training that was stopped."""
    torch.set_num_threads(threads)
    np.seterr(all="raise")
    trainer = Trainer(out, steps, seed)
    columns = (*Progress.get_default_columns(), TextColumn("loss {task.fields[loss]:.3f}"))
    losses = out / "losses.csv"
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=steps, completed=trainer.step, loss=0.0)
        while trainer.step < steps:
            loss = trainer.advance()
            progress.update(bar, completed=trainer.step, loss=loss)
            if trainer.step % SAVE_EVERY == 0 or trainer.step == steps:
                trainer.save()
                with losses.open("a") as log:
                    log.write(f"{trainer.step},{loss:.4f},{trainer.seconds:.1f}\n")
    export(trainer, out / "checkpoint")


if __name__ == "__main__":
    typer.run(main)
