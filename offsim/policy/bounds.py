"""Which bound every matrix gets: one for all, and others by layer, expert and matrix."""

import hashlib
from typing import Annotated, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from offsim.codec.bounds import Bound
from offsim.errors import InputError

Matrix = Literal["gate", "up", "down"]
MATRICES: tuple[Matrix, ...] = get_args(Matrix)
VERSION = 1
Number = Annotated[int, Field(ge=0)]


def _read(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    try:
        return Bound.parse(str(value))
    except InputError as error:
        raise ValueError(str(error)) from error


def _written(bound: Bound) -> float | str:
    """Read again, it is the same bound to the last bit."""
    return bound.value if bound.kind == "abs" else f"{bound.kind}:{bound.value!r}"


BoundText = Annotated[Bound, BeforeValidator(_read), PlainSerializer(_written)]


class Strict(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(Strict):
    """A bound for some places; what is not given means all.

    Attributes:
        bound: such as `0.001` or `sigma:0.05`.
        layers: MoE layers, from 0.
        experts: of each of those layers, from 0.
        matrices: of each of those experts.
    """

    bound: BoundText
    layers: tuple[Number, ...] | None = None
    experts: tuple[Number, ...] | None = None
    matrices: tuple[Matrix, ...] | None = None

    def covers(self, layer: int, expert: int, matrix: Matrix) -> bool:
        """Whether this rule is about that matrix."""
        asked = ((self.layers, layer), (self.experts, expert), (self.matrices, matrix))
        return all(places is None or place in places for places, place in asked)


class Bounds(Strict):
    """The bound of every matrix of a model.

    Attributes:
        default: where no rule says otherwise.
        rules: the last one that covers a matrix decides.
    """

    format: Literal["offsim-bounds"] = "offsim-bounds"
    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    default: BoundText
    rules: tuple[Rule, ...] = ()

    def of(self, layer: int, expert: int) -> tuple[Bound, ...]:
        """Bounds of the gate, up and down matrices of an expert."""
        return tuple(self._of_matrix(layer, expert, matrix) for matrix in MATRICES)

    def table(self, layers: int, experts: int) -> tuple[list[Bound], npt.NDArray[np.intp]]:
        """The bounds of all matrices of a model; as `of` says, for all places at once.

        Args:
            layers: MoE layers.
            experts: of each.

        Returns:
            The distinct bounds that some matrix has, and which one each has, [layers, experts, 3].

        Raises:
            InputError: a rule names a layer or an expert that the model does not have.
        """
        found = np.zeros((layers, experts, len(MATRICES)), np.intp)
        for number, rule in enumerate(self.rules, 1):
            matrices = None
            if rule.matrices is not None:
                matrices = tuple(MATRICES.index(matrix) for matrix in rule.matrices)
            places = []
            for what, named, size, shape in (
                ("layer", rule.layers, layers, (-1, 1, 1)),
                ("expert", rule.experts, experts, (-1, 1)),
                ("matrix", matrices, len(MATRICES), -1),
            ):
                if named and max(named) >= size:
                    raise InputError(
                        f"rule {number} of the bounds is about {what} {max(named)}, and the model "
                        f"has {what}s 0 to {size - 1}; make a table for this model"
                    )
                those = np.arange(size) if named is None else np.array(named, np.intp)
                places.append(those.reshape(shape))
            found[tuple(places)] = number
        stated = [self.default, *(rule.bound for rule in self.rules)]
        used = dict.fromkeys(stated[number] for number in np.unique(found))
        place = {bound: at for at, bound in enumerate(used)}
        return list(used), np.array([place.get(bound, 0) for bound in stated])[found]

    @property
    def digest(self) -> str:
        """Eight hex digits that tell tables apart."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]

    def __str__(self) -> str:
        return f"bounds {len(self.rules)} rule{'' if len(self.rules) == 1 else 's'}"

    def _of_matrix(self, layer: int, expert: int, matrix: Matrix) -> Bound:
        covering = (rule for rule in reversed(self.rules) if rule.covers(layer, expert, matrix))
        return next((rule.bound for rule in covering), self.default)
