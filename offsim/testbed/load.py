"""The embedded checkpoint, as shipped in the package."""

from importlib.resources import files
from pathlib import Path

import torch
from transformers import Qwen3MoeForCausalLM
from transformers.utils.logging import disable_progress_bar

from offsim.errors import InputError

CHECKPOINT = Path(str(files("offsim.testbed"))) / "checkpoint"


def load(folder: Path = CHECKPOINT) -> Qwen3MoeForCausalLM:
    """The embedded model in evaluation mode.

    Weights are stored in bf16 and computed with in float32, which a CPU does faster; the values
    are the same.

    Args:
        folder: a checkpoint folder (config.json, model.safetensors) of the same architecture.

    Raises:
        InputError: the folder holds no checkpoint.
    """
    if not (folder / "model.safetensors").is_file():
        raise InputError(f"{folder}: no checkpoint (model.safetensors) in this folder")
    disable_progress_bar()
    model: Qwen3MoeForCausalLM = Qwen3MoeForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True
    )
    model.eval()
    return model
