"""`offsim doctor`: what this installation has, and what is missing."""

from offsim.cli import display, options


def doctor(as_json: options.Json = False) -> None:
    """Say which parts of offsim work here and which kernels the codecs use.

    Example: offsim doctor
    """
    import os
    import platform

    import pandas as pd
    import torch

    from offsim import __version__
    from offsim.codec.cuszp_kernels import kernels, library
    from offsim.codec.registry import codec_named, codec_names
    from offsim.errors import InputError

    compiled = library()
    core = kernels().name
    if compiled is None:
        core += " (no compiled core: no C compiler was there at installation)"
    rows = {
        "offsim": __version__,
        "Python": platform.python_version(),
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads",
        "CPU cores": str(os.cpu_count()),
        "CUDA device": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "cuszp kernels": core,
    }
    for name in codec_names():
        try:
            codec_named(name)
            rows[f"codec {name}"] = "works"
        except InputError as error:
            rows[f"codec {name}"] = str(error)
    if as_json:
        display.emit_json(rows)
    else:
        frame = pd.DataFrame({"part": list(rows), "here": list(rows.values())})
        display.show_table("This installation", frame)
