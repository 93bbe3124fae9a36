"""Small made-up inputs that several tests share."""

from datetime import date

import numpy as np

from offsim.calibration.schema import (
    Calibration,
    CodecFigures,
    ComputeFigures,
    Figure,
    HandoverFigures,
    LinkFigures,
    Machine,
    ModelFacts,
    SizedFigure,
)
from offsim.trace import DECODE, PREFILL, Trace
from offsim.trace.format import NOWHERE, TraceInfo


def figure(seconds: float) -> Figure:
    return Figure(label="MEASURED", value=seconds, p10=seconds, p90=seconds, samples=1)


def sized(*pairs: tuple[int, float]) -> list[SizedFigure]:
    return [SizedFigure(size=size, seconds=figure(seconds)) for size, seconds in pairs]


def codec_figures(
    codec: str = "raw",
    bound: float = 0.0,
    *,
    layers: int = 3,
    experts: int = 4,
    blob_bytes: int = 1000,
    encode_s: float = 0.0,
    decode_s: float = 0.0,
    compute_slowdown: float = 1.0,
    decode_slowdown: float = 1.0,
) -> CodecFigures:
    host = codec == "sz3"
    return CodecFigures(
        label="MEASURED",
        codec=codec,
        options={},
        bound=bound,
        placement="host" if host else "device",
        blob_bytes=[[blob_bytes] * experts for _ in range(layers)],
        ratio=1000 / blob_bytes,
        largest_error=bound,
        fallbacks=0,
        encode_s=figure(encode_s),
        decode_s=figure(decode_s),
        unpack_s=figure(0.0) if host else None,
        compute_slowdown=compute_slowdown,
        decode_slowdown=decode_slowdown,
    )


def calibration(
    *codecs: CodecFigures,
    layers: int = 3,
    experts: int = 4,
    dense_s: float = 1.0,
    expert_s: float = 1.0,
    handover_s: float = 0.0,
) -> Calibration:
    """Round figures: dense and expert take 1 s, the plain link is all but free, the rest is 0."""
    nothing = sized((1, 0.0))
    return Calibration(
        machine=Machine(cpu="x", cores=2, system="x", versions={}, measured_on=date(2026, 1, 1)),
        model=ModelFacts(
            name="toy", layers=layers, experts=experts, top_k=2, hidden=1, width=1, dtype_bytes=2
        ),
        link=LinkFigures(
            label="MEASURED",
            copies=sized((1, 1e-12), (2, 2e-12)),
            latency_s=0.0,
            bytes_per_s=1e12,
            residual=0.0,
            overshoot_s=figure(0.0),
        ),
        compute=ComputeFigures(
            label="MEASURED",
            first=sized((1, dense_s)),
            dense=sized((1, dense_s)),
            head=nothing,
            dispatch=nothing,
            expert=sized((1, expert_s)),
        ),
        handover=HandoverFigures(
            submit_s=figure(0.0),
            start_s=figure(handover_s),
            between_s=figure(handover_s),
            wake_s=figure(handover_s),
        ),
        codecs=list(codecs) or [codec_figures(layers=layers, experts=experts)],
    )


def trace_of(steps: list[list[list[int]]], experts: int = 4) -> Trace:
    """A trace of one request that only decodes, after one prompt token: steps x layers x top-k."""
    ids = np.array(steps, np.uint16)
    tokens = len(ids)
    phase = np.full(tokens, DECODE, np.uint8)
    phase[0] = PREFILL
    return Trace(
        TraceInfo(model="toy", experts_per_layer=experts, source="made for a test"),
        experts=ids,
        weights=np.full(ids.shape, 0.5, np.float16),
        request=np.zeros(tokens, np.int32),
        position=np.arange(tokens, dtype=np.int32),
        phase=phase,
    )


def foreseen(trace: Trace, distance: int) -> Trace:
    """The trace with the lookahead of gates that are never wrong."""
    shape = (trace.tokens, trace.layers, distance, trace.top_k)
    lookahead = np.full(shape, NOWHERE, np.uint16)
    for ahead in range(1, min(distance, trace.layers - 1) + 1):
        lookahead[:, :-ahead, ahead - 1] = trace.experts[:, ahead:]
    return Trace(trace.info, **{**trace.arrays(), "lookahead": lookahead})


TOY = trace_of([[[0, 1], [2, 3], [0, 1]], [[1, 2], [2, 3], [3, 0]]] + [[[0, 1]] * 3] * 3)
"""Five steps of three layers of four experts, top-2: small enough to count by hand."""
