"""Loading a checkpoint folder: the model without the matrices of its experts, its tokenizer."""

import re
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from offsim.errors import InputError
from offsim.model.experts import expert_modules
from offsim.model.layouts import BIG
from offsim.model.quantised import block_of, from_fp8
from offsim.model.reader import FP8, SCALES
from offsim.model.shards import Shards

MXFP4_METHOD, FP8_METHOD = "mxfp4", "fp8"
"""What `quant_method` of a configuration may be: of experts alone, or of dense weights too."""
OF_EXPERTS = (
    r"\.experts\.",
    r"\.block_sparse_moe\.(input|output)_linear\.",
)
"""Patterns of the tensors that a checkpoint has for experts, which are not read here."""
TAKEN = "offsim_taken"
"""Where a model keeps the matrices on `meta` that it is loaded without."""


ALIGNMENT = 64
"""Bytes, of the memory that torch itself allocates."""


def load_dense(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load everything but the experts: attention, norms, routers, shared experts, biases.

    The matrices of the experts stay on the `meta` device and take no memory, so that the peak is
    about the dense weights. transformers loads all else as it loads a whole model, through a class
    whose experts have no matrices.

    Args:
        folder: a checkpoint with config.json and safetensors.
        dtype: of the loaded model; offloaded experts are computed in float32.

    Returns:
        The model in evaluation mode; run it offloaded, with a store of its experts.

    Raises:
        InputError: not a checkpoint of a causal language model with experts that offsim can drive,
            dense weights that are quantised in another way than FP8 in blocks, or a dense weight
            that is missing.
    """
    config, block = _config_of(folder)
    kind = cast(Any, MODEL_FOR_CAUSAL_LM_MAPPING).get(type(config), None)
    if kind is None:
        raise InputError(f"{folder}: a {config.model_type} is not a causal language model")
    disable_progress_bar()
    try:
        model, told = _without_matrices(kind).from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{folder}: cannot be loaded: {line}") from error
    if missing := sorted(told["missing_keys"]):
        raise InputError(
            f"{folder}: the checkpoint lacks {missing[0]} and {len(missing) - 1} others; get all "
            "of its files"
        )
    for module, name, matrix in model.__dict__.pop(TAKEN):
        module.register_parameter(name, matrix)
    if block is not None:
        _scale(model, folder, block)
    _align(model)
    model.__class__ = kind
    return cast(PreTrainedModel, model.eval())


def tokenizer_of(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint; nothing is downloaded for it, and no code of it runs.

    Raises:
        InputError: there is none.
    """
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{folder}: the tokenizer cannot be loaded: {line}") from error
    if not found.encode("a", add_special_tokens=False):  # transformers made an empty one
        raise InputError(f"{folder}: no tokenizer (tokenizer.json); give prompts as ids (.jsonl)")
    return found


def _config_of(folder: Path) -> tuple[PreTrainedConfig, tuple[int, int] | None]:
    """The configuration of a checkpoint, without its quantisation.

    Returns:
        The configuration; and, where dense weights are in FP8, rows and columns under one scale.

    Raises:
        InputError: there is none, of no known architecture, or dense weights are quantised in
            another way.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: not a checkpoint folder: it has no config.json")
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (StrictDataclassError, AttributeError, OSError, ValueError, KeyError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{folder}: config.json cannot be used: {line}") from error
    quantisation = getattr(config, "quantization_config", None)
    if quantisation is None:
        return config, None
    # transformers would ask for accelerate or a GPU to undo what is undone here.
    del config.quantization_config
    method, block = (quantisation.get(name) for name in ("quant_method", "weight_block_size"))
    if method == FP8_METHOD and block is not None:
        return config, block_of(folder / "config.json", block)
    if method != MXFP4_METHOD:
        raise InputError(
            f"{folder}: its dense weights are quantised ({method}), and offsim reads them in FP8 "
            "with scales of blocks or not at all; convert the checkpoint to bf16"
        )
    return config, None


def _align(model: PreTrainedModel) -> None:
    """Bring weights that lie in a mapped file at any address into memory of their own.

    Matrix products take other instructions for other addresses, and round otherwise: without this
    the outputs of a model would depend on the order of the tensors in its files.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if not tensor.is_meta and tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone()


def _scale(model: PreTrainedModel, folder: Path, block: tuple[int, int]) -> None:
    """Multiply the dense weights that are stored in FP8 by their scales.

    Args:
        model: with the stored values, which are exact in any of its dtypes.
        folder: that has the scales.
        block: rows and columns under one scale.

    Raises:
        InputError: a weight in FP8 has no scales, or the model another name for it.
    """
    shards, parameters = Shards(folder), dict(model.named_parameters())
    elsewhere = re.compile("|".join(model._keys_to_ignore_on_load_unexpected or ()))
    for name, place in shards.tensors.items():
        if place.dtype != FP8 or elsewhere.search(name):
            continue
        parameter, scales = parameters.get(name), f"{name}{SCALES}"
        if parameter is None or scales not in shards.tensors:
            raise InputError(
                f"{place.file}: {name} is in FP8, and there is no {scales} with which it could be "
                f"a weight of {type(model).__name__}; convert the checkpoint to bf16"
            )
        parameter.data = from_fp8(parameter.data, shards.read(scales), block).to(parameter.dtype)


def _without_matrices(kind: type[PreTrainedModel]) -> Any:
    """The same class of models, made without the matrices of its experts."""

    class Dense(kind):  # type: ignore[misc,valid-type]
        def __init__(self, config: PreTrainedConfig) -> None:
            super().__init__(config)
            taken = [
                (module, name, getattr(module, name))
                for module in cast(list[Any], expert_modules(self))
                for name in BIG
            ]
            for module, name, _ in taken:
                setattr(module, name, None)
                module._is_hf_initialized = True  # else what is missing would be drawn, and fail
            self.__dict__[TAKEN] = taken

    # transformers looks conversions of checkpoints up by the name of the class.
    Dense.__name__ = kind.__name__
    usual = kind._keys_to_ignore_on_load_unexpected or ()
    Dense._keys_to_ignore_on_load_unexpected = [*usual, *OF_EXPERTS, f"{SCALES}$"]
    return Dense
