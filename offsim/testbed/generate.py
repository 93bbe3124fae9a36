"""Greedy answers of a model, many prompts at a time."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

from offsim.testbed import tokenizer


def answers(
    model: PreTrainedModel, prompts: Sequence[str], *, longest: int = 48, batch: int = 128
) -> list[str]:
    """Greedy continuation of each prompt up to the end of its line.

    Prompts of equal length run together, so nothing is padded and no mask is needed. Each prompt
    is put after an end of line, as in training.

    Args:
        model: a causal language model over the embedded vocabulary.
        prompts: ASCII texts.
        longest: most tokens written.
        batch: most prompts at a time.

    Returns:
        The text written for each prompt, without the end of the line; cut at `longest`.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        by_length[len(prompt)].append(index)
    outputs = [""] * len(prompts)
    for indices in by_length.values():
        for start in range(0, len(indices), batch):
            chunk = indices[start : start + batch]
            ids = torch.tensor([tokenizer.encode("\n" + prompts[i]) for i in chunk])
            for index, line in zip(chunk, _greedy(model, ids, longest), strict=True):
                outputs[index] = tokenizer.decode(line)
    return outputs


@torch.inference_mode()
def _greedy(model: PreTrainedModel, ids: torch.Tensor, longest: int) -> list[list[int]]:
    """Tokens written after ids [rows, length] int64, each row up to its end of line."""
    cache = DynamicCache(config=model.config)
    written: list[list[int]] = [[] for _ in range(len(ids))]
    active = list(range(len(ids)))
    step = ids
    for _ in range(longest):
        logits = model(input_ids=step, past_key_values=cache, use_cache=True).logits[:, -1]
        chosen = logits.argmax(-1).tolist()
        keep = [i for i, token in enumerate(chosen) if token != tokenizer.END]
        for i in keep:
            written[active[i]].append(chosen[i])
        if not keep:
            break
        if len(keep) < len(active):
            cache.batch_select_indices(torch.tensor(keep))
            active = [active[i] for i in keep]
        step = torch.tensor([[chosen[i]] for i in keep])
    return written
