"""What the base paper reports: arXiv 2509.07727, tables 3 to 9, as printed.

One model (Moonlight, 26 MoE layers of 64 experts, top-6), noise N(0, alpha mean|w|) in the experts;
sample sizes, seeds and intervals are not given. Tables 3 to 7 are on GSM8K, 8 and 9 on MATH.
"""

from dataclasses import dataclass

LAYERS = (1, 13, 20, 26)
"""Layers that the paper looks at, of 26, counted from 1."""
GROUPS = {1: "L1-L10", 2: "L9-L18", 3: "L17-L26"}
"""Its groups of layers, by number."""


@dataclass(frozen=True, slots=True)
class Published:
    """One cell of a table of the paper.

    Attributes:
        ica: instruction-compliance accuracy, 0..1; None where none is printed or legible.
        pia: pure inference accuracy, likewise.
        note: what stands there instead.
    """

    ica: float | None
    pia: float | None
    note: str = ""


BASELINES = {
    "3": Published(0.86, 0.96),
    "4": Published(0.86, 0.96, "of table 3"),
    "5": Published(0.85, 0.96),
    "6": Published(0.86, 0.96),
    "7": Published(0.86, 0.96, "of table 6"),
    "8": Published(0.62, 0.70),
    "9": Published(0.62, 0.70, "of table 8"),
}
"""Without an error, by table; a table that prints none is held against that of another."""

_SILENT = Published(None, None, "no valid output")

PUBLISHED: dict[tuple[str, str, float], Published] = {
    ("3", "L1", 0.3): Published(0.82, 0.96),
    ("3", "L1", 0.5): Published(0.80, 0.96),
    ("3", "L1", 0.8): Published(0.79, 0.95),
    ("4", "L1", 0.8): Published(0.79, 0.95),
    ("4", "L13", 0.8): Published(0.75, 0.94),
    ("4", "L20", 0.8): Published(0.89, 0.96),
    ("4", "L26", 0.8): Published(0.96, 0.96),
    ("5", "L1", 0.8): Published(0.74, 0.90),
    ("5", "L26", 0.8): Published(0.90, 0.93),
    ("6", "L1", 0.8): Published(0.33, 0.71),
    ("6", "L13", 0.8): Published(0.38, 0.65),
    ("6", "L20", 0.8): Published(0.61, 0.80),
    ("6", "L26", 0.8): Published(0.85, 0.90),
    ("7", "L1-L10", 0.3): Published(0.86, 0.94),
    ("7", "L9-L18", 0.3): Published(0.81, 0.89),
    ("7", "L17-L26", 0.3): Published(0.91, 0.95),
    ("7", "L1-L10", 0.5): Published(0.81, 0.91),
    ("7", "L9-L18", 0.5): Published(0.69, 0.75),
    ("7", "L17-L26", 0.5): Published(0.92, 0.94),
    ("7", "L1-L10", 0.8): _SILENT,
    ("7", "L9-L18", 0.8): _SILENT,
    ("7", "L17-L26", 0.8): _SILENT,
    ("8", "L1", 0.8): Published(0.60, 0.65),
    ("8", "L13", 0.8): Published(0.56, 0.60),
    ("8", "L20", 0.8): Published(0.62, 0.68),
    ("8", "L26", 0.8): Published(0.66, 0.70),
    ("9", "L1-L10", 0.3): Published(0.60, 0.63),
    ("9", "L9-L18", 0.3): Published(0.58, None, "PIA unreadable"),
    ("9", "L17-L26", 0.3): Published(0.63, 0.65),
    ("9", "L1-L10", 0.5): Published(0.50, 0.58),
    ("9", "L9-L18", 0.5): Published(None, 0.50, "ICA unreadable"),
    ("9", "L17-L26", 0.5): Published(0.56, 0.60),
}
"""By table, place (a layer or a group) and alpha, a share of mean|w|."""
