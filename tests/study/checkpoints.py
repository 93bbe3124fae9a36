"""Small checkpoints on disk, and folders of their compressed experts."""

import json
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save_file

from offsim.codec.bounds import Bound
from offsim.policy.bounds import Bounds, Rule

LAYERS, EXPERTS, HIDDEN, WIDTH = 2, 3, 32, 40
TABLE = Bounds(
    default=Bound(0.001), rules=(Rule(bound=Bound(0.25, "sigma"), layers=(1,), experts=(0, 2)),)
)


def mixtral_like(
    folder: Path,
    layers: int = LAYERS,
    experts: int = EXPERTS,
    hidden: int = HIDDEN,
    width: int = WIDTH,
    seed: int = 0,
) -> Path:
    """A folder with a shard for each layer, in which experts are named as those of Mixtral."""
    folder.mkdir(parents=True)
    config = {"model_type": "mixtral", "num_hidden_layers": layers, "num_local_experts": experts}
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(seed)
    shapes = {"w1": (width, hidden), "w2": (hidden, width), "w3": (width, hidden)}
    for layer in range(layers):
        tensors = {
            f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{name}.weight": (
                torch.randn(*shape, generator=generator) * 0.02
            ).bfloat16()
            for expert in range(experts)
            for name, shape in shapes.items()
        }
        save_file(tensors, folder / f"model-{layer + 1:05}-of-{layers:05}.safetensors")
    return folder


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder."""
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
