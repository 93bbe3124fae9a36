"""Responses of SGLang with `return_routed_experts`, as JSON or JSON lines.

`/generate` puts `routed_experts` into `meta_info`, the OpenAI endpoints put it into `sgl_ext` of
each choice: base64 of int32 ids, flat, [tokens, layers, top_k], from position 0 (or
`routed_experts_start_len`) to the last token that was computed on:
https://docs.sglang.io/docs/basic_usage/openai_api_completions
The layer axis has all layers of the model; those without a router are all 0.
"""

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offsim.errors import FormatError
from offsim.files import read_text
from offsim.trace.format import Trace
from offsim.trace.importers.base import Importer, Options, Request, agreed, assembled, needed
from offsim.trace.importers.reading import (
    expert_ids,
    json_lines,
    maybe_integer,
    parsed,
    record_of,
)


class SgLang(Importer):
    """One response a line, or a JSON file of one response or a list of them.

    `routed_experts` may also be nested lists. The shape of base64 comes from `expert_ids_schema`
    where a response has it, else from `layers` and `top_k`; the prompt's length from
    `prompt_tokens`, and where `completion_tokens` is there too, the first position.
    """

    name = "sglang"
    reads = "SGLang responses with routed_experts, .json or .jsonl"

    def read(self, path: Path, options: Options) -> Trace:
        requests = [
            _request(found, facts, options, where)
            for outer, response in _responses(path)
            for where, found, facts in _found(response, outer)
        ]
        dense = _dense_layers(requests)
        notes = [f"{len(dense)} layers without a router dropped"] if dense else []
        kept = [
            Request(
                where=request.where,
                experts=np.delete(request.experts, dense, axis=1),
                prompt=request.prompt,
                start=request.start,
            )
            for request in requests
        ]
        return assembled(
            path,
            kept,
            experts=needed(options.experts, "experts", "how many experts a layer has", str(path)),
            model=options.model or "unknown",
            notes=notes,
        )


def _responses(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Responses with their places."""
    text = read_text(path)
    if path.suffix == ".jsonl" or not text.strip():
        yield from json_lines(path)
        return
    try:
        value = parsed(text, str(path))
    except FormatError:
        yield from json_lines(path)  # lines after all, or an error that names its line
        return
    many = value if isinstance(value, list) else [value]
    for number, response in enumerate(many):
        where = f"{path}: response {number}"
        yield where, record_of(response, where)


def _found(response: dict[str, Any], where: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Place, ids and counts of every answer in a response."""
    if "choices" in response:
        if not isinstance(response["choices"], list):
            raise FormatError(f"{where}: choices is not a list")
        usage = response.get("usage")
        for number, choice in enumerate(response["choices"]):
            inner = f"{where}, choice {number}"
            extra = record_of(record_of(choice, inner).get("sgl_ext") or {}, f"{inner}: sgl_ext")
            # The usage is that of all choices together, so it places the rows of one alone.
            facts = dict(usage) if isinstance(usage, dict) else {}
            if len(response["choices"]) > 1:
                facts.pop("completion_tokens", None)
            yield inner, _ids(extra, inner), {**facts, **extra}
        return
    facts = record_of(response.get("meta_info", response), f"{where}: meta_info")
    yield where, _ids(facts, where), facts


def _ids(facts: dict[str, Any], where: str) -> Any:
    if facts.get("routed_experts") is None:
        raise FormatError(f"{where}: routed_experts is missing; was return_routed_experts set?")
    return facts["routed_experts"]


def _request(found: Any, facts: dict[str, Any], options: Options, where: str) -> Request:
    experts = (
        _decoded(found, facts, options, where)
        if isinstance(found, str)
        else expert_ids(found, where, 3)
    )
    said = maybe_integer(facts, "prompt_tokens", where)
    prompt = agreed(said, options.prompt, "prompt", where)
    length = needed(prompt, "prompt", "how long the prompts are", where)
    written = maybe_integer(facts, "completion_tokens", where)
    start = 0
    if written is not None:
        start = length + written - 1 - len(experts)  # the last token is not computed on
        if start < 0:
            raise FormatError(
                f"{where}: {len(experts)} rows for {length} prompt and {written} written tokens"
            )
    rows = min(max(length - start, 0), len(experts))
    return Request(where=where, experts=experts, prompt=rows, start=start)


def _decoded(
    text: str, facts: dict[str, Any], options: Options, where: str
) -> npt.NDArray[np.int64]:
    schema = facts.get("expert_ids_schema") or {}
    schema = record_of(schema, f"{where}: expert_ids_schema")
    said = [maybe_integer(schema, key, where) for key in ("num_layers", "top_k")]
    layers = needed(
        agreed(said[0], options.layers, "layers", where), "layers", "how many layers it has", where
    )
    top_k = needed(
        agreed(said[1], options.top_k, "top-k", where),
        "top-k",
        "how many experts a token has",
        where,
    )
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"{where}: routed_experts is not base64; is the file cut?") from error
    row = 4 * layers * top_k
    if not data or not row or len(data) % row:
        raise FormatError(
            f"{where}: routed_experts has {len(data)} bytes, "
            f"not whole rows of {layers} layers x top-{top_k} int32"
        )
    return np.frombuffer(data, "<i4").reshape(-1, layers, top_k).astype(np.int64)


def _dense_layers(requests: list[Request]) -> list[int]:
    """Layers that take expert 0 in every slot of every token, which no router of top-2 does."""
    if not requests or any(r.experts.shape[1:] != requests[0].experts.shape[1:] for r in requests):
        return []
    _, layers, top_k = requests[0].experts.shape
    if top_k < 2:
        return []
    used = np.zeros(layers, bool)
    for request in requests:
        used |= request.experts.any(axis=(0, 2))
    return [] if not used.any() else [int(layer) for layer in np.flatnonzero(~used)]
