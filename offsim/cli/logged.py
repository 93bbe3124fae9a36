"""The options of commands that take the log of a run in place of running something."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offsim.cli import options

if TYPE_CHECKING:
    from offsim.cli.driven import Driven
    from offsim.record.log import RunLog
    from offsim.study.measured import Engine

PANEL = "The log of a run of any engine"


class SplitName(StrEnum):
    """Which tokens of a log are fitted on."""

    FIRST = "first"
    ALTERNATE = "alternate"


class CentreName(StrEnum):
    """What stands for many tokens."""

    TYPICAL = "typical"
    MEAN = "mean"


@dataclass(frozen=True)
class LoggedRun:
    """How the engine that wrote a log keeps and moves experts, and how to read it."""

    capacity: Annotated[
        str | None,
        typer.Option(
            help="Of the engine's cache, all layers together, such as 3000MiB, or 4slots: experts "
            "a layer.",
            rich_help_panel=PANEL,
        ),
    ] = None
    cache: Annotated[
        str | None, typer.Option(help="Its eviction; lru by default.", rich_help_panel=PANEL)
    ] = None
    scope: Annotated[
        options.PoolScope | None,
        typer.Option(
            help="One pool for all layers (default), or one for each.", rich_help_panel=PANEL
        ),
    ] = None
    channels: Annotated[
        int | None,
        typer.Option(
            help="Loads that it moves side by side; 1 by default.",
            min=1,
            max=64,
            rich_help_panel=PANEL,
        ),
    ] = None
    expert_bytes: Annotated[
        int | None,
        typer.Option(
            help="Of one expert as it is read, where the trace does not say it.",
            min=1,
            rich_help_panel=PANEL,
        ),
    ] = None
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="What a column is called in the log, such as wall_ms=latency; `stall_ms=` leaves "
            "one out. As often as wanted.",
            rich_help_panel=PANEL,
        ),
    ] = None
    centre: Annotated[
        CentreName | None,
        typer.Option(
            help="What stands for the compute of many tokens: the mean of the middle half "
            "(`typical`, default), or the plain mean, which has every pause in it.",
            rich_help_panel=PANEL,
        ),
    ] = None

    def refuse(self, option: str) -> None:
        """Refuse all that was given, where there is no log.

        Raises:
            InputError: something was given.
        """
        from offsim.errors import InputError

        given = [f.name for f in fields(self) if getattr(self, f.name) is not None]
        if given:
            name = given[0].replace("_", "-")
            raise InputError(f"--{name} is of the log of a run; give one with {option}")

    def log(self, path: Path) -> "RunLog":
        """Read the log.

        Raises:
            InputError: `column` is not NAME=COLUMN, or the file cannot be read.
            FormatError: it is not a log.
        """
        from offsim.errors import InputError
        from offsim.record.log import read_log

        names = {}
        for text in self.column or ():
            name, equals, theirs = text.partition("=")
            if not equals:
                raise InputError(f"--column is such as wall_ms=latency, not {text}")
            names[name] = theirs
        return read_log(path, names)

    def engine(self) -> "Engine":
        """How it keeps and moves experts.

        Raises:
            InputError: no capacity, one that is no size, or no such cache.
        """
        from offsim.cli.policies import size_of
        from offsim.errors import InputError
        from offsim.policy.registry import eviction_named
        from offsim.study.measured import Engine

        if self.capacity is None:
            raise InputError("a log does not say how large the cache was; give --capacity")
        slots = re.fullmatch(r"(\d+)\s*slots?", self.capacity)
        nbytes = int(slots[1]) if slots else size_of(self.capacity, "--capacity")
        cache = self.cache or "lru"
        eviction_named(cache)
        scope = options.PoolScope.GLOBAL if self.scope is None else self.scope
        return Engine(nbytes, slots is not None, cache, scope.value, self.channels or 1)


def refuse_others(option: str, given: Mapping[str, bool]) -> None:
    """Refuse options that have nothing to say beside another one.

    Args:
        option: the other one.
        given: by name, whether it was given.

    Raises:
        InputError: one was.
    """
    from offsim.errors import InputError

    names = [name.replace("_", "-") for name, there in given.items() if there]
    if names:
        raise InputError(f"--{names[0]} is of no use with {option}; leave it out")


def trace_alone(driven: "Driven", option: str) -> Path:
    """The trace of a logged run: its experts are not generated, so nothing is said of them.

    Raises:
        InputError: there is none, or something is said of experts to generate.
    """
    from offsim.errors import InputError

    others = {f.name: getattr(driven, f.name) is not None for f in fields(driven)}
    del others["trace"]
    refuse_others(option, others)
    if driven.trace is None:
        raise InputError(f"{option} takes what the router chose in that run; give --trace")
    return driven.trace
