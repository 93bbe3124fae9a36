"""What the paper study keeps on disk: whose it is, and one file for each run that was finished."""

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from transformers import PreTrainedModel

from offsim.accuracy import WeightError
from offsim.errors import FormatError, InputError
from offsim.files import read_json, write_text
from offsim.model.experts import expert_modules
from offsim.policy.bounds import Strict
from offsim.study.paper.design import Cell
from offsim.study.paper.plan import Plan

VERSION = 1
RUNS = "runs"
IDENTITY = "design.json"
BASE = "unperturbed"
"""Name of the runs without an error, before that of the questions."""


class Identity(Strict):
    """Whose runs a folder holds; runs of another design are never mixed with them.

    Attributes:
        model: its name.
        digest: of its expert weights.
        plan: how much is measured.
    """

    format: Literal["offsim-paper-study"] = "offsim-paper-study"
    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    model: str
    digest: str
    plan: Plan


class Outcome(Strict):
    """One run: what the model answered under an error.

    Attributes:
        questions: the set of questions.
        error: with the seed of this run; None for the model as it is.
        over: another one, which holds alone where it is; None for none.
        ica: of each item, `1` where content and format are right, else `0`.
        pia: likewise of the content.
        kl: KL(unperturbed || this model), mean over the tokens of each sequence of text, nats a
            token; empty where the texts were not read.
        seconds: that it took.
    """

    format: Literal["offsim-paper-run"] = "offsim-paper-run"
    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    questions: str
    error: WeightError | None
    over: WeightError | None = None
    ica: str = Field(pattern="^[01]+$")
    pia: str = Field(pattern="^[01]+$")
    kl: tuple[float, ...]
    seconds: float = Field(ge=0)


def digest_of(model: PreTrainedModel) -> str:
    """Sixteen hex digits that tell models with other experts apart."""
    found = hashlib.sha256()
    for module in expert_modules(model):
        for weights in (module.gate_up_proj, module.down_proj):
            found.update(weights.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def claim(out: Path, identity: Identity) -> None:
    """Make a folder one of this design, or go on in one that is.

    Raises:
        InputError: it holds runs of another design, or cannot be written.
        FormatError: its design is not one.
    """
    path = out / IDENTITY
    if not path.exists():
        write_text(path, identity.model_dump_json(indent=2) + "\n")
        return
    there = read_json(path, Identity)
    if there != identity:
        own, other = _flat(identity), _flat(there)
        field = next(name for name in own if own[name] != other[name])
        raise InputError(
            f"{out}: its runs have {field} {other[field]}, and this study {own[field]}; choose "
            "another folder with --out"
        )


def outcome_path(out: Path, name: str, seed: int) -> Path:
    """Where a run of a cell is."""
    return out / RUNS / f"{name}.{seed}.json"


def read_outcome(path: Path, cell: Cell, seed: int) -> Outcome:
    """A finished run of a cell.

    Raises:
        InputError: it cannot be read.
        FormatError: it is not a run, or one of another error.
    """
    found = read_json(path, Outcome)
    made = [one for one in (found.error, found.over) if one is not None]
    if (found.questions, made) != (cell.questions, cell.errors(seed)):
        raise FormatError(f"{path}: it is a run of another error than its name says; remove it")
    return found


def as_text(values: npt.NDArray[np.bool_]) -> str:
    """Truth of each item [items] as a text of `1` and `0`."""
    return "".join("1" if value else "0" for value in values.tolist())


def as_array(text: str) -> npt.NDArray[np.bool_]:
    """Truth of each item, [items] bool, from such a text."""
    truth: npt.NDArray[np.bool_] = np.frombuffer(text.encode("ascii"), np.uint8) == ord("1")
    return truth


def _flat(identity: Identity) -> dict[str, object]:
    fields = identity.model_dump()
    plan = fields.pop("plan")
    return {**fields, **plan}
