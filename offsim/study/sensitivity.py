"""Measures how sensitive a model is to errors in its experts, within a budget of time.

The design comes from `offsim.study.sensitivity_design`. Every trial that is done is in the folder
at once, and is not done again; what is made of them is in `offsim.study.sensitivity_result`.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import Field, ValidationError
from transformers import PreTrainedModel

from offsim.accuracy import Questions, Texts, WeightError, embedded_texts, injected
from offsim.accuracy.scopes import ALL, Scope, Usage
from offsim.accuracy.sensitivity import Sensitivity
from offsim.accuracy.sensitivity_parts import ModelFacts
from offsim.errors import FormatError, InputError
from offsim.files import check_writable, first_problem, read_json, read_text, replacing, write_json
from offsim.model.experts import shape_of
from offsim.model.hook import Resident, handled
from offsim.policy.bounds import Strict
from offsim.study.plan import Progress
from offsim.study.sensitivity_design import Design, Options, Timing, Trial, designed
from offsim.study.sensitivity_result import (
    Outcome,
    Unperturbed,
    cell_table,
    joint_table,
    result,
)

VERSION = 1
DESIGN, DONE = "design.json", "trials.jsonl"
SAME = 1e-6
"""Relative difference up to which the log-likelihood of a model is that of the same model."""
TIMED = 2
"""Cells that are timed; the last one counts, since the first one warms up."""
TIMED_AT = 0.75
"""Of the ladder: strong errors take longer, since answers differ and go on to their limit."""


class Started(Strict):
    """What a folder was started with.

    Attributes:
        options: what was asked for.
        model: which was measured.
        nll: of the texts without an error, nats a token; it tells models of one shape apart.
        timing: on which the design was made.
    """

    format: Literal["offsim-sensitivity-design"] = "offsim-sensitivity-design"
    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    options: Options
    model: ModelFacts
    nll: float
    timing: Timing


class Meter(Protocol):
    """What is measured of a model.

    Attributes:
        model: its name and shape.
        usage: activations of experts on the texts, [layers, experts] int64.
        unperturbed: the model without an error.
    """

    model: ModelFacts
    usage: Usage
    unperturbed: Unperturbed

    def measure(self, trial: Trial, ask: bool) -> Outcome:
        """What the errors of a trial do; items are asked if so wished."""


class _Counting(Resident):
    """Runs the experts of a model and counts the activations [layers, experts]."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        shape = shape_of(model)
        self.usage = np.zeros((shape.layers, shape.experts), np.int64)

    def __call__(
        self, layer: int, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        self.usage[layer] += torch.bincount(ids.flatten(), minlength=self.usage.shape[1]).numpy()
        return super().__call__(layer, hidden, ids, weights)


class ModelMeter:
    """Measures a model on embedded texts and tasks; see `Meter`.

    Args:
        name: of the model.
        model: over the embedded vocabulary.
        options: how much is asked of it.
    """

    def __init__(self, name: str, model: PreTrainedModel, options: Options) -> None:
        shape = shape_of(model)
        self.model = ModelFacts(
            name=name,
            layers=shape.layers,
            experts=shape.experts,
            hidden=shape.hidden,
            width=shape.width,
        )
        self._model = model
        self._texts = Texts(model, embedded_texts(options.sequences, options.tokens, options.seed))
        self._questions = Questions(model, options.items, options.seed)
        counting = _Counting(model)
        with handled(model, counting):
            self._texts.read(model)
        self.usage = counting.usage
        self.unperturbed = Unperturbed(
            self._texts.unperturbed.nll, self._questions.unperturbed.ica()
        )

    def measure(self, trial: Trial, ask: bool) -> Outcome:
        """What the errors of a trial do; items are asked if so wished."""
        with injected(self._model, *trial.errors):
            read = self._texts.read(self._model)
            answers = self._questions.ask(self._model) if ask else None
        return Outcome(
            key=trial.key,
            kl=tuple(read.kl.tolist()),
            nll=tuple(read.nll.tolist()),
            ica=None if answers is None else tuple(map(int, answers.ica())),
        )


def sensitivity(
    out: Path,
    options: Options,
    meter: Meter,
    progress: Progress = lambda *_: None,
    announce: Callable[[str], None] = lambda _: None,
) -> Sensitivity:
    """Measure what fits into the budget, and write the file, `cells.csv` and `joints.csv`.

    Args:
        out: folder; trials that it has already are not done again.
        options: what is to be measured.
        meter: of the model.
        progress: for a display.
        announce: told the design before the first trial.

    Raises:
        InputError: the folder cannot be written, or holds trials of another design.
        FormatError: a file in the folder is not one of these.
    """
    check_writable(out)
    timing = _timing(out, options, meter, progress)
    design = designed(options, meter.model, meter.usage, timing)
    done = _Done(out / DONE, design)
    have = len(done.outcomes)
    announce(design.summary + (f"; {have} trials are there already" if have else ""))
    for number, trial in enumerate(design.trials):
        if trial.key not in done.outcomes:
            progress(trial.key, number / len(design.trials))
            started = time.perf_counter()
            outcome = meter.measure(trial, trial.place is None)
            taken = time.perf_counter() - started
            done.add(outcome.model_copy(update={"seconds": taken}))
    progress("fitting", 1.0)
    found = result(options, meter.model, meter.usage, meter.unperturbed, design, done.outcomes)
    for name, frame in (("cells", cell_table(found)), ("joints", joint_table(found))):
        with replacing(out / f"{name}.csv") as partial:
            frame.to_csv(partial, index=False)
    write_json(out / "sensitivity.json", found.model_dump(mode="json", exclude_none=True))
    return found


def _timing(out: Path, options: Options, meter: Meter, progress: Progress) -> Timing:
    """How long trials took when the folder was started."""
    path = out / DESIGN
    nll = float(np.mean(meter.unperturbed.nll))
    if path.exists():
        started = read_json(path, Started)
        for what, there, here in (
            *_options(started.options, options),
            ("model", started.model.name, meter.model.name),
            ("model's shape", str(started.model), str(meter.model)),
        ):
            if there != here:
                raise InputError(
                    f"{out}: it holds trials of another design, whose {what} is {there}, not "
                    f"{here}; give the same or choose another folder"
                )
        if abs(started.nll - nll) > SAME * abs(nll):
            raise InputError(
                f"{out}: it holds trials of another model of this name; choose another folder"
            )
        return started.timing
    timing = timed(options, meter, progress)
    write_json(
        path,
        Started(options=options, model=meter.model, nll=nll, timing=timing).model_dump(mode="json"),
    )
    return timing


def _options(there: Options, here: Options) -> list[tuple[str, str, str]]:
    """Each option with its values in words."""

    def words(value: object) -> str:
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    return [
        (name, words(getattr(there, name)), words(getattr(here, name)))
        for name in Options.model_fields
    ]


def timed(options: Options, meter: Meter, progress: Progress) -> Timing:
    """Time a cell and the asking of items, under errors of a rung at a good part of the ladder."""
    progress("timing a trial", 0.0)
    bound = options.bounds[int(TIMED_AT * len(options.bounds))]

    def seconds(scope: Scope, ask: bool) -> float:
        error = WeightError(source=options.source, bound=bound, scope=scope, seed=options.seed)
        started = time.perf_counter()
        meter.measure(Trial("timed", (error,)), ask)
        return max(time.perf_counter() - started, 1e-6)

    cell_s = [seconds(Scope("layer:0"), ask=False) for _ in range(TIMED)][-1]
    both_s = seconds(ALL, ask=True)
    return Timing(cell_s=cell_s, ask_s=max(0.0, both_s - cell_s))


class _Done:
    """The trials that are done, a line of JSON each, in a file that is always whole."""

    def __init__(self, path: Path, design: Design) -> None:
        self._path = path
        self._lines: list[str] = []
        self.outcomes: dict[str, Outcome] = {}
        if not path.exists():
            return
        known = {trial.key for trial in design.trials}
        for number, line in enumerate(read_text(path).splitlines(), 1):
            try:
                outcome = Outcome.model_validate_json(line)
            except ValidationError as error:
                raise FormatError(
                    f"{path}: line {number}: {first_problem(error)}; remove the file"
                ) from error
            if outcome.key not in known:
                raise InputError(
                    f"{path}: it has the trial {outcome.key!r}, which is not of this design; "
                    "choose another folder"
                )
            self._keep(line, outcome)

    def add(self, outcome: Outcome) -> None:
        """Keep a trial, on disk too."""
        self._keep(outcome.model_dump_json(), outcome)
        with replacing(self._path) as partial:
            partial.write_text("\n".join(self._lines) + "\n", encoding="utf-8")

    def _keep(self, line: str, outcome: Outcome) -> None:
        self._lines.append(line)
        self.outcomes[outcome.key] = outcome
