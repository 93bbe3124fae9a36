"""The embedded tasks, asked of a model with and without an error over the same items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel

from offsim.accuracy.injection import injected
from offsim.testbed.scores import Answered, answered, held_out_items


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model wrote for all items, and how far it agrees with the unperturbed model.

    Attributes:
        tasks: by name what was written, with PIA and ICA of each item.
        agreement: by task, for each item the share of the unperturbed model's tokens, its end of
            the line among them, that this model wrote too before its first other token: [items]
            float64, 0..1. It is 1 where both wrote the same to the end.
    """

    tasks: Mapping[str, Answered]
    agreement: Mapping[str, npt.NDArray[np.float64]]

    def pia(self, *tasks: str) -> npt.NDArray[np.bool_]:
        """Whether the content is right, [items of these tasks, or of all] bool."""
        return np.concatenate([self.tasks[name].pia for name in tasks or self.tasks])

    def ica(self, *tasks: str) -> npt.NDArray[np.bool_]:
        """Whether content and format are right, [items of these tasks, or of all] bool."""
        return np.concatenate([self.tasks[name].ica for name in tasks or self.tasks])

    def agreed(self, *tasks: str) -> npt.NDArray[np.float64]:
        """Agreement of each item, [items of these tasks, or of all] float64, 0..1."""
        return np.concatenate([self.agreement[name] for name in tasks or self.agreement])

    def exact(self, *tasks: str) -> npt.NDArray[np.bool_]:
        """Whether the whole continuation is the unperturbed one, [items of these or all] bool."""
        exact: npt.NDArray[np.bool_] = self.agreed(*tasks) == 1
        return exact


class Questions:
    """Fixed held-out items of the embedded tasks, and what the unperturbed model answers.

    Args:
        model: over the embedded vocabulary; it is asked once without any error, even within a
            block of `injected`.
        items: of each task.
        seed: of the draw of items.
        tasks: names; all where None.

    Attributes:
        items: by task.
        unperturbed: what the model answers without an error.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        items: int,
        seed: int = 0,
        tasks: Sequence[str] | None = None,
    ) -> None:
        self.items = held_out_items(items, seed, tasks)
        with injected(model):
            found = answered(model, self.items)
        self._drafts = {name: one.outputs for name, one in found.items()}
        self.unperturbed = self._answers(found)

    def ask(self, model: PreTrainedModel) -> Answers:
        """Ask a model as it stands, with whatever error it runs under.

        Its answers are checked against those of the unperturbed model first, so that what did not
        change costs one pass an item; the result is that of plain greedy decoding.
        """
        return self._answers(answered(model, self.items, self._drafts))

    def _answers(self, found: dict[str, Answered]) -> Answers:
        agreement = {
            name: np.array(
                [_agreement(*pair) for pair in zip(self._drafts[name], one.outputs, strict=True)],
                np.float64,
            )
            for name, one in found.items()
        }
        return Answers(found, agreement)


def _agreement(before: str, after: str) -> float:
    """Share of the tokens of a line, its end included, that another line begins with."""
    line = f"{before}\n"
    pairs = enumerate(zip(line, f"{after}\n", strict=False))  # one may be longer
    return next((at for at, (own, other) in pairs if own != other), len(line)) / len(line)
