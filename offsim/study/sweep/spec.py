"""The SPEC of a sweep, one YAML file, checked on load. docs/sweep.md describes it."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

VERSION = 1
Method = Literal["latin-hypercube", "random"]
Value = bool | int | float | str | None | list[Any] | dict[str, Any]
"""Of a field, as YAML has it; what a field can have is checked with the scenario."""
Values = list[Value]


class Strict(BaseModel):
    """A part of the file; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Range(Strict):
    """Numbers that are drawn.

    Attributes:
        low: the lowest one.
        high: the highest one, above `low`.
        scale: whether equal differences are equally likely, or equal ratios.
        whole: whether only whole numbers are drawn, both ends included.
    """

    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    scale: Literal["linear", "log"] = "linear"
    whole: bool = False

    @model_validator(mode="after")
    def _there_is_something_between(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"high {self.high:g} is not above low {self.low:g}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"low {self.low:g} is not above 0, as scale log needs it")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"low {self.low:g} and high {self.high:g} are not whole")
        return self


class Sample(Strict):
    """Drawn scenarios.

    Attributes:
        method: each number by itself, or spread evenly along every field.
        count: how many.
        seed: of the draw.
        fields: what is drawn, by field: from a range, or one of some values, all equally likely.
    """

    method: Method = "latin-hypercube"
    count: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)
    fields: dict[str, Range | Values] = Field(min_length=1)


class Block(Strict):
    """One way in which scenarios differ: exactly one of the three.

    Attributes:
        grid: the values of each field; each with each.
        points: the values of some fields together, one by one; `list` in the file.
        sample: drawn ones.
    """

    grid: dict[str, Values] | None = Field(default=None, min_length=1)
    points: list[dict[str, Value]] | None = Field(default=None, min_length=1, alias="list")
    sample: Sample | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if sum(part is not None for part in (self.grid, self.points, self.sample)) != 1:
            raise ValueError("give one of grid, list and sample")
        return self


class SweepSpec(Strict):
    """What a SPEC says.

    Attributes:
        traces: trace files by the names that scenarios call them, beside the SPEC.
        calibrations: calibration files, likewise.
        fixed: fields that all scenarios have.
        vary: each way with each; what a later one says of a field holds.
    """

    format: Literal["offsim-sweep"]
    version: int = Field(ge=VERSION, le=VERSION)
    traces: dict[str, str] = Field(min_length=1)
    calibrations: dict[str, str] = Field(min_length=1)
    fixed: dict[str, Value] = Field(default_factory=dict)
    vary: list[Block] = Field(default_factory=list)
