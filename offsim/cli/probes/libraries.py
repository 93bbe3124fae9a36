"""The libraries that everything stands on, and what is compiled."""

import os
import shutil
import subprocess
import sysconfig
from importlib import metadata

from offsim.cli.probes.base import AGAIN, Found, Probe, fact, fails, missing, works

COMPILERS = ("cc", "gcc", "clang")


def probes() -> list[Probe]:
    """A row each."""
    return [
        Probe("required packages", required),
        Probe("torch", torch),
        Probe("cuszp core", core),
        Probe("C compiler", compiler),
        Probe("numba", numba),
        Probe("fast engine", engine),
    ]


def required() -> Found:
    """Whether all that offsim requires is there, in a version that it takes."""
    from offsim.cli.probes.packages import lacking, requirements

    wanted = requirements()
    lacks = lacking(wanted)
    if lacks:
        return missing(", ".join(lacks), AGAIN)
    return works(f"all {len(wanted)} are there, in versions that offsim takes")


def torch() -> Found:
    """Its build and its threads, after a product."""
    import torch

    if float((torch.ones(2, 2) @ torch.ones(2, 2)).sum()) != 8:
        return fails(f"{torch.__version__} multiplies wrongly", "install another build of torch")
    return works(f"{torch.__version__}, {torch.get_num_threads()} threads")


def core() -> Found:
    """What encodes and decodes cuSZp on this CPU."""
    from offsim.codec.cuszp_kernels import Native, kernels, library

    path, used = library(), kernels()
    if path is None:
        remedy = "install a C compiler, then offsim again"
        return missing(f"not compiled; {used.name} does its work", remedy)
    if not isinstance(used, Native):
        return fails(f"of another kind of machine; {used.name} does its work", AGAIN)
    return works(f"compiled, {used.name}")


def compiler() -> Found:
    """The C compiler that an installation would use."""
    from offsim.codec.cuszp_kernels import library

    named = (os.environ.get("CC"), sysconfig.get_config_var("CC"))
    commands = [name.split()[0] for name in named if name and name.split()]
    found = next(filter(shutil.which, [*commands, *COMPILERS]), None)
    if found is not None:
        asked = subprocess.run(
            [found, "--version"], check=False, capture_output=True, text=True, timeout=5
        )
        return works(next(iter(asked.stdout.splitlines()), found))
    if library() is not None:
        return fact("none, and none is needed: the core is compiled")
    return missing("none was found", "install one: gcc or clang")


def numba() -> Found:
    """Its version, after it has compiled something."""
    import numba

    half = numba.njit(lambda number: number // 2)
    if half(84) != 42:
        return fails(f"{metadata.version('numba')} compiles wrongly", AGAIN)
    return works(metadata.version("numba"))


def engine() -> Found:
    """Whether the simulation's machine code is there."""
    from offsim.simulate.fast.compiled import is_compiled

    if is_compiled():
        return works("its machine code is there")
    return fact("not compiled yet: the first simulation takes half a minute more")
