"""Runs of engines with known parameters, as their logs would have them."""

import numpy as np

from offsim.calibration.schema import Calibration
from offsim.record.log import RunLog
from offsim.study.measured import Engine, model_of, predicted
from offsim.trace import DECODE, PREFILL, Trace
from offsim.trace.format import TraceInfo
from tests.builders import calibration, codec_figures, figure

LAYERS, EXPERTS, TOP_K, BYTES = 6, 16, 2, 1000
DENSE_S, EXPERT_S, SUBMIT_S, LOAD_S = 0.004, 0.0005, 0.0002, 0.003
COMPUTE_S = LAYERS * (DENSE_S + TOP_K * EXPERT_S)


def routed(tokens: int = 40, prompt: int = 5, sizes: tuple[int, ...] = (BYTES,) * LAYERS) -> Trace:
    """A trace of random routing with some popular experts."""
    draw = np.random.default_rng(0)
    odds = np.linspace(3, 1, EXPERTS) / np.linspace(3, 1, EXPERTS).sum()
    ids = [
        [draw.choice(EXPERTS, TOP_K, replace=False, p=odds) for _ in sizes] for _ in range(tokens)
    ]
    return Trace(
        TraceInfo(
            model="toy", experts_per_layer=EXPERTS, source="made for a test", layer_bytes=sizes
        ),
        experts=np.array(ids, np.uint16),
        weights=np.full((tokens, len(sizes), TOP_K), 0.5, np.float16),
        request=np.zeros(tokens, np.int32),
        position=np.arange(tokens, dtype=np.int32),
        phase=np.array([PREFILL] * prompt + [DECODE] * (tokens - prompt), np.uint8),
    )


def known(
    trace: Trace, load_s: float = LOAD_S, latency_s: float = 0.0, submit_s: float = SUBMIT_S
) -> Calibration:
    """Of a machine on which an expert of BYTES takes `load_s` on the link."""
    codec = codec_figures(layers=trace.layers, experts=EXPERTS)
    sizes = model_of(trace).layer_bytes
    codec = codec.model_copy(update={"blob_bytes": [[size] * EXPERTS for size in sizes]})
    made = calibration(
        codec, layers=trace.layers, experts=EXPERTS, dense_s=DENSE_S, expert_s=EXPERT_S
    )
    speed = {"bytes_per_s": BYTES / (load_s - latency_s), "latency_s": latency_s}
    return made.model_copy(
        update={
            "link": made.link.model_copy(update=speed),
            "handover": made.handover.model_copy(update={"submit_s": figure(submit_s)}),
        }
    )


def logged(trace: Trace, engine: Engine, machine: Calibration) -> RunLog:
    """The log of a simulated run."""
    tokens, _ = predicted(trace, engine, model_of(trace), machine)
    columns = {name: tokens[name].to_numpy() for name in ("wall_s", "compute_s", "stall_s")}
    return RunLog(
        "made.csv",
        **columns,
        mgmt_s=tokens["mgmt_s"].to_numpy(),
        read_bytes=tokens["read_bytes"].to_numpy().astype(float),
        hit_share=tokens["hit_share"].to_numpy(),
    )


def csv_of(log: RunLog) -> str:
    """The text of a log, as an engine would write it."""
    lines = ["step,wall_ms,compute_ms,stall_ms,mgmt_ms,read_bytes"]
    for at in range(log.tokens):
        times = [log.wall_s, log.compute_s, log.stall_s, log.mgmt_s]
        shown = [f"{1e3 * part[at]:.6f}" for part in times if part is not None]
        assert log.read_bytes is not None
        lines.append(",".join([str(at), *shown, str(int(log.read_bytes[at]))]))
    return "\n".join(lines) + "\n"
