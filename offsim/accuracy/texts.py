"""Perplexity, and the divergence of the next-token distribution from the unperturbed model's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from offsim.accuracy.injection import injected
from offsim.errors import InputError
from offsim.testbed import tokenizer
from offsim.testbed.prose import paragraphs
from offsim.testbed.tasks import TASKS, sample

BATCH = 32
"""Sequences at a time."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a model predicts each sequence, teacher-forced.

    Attributes:
        kl: KL(unperturbed || this model) of the next-token distribution, mean over the tokens of
            each sequence, [sequences] float64, nats a token. Rounding can leave it some 1e-8
            below zero.
        nll: negative log-likelihood of the text, mean over the tokens of each sequence,
            [sequences] float64, nats a token.
        tokens: predicted in each sequence, [sequences] int64: all but its first.
    """

    kl: npt.NDArray[np.float64]
    nll: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]

    @property
    def mean_kl(self) -> float:
        """Over all tokens, nats a token."""
        return float(np.average(self.kl, weights=self.tokens))

    @property
    def perplexity(self) -> float:
        """Exponential of the mean negative log-likelihood over all tokens, >= 1."""
        return math.exp(np.average(self.nll, weights=self.tokens))

    @property
    def bits_a_token(self) -> float:
        """Of the text, base 2; with the embedded tokenizer a token is a character."""
        return float(np.average(self.nll, weights=self.tokens)) / math.log(2)


class Texts:
    """Fixed token sequences, and what the unperturbed model predicts of them.

    The unperturbed logits stay in memory: 4 bytes times tokens times vocabulary.

    Args:
        model: any causal language model with experts; it reads once without any error, even
            within a block of `injected`.
        sequences: ids, each 2 tokens or more; those of one length that follow each other are read
            together.

    Attributes:
        unperturbed: the reading without an error; its divergence is 0.

    Raises:
        InputError: no sequence, or one too short.
    """

    def __init__(self, model: PreTrainedModel, sequences: Sequence[Sequence[int]]) -> None:
        if not sequences or min(map(len, sequences)) < 2:
            raise InputError("texts to read are one sequence or more, each of 2 tokens or more")
        self._batches = list(_batches(sequences))
        self._logits: list[torch.Tensor] = []
        with injected(model):
            self._logits = [_logits(model, ids) for ids in self._batches]
        self.unperturbed = self._reading(self._logits)

    def read(self, model: PreTrainedModel) -> Reading:
        """How a model as it stands, with whatever error, predicts the texts."""
        return self._reading([_logits(model, ids) for ids in self._batches])

    def reading_of(self, logits: Sequence[torch.Tensor]) -> Reading:
        """How what was predicted elsewhere differs.

        Args:
            logits: for each sequence, of each of its tokens but the first, [length - 1, vocabulary]
                float32.
        """
        rows = iter(logits)
        return self._reading([torch.stack([next(rows) for _ in ids]) for ids in self._batches])

    def _reading(self, found: Sequence[torch.Tensor]) -> Reading:
        kl, nll, tokens = [], [], []
        for ids, before, after in zip(self._batches, self._logits, found, strict=True):
            own = before.double().log_softmax(-1)
            log = own if after is before else after.double().log_softmax(-1)
            kl.append((own.exp() * (own - log)).sum(-1).mean(-1))
            nll.append(-log.gather(-1, ids[:, 1:, None].to(log.device)).squeeze(-1).mean(-1))
            tokens += [ids.shape[1] - 1] * len(ids)
        kls, nlls = (torch.cat(part).cpu().numpy() for part in (kl, nll))
        return Reading(kls, nlls, np.array(tokens, np.int64))


def embedded_texts(sequences: int = 64, length: int = 128, seed: int = 0) -> list[list[int]]:
    """Held-out text of the embedded model: solved tasks in the first half, prose in the second.

    Task sequences hold items of all tasks by turns, with their right answers, one a line, as in
    training; the last item is cut. Prose is consecutive pieces of held-out paragraphs.

    Args:
        sequences: how many, of both kinds together; the tasks have one more where it is odd.
        length: tokens a sequence.
        seed: of the items.

    Raises:
        InputError: the prose of this Python is not enough.
    """
    tasks, prose = sequences - sequences // 2, sequences // 2
    text = "\n" + "\n".join(paragraphs(held_out=True))
    if len(text) < prose * length:
        most = len(text) // length
        raise InputError(f"there are {most} sequences of {length} tokens of prose, not {prose}")
    rounds = -(-tasks * length // (4 * len(TASKS)))  # no item is shorter than 4 characters
    drawn = [sample(task, rounds, seed, held_out=True) for task in TASKS.values()]
    lines = (f"{item.prompt}{item.answer}" for turn in zip(*drawn, strict=True) for item in turn)
    solved = "\n" + "\n".join(lines)
    return [
        tokenizer.encode(source[start : start + length])
        for source, count in ((solved, tasks), (text, prose))
        for start in range(0, count * length, length)
    ]


def pieces(ids: Sequence[int], most: int, length: int = 128) -> list[list[int]]:
    """Consecutive sequences of a text, all of one length; what is left of it is not read.

    A text shorter than that is one sequence.

    Args:
        ids: tokens of the text.
        most: sequences, 1 or more.
        length: tokens of each, 2 or more.

    Raises:
        InputError: fewer than 2 tokens.
    """
    if len(ids) < 2:
        raise InputError("a text to read has 2 tokens or more")
    size = min(length, len(ids))
    count = min(most, len(ids) // size)
    return [list(ids[start : start + size]) for start in range(0, count * size, size)]


def _batches(sequences: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Ids [rows, length] int64, neighbours of equal length together."""
    batches: list[list[Sequence[int]]] = []
    for row in sequences:
        if not batches or len(batches[-1]) == BATCH or len(batches[-1][0]) != len(row):
            batches.append([])
        batches[-1].append(row)
    return [torch.tensor(rows) for rows in batches]


@torch.inference_mode()
def _logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Of each token but the first, [rows, length - 1, vocabulary] float32."""
    found: torch.Tensor = model(input_ids=ids.to(model.device), use_cache=False).logits
    return found[:, :-1].float()
