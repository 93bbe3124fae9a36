"""Measure what encodes and decodes cuSZp here: `python calibration/cuszp.py [--device cpu]`."""

from pathlib import Path

import pandas as pd
import torch
import typer

from offsim.calibration.backends import (
    Backend,
    CpuBackend,
    CudaBackend,
    OfficialBackend,
    measure_backends,
)
from offsim.cli.devices import Device
from offsim.codec.cuszp_kernels import MODES, Loops, Native, library
from offsim.codec.cuszp_kernels.official import DeviceMemory, OfficialCuszp
from offsim.errors import InputError


def main(
    device: Device = Device.CPU,
    count: int = 1 << 22,
    bound: float = 1e-3,
    repeats: int = 9,
    official: Path | None = None,
) -> None:
    """Time every backend on weights N(0, 0.02); prints CSV, MEASURED.

    On `cuda`, these are offsim's kernels and, where a libcuSZp.so of release V3 is found
    (--official, OFFSIM_CUSZP_LIBRARY), the official ones.
    """
    torch.set_num_threads(1)
    values = torch.randn(count, generator=torch.Generator().manual_seed(0)) * 0.02
    backends: list[Backend] = []
    try:
        if device is Device.CUDA:
            there = torch.device("cuda")
            memory = DeviceMemory(there)
            values = values.to(there)
            backends.append(CudaBackend(there))
            try:
                backends.append(OfficialBackend(OfficialCuszp(memory, official)))
            except InputError as error:
                typer.echo(f"without the official library: {error}", err=True)
        else:
            path = library()
            levels = Native(path).levels if path else []
            backends += [CpuBackend(Native(path, level)) for level in levels if path]
            backends.append(CpuBackend(Loops()))
    except InputError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    nbytes = values.numel() * 4
    rows = [
        {
            "kernels": one.kernels,
            "mode": one.mode,
            "ratio_f32": nbytes / one.stream_bytes,
            "encode_ms": one.encode_s.value * 1e3,
            "decode_ms": one.decode_s.value * 1e3,
            "encode_GB_per_s_f32": nbytes / one.encode_s.value / 1e9,
            "decode_GB_per_s_f32": nbytes / one.decode_s.value / 1e9,
        }
        for one in measure_backends(backends, values, bound, list(MODES), repeats)
    ]
    typer.echo(pd.DataFrame(rows).to_csv(index=False))


if __name__ == "__main__":
    typer.run(main)
