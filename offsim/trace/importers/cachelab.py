"""`moe-cache-lab.routing-jsonl`, versions 1 and 2.

A metadata line, then a line a token and layer:
https://github.com/birkansit/moe-cache-lab/blob/main/TRACE_FORMAT.md
"""

from pathlib import Path
from typing import Any

import numpy as np

from offsim.errors import FormatError
from offsim.trace.format import Trace
from offsim.trace.importers.base import Importer, Options, Request, agreed, assembled, needed
from offsim.trace.importers.reading import expert_ids, integer, json_lines, maybe_integer, record_of

FORMAT = "moe-cache-lab.routing-jsonl"
PHASES = {
    1: {"prompt": True, "generated": False},
    2: {"decoder_prompt": True, "decoder_generated": False},
}
Cell = tuple[str, list[int], list[float]]


class CacheLab(Importer):
    """One file is one request. Of version 2 the decoder is read; the encoder is left out."""

    name = "cachelab"
    reads = "moe-cache-lab routing traces, .jsonl"

    def read(self, path: Path, options: Options) -> Trace:
        lines = json_lines(path)
        where, head = next(lines, (str(path), {}))
        version = _version(head, where)
        profile = _profile(head, version, where)
        limit = needed(
            agreed(profile["experts"], options.experts, "experts", where),
            "experts",
            "how many experts a layer has",
            where,
        )
        cells: dict[int, dict[int, Cell]] = {}
        prompts: set[int] = set()
        encoder = 0
        for where, record in lines:
            if record.get("record_type") != "routing_selection":
                raise FormatError(f"{where}: record_type is not routing_selection")
            if version == 2 and record.get("routing_stage") == "encoder":
                encoder += 1
                continue
            position, layer = (integer(record, key, where) for key in ("token_position", "layer"))
            if layer in cells.setdefault(position, {}):
                raise FormatError(f"{where}: position {position} has layer {layer} twice")
            cells[position][layer] = _cell(record, limit, profile["top_k"], where)
            if _is_prompt(record, version, where):
                prompts.add(position)
        if not cells:
            raise FormatError(f"{path}: there is no routing_selection in it")
        request = _request(cells, prompts)
        return assembled(
            path,
            [request],
            experts=limit,
            model=options.model or str(head.get("model_id", "unknown")),
            notes=[f"{encoder} records of the encoder left out"] if encoder else [],
        )


def _version(head: dict[str, Any], where: str) -> int:
    if head.get("record_type") != "metadata" or head.get("format") != FORMAT:
        raise FormatError(f"{where}: the first line is not the metadata of {FORMAT}")
    version = integer(head, "format_version", where)
    if version not in PHASES:
        raise FormatError(f"{where}: format_version is {version}; 1 and 2 are known")
    return version


def _profile(head: dict[str, Any], version: int, where: str) -> dict[str, int | None]:
    """Experts a layer and experts a token, where the metadata says them."""
    if version == 1:
        keys = {"experts": "num_experts", "top_k": "experts_per_token"}
        return {name: maybe_integer(head, key, where) for name, key in keys.items()}
    stages = head.get("routing_stages")
    if not isinstance(stages, list):
        raise FormatError(f"{where}: routing_stages is missing")
    for stage in stages:
        if record_of(stage, f"{where}: routing_stages").get("routing_stage") == "decoder":
            return {
                "experts": integer(stage, "num_experts", where),
                "top_k": integer(stage, "assigned_experts_per_token", where),
            }
    raise FormatError(f"{where}: there is no decoder among the routing stages")


def _is_prompt(record: dict[str, Any], version: int, where: str) -> bool:
    phase = record.get("phase")
    if not isinstance(phase, str) or phase not in PHASES[version]:
        raise FormatError(f"{where}: phase is {phase!r}; there are {', '.join(PHASES[version])}")
    return PHASES[version][phase]


def _cell(record: dict[str, Any], limit: int, top_k: int | None, where: str) -> Cell:
    if record.get("assignment_state") == "unassigned":
        raise FormatError(f"{where}: a token without an expert, which a trace cannot hold")
    ids = expert_ids(record.get("selected_experts"), where, 1)
    if not len(ids) or len(ids) != (top_k or len(ids)):
        raise FormatError(f"{where}: {len(ids)} experts, not {top_k or 'at least one'}")
    if int(ids.min()) < 0 or int(ids.max()) >= limit:
        wrong = ids[(ids < 0) | (ids >= limit)][0]
        raise FormatError(f"{where}: expert {wrong}; ids are 0 to {limit - 1}")
    if len(np.unique(ids)) != len(ids):
        raise FormatError(f"{where}: an expert is selected twice")
    shares = record.get("selected_probabilities") or []
    if not isinstance(shares, list) or not all(
        type(share) in (int, float) and 0 <= share <= 1 for share in shares
    ):
        raise FormatError(f"{where}: selected_probabilities are not numbers from 0 to 1")
    if shares and len(shares) != len(ids):
        raise FormatError(f"{where}: {len(shares)} probabilities for {len(ids)} experts")
    return where, ids.tolist(), shares


def _request(cells: dict[int, dict[int, Cell]], prompts: set[int]) -> Request:
    """The one request of a file."""
    positions = sorted(cells)
    start, layers = positions[0], sorted(cells[positions[0]])
    where, first, _ = cells[start][layers[0]]
    for place, position in enumerate(positions):
        line = next(iter(cells[position].values()))[0]
        if position != start + place:
            raise FormatError(f"{line}: position {position} follows {positions[place - 1]}")
        if sorted(cells[position]) != layers:
            raise FormatError(
                f"{line}: position {position} has {len(cells[position])} layers, "
                f"the first one has {len(layers)}"
            )
        if (position in prompts) != (place < len(prompts)):
            raise FormatError(f"{line}: a prompt position after a generated one")
        for line, ids, _ in cells[position].values():
            if len(ids) != len(first):
                raise FormatError(
                    f"{line}: {len(ids)} experts where the first line has {len(first)}"
                )
    known = all(shares for row in cells.values() for _, _, shares in row.values())
    rows = [[cells[position][layer] for layer in layers] for position in positions]
    return Request(
        where=where,
        experts=np.array([[ids for _, ids, _ in row] for row in rows]),
        weights=np.array([[s for _, _, s in row] for row in rows], float) if known else None,
        prompt=len(prompts),
        start=start,
    )
