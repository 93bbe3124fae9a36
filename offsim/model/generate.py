"""The loop that recorder and runtime share, so that both make the same steps."""

from collections.abc import Callable, Collection, Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

from offsim.errors import InputError
from offsim.model.sampling import Choose, likeliest

Observer = Callable[[int], None]
"""Called with the index of a pass: just before it, or just after its token is known."""


def _ignore(_: int) -> None:
    pass


@torch.inference_mode()
def greedy_tokens(
    model: PreTrainedModel,
    prompt: Sequence[int],
    count: int,
    before: Observer = _ignore,
    after: Observer = _ignore,
    stop: Collection[int] = (),
    choose: Choose = likeliest,
) -> list[int]:
    """Write tokens after a prompt, greedily by default, one forward pass at a time.

    The prompt is one pass, which gives the first token; each further token is a pass over the one
    before it. So `count` tokens take `count` passes, and the last token is not computed on.

    Args:
        model: causal language model.
        prompt: ids, at least one.
        count: tokens to write, at most; the end-of-text token stops it only if it is in `stop`.
        before: told the index of each pass before it starts.
        after: told it when its token is known.
        stop: tokens after which nothing more is written.
        choose: gives each token for its logits.
    """
    cache = DynamicCache(config=model.config)
    ids = torch.tensor([list(prompt)], device=model.device)
    written: list[int] = []
    for step in range(count):
        before(step)
        out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        written.append(choose(out.logits[0, -1]))
        after(step)
        if written[-1] in stop:
            break
        ids = torch.tensor([[written[-1]]], device=ids.device)
    return written


def end_tokens(model: PreTrainedModel) -> frozenset[int]:
    """The tokens that end a text, by the generation config of a model or else its config.

    Raises:
        InputError: neither names one.
    """
    generation = model.generation_config
    found = None if generation is None else generation.eos_token_id
    if found is None:
        found = model.config.get_text_config().eos_token_id
    if found is None:
        raise InputError(
            f"{type(model).__name__}: neither generation_config.json nor config.json names a token "
            "that ends a text (eos_token_id)"
        )
    return frozenset([found] if isinstance(found, int) else found)
