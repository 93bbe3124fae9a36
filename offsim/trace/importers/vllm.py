"""`routed_experts` of vLLM (0.21 and later), saved with NumPy.

vLLM returns int16 ids [tokens, MoE layers, top_k], `prompt_routed_experts` for the prompt and
`routed_experts` for what was written:
https://docs.vllm.ai/en/v0.21.0/training/routed_experts_replay/
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offsim.errors import FormatError
from offsim.trace.format import Trace
from offsim.trace.importers.base import Importer, Options, Request, assembled, needed
from offsim.trace.importers.reading import load_arrays

PROMPT, WRITTEN = "prompt_routed_experts", "routed_experts"


class Vllm(Importer):
    """A .npy file is one request; a .npz file, several.

    In a .npz file `Xprompt_routed_experts` and `Xrouted_experts`, for any X, are prompt and
    answer of one request; every other array is a request of its own. Requests keep the order of
    the file. Before the first request vLLM runs forwards of the largest size over dummy tokens,
    which logs of all forwards contain; they are dropped (`_dummies`).
    """

    name = "vllm"
    reads = "vLLM routed_experts arrays, .npy or .npz"

    def read(self, path: Path, options: Options) -> Trace:
        arrays = load_arrays(path)
        for name, array in arrays.items():
            if array.ndim != 3 or not np.issubdtype(array.dtype, np.integer):
                raise FormatError(
                    f"{_where(path, name)}: {array.dtype} {array.shape}, "
                    "not whole numbers [tokens, layers, top_k]"
                )
        total = sum(len(array) for array in arrays.values())
        dropped = 0
        requests: list[Request] = []
        for name, array in arrays.items():
            prefix = name.removesuffix(WRITTEN) if name.endswith(WRITTEN) else None
            if name.endswith(PROMPT):
                if name.removesuffix(PROMPT) + WRITTEN not in arrays:
                    raise FormatError(f"{_where(path, name)}: its {WRITTEN} is missing")
                continue  # read with its answer
            where = _where(path, name)
            if prefix is not None and prefix + PROMPT in arrays:
                prompt = arrays[prefix + PROMPT]
                if prompt.shape[1:] != array.shape[1:]:
                    raise FormatError(f"{where}: not the layers and top-k of its prompt")
                whole = np.concatenate([prompt, array])
                requests.append(Request(where=where, experts=whole, prompt=len(prompt)))
                continue
            dummies = 0 if requests else _dummies(array, options.dummy_rows, len(arrays) > 1)
            dropped += dummies
            if dummies < len(array):
                length = needed(options.prompt, "prompt", "how long the prompts are", str(path))
                requests.append(Request(where=where, experts=array[dummies:], prompt=length))
        if not requests:
            raise FormatError(f"{path}: all {total} rows are profiling dummies")
        return assembled(
            path,
            requests,
            experts=needed(options.experts, "experts", "how many experts a layer has", str(path)),
            model=options.model or "unknown",
            notes=[f"{dropped} of {total} rows were profiling dummies, dropped"] if dropped else [],
        )


def _where(path: Path, name: str) -> str:
    return f"{path}: array {name}" if name else str(path)


def _dummies(array: npt.NDArray[Any], rows: int, apart: bool) -> int:
    """Leading rows of an array that are profiling dummies.

    An array of exactly `rows` rows is one where forwards are arrays `apart`. Otherwise a block of
    `rows` rows is one if no model routes so: all its tokens alike, or an expert taken twice.
    """
    if not rows:
        return 0
    if apart and len(array) == rows:
        return rows
    start = 0
    while len(array) - start >= rows:
        block = array[start : start + rows]
        ordered = np.sort(block, axis=2)
        twice = (ordered[:, :, 1:] == ordered[:, :, :-1]).any(axis=(1, 2))
        if not ((block == block[:1]).all() or twice.all()):
            break
        start += rows
    return start
