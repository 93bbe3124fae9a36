"""The cells of the paper study: tables 3 to 9 scaled to a model's depth, and what goes beyond.

Noise in the tables is the paper's N(0, alpha mean|w|). A scope that the paper states by a number of
layers or experts is scaled: its layers to the same relative depth, its groups as `group_layers`
says, and its six most used of 64 experts, as many as one token takes, to the model's top-k.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from offsim.accuracy import Scope, WeightError, scaled_layer
from offsim.codec.bounds import Bound, Kind
from offsim.study.paper.numbers import GROUPS, LAYERS
from offsim.study.paper.sizes import SIZED, Sizes
from offsim.study.paper.uneven import UNIFORM, Uneven

BEYOND = 1.6
"""A level above the paper's largest, where one expert of this model is to be seen to react."""
CODEC_ALPHAS = (0.1, 0.3, 0.5, 0.8)
"""Of the paper, in the comparison of sources: all experts of all layers."""
REAL_ALPHA = 1.6
"""At which real codecs are compared with noise in one layer; at 0.8 little happens there."""
LAYER_SIGMAS = (1.0, 0.5, 1.5)
"""Bounds of the map of layers and tasks, in the order in which they are measured."""
PART_SIGMAS = (0.25, 0.5, 1.0)
"""Bounds of the comparison of matrices and of hot and cold experts, in all layers at once."""
_WORDS = {"!": "not-", "&": "-and-", "|": "-or-"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One error and the questions that the model is asked under it.

    Attributes:
        questions: a key of `offsim.study.paper.plan.QUESTIONS`.
        error: with the seed 0; the runs of a cell differ in the seed alone.
        over: another one, which holds alone where it is; None for none.
    """

    questions: str
    error: WeightError
    over: WeightError | None = None

    @property
    def name(self) -> str:
        """Tells cells apart, and is a file name."""
        bound = "" if self.error.bound is None else f"-{self.error.bound}"
        text = f"{self.questions}-{self.error.source}{bound}-{self.error.scope}"
        if self.over is not None:
            text += f"-over-{self.over.bound}-{self.over.scope}"
        for sign, word in _WORDS.items():
            text = text.replace(sign, word)
        return re.sub(r"[^A-Za-z0-9.]+", "-", text)

    def seeds(self, wanted: int) -> int:
        """How many runs it has: a codec makes the same error every time."""
        return wanted if any(one.made_by().seeded for one in self.errors(0)) else 1

    def errors(self, seed: int) -> list[WeightError]:
        """What is injected in the run of a seed."""
        both = [self.error] if self.over is None else [self.error, self.over]
        return [one.model_copy(update={"seed": seed}) for one in both]

    @property
    def bound_text(self) -> str:
        """The bound, or both of them."""
        first = "" if self.error.bound is None else str(self.error.bound)
        return first if self.over is None else f"{first}, {self.over.bound} in {self.over.scope}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A cell in its place in a table.

    Attributes:
        part: of the study, a key of PARTS.
        place: where the error is, as the paper writes it in its tables.
        source: what makes it, such as `normal` or `sz3`.
        level: alpha, a share of mean|w|; in the parts beyond the tables, sigma of the weights;
            under `equal size`, bits a weight of the codec that sets the size.
        unit: `alpha`, `sigma` or `bits`.
        cell: what is measured.
        how: `equal bound` or `equal size` in the part `codecs`, else empty.
        bits: a weight, MEASURED, in the part `uneven`; else None.
    """

    part: str
    place: str
    source: str
    level: float
    unit: str
    cell: Cell
    how: str = ""
    bits: float | None = None


@dataclass(frozen=True, slots=True)
class Depth:
    """What a design must know of a model.

    Attributes:
        layers: MoE layers.
        experts: of each.
        top_k: that one token takes.
    """

    layers: int
    experts: int
    top_k: int

    def layer(self, number: int) -> int:
        """The layer, from 0, that is as deep as one of the paper's, from 1."""
        return scaled_layer(number, self.layers)


def noise(
    source: str, level: float, scope: str, kind: Kind = "mean-abs", questions: str = "mixed"
) -> Cell:
    """A cell of an error of some size."""
    return Cell(questions, WeightError(source=source, bound=Bound(level, kind), scope=Scope(scope)))


def entries(
    part: str, depth: Depth, sizes: Sizes | None = None, uneven: Uneven | None = None
) -> list[Entry]:
    """The cells of one part of the study.

    Args:
        part: a key of PARTS.
        depth: of the model.
        sizes: what the codecs make of the model; `codecs` alone needs them.
        uneven: tables of two bounds; `uneven` alone needs them.
    """
    if part == "uneven":
        return [] if uneven is None else list(_uneven(uneven))
    if part == "codecs":
        return [] if sizes is None else list(_codecs(sizes))
    return list(PARTS[part](depth))


def _layer_table(
    part: str,
    scope: str,
    layers: tuple[int, ...],
    levels: tuple[float, ...],
    questions: str = "mixed",
) -> Callable[[Depth], Iterator[Entry]]:
    """Experts of single layers; `{k}` in the scope is the top-k and `{layer}` the layer."""

    def make(depth: Depth) -> Iterator[Entry]:
        for number in layers:
            text = scope.format(k=depth.top_k, layer=depth.layer(number))
            for level in levels:
                cell = noise("normal", level, text, questions=questions)
                yield Entry(part, f"L{number}", "normal", level, "alpha", cell)

    return make


def _group_table(
    part: str, levels: tuple[float, ...], questions: str = "mixed"
) -> Callable[[Depth], Iterator[Entry]]:
    def make(_: Depth) -> Iterator[Entry]:
        for number, place in GROUPS.items():
            for level in levels:
                cell = noise("normal", level, f"top1:group:{number}", questions=questions)
                yield Entry(part, place, "normal", level, "alpha", cell)

    return make


def _layers(depth: Depth) -> Iterator[Entry]:
    for sigma in LAYER_SIGMAS:  # a study that is cut off has all layers at its first bounds
        for layer in range(depth.layers):
            cell = noise("uniform", sigma, f"layer:{layer}", "sigma")
            yield Entry("layers", str(layer), "uniform", sigma, "sigma", cell)


def _matrices(_: Depth) -> Iterator[Entry]:
    for matrix in ("gate", "up", "down"):
        for sigma in PART_SIGMAS:
            cell = noise("uniform", sigma, f"matrix:{matrix}", "sigma")
            yield Entry("matrices", matrix, "uniform", sigma, "sigma", cell)


def _experts(depth: Depth) -> Iterator[Entry]:
    half = f"top{depth.experts // 2}:all"  # as many hot ones as cold ones: as many bytes
    for place, scope in (("hot half", half), ("cold half", f"!{half}")):
        for sigma in PART_SIGMAS:
            cell = noise("uniform", sigma, scope, "sigma")
            yield Entry("experts", place, "uniform", sigma, "sigma", cell)


def _real(depth: Depth) -> Iterator[Entry]:
    for number in LAYERS:
        for source in ("normal", "uniform", *(f"codec:{name}" for name in SIZED)):
            cell = noise(source, REAL_ALPHA, f"layer:{depth.layer(number)}")
            name = source.removeprefix("codec:")
            yield Entry("real", f"L{number}", name, REAL_ALPHA, "alpha", cell)


def _codecs(sizes: Sizes) -> Iterator[Entry]:
    """All experts: noise and codecs at one bound, and codecs at one size."""
    for alpha in CODEC_ALPHAS:
        for source in ("normal", "uniform", *(f"codec:{name}" for name in SIZED)):
            cell = noise(source, alpha, "all")
            name = source.removeprefix("codec:")
            yield Entry("codecs", "all", name, alpha, "alpha", cell, "equal bound")
    for point in sizes.points:
        if not point.sized_to:
            continue
        bound = None if point.alpha is None else Bound(point.alpha, "mean-abs")
        error = WeightError(source=f"codec:{point.source}", bound=bound, scope=Scope("all"))
        level = sizes.bits(sizes.reference(point))
        cell = Cell("mixed", error)
        yield Entry("codecs", "all", point.source, level, "bits", cell, "equal size")


def _uneven(uneven: Uneven) -> Iterator[Entry]:
    """One bound for all, and two of the same size, in all experts."""
    source = f"codec:{uneven.codec}"
    seen: set[float] = set()
    for table in uneven.tables:
        size = (table.alpha, "alpha")
        if table.alpha not in seen:
            seen.add(table.alpha)
            bits = uneven.bits(table.uniform_bytes)
            cell = noise(source, table.alpha, "all")
            yield Entry("uneven", UNIFORM, uneven.codec, *size, cell, bits=bits)
        loose = noise(source, table.loose, "all")
        tight = WeightError(source=source, bound=Bound(table.tight, "mean-abs"), scope=table.scope)
        cell = Cell(loose.questions, loose.error, tight)
        bits = uneven.bits(table.bytes)
        yield Entry("uneven", table.name, uneven.codec, *size, cell, bits=bits)


_ONE = "top1:layer:{layer}"
_TOKEN = "top{k}:layer:{layer}"
_ALL = "layer:{layer}"
PARTS: Mapping[str, Callable[[Depth], Iterator[Entry]]] = {
    "6": _layer_table("6", _ALL, LAYERS, (0.3, 0.5, 0.8)),
    "7": _group_table("7", (0.3, 0.5, 0.8, BEYOND)),
    "3": _layer_table("3", _ONE, (1,), (0.3, 0.5, 0.8, BEYOND)),
    "4": _layer_table("4", _ONE, LAYERS, (0.8, BEYOND)),
    "5": _layer_table("5", _TOKEN, (1, 26), (0.8, BEYOND)),
    "codecs": lambda _: iter(()),
    "8": _layer_table("8", _ONE, LAYERS, (0.8, BEYOND), "chains"),
    "9": _group_table("9", (0.3, 0.5, 0.8), "chains"),
    "matrices": _matrices,
    "experts": _experts,
    "uneven": lambda _: iter(()),
    "layers": _layers,
    "real": _real,
}
"""The parts of the study in the order in which they are measured, and what makes their cells."""

TITLES = {
    "3": "Table 3: the most used expert of the first layer",
    "4": "Table 4: the most used expert of one layer",
    "5": "Table 5: as many of the most used experts of one layer as a token takes",
    "6": "Table 6: all experts of one layer",
    "7": "Table 7: the most used expert of each layer of a group",
    "8": "Table 8: the most used expert of one layer, second set of questions",
    "9": "Table 9: the most used expert of each layer of a group, second set of questions",
    "codecs": "Noise and codecs in all experts",
    "matrices": "Gate, up or down matrices of all experts",
    "experts": "The more used half of the experts of each layer, and the other half",
    "uneven": "Two bounds of the size of one, in all experts",
    "layers": "All experts of one layer, uniform noise",
    "real": "Noise and codecs in all experts of one layer",
}
"""What each part is about."""
