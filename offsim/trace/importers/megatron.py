"""`router_trace_rank*.jsonl` of Megatron-LM's RouterTracer.

A record a step and layer with `step`, `layer`, `num_tokens`, `topk` and `top_indices`
[num_tokens][topk]; newer ones also `block`, `rank` and, for multi-token prediction, `mtp_idx`:
https://github.com/NVIDIA/Megatron-LM/pull/5220
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offsim.errors import FormatError
from offsim.trace.format import Trace
from offsim.trace.importers.base import (
    Importer,
    Options,
    Request,
    assembled,
    first_twice,
    needed,
)
from offsim.trace.importers.reading import expert_ids, integer, json_lines, maybe_integer


@dataclass(slots=True)
class _Step:
    """The records of one step: ids [tokens, top_k] by layer."""

    where: str
    number: int
    layers: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)


class Megatron(Importer):
    """One file is one rank.

    The records do not name requests. A step of several tokens is taken for the prompt of a new
    request, a step of one token for the next token of the request before it, which holds where
    requests run one after the other. Records of multi-token prediction are left out.
    """

    name = "megatron"
    reads = "Megatron-LM router_trace_rank*.jsonl"

    def read(self, path: Path, options: Options) -> Trace:
        limit = needed(options.experts, "experts", "how many experts a layer has", str(path))
        steps, skipped = _steps(path, limit)
        if not steps:
            raise FormatError(f"{path}: there is no record in it")
        order = sorted(steps[0].layers)
        passes: list[list[tuple[str, npt.NDArray[np.int64]]]] = []
        for step in steps:
            _check(step, order)
            ids = np.stack([step.layers[layer] for layer in order], axis=1)
            if len(ids) > 1 or not passes:
                passes.append([])
            passes[-1].append((step.where, ids))
        requests = [
            Request(
                where=parts[0][0],
                experts=np.concatenate([ids for _, ids in parts]),
                prompt=len(parts[0][1]) if len(parts[0][1]) > 1 else 0,
            )
            for parts in passes
        ]
        notes = [f"{skipped} records of multi-token prediction left out"] if skipped else []
        return assembled(
            path, requests, experts=limit, model=options.model or "unknown", notes=notes
        )


def _steps(path: Path, limit: int) -> tuple[list[_Step], int]:
    """Steps in the order of the file, and how many records were left out."""
    steps: list[_Step] = []
    skipped = 0
    rank: int | None = None
    top_k: int | None = None
    for where, record in json_lines(path):
        if record.get("block") == "mtp" or record.get("mtp_idx") is not None:
            skipped += 1
            continue
        found = maybe_integer(record, "rank", where)
        if steps and found != rank:
            raise FormatError(f"{where}: rank {found} in a file of rank {rank}; give one rank")
        rank = found
        number, layer = integer(record, "step", where), integer(record, "layer", where)
        ids = _ids(record, limit, where)
        top_k = ids.shape[1] if top_k is None else top_k
        if ids.shape[1] != top_k:
            raise FormatError(f"{where}: topk is {ids.shape[1]} in a file of top-{top_k}")
        if not steps or number != steps[-1].number:
            if steps and number < steps[-1].number:
                raise FormatError(f"{where}: step {number} after step {steps[-1].number}")
            steps.append(_Step(where, number))
        if layer in steps[-1].layers:
            raise FormatError(f"{where}: step {number} has layer {layer} twice")
        steps[-1].layers[layer] = ids
    return steps, skipped


def _ids(record: dict[str, Any], limit: int, where: str) -> npt.NDArray[np.int64]:
    tokens, top_k = integer(record, "num_tokens", where), integer(record, "topk", where)
    ids = expert_ids(record.get("top_indices"), where, 2)
    if not ids.size or ids.shape != (tokens, top_k):
        raise FormatError(f"{where}: top_indices are {ids.shape}, not [{tokens}, {top_k}]")
    if int(ids.min()) < 0 or int(ids.max()) >= limit:
        wrong = ids[(ids < 0) | (ids >= limit)][0]
        raise FormatError(f"{where}: expert {wrong}; ids are 0 to {limit - 1}")
    twice = first_twice(ids[:, None])
    if twice is not None:
        raise FormatError(f"{where}: token {twice[0]} takes expert {ids[twice[0], twice[2]]} twice")
    return ids


def _check(step: _Step, order: list[int]) -> None:
    if sorted(step.layers) != order:
        lacking = sorted(set(order) ^ set(step.layers))
        raise FormatError(
            f"{step.where}: step {step.number} has {len(step.layers)} layers and the first step "
            f"{len(order)}; they differ in layer {lacking[0]}"
        )
    if len({ids.shape for ids in step.layers.values()}) > 1:
        raise FormatError(f"{step.where}: the layers of step {step.number} differ in tokens")
