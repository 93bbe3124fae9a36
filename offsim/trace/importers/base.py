"""What every importer has in common: options, requests as they are read, and their assembly."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from offsim.errors import FormatError, InputError
from offsim.files import first_problem
from offsim.trace.format import DECODE, PREFILL, Trace, TraceInfo

Integers = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a file may not say; where it does, the file is believed and an option must agree.

    Attributes:
        experts: that a layer has.
        model: its name; this one is believed before the file.
        prompt: tokens of each request that are its prompt; 0 where only decode was recorded.
        layers: planes of an array that came flattened.
        top_k: experts a token and layer in such an array.
        dummy_rows: rows of a profiling forward of vLLM; 0 keeps them all.
    """

    experts: int | None = None
    model: str | None = None
    prompt: int | None = None
    layers: int | None = None
    top_k: int | None = None
    dummy_rows: int = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it was read.

    Attributes:
        where: file and line, or file and array, for messages.
        experts: [tokens, layers, top_k], integers of any width.
        weights: [tokens, layers, top_k], 0..1; None where unknown.
        prompt: leading rows that are prefill.
        start: position of the first row.
    """

    where: str
    experts: Integers
    prompt: int
    weights: Floats | None = None
    start: int = 0


class Importer(ABC):
    """Reads traces of one foreign format.

    Attributes:
        name: in the registry and on the command line.
        reads: which files, in words.
    """

    name: ClassVar[str]
    reads: ClassVar[str]

    @abstractmethod
    def read(self, path: Path, options: Options) -> Trace:
        """Read one file.

        Raises:
            InputError: the file cannot be read, or an option is missing that it needs.
            FormatError: it is not of this format; the message names the line or array.
        """


def even_weights(experts: Integers) -> npt.NDArray[np.float16]:
    """Equal shares, where a source has no weights: `experts`' shape, float16, sum 1 a layer."""
    return np.full(experts.shape, 1 / experts.shape[2], np.float16)


def needed(value: int | None, option: str, why: str, where: str) -> int:
    """An option that the file leaves open.

    Raises:
        InputError: it was not given.
    """
    if value is None:
        raise InputError(f"{where}: the file does not say {why}; give --{option}")
    return value


def agreed(said: int | None, given: int | None, option: str, where: str) -> int | None:
    """What the file says, or else the option.

    Raises:
        InputError: both are there and differ.
    """
    if said is not None and given is not None and said != given:
        raise InputError(f"{where}: the file says {said} and --{option} says {given}")
    return given if said is None else said


def assembled(
    path: Path,
    requests: Sequence[Request],
    *,
    experts: int,
    model: str,
    notes: Sequence[str] = (),
    layer_bytes: tuple[int, ...] | None = None,
) -> Trace:
    """The trace of requests that are computed one after the other.

    Args:
        path: file that they come from; its name goes into `source`.
        requests: in their order, at least one, of the same layers and top-k.
        experts: that a layer has; every id is below it.
        model: name.
        notes: what was dropped or assumed, for `source`.
        layer_bytes: bytes of one expert, [layers].

    Raises:
        FormatError: there is nothing in it, shapes differ, an id or weight is out of range, or a
            token takes an expert twice.
        InputError: a prompt is longer than its request, or the metadata does not fit a trace.
    """
    if not requests:
        raise FormatError(f"{path}: there is no request in it")
    for request in requests:
        _check(request, requests[0].experts.shape, experts)
    unknown = any(request.weights is None for request in requests)
    said = [*notes, "weights unknown, even shares stand in"] if unknown else list(notes)
    try:
        info = TraceInfo(
            model=model,
            experts_per_layer=experts,
            source="; ".join([f"imported from {path.name}", *said]),
            layer_bytes=layer_bytes,
        )
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}") from error
    lengths = [len(request.experts) for request in requests]
    trace = {
        "experts": np.concatenate([request.experts.astype(np.uint16) for request in requests]),
        "weights": np.concatenate(
            [
                even_weights(request.experts)
                if request.weights is None
                else request.weights.astype(np.float16)
                for request in requests
            ]
        ),
        "request": np.repeat(np.arange(len(requests), dtype=np.int32), lengths),
        "position": np.concatenate(
            [np.arange(r.start, r.start + len(r.experts), dtype=np.int32) for r in requests]
        ),
        "phase": np.concatenate(
            [np.where(np.arange(len(r.experts)) < r.prompt, PREFILL, DECODE) for r in requests]
        ).astype(np.uint8),
    }
    try:
        return Trace(info, **trace)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


def first_twice(ids: Integers) -> tuple[int, int, int] | None:
    """Token, layer and slot of the first expert that its token takes again in a layer, or None.

    Args:
        ids: [tokens, layers, top_k]
    """
    ordered = np.sort(ids, axis=2)
    rows = np.argwhere((ordered[:, :, 1:] == ordered[:, :, :-1]).any(axis=2))
    if not len(rows):
        return None
    token, layer = (int(axis) for axis in rows[0])
    taken = ids[token, layer].tolist()
    slot = next(slot for slot, expert in enumerate(taken) if expert in taken[:slot])
    return token, layer, slot


def _check(request: Request, first: tuple[int, ...], limit: int) -> None:
    """Refuse a request that a trace cannot hold, by its place in the file."""
    where, ids = request.where, request.experts
    if ids.ndim != 3 or not ids.size:
        raise FormatError(f"{where}: the shape is {ids.shape}, not [tokens, layers, top_k]")
    if not np.issubdtype(ids.dtype, np.integer):
        raise FormatError(f"{where}: expert ids are {ids.dtype}, not integers")
    if ids.shape[1:] != first[1:]:
        raise FormatError(
            f"{where}: {ids.shape[1]} layers x top-{ids.shape[2]}, "
            f"where the first request has {first[1]} x top-{first[2]}"
        )
    # A sentinel such as -1 stands for a token that was not recorded.
    wrong = (ids < 0) | (ids >= limit)
    if wrong.any():
        token, layer, slot = (int(axis) for axis in np.argwhere(wrong)[0])
        raise FormatError(
            f"{where}: expert {ids[token, layer, slot]} at token {token}, layer {layer}; "
            f"ids are 0 to {limit - 1}"
        )
    twice = first_twice(ids)
    if twice is not None:
        token, layer, _ = twice
        raise FormatError(f"{where}: token {token} takes an expert twice in layer {layer}")
    if request.weights is not None:
        if request.weights.shape != ids.shape:
            raise FormatError(
                f"{where}: weights have the shape {request.weights.shape}, experts {ids.shape}"
            )
        if not ((request.weights >= 0) & (request.weights <= 1)).all():
            raise FormatError(f"{where}: a weight is not a number from 0 to 1")
    if not 0 <= request.prompt <= len(ids):
        raise InputError(f"{where}: a prompt of {request.prompt} in {len(ids)} tokens")
