"""The options of commands that a trace can drive, in place of the embedded model."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from offsim.study.subject import DrivenSubject

PANEL = "A trace in place of the embedded model"


@dataclass(frozen=True)
class Driven:
    """A trace and the experts that are generated for it."""

    trace: Annotated[
        Path | None,
        typer.Option(
            help="Trace file whose routing drives generated experts of any size.",
            rich_help_panel=PANEL,
        ),
    ] = None
    hidden: Annotated[
        int | None, typer.Option(help="Hidden size of the experts.", min=1, rich_help_panel=PANEL)
    ] = None
    intermediate: Annotated[
        int | None,
        typer.Option(help="Intermediate size of the experts.", min=1, rich_help_panel=PANEL),
    ] = None
    layers: Annotated[
        int | None,
        typer.Option(
            help="The first so many layers of the trace; all by default.",
            min=1,
            rich_help_panel=PANEL,
        ),
    ] = None
    dtype: Annotated[
        str | None,
        typer.Option(
            help="In which the experts are stored: bf16 (default), fp16, f32.",
            rich_help_panel=PANEL,
        ),
    ] = None
    sigma: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation of the weights; 0.02 by default.", rich_help_panel=PANEL
        ),
    ] = None
    distinct: Annotated[
        int | None,
        typer.Option(
            help="Experts with weights of their own, which the others share; by default as many as "
            "exceed the caches of the CPU.",
            min=1,
            rich_help_panel=PANEL,
        ),
    ] = None
    dense: Annotated[
        int | None,
        typer.Option(
            help="hidden x hidden products between the experts of two layers; 4 by default.",
            min=0,
            rich_help_panel=PANEL,
        ),
    ] = None
    memory: Annotated[
        str | None,
        typer.Option(
            help="That slots, blobs and dense parts may take, such as 16GiB; three quarters of the "
            "machine's by default.",
            rich_help_panel=PANEL,
        ),
    ] = None

    def subject(self) -> "DrivenSubject | None":
        """The trace with its experts, which nothing has drawn yet; None where no trace is given.

        Raises:
            InputError: an option that is of no use without a trace, a trace without the sizes of
                its experts or that cannot be read, or sizes that cannot be.
        """
        from offsim.errors import InputError

        if self.trace is None:
            given = [f.name for f in fields(self) if getattr(self, f.name) is not None]
            if given:
                raise InputError(f"--{given[0]} is of experts that a trace drives; give --trace")
            return None
        if self.hidden is None or self.intermediate is None:
            raise InputError(
                "--trace drives generated experts; say how large: --hidden and --intermediate"
            )
        from offsim.study.subject import DrivenSubject
        from offsim.testbed.generated import PROJECTIONS, SIGMA, generated_model
        from offsim.trace import load_trace
        from offsim.trace.cut import cut

        trace = cut(load_trace(self.trace), self.layers)
        model = generated_model(
            (trace.layers, trace.info.experts_per_layer, self.hidden, self.intermediate),
            dtype=self.dtype or "bf16",
            distinct=self.distinct,
            sigma=SIGMA if self.sigma is None else self.sigma,
            projections=PROJECTIONS if self.dense is None else self.dense,
        )
        return DrivenSubject(model, trace)

    @property
    def budget(self) -> int:
        """Bytes that a run may take.

        Raises:
            InputError: `memory` is no size.
        """
        from offsim.cli.policies import size_of
        from offsim.runtime.driven import usual_memory

        return usual_memory() if self.memory is None else size_of(self.memory, "--memory")


def tell_driven(subject: "DrivenSubject") -> None:
    """Say on stderr what is real in a run that a trace drives, and what is not."""
    from offsim.units import show_bytes

    each = show_bytes(subject.model.shape.bytes)
    typer.echo(
        f"routing of {subject.trace.info.model}; {subject.model}; {each} each, as stored", err=True
    )
