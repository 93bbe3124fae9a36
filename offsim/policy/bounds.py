"""Which bound every matrix gets: one for all, and others by layer, expert and matrix."""

from typing import Annotated, Any, Literal, get_args

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


BoundText = Annotated[Bound, BeforeValidator(_read), PlainSerializer(str, return_type=str)]


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
    layers: list[Number] | None = None
    experts: list[Number] | None = None
    matrices: list[Matrix] | None = None

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
    rules: list[Rule] = Field(default_factory=list)

    def of(self, layer: int, expert: int) -> tuple[Bound, ...]:
        """Bounds of the gate, up and down matrices of an expert."""
        return tuple(self._of_matrix(layer, expert, matrix) for matrix in MATRICES)

    def _of_matrix(self, layer: int, expert: int, matrix: Matrix) -> Bound:
        covering = (rule for rule in reversed(self.rules) if rule.covers(layer, expert, matrix))
        return next((rule.bound for rule in covering), self.default)
