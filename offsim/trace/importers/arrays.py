"""Plain NumPy arrays: `experts` [tokens, layers, top_k] and what goes with it."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offsim.errors import FormatError
from offsim.trace.format import Trace
from offsim.trace.importers.base import Importer, Options, Request, agreed, assembled, needed
from offsim.trace.importers.reading import load_arrays, maybe_integer, parsed, record_of


class Arrays(Importer):
    """`experts` of a .npz file, or the one array of a .npy file.

    A .npz file may also have `weights` or `probs` (as `experts`), `request_offsets`
    [requests + 1], the first row of each request and the row after the last, and `meta`, JSON
    text with `model`, `experts_per_layer` and `phase` ("prefill" or "decode", of all rows).
    """

    name = "arrays"
    reads = ".npy or .npz of experts [tokens, layers, top_k]"

    def read(self, path: Path, options: Options) -> Trace:
        arrays = load_arrays(path)
        name = "" if "" in arrays else "experts"
        if name not in arrays:
            raise FormatError(f"{path}: there is no array experts; it has {', '.join(arrays)}")
        where = f"{path}: {name}" if name else str(path)
        experts = arrays[name]
        if experts.ndim != 3 or not experts.size:
            raise FormatError(f"{where}: the shape is {experts.shape}, not [tokens, layers, top_k]")
        weights = _weights(arrays, path)
        meta = _meta(arrays, path)
        said = maybe_integer(meta, "experts_per_layer", f"{path}: meta")
        limit = agreed(said, options.experts, "experts", str(path))
        offsets = _offsets(arrays, len(experts), path)
        phase = meta.get("phase")
        requests = []
        for number, (start, end) in enumerate(pairwise(offsets)):
            prompt = {"decode": 0, "prefill": end - start}.get(str(phase), options.prompt)
            requests.append(
                Request(
                    where=f"{where}, request {number}",
                    experts=experts[start:end],
                    weights=None if weights is None else weights[start:end],
                    prompt=needed(prompt, "prompt", "how long the prompts are", str(path)),
                )
            )
        return assembled(
            path,
            requests,
            experts=needed(limit, "experts", "how many experts a layer has", str(path)),
            model=options.model or str(meta.get("model", "unknown")),
        )


def _weights(arrays: dict[str, npt.NDArray[Any]], path: Path) -> npt.NDArray[Any] | None:
    found = [name for name in ("weights", "probs") if name in arrays]
    if not found:
        return None
    weights, experts = arrays[found[0]], arrays["experts"]
    if not np.issubdtype(weights.dtype, np.floating) or weights.shape != experts.shape:
        raise FormatError(
            f"{path}: {found[0]} is {weights.dtype} {weights.shape}, "
            f"not floats of the shape {experts.shape}"
        )
    return weights


def _offsets(arrays: dict[str, npt.NDArray[Any]], tokens: int, path: Path) -> list[int]:
    """First row of each request, and `tokens`."""
    if "request_offsets" not in arrays:
        return [0, tokens]
    found = arrays["request_offsets"]
    whole = found.ndim == 1 and np.issubdtype(found.dtype, np.integer)
    offsets = [int(value) for value in found] if whole else []
    rising = all(a < b for a, b in pairwise(offsets))
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != tokens or not rising:
        raise FormatError(f"{path}: request_offsets do not rise from 0 to the {tokens} rows")
    return offsets


def _meta(arrays: dict[str, npt.NDArray[Any]], path: Path) -> dict[str, Any]:
    if "meta" not in arrays:
        return {}
    text = arrays["meta"]
    if text.ndim or text.dtype.kind != "U":
        raise FormatError(f"{path}: meta is not one text")
    where = f"{path}: meta"
    return record_of(parsed(str(text), where), where)
