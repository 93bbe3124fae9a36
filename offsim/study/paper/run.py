"""The measuring of the paper study: one run for each cell and seed, each left in a file at once.

What is there already is not done again, so that a study that was cut off goes on where it was, and
two that write into one folder share the work.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from offsim.accuracy import Perturbed, Questions, Texts, embedded_texts
from offsim.errors import FormatError, InputError
from offsim.files import read_json, write_text
from offsim.model.experts import shape_of
from offsim.model.hook import handled
from offsim.study.paper.design import CODEC_ALPHAS, PARTS, Cell, Depth, Entry, entries
from offsim.study.paper.folder import (
    BASE,
    Identity,
    Outcome,
    as_text,
    claim,
    digest_of,
    outcome_path,
    read_outcome,
)
from offsim.study.paper.plan import QUESTIONS, Plan
from offsim.study.paper.sizes import Sizes, sizes_of
from offsim.study.paper.uneven import Uneven, uneven_of
from offsim.study.plan import Progress, part
from offsim.study.workload import prompts
from offsim.trace import Trace, load_trace, save_trace
from offsim.trace.format import TraceInfo
from offsim.trace.recorder import record
from offsim.trace.statistics import usage

TRACE_SEED = 11
"""Of the prompts whose routing says which experts are used most, drawn apart from the questions."""
TRACE = "trace.safetensors"
SIZES = "sizes.json"
UNEVEN = "uneven.json"
DIGITS = 6
"""Of a divergence in a file."""


@dataclass(frozen=True)
class Ground:
    """A model and what all runs on it share, made when it is first asked for.

    Attributes:
        model: over the embedded vocabulary.
        name: of it.
        plan: how much is measured.
        out: folder.
    """

    model: PreTrainedModel
    name: str
    plan: Plan
    out: Path

    @cached_property
    def depth(self) -> Depth:
        """Layers, experts and top-k."""
        shape = shape_of(self.model)
        return Depth(shape.layers, shape.experts, self.model.config.num_experts_per_tok)

    @cached_property
    def identity(self) -> Identity:
        """Of the folder."""
        return Identity(model=self.name, digest=digest_of(self.model), plan=self.plan)

    @cached_property
    def trace(self) -> Trace:
        """The routing of the model as it is, recorded once for the folder."""
        path = self.out / TRACE
        if not path.exists():
            asked = prompts(self.plan.requests, TRACE_SEED)
            info = TraceInfo(
                model=self.name,
                experts_per_layer=self.depth.experts,
                source=f"{len(asked)} requests of mixed tasks",
            )
            save_trace(record(self.model, asked, self.plan.tokens, info)[0], path)
        return load_trace(path)

    @cached_property
    def texts(self) -> Texts:
        """On which the divergence is measured."""
        return Texts(self.model, embedded_texts(self.plan.sequences, self.plan.length))

    @cached_property
    def made(self) -> list[Path]:
        """Runs that were made with this and not there before, in their order."""
        return []

    @cached_property
    def _asked(self) -> dict[str, Questions]:
        return {}

    def questions(self, name: str) -> Questions:
        """A set of questions, asked of the model without an error."""
        if name not in self._asked:
            items = self.plan.a_task(name)
            self._asked[name] = Questions(self.model, items, tasks=QUESTIONS[name])
        return self._asked[name]

    def sizes(self, progress: Progress = lambda *_: None) -> Sizes:
        """What codecs make of the model, measured once for the folder.

        Raises:
            FormatError: the file of it is of another model.
        """
        path = self.out / SIZES
        if not path.exists():
            found = sizes_of(self.model, self.identity.digest, CODEC_ALPHAS, progress)
            write_text(path, found.model_dump_json(indent=2) + "\n")
        known = read_json(path, Sizes)
        if known.model != self.identity.digest:
            raise FormatError(f"{path}: it is of another model; remove it")
        return known

    def uneven(self, progress: Progress = lambda *_: None) -> Uneven:
        """Tables of two bounds as large as one, found once for the folder.

        Raises:
            FormatError: the file of it is of another model.
        """
        path = self.out / UNEVEN
        if not path.exists():
            found = uneven_of(self.model, self.identity.digest, usage(self.trace), progress)
            write_text(path, found.model_dump_json(indent=2) + "\n")
        known = read_json(path, Uneven)
        if known.model != self.identity.digest:
            raise FormatError(f"{path}: it is of another model; remove it")
        return known

    def outcome(self, cell: Cell, seed: int) -> Outcome:
        """One run."""
        started = time.perf_counter()
        errors = cell.errors(seed)
        asked = self.questions(cell.questions)
        with handled(self.model, Perturbed(self.model, *errors, usage=usage(self.trace))):
            answers = asked.ask(self.model)
            # The second set of questions is asked under errors whose divergence is known.
            kl = self.texts.read(self.model).kl if cell.questions == "mixed" else np.zeros(0)
        return Outcome(
            questions=cell.questions,
            error=errors[0],
            over=errors[1] if cell.over is not None else None,
            ica=as_text(answers.ica()),
            pia=as_text(answers.pia()),
            kl=tuple(float(f"{value:.{DIGITS}g}") for value in kl.tolist()),
            seconds=time.perf_counter() - started,
        )

    def unperturbed(self, name: str) -> Outcome:
        """The model as it is on a set of questions."""
        started = time.perf_counter()
        answers = self.questions(name).unperturbed
        return Outcome(
            questions=name,
            error=None,
            ica=as_text(answers.ica()),
            pia=as_text(answers.pia()),
            kl=(0.0,) * self.plan.sequences if name == "mixed" else (),
            seconds=time.perf_counter() - started,
        )


def measure(
    ground: Ground, parts: Sequence[str], progress: Progress = lambda *_: None
) -> list[Entry]:
    """Do the runs that are missing of some parts of the study.

    Args:
        ground: model, plan and folder.
        parts: keys of PARTS.
        progress: for a display; it says how long the rest will take.

    Returns:
        The entries of these parts.

    Raises:
        InputError: no such part, or the folder is of another design.
        FormatError: a file in the folder is not what it should be.
    """
    for name in parts:
        if name not in PARTS:
            raise InputError(f"the study has no part {name!r}; it has {', '.join(PARTS)}")
    claim(ground.out, ground.identity)
    progress("recording which experts are used", 0.0)
    _ = ground.trace
    wanted: list[Entry] = []
    for name in dict.fromkeys(parts):
        before = part(progress, 0.0, 0.05)
        sizes = ground.sizes(before) if name == "codecs" else None
        uneven = ground.uneven(before) if name == "uneven" else None
        wanted += entries(name, ground.depth, sizes, uneven)
    _run(ground, missing(ground, wanted), part(progress, 0.05, 1.0))
    return wanted


def missing(ground: Ground, wanted: Sequence[Entry]) -> list[tuple[Entry, int]]:
    """Runs that are not there yet, cell by cell and seed by seed.

    Raises:
        FormatError: a file in the folder is of another run than its name says.
    """
    first: dict[Cell, Entry] = {}
    for entry in wanted:  # tables share cells
        first.setdefault(entry.cell, entry)
    left = []
    for entry in first.values():
        for seed in range(entry.cell.seeds(ground.plan.seeds)):
            path = outcome_path(ground.out, entry.cell.name, seed)
            if path.exists():
                read_outcome(path, entry.cell, seed)
            else:
                left.append((entry, seed))
    return left


def _run(ground: Ground, left: Sequence[tuple[Entry, int]], progress: Progress) -> None:
    for name in dict.fromkeys(entry.cell.questions for entry, _ in left):
        path = outcome_path(ground.out, f"{BASE}-{name}", 0)
        if not path.exists():
            progress(f"asking the model without an error: {name}", 0.0)
            _write(path, ground.unperturbed(name))
            ground.made.append(path)
    tell = _with_time_left(progress, len(left))
    for number, (entry, seed) in enumerate(left):
        what = ", ".join(map(str, entry.cell.errors(seed)))
        tell(f"part {entry.part}: {what}", number)
        path = outcome_path(ground.out, entry.cell.name, seed)
        if not path.exists():  # another study may have done it meanwhile
            _write(path, ground.outcome(entry.cell, seed))
            ground.made.append(path)


def _write(path: Path, outcome: Outcome) -> None:
    write_text(path, outcome.model_dump_json() + "\n")


def _with_time_left(
    progress: Progress, runs: int, clock: Callable[[], float] = time.monotonic
) -> Callable[[str, int], None]:
    """Tell what is done next and, after some runs, how many minutes the rest will take."""
    started = clock()

    def tell(what: str, done: int) -> None:
        rest = ""
        if done:
            minutes = (clock() - started) / done * (runs - done) / 60
            rest = f", {minutes:.0f} min left" if minutes >= 1 else ", under a minute left"
        progress(f"{what} ({done + 1} of {runs}{rest})", done / runs)

    return tell
