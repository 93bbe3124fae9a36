"""The options of commands that take a checkpoint of the user in place of the embedded model."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
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

    def check(self) -> bool:
        """Whether a checkpoint is given.

        Raises:
            InputError: only one of the two options is.
        """
        from offsim.errors import InputError

        if (self.model is None) != (self.prompts is None):
            raise InputError("--model and --prompts go together; give both")
        return self.model is not None

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
