"""Which bound every matrix gets: one for all, and others by layer, expert and matrix.

A rule may name a codec too, so that places differ in how they are stored and not in the bound
alone.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from offsim.codec import Codec, codec_named
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


@dataclass(frozen=True, slots=True)
class Form:
    """How a matrix is stored.

    Attributes:
        bound: of its error; None for a codec that takes none.
        codec: by name; None for the one that a policy has for all that is not said otherwise.
    """

    bound: Bound | None
    codec: str | None = None

    def coded_by(self, usual: Codec) -> Codec:
        """Its codec.

        Args:
            usual: of what is not said otherwise.
        """
        return usual if self.codec is None else codec_named(self.codec)

    def __str__(self) -> str:
        """Such as `0.001`, `sz3 0.001` or `rtn-int4`."""
        return " ".join(str(part) for part in (self.codec, self.bound) if part is not None)


class Rule(Strict):
    """A bound, or a codec and its bound, for some places; what is not given means all.

    Attributes:
        bound: such as `0.001` or `sigma:0.05`; None for a codec that takes none.
        codec: by name; None for the policy's.
        layers: MoE layers, from 0.
        experts: of each of those layers, from 0.
        matrices: of each of those experts.
    """

    bound: BoundText | None = None
    codec: str | None = None
    layers: tuple[Number, ...] | None = None
    experts: tuple[Number, ...] | None = None
    matrices: tuple[Matrix, ...] | None = None

    @model_validator(mode="after")
    def _says_how(self) -> Self:
        if self.codec is None:
            if self.bound is None:
                raise ValueError("a rule gives a bound, a codec, or a codec and its bound")
            return self
        try:
            takes_bound = codec_named(self.codec).promise == "bound"
        except InputError as error:
            raise ValueError(str(error)) from error
        if takes_bound and self.bound is None:
            raise ValueError(f"codec {self.codec} takes a bound; the rule gives none")
        if self.bound is not None and not takes_bound:
            raise ValueError(f"codec {self.codec} takes no bound, not {self.bound}")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As rules were written before they had codecs, so that digests stay."""
        said: dict[str, Any] = write(self)
        unsaid = [name for name in ("bound", "codec") if getattr(self, name) is None]
        return {name: value for name, value in said.items() if name not in unsaid}

    @property
    def form(self) -> Form:
        """What it says."""
        return Form(self.bound, self.codec)

    def covers(self, layer: int, expert: int, matrix: Matrix) -> bool:
        """Whether this rule is about that matrix."""
        asked = ((self.layers, layer), (self.experts, expert), (self.matrices, matrix))
        return all(places is None or place in places for places, place in asked)


class Bounds(Strict):
    """The bound of every matrix of a model, and its codec where that is another.

    Attributes:
        default: where no rule says otherwise.
        rules: the last one that covers a matrix decides.
    """

    format: Literal["offsim-bounds"] = "offsim-bounds"
    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    default: BoundText
    rules: tuple[Rule, ...] = ()

    def of(self, layer: int, expert: int) -> tuple[Form, ...]:
        """How the gate, up and down matrices of an expert are stored."""
        return tuple(self._of_matrix(layer, expert, matrix) for matrix in MATRICES)

    def table(self, layers: int, experts: int) -> tuple[list[Form], npt.NDArray[np.intp]]:
        """How all matrices of a model are stored; as `of` says, for all places at once.

        Args:
            layers: MoE layers.
            experts: of each.

        Returns:
            The distinct forms that some matrix has, and which one each has, [layers, experts, 3].

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
        stated = [Form(self.default), *(rule.form for rule in self.rules)]
        used = dict.fromkeys(stated[number] for number in np.unique(found))
        place = {form: at for at, form in enumerate(used)}
        return list(used), np.array([place.get(form, 0) for form in stated])[found]

    @property
    def codecs(self) -> tuple[str, ...]:
        """That rules name, each once."""
        return tuple(dict.fromkeys(rule.codec for rule in self.rules if rule.codec is not None))

    @property
    def digest(self) -> str:
        """Eight hex digits that tell tables apart."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]

    def __str__(self) -> str:
        return f"bounds {len(self.rules)} rule{'' if len(self.rules) == 1 else 's'}"

    def _of_matrix(self, layer: int, expert: int, matrix: Matrix) -> Form:
        covering = (rule for rule in reversed(self.rules) if rule.covers(layer, expert, matrix))
        return next((rule.form for rule in covering), Form(self.default))


def check_one_place(usual: Codec, bounds: Bounds) -> None:
    """Refuse a table whose codecs decode in different places.

    Args:
        usual: codec of what the table does not say otherwise.
        bounds: the table.

    Raises:
        InputError: it is one.
    """
    for name in bounds.codecs:
        if (place := codec_named(name).placement) != usual.placement:
            raise InputError(
                f"{bounds} names the codec {name}, which decodes on the {place}, beside {usual}, "
                f"which decodes on the {usual.placement}; take codecs that decode in one place"
            )


def codecs_of(forms: Sequence[Form], usual: Codec) -> list[Codec]:
    """[matrices] the codec of each.

    Args:
        forms: [matrices] of an expert.
        usual: of what is not said otherwise.
    """
    return [form.coded_by(usual) for form in forms]


def bounds_of(forms: Sequence[Form]) -> list[Bound | None]:
    """[matrices] the bound of each; None where its codec takes none."""
    return [form.bound for form in forms]
