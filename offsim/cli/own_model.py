"""The options of commands that take a checkpoint of the user in place of the embedded model."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from offsim.runtime import ExpertStore
    from offsim.runtime.devices import Device
    from offsim.study.checkpoint import CheckpointSubject

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
                "leave --seed out"
            )
        return self.model is not None

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

    def subject(self, tokens: int, device: "Device | None" = None) -> "CheckpointSubject":
        """The checkpoint, opened; tells on stderr what is to be known of it.

        Args:
            tokens: that are written after each prompt.
            device: computes; the CPU by default.

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
            subject = checkpoint_subject(self.model, self.prompts, tokens, device or CPU)
        for warning in told:  # of the reader of experts
            typer.echo(f"offsim: note: {warning.message}", err=True)
        return subject
