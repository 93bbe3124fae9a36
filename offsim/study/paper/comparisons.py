"""Beyond the paper: which of two errors does more harm, paired over the same items.

Matrices against each other, hot experts against cold ones, one source of errors against another at
an equal bound and at an equal size, two bounds against one of the same size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from offsim.study.paper.design import Cell, Entry
from offsim.study.paper.results import Results
from offsim.study.paper.uneven import UNIFORM

NOISE = ("uniform", "normal")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two cells that differ in one thing.

    Attributes:
        part: of the study.
        place: what they have in common besides the level, or empty.
        level: as of `Entry`.
        unit: likewise.
        how: likewise.
        first: name of the first one.
        second: of the second one.
        cells: the two.
    """

    part: str
    place: str
    level: float
    unit: str
    how: str
    first: str
    second: str
    cells: tuple[Cell, Cell]


def pairs(entries: Sequence[Entry]) -> Iterator[Pair]:
    """Every comparison that the entries allow."""
    groups: dict[tuple[str, str, float, str, str], dict[str, Cell]] = {}
    for entry in entries:
        if entry.part in ("matrices", "experts", "uneven"):
            place, name = "", entry.place
        elif entry.part in ("codecs", "real"):
            place, name = entry.place, entry.source
        else:
            continue
        key = (entry.part, place, entry.level, entry.unit, entry.how)
        groups.setdefault(key, {})[name] = entry.cell
    for (part, place, level, unit, how), found in groups.items():
        for first, second in combinations(found, 2):
            if part == "uneven" and first != UNIFORM:
                continue  # all are held against the one bound
            both = (found[first], found[second])
            yield Pair(part, place, level, unit, how, first, second, both)


def comparisons_table(entries: Sequence[Entry], results: Results) -> pd.DataFrame:
    """A row for each pair: ICA of the second less the first, 0..1, and the same of KL, nats.

    Intervals are of 95 % each and not corrected for the number of pairs.
    """
    rows = []
    for pair in pairs(entries):
        if not all(results.has(cell) for cell in pair.cells):
            continue
        row: dict[str, object] = {
            "part": pair.part,
            "place": pair.place,
            "level": pair.level,
            "unit": pair.unit,
            "how": pair.how,
            "first": pair.first,
            "second": pair.second,
        }
        for score in ("ica", "kl"):
            first, second = (float(results.after(cell, score).mean()) for cell in pair.cells)
            found = results.against(*pair.cells, score)
            row |= {
                f"{score}_first": first,
                f"{score}_second": second,
                f"{score}_apart": found.mean,
                f"{score}_low": found.low,
                f"{score}_high": found.high,
            }
        rows.append(row)
    return pd.DataFrame(rows)
