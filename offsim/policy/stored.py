"""How experts are to be stored, in a file: a codec with one bound for all or a table of them."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from offsim.errors import FormatError
from offsim.files import read_yaml
from offsim.policy.bounds import Bounds, BoundText, Strict

VERSION = 1


class StoredPolicy(Strict):
    """What a file of a policy says.

    Attributes:
        codec: name, with options, such as `cuszp:mode=plain`.
        bound: of every matrix, such as `0.001` or `sigma:0.25`; None without one.
        bounds: a table of bounds, or the name of a file of one, beside this file; None without.
    """

    format: Literal["offsim-policy"]
    version: int = Field(ge=VERSION, le=VERSION)
    codec: str
    bound: BoundText | None = None
    bounds: Bounds | str | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "StoredPolicy":
        if self.bound is not None and self.bounds is not None:
            raise ValueError("bound and bounds both say what the bounds are; give one of them")
        return self


def read_policy(path: Path) -> tuple[str, Bounds | None]:
    """Codec and bounds of a file; no bounds for a codec that takes none.

    Raises:
        InputError: it, or the table that it names, cannot be read.
        FormatError: one of them is not such a file, or the table is not beside it.
    """
    said = read_yaml(path, StoredPolicy)
    if said.bound is not None:
        return said.codec, Bounds(default=said.bound)
    if not isinstance(said.bounds, str):
        return said.codec, said.bounds
    if Path(said.bounds).name != said.bounds:
        raise FormatError(f"{path}: bounds is {said.bounds!r}, not the name of a file beside it")
    return said.codec, read_yaml(path.parent / said.bounds, Bounds)
