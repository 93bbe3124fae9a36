"""The options of commands that take a checkpoint of the user in place of the embedded model."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from offsim.model.sampling import Sampling
    from offsim.runtime import ExpertStore
    from offsim.runtime.devices import Device
    from offsim.study.checkpoint import CheckpointSubject
    from offsim.study.subject import DrivenSubject

PANEL = "A checkpoint in place of the embedded model"


@dataclass(frozen=True)
class OwnModel:
    """A checkpoint, and prompts for it."""

    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an MoE model as transformers has it (docs/architectures.md).",
            rich_help_panel=PANEL,
        ),
    ] = None
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Its prompts: a .txt file with one a line, or .jsonl with the field prompt or "
            "ids.",
            rich_help_panel=PANEL,
        ),
    ] = None

    def check(self, seed: int | None = None) -> bool:
        """Whether a checkpoint is given.

        Args:
            seed: that was asked for.

        Raises:
            InputError: only one of the two options is, or a seed that draws nothing.
        """
        from offsim.errors import InputError

        if (self.model is None) != (self.prompts is None):
            raise InputError("--model and --prompts go together; give both")
        if self.model is not None and seed is not None:
            raise InputError(
                "--seed draws prompts for the embedded model, and --prompts has those of --model; "
                "leave --seed out, or draw tokens with --sample"
            )
        return self.model is not None

    def check_alone(self, routing: "DrivenSubject | None") -> None:
        """Refuse a trace that is to drive experts at the same time.

        Raises:
            InputError: there is one.
        """
        from offsim.errors import InputError

        if self.model is not None and routing is not None:
            raise InputError("--model answers prompts and --trace drives experts; give one of them")

    def shelved(self, folder: Path) -> "ExpertStore":
        """The experts of the checkpoint, as a folder of `offsim compress` has them.

        Args:
            folder: whose blobs stay on the disk, mapped into memory.

        Raises:
            InputError: it is of another checkpoint, none was given, or its codec cannot be had.
            FormatError: it is unfinished or damaged.
        """
        from offsim.codec.folder import ExpertFolder
        from offsim.errors import InputError
        from offsim.runtime.shelved import shelved_store
        from offsim.study.encoding import check_origin

        if self.model is None:
            raise InputError("--experts has those of a checkpoint; give --model and --prompts too")
        opened = ExpertFolder(folder)
        check_origin(self.model, folder, opened.index.job)
        return shelved_store(opened)

    def subject(
        self,
        tokens: int,
        device: "Device | None" = None,
        sampling: "Sampling | None" = None,
    ) -> "CheckpointSubject":
        """The checkpoint, opened; tells on stderr what is to be known of it.

        Args:
            tokens: that are written after each prompt.
            device: computes; the CPU by default.
            sampling: how tokens are drawn; None for greedy answers.

        Raises:
            InputError: it cannot be used, or a prompt is not for it.
        """
        from offsim.runtime.devices import CPU
        from offsim.study.checkpoint import checkpoint_subject

        assert self.model is not None
        assert self.prompts is not None
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            subject = checkpoint_subject(self.model, self.prompts, tokens, device or CPU, sampling)
        for warning in told:  # of the reader of experts
            typer.echo(f"offsim: note: {warning.message}", err=True)
        return subject


@dataclass(frozen=True)
class Drawing:
    """How a checkpoint chooses the tokens that it writes."""

    sample: Annotated[
        float | None,
        typer.Option(
            metavar="TEMPERATURE",
            help="With --model: draw tokens at a temperature, such as 0.8, in place of the "
            "likeliest; --seed draws others.",
            rich_help_panel=PANEL,
        ),
    ] = None
    top_p: Annotated[
        float | None,
        typer.Option(
            help="With --sample: of the likeliest tokens that have this share of the probability, "
            "such as 0.95.",
            rich_help_panel=PANEL,
        ),
    ] = None

    def sampling(self, own: OwnModel, seed: int | None) -> "Sampling | None":
        """How tokens are drawn; None for greedy answers. Checks --model and --seed beside it.

        Args:
            own: checkpoint.
            seed: that was asked for.

        Raises:
            InputError: as for `OwnModel.check`, nothing to draw with the option, or a number that
                cannot be.
        """
        from offsim.errors import InputError
        from offsim.model.sampling import Sampling

        if self.sample is None:
            own.check(seed)
            if self.top_p is not None:
                raise InputError("--top-p is of tokens that are drawn; give --sample too")
            return None
        if not own.check():
            raise InputError(
                "--sample is of a checkpoint; give --model and --prompts, or leave it out"
            )
        top_p = 1.0 if self.top_p is None else self.top_p
        return Sampling(self.sample, top_p, seed or 0)


def experts_wanted(experts: str) -> int:
    """How many experts --experts asks for; 0 for all.

    Raises:
        InputError: it is neither a number nor `all`.
    """
    from offsim.errors import InputError

    if experts == "all":
        return 0
    if not (experts.isascii() and experts.isdigit() and int(experts) > 0):
        raise InputError(f"--experts is a number from 1 on or `all`, not {experts}")
    return int(experts)
