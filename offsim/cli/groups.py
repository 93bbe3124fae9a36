"""Options that several commands take together: each group is one parameter of a command."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from typing import Annotated, Any

import typer

from offsim.cli import options

TRANSFERS, PLACEMENT = "Transfers", "Placement"


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command that typer sees: each group has become its fields, an option each.

    Args:
        command: whose parameters are options, or groups of them: dataclasses with typer's
            annotations and a default for each field.
    """
    groups: dict[str, type[Any]] = {}
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        group = parameter.annotation
        if is_dataclass(group) and isinstance(group, type):
            groups[parameter.name] = group
            parameters += [_parameter(f.name, f.default, f.type) for f in fields(group)]
        else:
            parameters.append(_parameter(parameter.name, parameter.default, group))

    @wraps(command)
    def flat(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    flat.__annotations__ = {one.name: one.annotation for one in parameters}
    flat.__dict__["__signature__"] = inspect.Signature(parameters)
    return flat


def _parameter(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


@dataclass(frozen=True)
class Storage:
    """How host memory holds the experts."""

    codec: options.Codec = "raw"
    bound: options.Bound = 0.0
    bounds: options.BoundsFile = None


@dataclass(frozen=True)
class Loading:
    """What the device keeps, and how it gets the rest."""

    cache: options.Cache = "lru"
    slots: Annotated[
        int, typer.Option(help="Experts that each layer keeps on the device.", min=0)
    ] = 4
    scope: options.Scope = options.PoolScope.LAYER
    profile: options.Profile = None
    prefetch: options.Prefetch = "none"
    distance: options.Distance = 1
    prefetch_budget: options.PrefetchBudget = None
    precision: Annotated[
        float,
        typer.Option(
            help="Of noisy-oracle: share of what it foresees that is asked for, above 0 to 1.",
            rich_help_panel=options.PREFETCHING,
        ),
    ] = 1.0
    recall: Annotated[
        float,
        typer.Option(
            help="Of noisy-oracle: share of what is asked for that it foresees, 0 to 1.",
            rich_help_panel=options.PREFETCHING,
        ),
    ] = 1.0
    chunk: Annotated[
        str | None,
        typer.Option(
            help="A load crosses the link in equal parts of at most this, such as 1MiB; what is "
            "asked for now goes first at each cut. Whole by default.",
            rich_help_panel=TRANSFERS,
        ),
    ] = None
    pipelined: Annotated[
        bool,
        typer.Option(
            "--pipelined",
            help="Decode a chunk while the next one moves; in simulations.",
            rich_help_panel=TRANSFERS,
        ),
    ] = False
    channels: Annotated[
        int,
        typer.Option(
            help="Links side by side, each at the full speed.", min=1, rich_help_panel=TRANSFERS
        ),
    ] = 1
    decoders: Annotated[
        int,
        typer.Option(
            help="Blobs that the host decodes side by side.", min=1, rich_help_panel=TRANSFERS
        ),
    ] = 1


class KeepName(StrEnum):
    """How the device keeps experts."""

    DECODED = "decoded"
    COMPRESSED = "compressed"
    BOTH = "both"


@dataclass(frozen=True)
class Placement:
    """Where experts are."""

    device_memory: Annotated[
        str | None,
        typer.Option(
            help="Device memory for experts in their stored dtype, such as 3000MiB, in place of "
            "--slots: as many whole slots as fit, the same for each layer, or in one pool.",
            rich_help_panel=PLACEMENT,
        ),
    ] = None
    host_memory: Annotated[
        str | None,
        typer.Option(
            help="Host memory for experts, such as 64GiB; the rest are on disk. Room for all of "
            "them by default.",
            rich_help_panel=PLACEMENT,
        ),
    ] = None
    host_tokens: Annotated[
        str,
        typer.Option(
            help="A missing expert that serves at most so many tokens is computed on the host; "
            "`auto`: where that is faster than moving it.",
            rich_help_panel=PLACEMENT,
        ),
    ] = "0"
    keep: Annotated[
        KeepName,
        typer.Option(
            help="The device keeps experts decoded, or compressed and decodes them at each use, or "
            "some of them decoded and some compressed.",
            rich_help_panel=PLACEMENT,
        ),
    ] = KeepName.DECODED
    decoded_share: Annotated[
        float | None,
        typer.Option(
            help="Of --keep both: share of the slots for decoded experts, 0 to 1; half of them by "
            "default. The bytes of the others hold blobs.",
            rich_help_panel=PLACEMENT,
        ),
    ] = None
