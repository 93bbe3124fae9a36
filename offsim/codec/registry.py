"""The codecs by name. A new one adds its line here; one of another package, an entry point.

A third party's package names its codec in the entry-point group `offsim.codecs`; see
docs/codecs.md.
"""

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points

from offsim.codec.base import Codec
from offsim.codec.cuszp import Cuszp
from offsim.codec.lossless import Lossless
from offsim.codec.nvcomp import Nvcomp
from offsim.codec.raw import Raw
from offsim.codec.rtn import RtnInt4, RtnInt8
from offsim.codec.sz3 import Sz3
from offsim.codec.zfp import Zfp
from offsim.errors import InputError

GROUP = "offsim.codecs"
CODECS: dict[str, type[Codec]] = {
    codec.name: codec for codec in (Raw, Sz3, Cuszp, Zfp, Lossless, Nvcomp, RtnInt8, RtnInt4)
}


VARIANTS = (
    "cuszp:mode=plain",
    "cuszp:mode=outlier",
    "sz3:algorithm=LORENZO_REG",
    "sz3:algorithm=INTERP_LORENZO",
    "sz3:algorithm=INTERP",
)
"""What predicts from neighbours: worse on weights, and offered so that one can see it."""


def codec_names() -> list[str]:
    """Names of all codecs, those of other packages last."""
    return [*CODECS, *(point.name for point in _others() if point.name not in CODECS)]


def codec_named(name: str, options: dict[str, str] | None = None) -> Codec:
    """The codec of this name.

    Args:
        name: such as `sz3`, or with options `cuszp:mode=plain` (comma between several).
        options: in place of those in the name.

    Raises:
        InputError: no codec has this name, it does not take these options, or a package that it
            needs is not installed.
    """
    name, _, text = name.partition(":")
    if text:
        options = dict(_pairs(name, text))
    kind = codec_kind(name)
    try:
        return kind(**(options or {}))
    except TypeError as error:
        raise InputError(f"codec {name} does not take {options}") from error


def codec_kind(name: str) -> type[Codec]:
    """The class of the codec of this name.

    Raises:
        InputError: no codec has this name, or the package that has it does not load.
    """
    return CODECS.get(name) or _other(name)


def _pairs(name: str, text: str) -> Iterator[tuple[str, str]]:
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise InputError(f"codec {name}: {part!r} is not an option; write key=value")
        yield key, value


def _others() -> list[EntryPoint]:
    return sorted(entry_points(group=GROUP), key=lambda point: point.name)


def _other(name: str) -> type[Codec]:
    """The codec of another package."""
    for point in _others():
        if point.name == name:
            try:
                kind = point.load()
            except Exception as error:  # whatever a foreign package does when it is imported
                raise InputError(f"codec {name} of {point.value} does not load: {error}") from error
            if not (isinstance(kind, type) and issubclass(kind, Codec) and kind.name == name):
                raise InputError(f"{point.value} is not an offsim codec with the name {name!r}")
            return kind
    raise InputError(f"no codec is called {name!r}; there are {', '.join(codec_names())}")
