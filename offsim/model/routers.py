"""The routers of a model: where they are, and what they say ahead of their layer.

A hidden state changes little from one MoE layer to the next, so the router of a later layer can be
asked early: it says which experts that layer will probably want.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from offsim.errors import InputError
from offsim.model.experts import expert_modules
from offsim.model.layouts import is_driven

NAMES = ("gate", "router")
"""What transformers calls the router that stands beside the experts of a layer."""


def router_modules(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The router of each MoE layer, in layer order.

    Raises:
        InputError: the model has no experts that offsim can drive, or no router beside them.
    """
    beside = {
        id(experts): module
        for module in model.modules()
        for experts in module.children()
        if is_driven(experts)
    }
    found = []
    for layer, experts in enumerate(expert_modules(model)):
        siblings = dict(beside[id(experts)].named_children()) if id(experts) in beside else {}
        router = next((siblings[name] for name in NAMES if name in siblings), None)
        if router is None:
            raise InputError(
                f"{type(model).__name__} has no router ({' or '.join(NAMES)}) beside the experts "
                f"of MoE layer {layer}"
            )
        found.append(router)
    return found


def predicted(router: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """What a router chooses.

    Args:
        router: one of `router_modules`.
        hidden: [tokens, hidden], of its own layer or of one before.

    Returns:
        Ids [tokens, top_k] in the router's order.

    Raises:
        InputError: it needs more than hidden states, or answers in another way than
            (logits, weights, ids).
    """
    kind = type(router).__name__
    try:
        answer = router(hidden)
    except TypeError as error:  # some need ids of the tokens, or a bias that another module keeps
        raise InputError(f"{kind} cannot be asked ahead: {error}") from error
    ids = answer[2] if isinstance(answer, tuple) and len(answer) == 3 else None
    if not isinstance(ids, torch.Tensor) or ids.is_floating_point() or len(ids) != len(hidden):
        raise InputError(f"{kind} cannot be asked ahead: it does not give (logits, weights, ids)")
    return ids


def check_own_choice(
    router: torch.nn.Module, layer: int, hidden: torch.Tensor, ids: torch.Tensor
) -> None:
    """Refuse a router whose model gives it other hidden states than the experts get.

    Args:
        router: of this layer.
        layer: index of the MoE layer.
        hidden: [tokens, hidden], what its experts are called with.
        ids: [tokens, top_k], what it chose.

    Raises:
        InputError: as for `predicted`, or it does not choose the same again.
    """
    if not torch.equal(predicted(router, hidden), ids):
        raise InputError(
            f"{type(router).__name__} of MoE layer {layer} cannot be asked ahead: it does not "
            "choose by the hidden states that the experts are given"
        )


def ahead(
    routers: Sequence[torch.nn.Module], layer: int, hidden: torch.Tensor, distance: int
) -> list[torch.Tensor]:
    """What the routers of the next layers choose for the hidden states of this one.

    Args:
        routers: of all MoE layers.
        layer: index of this one.
        hidden: [tokens, hidden], what its experts are called with.
        distance: how many layers ahead.

    Returns:
        Ids [tokens, top_k] of layer + 1, layer + 2, ... as far as there are such layers.

    Raises:
        InputError: as for `predicted`.
    """
    return [predicted(router, hidden) for router in routers[layer + 1 : layer + 1 + distance]]
