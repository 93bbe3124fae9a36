"""Greedy answers of a model, many prompts at a time."""

from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

from offsim.testbed import tokenizer


def answers(
    model: PreTrainedModel,
    prompts: Sequence[str],
    *,
    longest: int = 48,
    batch: int = 64,
    drafts: Sequence[str] | None = None,
) -> list[str]:
    """Greedy continuation of each prompt up to the end of its line.

    Prompts of about equal length run together, the shorter ones padded on the left and the padding
    masked. Each prompt is put after an end of line, as in training.

    Args:
        model: a causal language model over the embedded vocabulary.
        prompts: ASCII texts.
        longest: most tokens written.
        batch: most prompts at a time.
        drafts: for each prompt a guess of what will be written. As far as the model writes the
            same, one pass over prompt and draft finds it, in place of a pass a token. A guess
            changes the time and not the answer (but for ties within float rounding).

    Returns:
        The text written for each prompt, without the end of the line; cut at `longest`.
    """
    rows = [tokenizer.encode("\n" + prompt) for prompt in prompts]
    written: list[list[int]] = [[] for _ in rows]
    waiting = list(range(len(rows)))
    if drafts is not None:
        guesses = [tokenizer.encode(draft.partition("\n")[0])[:longest] for draft in drafts]
        written, waiting = _begun(model, rows, guesses, longest, batch)
    waiting.sort(key=lambda i: len(rows[i]) + len(written[i]))
    for start in range(0, len(waiting), batch):
        chunk = waiting[start : start + batch]
        left = longest - min(len(written[i]) for i in chunk)
        lines = _greedy(model, [rows[i] + written[i] for i in chunk], left)
        for index, line in zip(chunk, lines, strict=True):
            written[index] = (written[index] + line)[:longest]
    return [tokenizer.decode(line) for line in written]


@torch.inference_mode()
def _begun(
    model: PreTrainedModel,
    rows: Sequence[list[int]],
    guesses: Sequence[list[int]],
    longest: int,
    batch: int,
) -> tuple[list[list[int]], list[int]]:
    """The greedy tokens that guesses give at once, and the rows that have not ended with them.

    Shorter rows are padded on the right, which a causal model does not see before it comes there.
    """
    written: list[list[int]] = [[] for _ in rows]
    waiting = []
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]) + len(guesses[i]))
    for start in range(0, len(order), batch):
        chunk = order[start : start + batch]
        whole = [rows[i] + guesses[i] for i in chunk]
        width = len(whole[-1])
        ids = torch.tensor([row + [tokenizer.PAD] * (width - len(row)) for row in whole])
        chosen = model(input_ids=ids, use_cache=False).logits.argmax(-1).tolist()
        for i, row in zip(chunk, chosen, strict=True):
            guess = guesses[i]
            greedy = row[len(rows[i]) - 1 :][: len(guess) + 1]
            pairs = zip(greedy, guess, strict=False)  # greedy has one token more
            kept = next((at for at, (own, said) in enumerate(pairs) if own != said), len(guess))
            ended = greedy[kept] == tokenizer.END
            written[i] = (greedy[:kept] if ended else greedy[: kept + 1])[:longest]
            if not ended and len(written[i]) < longest:
                waiting.append(i)
    return written, waiting


@torch.inference_mode()
def _greedy(model: PreTrainedModel, rows: Sequence[Sequence[int]], longest: int) -> list[list[int]]:
    """Tokens written after each row of ids, up to its end of line."""
    cache = DynamicCache(config=model.config)
    written: list[list[int]] = [[] for _ in rows]
    active = list(range(len(rows)))
    width = max(map(len, rows))
    padded = width > min(map(len, rows))
    step = torch.tensor([[tokenizer.PAD] * (width - len(row)) + list(row) for row in rows])
    seen = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    places = (seen.cumsum(1) - 1).clamp(min=0)
    for _ in range(longest):
        logits = model(
            input_ids=step,
            attention_mask=seen if padded else None,
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
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
        seen = torch.nn.functional.pad(seen[keep], (0, 1), value=1)
        places = places[keep, -1:] + 1
    return written
