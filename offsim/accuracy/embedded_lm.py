"""The embedded model as lm-evaluation-harness sees a model; needs the extra `eval`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedModel

from offsim.accuracy.harness import LONGEST
from offsim.errors import InputError
from offsim.testbed import tokenizer
from offsim.testbed.generate import answers

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

BATCH = 64
"""Sequences at a time."""

Pair = tuple[tuple[str, str], list[int], list[int]]
"""Context and continuation, as text and as the ids of each."""


class EmbeddedLM(TemplateLM):
    """A model over the embedded vocabulary, whose tokens are the bytes of a text.

    Every text is put after an end of line, as in training, and an answer ends with its line, which
    is the model's end of text. Answers are greedy.

    Args:
        model: a causal language model over the embedded vocabulary.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    @property
    def eot_token_id(self) -> int:
        """The end of line."""
        return tokenizer.END

    @property
    def max_length(self) -> int:
        """Tokens that the model was made for."""
        return int(self.model.config.max_position_embeddings)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: object
    ) -> list[int]:
        """Ids of a text, after an end of line where not told otherwise.

        Raises:
            InputError: the text is not ASCII.
        """
        try:
            ids = tokenizer.encode(string)
        except ValueError as error:
            raise InputError(f"the embedded model cannot read this task: {error}") from error
        return ids if add_special_tokens is False else [tokenizer.END, *ids]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Each text by itself: bytes never merge, so that a blank stays on its side."""
        return self.tok_encode(context), self.tok_encode(continuation, add_special_tokens=False)

    def generate_until(
        self, requests: Sequence["Instance"], disable_tqdm: bool = False
    ) -> list[str]:
        """The answer to each request, up to the end of its line or what else ends it.

        Raises:
            InputError: a text is not ASCII, or a task wants random or too long answers.
        """
        asked = [request.args for request in requests]
        limits = [int(how.get("max_gen_toks", LONGEST)) for _, how in asked]
        written = [""] * len(asked)
        for longest in sorted(set(limits)):
            mine = [at for at, limit in enumerate(limits) if limit == longest]
            room = self.max_length - longest - 1  # the end of line before it is a token too
            if room < 1:
                raise InputError(
                    f"a task asks for {longest} tokens, and the model has room for "
                    f"{self.max_length} with the question"
                )
            prompts = [asked[at][0][-room:] for at in mine]
            for prompt in prompts:
                self.tok_encode(prompt)  # refuses what is not ASCII, with a sentence
            lines = answers(self.model, prompts, longest=longest, batch=BATCH)
            for at, line in zip(mine, lines, strict=True):
                written[at] = _until(line, asked[at][1])
        return written

    def loglikelihood_rolling(
        self, requests: Sequence["Instance"], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihood of each whole text, nats, in windows as long as the model was made for.

        Raises:
            InputError: a text is not ASCII.
        """
        pairs: list[Pair] = []
        owners = []
        for number, request in enumerate(requests):
            (text,) = request.args
            ids = self.tok_encode(text, add_special_tokens=False)
            for window in get_rolling_token_windows(ids, tokenizer.END, self.max_length, 1):
                pairs.append((("", text), *make_disjoint_window(window)))
                owners.append(number)
        found = [0.0] * len(requests)
        for owner, (likelihood, _) in zip(owners, self._loglikelihood_tokens(pairs), strict=True):
            found[owner] += likelihood
        return found

    @torch.inference_mode()
    def _loglikelihood_tokens(
        self, requests: Sequence[Pair], **_: object
    ) -> list[tuple[float, bool]]:
        """For each pair the log-likelihood of its continuation, nats, and whether it is greedy.

        Shorter rows are padded on the right, which a causal model does not see before it comes
        there.
        """
        found = [(0.0, True)] * len(requests)
        order = sorted(range(len(requests)), key=lambda at: len(requests[at][1] + requests[at][2]))
        for start in range(0, len(order), BATCH):
            chunk = order[start : start + BATCH]
            # The last token of the row is predicted and not read.
            rows = [(requests[at][1] + requests[at][2])[-self.max_length - 1 :] for at in chunk]
            width = max(map(len, rows)) - 1
            padded = [row[:-1] + [tokenizer.PAD] * (width + 1 - len(row)) for row in rows]
            ids = torch.tensor(padded, device=self.model.device)
            logs = self.model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1).cpu()
            for at, row, log in zip(chunk, rows, logs, strict=True):
                count = len(requests[at][2])
                said = torch.tensor(row[len(row) - count :])
                own = log[len(row) - 1 - count : len(row) - 1]
                chosen = own.gather(-1, said[:, None]).sum()
                found[at] = float(chosen), bool((own.argmax(-1) == said).all())
        return found


def _until(line: str, how: Mapping[str, Any]) -> str:
    """An answer up to the first text that ends it.

    Raises:
        InputError: the task wants random answers.
    """
    if how.get("do_sample") or float(how.get("temperature") or 0) > 0:
        raise InputError(
            "the embedded model answers greedily, and the task asks for random answers"
        )
    ends = how.get("until") or []
    for end in filter(None, [ends] if isinstance(ends, str) else ends):
        line = line.partition(end)[0]
    return line
