"""The importers by name. A new one adds its line here."""

from offsim.errors import InputError
from offsim.trace.importers.arrays import Arrays
from offsim.trace.importers.base import Importer
from offsim.trace.importers.bigmoe import BigMoe
from offsim.trace.importers.cachelab import CacheLab
from offsim.trace.importers.megatron import Megatron
from offsim.trace.importers.sglang import SgLang
from offsim.trace.importers.vllm import Vllm

IMPORTERS: dict[str, type[Importer]] = {
    "vllm": Vllm,
    "sglang": SgLang,
    "megatron": Megatron,
    "bigmoe": BigMoe,
    "cachelab": CacheLab,
    "arrays": Arrays,
}


def importer_named(name: str) -> Importer:
    """An importer by its name.

    Raises:
        InputError: there is none.
    """
    if name not in IMPORTERS:
        raise InputError(f"no trace format is called {name!r}; there are {', '.join(IMPORTERS)}")
    return IMPORTERS[name]()
