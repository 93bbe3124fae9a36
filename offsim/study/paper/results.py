"""The finished runs of a study, cell by cell, and paired differences between them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from offsim.accuracy import Difference, difference
from offsim.errors import FormatError
from offsim.files import read_json
from offsim.study.paper.design import Cell
from offsim.study.paper.folder import BASE, Outcome, as_array, outcome_path, read_outcome
from offsim.study.paper.plan import QUESTIONS, Plan

Score = Literal["ica", "pia", "kl"]
RESAMPLES = 1000
"""Of the bootstrap; there are hundreds of intervals."""


@dataclass(frozen=True)
class Results:
    """The runs that a folder holds.

    Attributes:
        out: folder.
        plan: its plan.
    """

    out: Path
    plan: Plan

    @cached_property
    def _kept(self) -> dict[Cell, list[Outcome]]:
        return {}

    @cached_property
    def _differences(self) -> dict[tuple[bytes, bytes], Difference]:
        return {}

    def runs(self, cell: Cell) -> list[Outcome]:
        """The runs of a cell, one a seed; none where one is missing.

        Raises:
            FormatError: one is of another error, or has other items.
        """
        if cell not in self._kept:
            seeds = range(cell.seeds(self.plan.seeds))
            paths = [outcome_path(self.out, cell.name, seed) for seed in seeds]
            found = []
            if all(path.exists() for path in paths):
                found = [read_outcome(path, cell, seed) for seed, path in enumerate(paths)]
                for path, run in zip(paths, found, strict=True):
                    _check_items(path, run, self.plan)
            self._kept[cell] = found
        return self._kept[cell]

    def has(self, cell: Cell) -> bool:
        """Whether all runs of a cell are there."""
        return bool(self.runs(cell))

    def after(self, cell: Cell, score: Score) -> npt.NDArray[Any]:
        """Values under the error: [seeds, items] bool, of `kl` [seeds, sequences] float64."""
        runs = self.runs(cell)
        if score == "kl":
            return np.array([run.kl for run in runs], np.float64)
        return np.stack([as_array(getattr(run, score)) for run in runs])

    def before(self, questions: str, score: Score) -> npt.NDArray[Any]:
        """Values of the model as it is, [items] bool; of `kl` zeros [sequences] float64.

        Raises:
            InputError: it was not asked.
            FormatError: its file has other items.
        """
        path = outcome_path(self.out, f"{BASE}-{questions}", 0)
        run = read_json(path, Outcome)
        _check_items(path, run, self.plan)
        return np.array(run.kl) if score == "kl" else as_array(getattr(run, score))

    def change(self, cell: Cell, score: Score, task: str | None = None) -> Difference:
        """What an error changes, over all items or those of one task."""
        items = self.items(cell.questions, task)
        if score == "kl":
            items = slice(None)
        before, after = self.before(cell.questions, score), self.after(cell, score)
        return self._difference(before[items], after[:, items])

    def against(self, first: Cell, second: Cell, score: Score) -> Difference:
        """The second cell less the first, paired over items.

        Seeds are paired where both cells have them; a codec, which has one run, is held against
        each of the other's.
        """
        one, two = self.after(first, score), self.after(second, score)
        if len(one) == 1:
            return self._difference(one[0], two)
        if len(two) == 1:
            swapped = self._difference(two[0], one)
            return Difference(
                -swapped.mean, -swapped.high, -swapped.low, swapped.items, swapped.seeds
            )
        apart = two.astype(np.float64) - one.astype(np.float64)
        return self._difference(np.zeros(apart.shape[1]), apart)

    def format_lost(self, cell: Cell) -> Difference:
        """By how much more an error lowers ICA than PIA: below 0 where the format suffers."""
        lost = {}
        for score in ("ica", "pia"):
            before = self.before(cell.questions, score).astype(np.float64)
            lost[score] = self.after(cell, score) - before
        apart = lost["ica"] - lost["pia"]
        return self._difference(np.zeros(apart.shape[1]), apart)

    def level(self, cell: Cell, score: Score) -> Difference:
        """Mean and interval of a score itself, over items and seeds."""
        after = self.after(cell, score)
        return self._difference(np.zeros(after.shape[1]), after)

    def items(self, questions: str, task: str | None) -> slice:
        """Where the items of a task are; all of them for None."""
        if task is None:
            return slice(None)
        each = self.plan.a_task(questions)
        start = QUESTIONS[questions].index(task) * each
        return slice(start, start + each)

    def _difference(self, before: npt.NDArray[Any], after: npt.NDArray[Any]) -> Difference:
        # ICA and PIA are often the same arrays, and tables share cells.
        key = (before.astype(np.float64).tobytes(), after.astype(np.float64).tobytes())
        if key not in self._differences:
            self._differences[key] = difference(before, after, RESAMPLES)
        return self._differences[key]


def _check_items(path: Path, run: Outcome, plan: Plan) -> None:
    items = plan.a_task(run.questions) * len(QUESTIONS[run.questions])
    sequences = plan.sequences if run.questions == "mixed" else 0
    if (len(run.ica), len(run.pia), len(run.kl)) != (items, items, sequences):
        raise FormatError(
            f"{path}: it has {len(run.ica)} items and {len(run.kl)} sequences where the plan has "
            f"{items} and {sequences}; remove it"
        )
