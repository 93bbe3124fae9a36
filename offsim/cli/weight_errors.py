"""The options of an error in the experts, which commands about accuracy share."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from offsim.accuracy import WeightError
    from offsim.accuracy.scopes import Usage
    from offsim.codec.bounds import Bound

ERROR = "The error"
NOISE_SEEDS = 5


@dataclass(frozen=True)
class Asked:
    """An error in the experts, as options say it; none at all by default."""

    codec: Annotated[
        str | None,
        typer.Option(
            help="The error that this codec makes, such as cuszp, sz3 or rtn-int4.",
            rich_help_panel=ERROR,
        ),
    ] = None
    error: Annotated[
        str | None,
        typer.Option(help="Drawn noise in its place: uniform, normal.", rich_help_panel=ERROR),
    ] = None
    bound: Annotated[
        str | None,
        typer.Option(
            help="Its size: 0.001, rel:0.01, mean-abs:0.1 or sigma:0.5; of `normal` the standard "
            "deviation; 0 is no error at all.",
            rich_help_panel=ERROR,
        ),
    ] = None
    scope: Annotated[
        str | None,
        typer.Option(
            help="Where: all (default), layer:3, layers:0-2, expert:3/5, top6:layer:0, zone:deep, "
            "group:2, matrix:down or !layer:3, with & and | between.",
            rich_help_panel=ERROR,
        ),
    ] = None
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Trace file that says which experts are used most, for the scope top6:...",
            rich_help_panel=ERROR,
        ),
    ] = None
    seeds: Annotated[
        int | None,
        typer.Option(
            help=f"Draws of the noise; {NOISE_SEEDS} by default. A codec has one.",
            min=1,
            rich_help_panel=ERROR,
        ),
    ] = None

    def errors(self) -> "list[WeightError]":
        """The error under each seed; empty where none is asked for.

        Raises:
            InputError: no such codec, noise, bound or scope, or options that do not go together.
        """
        from offsim.accuracy import ALL, Scope, WeightError, source_named
        from offsim.errors import InputError

        if self.codec is not None and self.error is not None:
            raise InputError("--codec and --error exclude each other; give one")
        name = self.error if self.codec is None else f"codec:{self.codec}"
        if name is None:
            rest = ("bound", "scope", "trace", "seeds")
            extra = [f"--{one}" for one in rest if getattr(self, one) is not None]
            if extra:
                raise InputError(f"{', '.join(extra)} is of an error; give --codec or --error too")
            return []
        source = source_named(name)
        if self.bound is None and source.takes_bound:
            raise InputError(f"{name} needs a size; give --bound, such as 0.0078125 or sigma:0.5")
        if self.seeds not in (None, 1) and not source.seeded:
            raise InputError(f"{name} draws nothing, so all seeds are the same; leave out --seeds")
        if self.bound is not None and not source.takes_bound:
            raise InputError(f"{name} takes no bound; {self.bound} cannot be asked of it")
        bound = None if self.bound is None else _size(self.bound)
        scope = ALL if self.scope is None else Scope(self.scope)
        count = self.seeds or (NOISE_SEEDS if source.seeded else 1)
        return [
            WeightError(source=name, bound=bound, scope=scope, seed=seed) for seed in range(count)
        ]

    def usage(self) -> "Usage | None":
        """Activations of each expert [layers, experts] int64 of the trace; None without one."""
        from offsim.trace import load_trace
        from offsim.trace.statistics import usage

        return None if self.trace is None else usage(load_trace(self.trace))


def _size(text: str) -> "Bound | None":
    """A bound; None, no error at all, where it is zero, of whichever kind.

    Raises:
        InputError: it is neither.
    """
    from offsim.codec.bounds import KINDS, Bound

    kind, colon, value = text.rpartition(":")
    if (not colon or kind in KINDS) and _is_zero(value):
        return None
    return Bound.parse(text)


def _is_zero(text: str) -> bool:
    try:
        return float(text) == 0
    except ValueError:
        return False
