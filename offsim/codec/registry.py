"""The codecs by name. A new codec adds its line here and nowhere else."""

from offsim.codec.base import Codec
from offsim.codec.cuszp import Cuszp
from offsim.codec.raw import Raw
from offsim.codec.sz3 import Sz3
from offsim.errors import InputError

CODECS: dict[str, type[Codec]] = {codec.name: codec for codec in (Raw, Sz3, Cuszp)}


def codec_named(name: str, options: dict[str, str] | None = None) -> Codec:
    """The codec of this name.

    Raises:
        InputError: no codec has this name, or it does not take these options.
    """
    if name not in CODECS:
        raise InputError(f"no codec is called {name!r}; there are {', '.join(CODECS)}")
    try:
        return CODECS[name](**(options or {}))
    except TypeError as error:
        raise InputError(f"codec {name} does not take {options}") from error
