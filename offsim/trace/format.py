"""The trace file: safetensors arrays with JSON metadata, described in docs/formats.md."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from offsim.errors import FormatError, InputError
from offsim.files import first_problem, replacing

VERSION = 1
PREFILL, DECODE = 0, 1
DTYPES = {
    "experts": np.uint16,
    "weights": np.float16,
    "request": np.int32,
    "position": np.int32,
    "phase": np.uint8,
}
OPTIONAL = {"lookahead": np.uint16}
NOWHERE = 65535
"""What stands in `lookahead` for layers past the last one."""


class TraceInfo(BaseModel):
    """The metadata of a trace.

    Attributes:
        version: of the format.
        model: whose router it is.
        experts_per_layer: how many a layer has; ids are below it.
        source: where the trace comes from, in words.
        codec: of the experts that the recorded model computed with.
        bound: their absolute error bound, 0 for none.
        layer_bytes: bytes of one expert of each MoE layer as the source stores it, [layers];
            None where the source does not say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(default=VERSION, ge=1, le=VERSION)
    model: str
    experts_per_layer: int = Field(ge=1, le=65536)
    source: str
    codec: str = "raw"
    bound: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    layer_bytes: tuple[Annotated[int, Field(ge=1)], ...] | None = None


class Trace:
    """Router decisions, a row a token, in the order in which the tokens were computed.

    Attributes:
        info: metadata.
        experts: [tokens, layers, top_k] uint16, ids in the router's order.
        weights: [tokens, layers, top_k] float16, the router's weights, 0..1.
        request: [tokens] int32, not falling.
        position: [tokens] int32, place in the request's sequence, from 0, rising by 1.
        phase: [tokens] uint8, 0 prefill, 1 decode; within a request prefill comes first.
        lookahead: [tokens, layers, distance, top_k] uint16, at distance index d - 1 what the gate
            of layer l + d chose for the hidden states of layer l, in the router's order; NOWHERE
            where there is no such layer. None where nothing was predicted.

    Raises:
        FormatError: the arrays do not fit together.
    """

    def __init__(self, info: TraceInfo, **arrays: npt.NDArray[Any]) -> None:
        self.info = info
        self.experts: npt.NDArray[np.uint16] = arrays["experts"]
        self.weights: npt.NDArray[np.float16] = arrays["weights"]
        self.request: npt.NDArray[np.int32] = arrays["request"]
        self.position: npt.NDArray[np.int32] = arrays["position"]
        self.phase: npt.NDArray[np.uint8] = arrays["phase"]
        self.lookahead: npt.NDArray[np.uint16] | None = arrays.get("lookahead")
        self._check()
        self._check_lookahead()

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays that there are, by their names in the file."""
        arrays = {name: getattr(self, name) for name in (*DTYPES, *OPTIONAL)}
        return {name: array for name, array in arrays.items() if array is not None}

    @property
    def tokens(self) -> int:
        """Tokens recorded."""
        return len(self.experts)

    @property
    def layers(self) -> int:
        """MoE layers."""
        return int(self.experts.shape[1])

    @property
    def top_k(self) -> int:
        """Experts a token and layer."""
        return int(self.experts.shape[2])

    def _check(self) -> None:
        expected = {**DTYPES, **OPTIONAL}
        for name, array in self.arrays().items():
            if array.dtype != expected[name]:
                raise FormatError(f"trace: {name} is {array.dtype}, not {np.dtype(expected[name])}")
        if self.experts.ndim != 3 or not self.experts.size:
            raise FormatError(f"trace: experts has the shape {self.experts.shape}, not 3 axes")
        if self.weights.shape != self.experts.shape:
            raise FormatError(f"trace: weights has the shape {self.weights.shape}, not of experts")
        for name in ("request", "position", "phase"):
            if getattr(self, name).shape != (self.tokens,):
                raise FormatError(f"trace: {name} does not have one value a token")
        sizes = self.info.layer_bytes
        if sizes is not None and len(sizes) != self.layers:
            raise FormatError(
                f"trace: layer_bytes has {len(sizes)} values for {self.layers} layers"
            )
        limit = self.info.experts_per_layer
        if int(self.experts.max()) >= limit:
            raise FormatError(f"trace: expert {self.experts.max()} of a layer that has {limit}")
        ordered = np.sort(self.experts, axis=2)
        if (ordered[:, :, 1:] == ordered[:, :, :-1]).any():
            raise FormatError("trace: a token takes the same expert twice in one layer")
        if int(self.phase.max()) > DECODE:
            raise FormatError(f"trace: phase {self.phase.max()}; it is 0 (prefill) or 1 (decode)")
        same = self.request[1:] == self.request[:-1]
        if (np.diff(self.request) < 0).any() or (np.diff(self.position)[same] != 1).any():
            raise FormatError("trace: tokens are not in order of request and position")
        if (self.phase[1:] < self.phase[:-1])[same].any():
            raise FormatError("trace: a request has prefill tokens after decode tokens")

    def _check_lookahead(self) -> None:
        ahead = self.lookahead
        if ahead is None:
            return
        distance = ahead.shape[2] if ahead.ndim == 4 else 0
        if not distance or ahead.shape != (self.tokens, self.layers, distance, self.top_k):
            raise FormatError(
                f"trace: lookahead has the shape {ahead.shape}, not [tokens, layers, distance, "
                "top_k]"
            )
        past = np.add.outer(np.arange(self.layers), np.arange(distance) + 1) >= self.layers
        if (ahead[:, past] != NOWHERE).any():
            raise FormatError(f"trace: lookahead past the last layer is not {NOWHERE}")
        ordered = np.sort(ahead[:, ~past], axis=2)
        limit = self.info.experts_per_layer
        if (ordered[:, :, -1] >= limit).any():
            raise FormatError(
                f"trace: lookahead has expert {ordered.max()} of a layer that has {limit}"
            )
        if (ordered[:, :, 1:] == ordered[:, :, :-1]).any():
            raise FormatError("trace: lookahead has the same expert twice for one token and layer")


def metadata_of(info: TraceInfo) -> dict[str, str]:
    """The metadata of a trace as its file has it."""
    # What is None stays out of the file, so that a trace without it reads as it always did.
    return {"offsim-trace": info.model_dump_json(exclude_none=True)}


def save_trace(trace: Trace, path: Path) -> None:
    """Write a trace, whole or not at all."""
    with replacing(path) as partial:
        arrays = {name: np.ascontiguousarray(array) for name, array in trace.arrays().items()}
        save_file(arrays, partial, metadata_of(trace.info))


def _array(file: Any, name: str, path: Path) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = file.get_tensor(name)
    except (TypeError, AttributeError) as error:  # a dtype that numpy does not have
        raise FormatError(f"{path}: {name} has a dtype that a trace cannot have") from error
    return array


def load_trace(path: Path) -> Trace:
    """Read and check a trace.

    Raises:
        InputError: there is no such file.
        FormatError: it is not a trace, is cut, or its arrays do not fit together.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such trace file")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("offsim-trace")
            if text is None:
                raise FormatError(f"{path}: not an offsim trace (no offsim-trace metadata)")
            present = set(file.keys())
            missing = set(DTYPES) - present
            if missing:
                raise FormatError(f"{path}: the trace lacks {', '.join(sorted(missing))}")
            known = [*DTYPES, *(OPTIONAL.keys() & present)]
            arrays = {name: _array(file, name, path) for name in known}
        return Trace(TraceInfo.model_validate(json.loads(text)), **arrays)
    except SafetensorError as error:
        raise FormatError(f"{path}: not a whole safetensors file ({error})") from error
    except ValidationError as error:
        raise FormatError(f"{path}: trace metadata: {first_problem(error)}") from error
    except (FormatError, json.JSONDecodeError) as error:
        message = str(error)
        raise FormatError(message if str(path) in message else f"{path}: {message}") from error
