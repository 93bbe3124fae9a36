"""`offsim bounds make|show`: which bound each layer, expert and matrix has."""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offsim.cli import display, options

if TYPE_CHECKING:
    import numpy.typing as npt

    from offsim.codec.bounds import Bound
    from offsim.policy.bounds import Bounds

app = typer.Typer(help="Which error bound each layer, expert and matrix has.", no_args_is_help=True)


class Kind(StrEnum):
    """How bounds are spread over a model."""

    UNIFORM = "uniform"
    ZONES = "zones"
    LAYERS = "layers"
    HOTNESS = "hotness"
    MATRIX = "matrix"


NEEDS = {
    Kind.UNIFORM: ("bound",),
    Kind.ZONES: ("layers", "shallow", "middle", "deep"),
    Kind.LAYERS: ("bounds",),
    Kind.HOTNESS: ("trace", "share", "hot", "cold"),
    Kind.MATRIX: ("gate", "up", "down"),
}
"""Options that a kind must have; it may have no others, but `--overlapping` for zones."""
NOT_BOUNDS = ("layers", "trace", "share", "bounds", "overlapping")
Text = str | None


@app.command()
def make(
    kind: Annotated[Kind, typer.Option(help="How bounds are spread over the model.")],
    out: Annotated[Path, typer.Option(help="Table of bounds to write (YAML).")],
    bound: Annotated[Text, typer.Option(help="uniform: such as 0.001 or rel:0.01.")] = None,
    layers: Annotated[
        int | None, typer.Option(help="zones: MoE layers of the model.", min=1)
    ] = None,
    shallow: Annotated[Text, typer.Option(help="zones: bound of the first layers.")] = None,
    middle: Annotated[Text, typer.Option(help="zones: bound of those between.")] = None,
    deep: Annotated[Text, typer.Option(help="zones: bound of the last layers.")] = None,
    overlapping: Annotated[
        bool,
        typer.Option(
            "--overlapping",
            help="zones: halves that overlap (first, middle, last) for thirds; the tighter holds.",
        ),
    ] = False,
    bounds: Annotated[Text, typer.Option(help="layers: one for each, such as 0.01,0.02.")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="hotness: trace that says who is popular.")
    ] = None,
    share: Annotated[
        float | None, typer.Option(help="hotness: share of each layer's experts that is hot, 0..1.")
    ] = None,
    hot: Annotated[Text, typer.Option(help="hotness: bound of the popular experts.")] = None,
    cold: Annotated[Text, typer.Option(help="hotness: bound of the others.")] = None,
    gate: Annotated[Text, typer.Option(help="matrix: bound of the gate matrices.")] = None,
    up: Annotated[Text, typer.Option(help="matrix: bound of the up matrices.")] = None,
    down: Annotated[Text, typer.Option(help="matrix: bound of the down matrices.")] = None,
    as_json: options.Json = False,
) -> None:
    """Write a table of bounds, for `--bounds` of `offsim simulate`, `offsim run` and others.

    Example: offsim bounds make --kind zones --layers 4 --shallow 0.01 --middle 0.02 --deep 0.03
    --out bounds.yaml
    """
    from offsim.codec.bounds import Bound
    from offsim.errors import InputError
    from offsim.files import check_writable, write_yaml
    from offsim.policy.bound_kinds import kind_named

    given = {
        "bound": bound,
        "layers": layers,
        "shallow": shallow,
        "middle": middle,
        "deep": deep,
        "overlapping": overlapping or None,
        "bounds": bounds,
        "trace": trace,
        "share": share,
        "hot": hot,
        "cold": cold,
        "gate": gate,
        "up": up,
        "down": down,
    }
    asked: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    _check_options(kind, asked)
    for name in asked.keys() - set(NOT_BOUNDS):
        asked[name] = Bound.parse(asked[name])
    if "bounds" in asked:
        asked["bounds"] = [Bound.parse(text.strip()) for text in asked["bounds"].split(",")]
    if out.is_dir():
        raise InputError(f"{out}: cannot be written (it is a folder); choose another")
    if "trace" in asked:
        asked |= _popularity(asked.pop("trace"))
    table = kind_named(kind.value)(**asked)
    check_writable(out.parent)
    write_yaml(out, table)
    if as_json:
        display.emit_json(table.model_dump(mode="json"))
    else:
        typer.echo(f"{table}: {out}")


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="Table of bounds (YAML).")],
    layers: Annotated[
        int | None, typer.Option(help="MoE layers of the model; those of the table.", min=1)
    ] = None,
    experts: Annotated[
        int | None, typer.Option(help="Experts of each; those of the table.", min=1)
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Print the bound of every layer, of its experts and their matrices.

    Example: offsim bounds show bounds.yaml --layers 4 --experts 8
    """
    import pandas as pd

    from offsim.files import read_yaml
    from offsim.policy.bounds import MATRICES, Bounds

    table = read_yaml(file, Bounds)
    rows = [
        {"layer": layer, "experts": those, **dict(zip(MATRICES, map(str, held), strict=True))}
        for layer, those, held in _rows(table, layers, experts)
    ]
    if as_json:
        display.emit_json(rows)
    else:
        display.show_table(f"{table} of {file.name}", pd.DataFrame(rows))


def _check_options(kind: Kind, asked: dict[str, Any]) -> None:
    """Refuse options that are missing, or that this kind does not heed."""
    from offsim.errors import InputError

    needs = NEEDS[kind]
    missing = [f"--{name}" for name in needs if name not in asked]
    if missing:
        raise InputError(f"--kind {kind} needs {', '.join(missing)}")
    may = {*needs, "overlapping"} if kind is Kind.ZONES else set(needs)
    extra = [f"--{name}" for name in asked if name not in may]
    if extra:
        raise InputError(f"--kind {kind} does not heed {', '.join(extra)}; leave it out")


def _popularity(trace: Path) -> dict[str, Any]:
    """What a trace says of its experts."""
    from offsim.policy.lookup import popularity_of
    from offsim.trace import load_trace

    known = load_trace(trace)
    return {
        "popularity": popularity_of(known),
        "layers": known.layers,
        "experts": known.info.experts_per_layer,
    }


def _rows(
    table: "Bounds", layers: int | None, experts: int | None
) -> Iterable[tuple[str, str, tuple["Bound", ...]]]:
    """Layer, experts of it and the bounds that these have.

    Where the size of the model is not given, one place beyond those that the rules name stands for
    all that follow.
    """
    import numpy as np

    named = [[n for rule in table.rules for n in rule.layers or ()]]
    named.append([n for rule in table.rules for n in rule.experts or ()])
    rows, columns = (max(numbers, default=-1) + 1 for numbers in named)
    rows, columns = layers or rows, experts or columns
    bounds, at = table.table(rows + (layers is None), columns + (experts is None))
    for layer, held in enumerate(at):
        beyond = layer == rows
        name = ("all" if not rows else f"{layer} and later") if beyond else str(layer)
        kinds, kind_of = np.unique(held, axis=0, return_inverse=True)
        for number in dict.fromkeys(kind_of.reshape(-1).tolist()):
            mine = np.flatnonzero(kind_of.reshape(-1) == number)
            yield name, _spans(mine, columns), tuple(bounds[one] for one in kinds[number])


def _spans(numbers: "npt.NDArray[Any]", beyond: int) -> str:
    """Numbers as text such as `0-3, 7`; `beyond` stands for all from there."""
    import numpy as np

    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    spans = []
    for run in runs:
        first, last = int(run[0]), int(run[-1])
        if last == beyond:
            spans.append(f"{first} and later" if first else "all")
        else:
            spans.append(str(first) if first == last else f"{first}-{last}")
    return ", ".join(spans)
