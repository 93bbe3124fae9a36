"""What the gates of the next layers choose, asked while a model runs."""

from typing import Protocol

import torch
from transformers import PreTrainedModel

from offsim.model.routers import ahead, check_own_choice, router_modules


class Foresight(Protocol):
    """Tells what the gates of the next layers choose."""

    def ahead(self, layer: int, hidden: torch.Tensor, ids: torch.Tensor) -> list[list[int]]:
        """What `Lookup.lookahead` has of a layer.

        Args:
            layer: MoE layer.
            hidden: [tokens, hidden], what its experts are called with.
            ids: [tokens, top_k], what its own router chose.

        Raises:
            InputError: it cannot be told.
        """


class Gates:
    """Asks the routers of the next layers with the hidden states of each layer.

    Args:
        model: whose routers.
        distance: how many layers ahead; 0: none is asked.

    Raises:
        InputError: the model has no routers that can be found.
    """

    def __init__(self, model: PreTrainedModel, distance: int) -> None:
        self._routers = router_modules(model) if distance else []
        self._distance = distance
        self._checked: set[int] = set()

    def ahead(self, layer: int, hidden: torch.Tensor, ids: torch.Tensor) -> list[list[int]]:
        """What `Lookup.lookahead` has of a layer, as a trace recorded from this model has it.

        Args:
            layer: MoE layer.
            hidden: [tokens, hidden], what its experts are called with.
            ids: [tokens, top_k], what its own router chose.

        Raises:
            InputError: a router cannot be asked, or does not choose by these hidden states.
        """
        if not self._distance:
            return []
        if layer not in self._checked:
            self._checked.add(layer)
            check_own_choice(self._routers[layer], layer, hidden, ids)
        chosen = ahead(self._routers, layer, hidden, self._distance)
        return [ids.flatten().tolist() for ids in chosen]
