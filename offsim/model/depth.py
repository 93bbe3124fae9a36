"""A model without its later layers."""

from typing import Any, cast

import torch
from transformers import PreTrainedModel

from offsim.errors import InputError
from offsim.model.layouts import is_driven


def keep_first(model: PreTrainedModel, layers: int) -> None:
    """Leave out all layers behind the first so many MoE layers.

    Embedding, final norm and head stay, so that the model computes as before, but for fewer layers;
    what it writes is no more what it was trained to write.

    Args:
        model: changed in place; the memory of what is left out is free if nobody else has it.
        layers: MoE layers that are kept, with the dense layers before and between them.

    Raises:
        InputError: it has fewer, or keeps its layers elsewhere than transformers usually does.
    """
    decoder = cast(Any, model.base_model)
    blocks = getattr(decoder, "layers", None)
    if not isinstance(blocks, torch.nn.ModuleList):
        raise InputError(f"{type(model).__name__} has no list of layers that could be cut")
    places = [at for at, block in enumerate(blocks) if any(map(is_driven, block.modules()))]
    if not 1 <= layers <= len(places):
        raise InputError(f"{type(model).__name__} has {len(places)} MoE layers, not {layers}")
    kept = places[layers - 1] + 1
    decoder.layers = blocks[:kept]
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    config.num_hidden_layers = kept  # of the key-value cache too
    if kinds is not None:
        config.layer_types = list(kinds)[:kept]
