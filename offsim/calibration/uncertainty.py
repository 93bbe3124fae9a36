"""How sure a calibration is: parts of its file that not every calibration has.

`Replicates` says what else the figures might have been, had other rounds been measured. `InnerRun`
says by how much the runs of the calibration itself differ from what it predicts for them.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

Part = TypeVar("Part", bound=BaseModel)
Tree = dict[str, Any]
"""What changes, by field or place in a list: a number, or the tree of the part that is there."""
SPREAD = frozenset({"p10", "p90"})
"""Fields that no simulation of calibrated values looks at."""


def _numbers(value: object) -> object:
    """Numbers from the text that the file has; anything else is left to the schema."""
    return value.split() if isinstance(value, str) else value


Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Numbers = Annotated[
    tuple[Number, ...],
    BeforeValidator(_numbers),
    PlainSerializer(lambda numbers: " ".join(map("{:g}".format, numbers)), when_used="json"),
]
"""Numbers of six digits; text in a file, which is read faster than a list and is shorter."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Replicates(_Strict):
    """The figures of calibrations from rounds drawn with replacement (the bootstrap).

    Attributes:
        count: how many calibrations, at least 1.
        values: [count] numbers of each figure that is not the same in all of them, by its path,
            such as `compute.dense.0.seconds.value`; units as the figure's.
    """

    count: int = Field(ge=1)
    values: dict[str, Numbers]

    @model_validator(mode="after")
    def _one_value_each(self) -> Self:
        for path, numbers in self.values.items():
            if len(numbers) != self.count:
                raise ValueError(f"{path} has {len(numbers)} values in {self.count} replicates")
        return self


class InnerRun(_Strict):
    """A policy that was run in each round, against what the other rounds predict for it.

    Attributes:
        run: the policy and the link, in words.
        prefill: [rounds][prompt passes] measured over predicted duration of each, a factor, in the
            order of the run; as many in each of two rounds or more.
        decode: [rounds][decode steps] the same.
        storage: codec and bound of the policy, as `Policy.storage` has them; None in a file of
            before they were noted.
        slots: of the policy; None likewise.
    """

    run: str
    prefill: list[Numbers]
    decode: list[Numbers] = Field(min_length=2)
    storage: str | None = None
    slots: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _rounds_are_alike(self) -> Self:
        for name, rows in (("prefill", self.prefill), ("decode", self.decode)):
            if len({len(row) for row in rows}) > 1 or len(rows) != len(self.decode):
                raise ValueError(f"the rounds of {name} are not alike")
        if not self.prefill[0] and not self.decode[0]:
            raise ValueError("a run has at least one step")
        return self


def floats(part: BaseModel) -> dict[str, float]:
    """Every number with a fraction in a part of a calibration, by its path; but for p10 and p90."""
    return dict(_walk(part, ""))


def _walk(part: object, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(part, float):
        yield path, part
        return
    inside: Iterator[tuple[object, object]] = iter(())
    if isinstance(part, BaseModel):
        inside = ((name, getattr(part, name)) for name in type(part).model_fields)
    elif isinstance(part, list) and part and isinstance(part[0], BaseModel):
        inside = iter(enumerate(part))
    for name, value in inside:
        if name not in SPREAD:
            yield from _walk(value, f"{path}.{name}" if path else str(name))


def changed(part: Part, values: Mapping[str, float]) -> Part:
    """A copy of a part with other numbers.

    Args:
        part: a part of a calibration, or all of it.
        values: by path, as `floats` has them.

    Raises:
        KeyError: a path is not among those of `floats`.
    """
    unknown = values.keys() - floats(part).keys()
    if unknown:
        raise KeyError(min(unknown))
    tree: Tree = {}
    for path, value in values.items():
        *above, last = path.split(".")
        branch = tree
        for name in above:
            branch = branch.setdefault(name, {})
        branch[last] = value
    return _grafted(part, tree)


def _grafted(part: Part, tree: Tree) -> Part:
    return part.model_copy(update={n: _new(getattr(part, n), b) for n, b in tree.items()})


def _new(old: Any, branch: Any) -> Any:
    """A field with its branch of the tree put in."""
    if not isinstance(branch, dict):
        return branch
    if isinstance(old, list):
        return [_new(one, branch.get(str(place), {})) for place, one in enumerate(old)]
    return _grafted(old, branch) if branch else old
