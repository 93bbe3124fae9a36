"""`# route_trace v1` of BigMoeOnEdge: CSV, a line a token, layer and slot.

A preamble gives the model and the bytes of an expert of each layer; columns are read by name:
https://github.com/Helldez/BigMoeOnEdge/blob/main/docs/telemetry.md
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from offsim.errors import FormatError
from offsim.files import read_text
from offsim.trace.format import Trace
from offsim.trace.importers.base import (
    Importer,
    Options,
    Request,
    agreed,
    assembled,
    first_twice,
)

FIRST_LINE = "# route_trace v1"
MODEL = re.compile(
    r"# model=(?P<model>.*) arch=\S* n_layer=(?P<layers>\d+) n_expert=(?P<experts>\d+)"
    r" n_expert_used=(?P<top_k>\d+)"
)
LAYER = re.compile(r"# layer=(?P<layer>\d+) expert_bytes=(?P<bytes>\d+)(?: .*)?")
COLUMNS = ("turn", "phase", "step", "layer", "slot", "expert")


@dataclass(slots=True)
class _Head:
    """The preamble: sizes by layer, and the line with the names of the columns."""

    model: str
    experts: int
    top_k: int
    sizes: dict[int, int]
    line: int


class BigMoe(Importer):
    """A turn is a request; phase 0 is its prompt, one pass; `step` is the position.

    llama.cpp computes the last layer of a prompt for its last token alone. The other tokens then
    get that token's experts in this layer, so that the pass takes the experts that it took.
    """

    name = "bigmoe"
    reads = "BigMoeOnEdge route_trace v1, .csv"

    def read(self, path: Path, options: Options) -> Trace:
        lines = read_text(path).splitlines()
        head = _head(lines, path)
        agreed(head.experts, options.experts, "experts", str(path))
        table, weights = _table(lines, head, path)
        layers = np.unique(table[:, 3])
        lines_read = len(table)
        table, weights = _last_layer_filled(table, weights, int(layers[-1]))
        filled = (len(table) - lines_read) // head.top_k
        requests = [
            _request(table[mine], weights[mine], layers, head.top_k, path)
            for turn in np.unique(table[:, 0])
            for mine in [table[:, 0] == turn]
        ]
        sizes = [head.sizes.get(int(layer)) for layer in layers]
        known = [size for size in sizes if size]
        return assembled(
            path,
            requests,
            experts=head.experts,
            model=options.model or head.model,
            notes=[f"{filled} prompt tokens were not computed in the last layer"] if filled else [],
            layer_bytes=tuple(known) if len(known) == len(sizes) else None,
        )


def _head(lines: list[str], path: Path) -> _Head:
    if not lines or lines[0].strip() != FIRST_LINE:
        raise FormatError(f"{path}:1: the first line is not `{FIRST_LINE}`")
    found = MODEL.fullmatch(lines[1].strip()) if len(lines) > 1 else None
    if found is None:
        raise FormatError(f"{path}:2: not the line of the model (# model=... n_expert_used=...)")
    # The file names the checkpoint by its path on the device.
    model = re.split(r"[/\\]", found["model"])[-1] or "unknown"
    head = _Head(model, int(found["experts"]), int(found["top_k"]), {}, 0)
    for number, line in enumerate(lines[2:], 3):
        layer = LAYER.fullmatch(line.strip())
        if layer is None:
            head.line = number
            break
        head.sizes[int(layer["layer"])] = int(layer["bytes"])
    if not head.line:
        raise FormatError(f"{path}:{len(lines)}: the file ends before the names of the columns")
    if len(head.sizes) != int(found["layers"]):
        raise FormatError(
            f"{path}:{head.line}: {len(head.sizes)} `# layer=` lines for {found['layers']} layers"
        )
    return head


def _table(
    lines: list[str], head: _Head, path: Path
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Rows [turn, phase, step, layer, slot, expert, line] and weights, NaN where unknown."""
    names = next(csv.reader([lines[head.line - 1]]))
    missing = [name for name in (*COLUMNS, "weight") if name not in names]
    if missing:
        raise FormatError(f"{path}:{head.line}: there is no column {missing[0]}")
    places = [names.index(name) for name in COLUMNS]
    weight = names.index("weight")
    rows, shares = [], []
    for number, line in enumerate(lines[head.line :], head.line + 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split(",")
        if len(fields) != len(names):
            raise FormatError(
                f"{path}:{number}: {len(fields)} columns, not {len(names)}; is the file cut?"
            )
        try:
            row = [int(fields[place]) for place in places]
            share = float(fields[weight])
        except ValueError as error:
            raise FormatError(f"{path}:{number}: {error}") from error
        _check(row, share, head, f"{path}:{number}")
        rows.append([*row, number])
        shares.append(share)
    if not rows:
        raise FormatError(f"{path}:{head.line}: no line follows the names of the columns")
    return np.array(rows, np.int64), np.array(shares, np.float64)


def _check(row: list[int], share: float, head: _Head, where: str) -> None:
    turn, phase, step, layer, slot, expert = row
    limits = {
        "turn": (turn, 2**31),
        "phase": (phase, 2),
        "step": (step, 2**31),
        "slot": (slot, head.top_k),
        "expert": (expert, head.experts),
    }
    for name, (value, limit) in limits.items():
        if not 0 <= value < limit:
            raise FormatError(f"{where}: {name} is {value}, not 0 to {limit - 1}")
    if layer not in head.sizes:
        raise FormatError(f"{where}: layer {layer} has no `# layer=` line")
    if share < 0 or share > 1:  # not a number: the source did not know it
        raise FormatError(f"{where}: weight is {share}, not 0 to 1")


def _last_layer_filled(
    table: npt.NDArray[np.int64], weights: npt.NDArray[np.float64], last: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The table with the lines of the last layer that a prompt pass left out."""
    tables, shares = [table], [weights]
    prompt = table[:, 1] == 0
    for turn in np.unique(table[prompt, 0]):
        mine = prompt & (table[:, 0] == turn)
        steps = np.unique(table[mine, 2])
        there = mine & (table[:, 3] == last)
        if len(steps) > 1 and set(table[there, 2]) == {steps[-1]}:
            more = np.tile(table[there], (len(steps) - 1, 1))
            more[:, 2] = np.repeat(steps[:-1], int(there.sum()))
            tables.append(more)
            shares.append(np.tile(weights[there], len(steps) - 1))
    return np.concatenate(tables), np.concatenate(shares)


def _request(
    table: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    layers: npt.NDArray[np.int64],
    top_k: int,
    path: Path,
) -> Request:
    """One turn. Lines of a prompt come layer by layer, those of decode token by token."""
    order = np.lexsort((table[:, 4], table[:, 3], table[:, 2]))
    table, weights = table[order], weights[order]
    steps = np.unique(table[:, 2])
    expected = np.stack(
        [axis.ravel() for axis in np.meshgrid(steps, layers, np.arange(top_k), indexing="ij")], 1
    )
    found = table[:, 2:5]
    shared = min(len(found), len(expected))
    differ = np.flatnonzero((found[:shared] != expected[:shared]).any(axis=1))
    if len(found) != len(expected) or len(differ):
        at = int(differ[0]) if len(differ) else shared
        line = table[min(at, len(table) - 1), 6]
        step, layer, slot = expected[min(at, len(expected) - 1)]
        raise FormatError(
            f"{path}:{line}: near this line, step {step}, layer {layer}, slot {slot} "
            "is missing or there twice"
        )
    shape = (len(steps), len(layers), top_k)
    phases = table[:, 1].reshape(len(steps), -1)
    lines = table[:, 6].reshape(len(steps), -1)
    mixed = np.flatnonzero((phases != phases[:, :1]).any(axis=1))
    falls = np.flatnonzero(np.diff(phases[:, 0]) < 0) + 1
    gaps = np.flatnonzero(np.diff(steps) != 1) + 1
    for wrong, what in (
        (mixed, "is of both phases"),
        (falls, "is prefill after decode"),
        (gaps, "does not follow the one before"),
    ):
        if len(wrong):
            raise FormatError(f"{path}:{lines[wrong[0]].min()}: step {steps[wrong[0]]} {what}")
    experts, shares = table[:, 5].reshape(shape), weights.reshape(shape)
    twice = first_twice(experts)
    if twice is not None:
        line = table[:, 6].reshape(shape)[twice]
        raise FormatError(
            f"{path}:{line}: step {steps[twice[0]]} takes expert {experts[twice]} twice in layer "
            f"{layers[twice[1]]}"
        )
    return Request(
        where=f"{path}:{lines.min()}",
        experts=experts,
        weights=None if np.isnan(shares).any() else shares,
        prompt=int((phases[:, 0] == 0).sum()),
        start=int(steps[0]),
    )
