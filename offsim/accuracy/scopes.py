"""Which matrices of which experts get an error, as short text and as a mask."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, PlainSerializer

from offsim.errors import InputError
from offsim.model.experts import MATRICES
from offsim.policy.bound_kinds import ZONES

Mask = npt.NDArray[np.bool_]
Usage = npt.NDArray[np.int64]

ZONE_NAMES = ("shallow", "middle", "deep")
PAPER_LAYERS = 26
"""MoE layers of Moonlight, the model of the base paper, arXiv 2509.07727."""
PAPER_GROUP = 10
"""Layers of each of its groups L1-L10, L9-L18 and L17-L26."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where errors can be.

    Attributes:
        layers: MoE layers.
        experts: of each.
        usage: activations of each expert, [layers, experts] int64, as of
            `offsim.trace.statistics.usage`; None where no scope asks for it.

    Raises:
        InputError: usage of another shape.
    """

    layers: int
    experts: int
    usage: Usage | None = None

    def __post_init__(self) -> None:
        if self.usage is not None and self.usage.shape != (self.layers, self.experts):
            raise InputError(
                f"the usage of experts has the shape {list(self.usage.shape)}, and the model has "
                f"{self.layers} layers of {self.experts}; record a trace of this model"
            )


@dataclass(frozen=True, slots=True)
class Scope:
    """A set of expert matrices, which text says; equal texts are equal scopes.

    | term | what |
    | --- | --- |
    | `all` | every matrix |
    | `layer:3`, `layers:0-2,5` | all experts of these layers |
    | `expert:3/5`, `expert:3/0,4-6` | experts of one layer |
    | `top6:TERM` | of what the term holds, the 6 most used experts of each layer; of equally used \
ones the lower id |
    | `zone:shallow`, `middle`, `deep` | a third of the layers, as `offsim bounds make` cuts them |
    | `group:1`, `2`, `3` | the base paper's overlapping groups (`group_layers`) |
    | `matrix:down`, `matrix:gate,up` | these matrices of every expert |
    | `!TERM` | what the term does not hold |

    `&` between terms is what both hold, `|` what either holds; `&` binds tighter.

    Attributes:
        text: such as `top6:layer:0&matrix:down`, without blanks.

    Raises:
        InputError: a term that is none.
    """

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", re.sub(r"\s", "", self.text))
        for both in self._terms():
            for term in both:
                _read(term)

    def mask(self, places: Places) -> Mask:
        """What is in the scope, [layers, experts, 3] bool, matrices as in `MATRICES`.

        Raises:
            InputError: the model has no such layer, expert or zone, or usage is needed and not
                there.
        """
        found = np.zeros((places.layers, places.experts, len(MATRICES)), np.bool_)
        for both in self._terms():
            found |= np.logical_and.reduce([_read(term)(places) for term in both])
        return found

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, mask: Mask) -> "Scope":
        """The scope of any mask [layers, experts, 3] bool; its text names every expert.

        Raises:
            InputError: nothing is in it.
        """
        parts = []
        for layer, rows in enumerate(mask):
            for kept in np.unique(rows, axis=0):
                if not kept.any():
                    continue
                experts = ",".join(map(str, np.flatnonzero((rows == kept).all(1))))
                names = ",".join(np.array(MATRICES)[kept])
                parts.append(f"expert:{layer}/{experts}&matrix:{names}")
        if not parts:
            raise InputError("a scope has at least one matrix, and nothing in this mask is set")
        return cls("|".join(parts))

    def _terms(self) -> list[list[str]]:
        return [part.split("&") for part in self.text.split("|")]


def _scope(value: Any) -> Any:
    return Scope(value) if isinstance(value, str) else value


ScopeText = Annotated[Scope, BeforeValidator(_scope), PlainSerializer(str)]
"""A scope in a pydantic model: text in the file."""


def group_layers(layers: int) -> list[range]:
    """The base paper's three groups of layers, scaled to a model's depth.

    The paper has L1-L10, L9-L18 and L17-L26 of 26 layers. Here too the groups are of equal size,
    10/26 of the layers and rounded up so that they overlap, the first at the first layer, the last
    at the last one, the second half way between, or half a layer before that.

    Args:
        layers: MoE layers of the model, 3 or more.

    Raises:
        InputError: fewer layers.
    """
    if layers < ZONES:
        raise InputError(f"groups are of a model of {ZONES} layers or more, not of {layers}")
    size = -(-PAPER_GROUP * layers // PAPER_LAYERS)
    return [range(start, start + size) for start in (0, (layers - size) // 2, layers - size)]


def scaled_layer(layer: int, layers: int) -> int:
    """The layer of a model that is as deep in it as one of the paper's 26 is there.

    Args:
        layer: of the paper, 1..26.
        layers: MoE layers of the model.

    Returns:
        The layer, from 0, in which the middle of the paper's layer lies.

    Raises:
        InputError: the paper has no such layer.
    """
    if not 1 <= layer <= PAPER_LAYERS:
        raise InputError(f"the paper's layers are 1 to {PAPER_LAYERS}, not {layer}")
    return (2 * layer - 1) * layers // (2 * PAPER_LAYERS)


Find = Callable[[Places], Mask]


def _read(term: str) -> Find:
    """What finds the mask of a term."""
    for pattern, make in KINDS.items():
        match = re.fullmatch(pattern, term)
        if match:
            return make(*match.groups())
    raise InputError(
        f"{term!r} is no scope; write all, layer:3, layers:0-2, expert:3/5, top6:layer:0, "
        "zone:deep, group:2, matrix:down or !layer:3, with & and | between"
    )


def _all() -> Find:
    return lambda places: np.ones((places.layers, places.experts, len(MATRICES)), np.bool_)


def _none(places: Places) -> Mask:
    return np.zeros((places.layers, places.experts, len(MATRICES)), np.bool_)


def _layers(numbers: str) -> Find:
    def find(places: Places) -> Mask:
        mask = _none(places)
        mask[list(_chosen(numbers, "layer", places.layers))] = True
        return mask

    return find


def _expert(layer: str, numbers: str) -> Find:
    def find(places: Places) -> Mask:
        mask = _none(places)
        (at,) = _chosen(layer, "layer", places.layers)
        mask[at, list(_chosen(numbers, "expert", places.experts))] = True
        return mask

    return find


def _top(count: str, term: str) -> Find:
    inner = _read(term)

    def find(places: Places) -> Mask:
        if places.usage is None:
            raise InputError(
                f"the scope top{count}:{term} needs the usage of experts; give a recorded trace"
            )
        mask = inner(places)
        kept = np.zeros((places.layers, places.experts), np.bool_)
        for layer, experts in enumerate(mask):
            ranked = np.argsort(-places.usage[layer], kind="stable")
            inside = experts.any(1)[ranked]
            kept[layer, ranked[inside][: int(count)]] = True
        return mask & kept[:, :, None]

    return find


def _zone(name: str) -> Find:
    def find(places: Places) -> Mask:
        if places.layers < ZONES:
            raise InputError(f"zones are of {ZONES} layers or more, not of {places.layers}")
        mask = _none(places)
        zone = np.arange(places.layers) * ZONES // places.layers
        mask[zone == ZONE_NAMES.index(name)] = True
        return mask

    return find


def _group(number: str) -> Find:
    def find(places: Places) -> Mask:
        mask = _none(places)
        mask[list(group_layers(places.layers)[int(number) - 1])] = True
        return mask

    return find


def _matrix(names: str) -> Find:
    def find(places: Places) -> Mask:
        mask = _none(places)
        mask[:, :, [MATRICES.index(name) for name in names.split(",")]] = True
        return mask

    return find


def _not(term: str) -> Find:
    inner = _read(term)
    return lambda places: ~inner(places)


def _chosen(numbers: str, what: str, size: int) -> Iterator[int]:
    """The numbers of a text such as `0-2,5`, each below the size."""
    for part in numbers.split(","):
        first, _, last = part.partition("-")
        ends = range(int(first), int(last or first) + 1)
        if not ends or ends[-1] >= size:
            raise InputError(f"{what} {part} of a scope: the model has {what}s 0 to {size - 1}")
        yield from ends


NUMBERS = r"(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)"
NAME = f"(?:{'|'.join(MATRICES)})"
KINDS: dict[str, Callable[..., Find]] = {
    "all": _all,
    r"layer:(\d+)": _layers,
    f"layers:{NUMBERS}": _layers,
    rf"expert:(\d+)/{NUMBERS}": _expert,
    r"top([1-9]\d*):(.+)": _top,
    f"zone:({'|'.join(ZONE_NAMES)})": _zone,
    "group:([1-3])": _group,
    f"matrix:({NAME}(?:,{NAME})*)": _matrix,
    "!(.+)": _not,
}
"""What makes the terms, by the pattern that their text matches as a whole."""

ALL = Scope("all")
