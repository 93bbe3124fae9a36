"""A calibration from the log of a run, of any engine: few numbers, each from what the log tells.

A log has sums over a token. What such sums cannot tell apart is one number here: where in a layer
compute takes its time, and how much of a load is latency where all experts are equally large.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from offsim.calibration.fit import figure
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
from offsim.errors import InputError
from offsim.record.log import Floats, RunLog
from offsim.units import show_seconds

Ints = npt.NDArray[np.int64]
Centre = Literal["typical", "mean"]
MATRICES = 3
FEWEST = 4
"""Tokens that a fit takes."""


@dataclass(frozen=True)
class Demand:
    """What the trace of a run asks to be loaded under the cache of the engine, a row a token.

    Attributes:
        loads: [tokens] experts.
        layers: [tokens] layers that load at least one.
        nbytes: [tokens] bytes of the experts.
    """

    loads: Ints
    layers: Ints
    nbytes: Ints

    def of(self, rows: npt.NDArray[np.bool_]) -> "Demand":
        """That of some tokens, [tokens] bool."""
        return Demand(self.loads[rows], self.layers[rows], self.nbytes[rows])


@dataclass(frozen=True)
class Model:
    """What is known of the model that ran.

    Attributes:
        name: of it.
        layer_bytes: [layers] bytes of one expert, as it is read.
        experts: of a layer.
        top_k: experts that a token takes in each layer.
    """

    name: str
    layer_bytes: Sequence[int]
    experts: int
    top_k: int

    @property
    def facts(self) -> ModelFacts:
        """Sizes as a calibration has them.

        A log does not know hidden size, width and dtype: their product is about the bytes of the
        largest expert, which are said beside it.
        """
        return ModelFacts(
            name=self.name,
            layers=len(self.layer_bytes),
            experts=self.experts,
            top_k=self.top_k,
            hidden=math.ceil(max(self.layer_bytes) / MATRICES),
            width=1,
            dtype_bytes=1,
            stored_bytes=max(self.layer_bytes),
        )


@dataclass(frozen=True)
class Fitted:
    """A calibration and what it was fitted on.

    Attributes:
        calibration: what the simulator takes; every part is MEASURED.
        tokens: that it was fitted on.
        loads_from: column that told how long loads take: `stall`, `io` or `wall`.
        compute_s: of one token, s.
        load_s: of one load of the mean size over a channel, s.
        submit_s: compute's own time to ask for one load, s.
        expert_s: of one expert, as far as stalls show that it hides loads, s.
        residual: root mean square of what the fit leaves of the time of loads, over its mean.
    """

    calibration: Calibration
    tokens: int
    loads_from: str
    compute_s: float
    load_s: float
    submit_s: float
    expert_s: float
    residual: float

    def __str__(self) -> str:
        speed = self.calibration.link.bytes_per_s / 1e9
        return (
            f"{self.tokens} tokens, compute {show_seconds(self.compute_s)} a token, a load "
            f"{show_seconds(self.load_s)} ({speed:.3g} GB/s, from {self.loads_from}; "
            f"{self.residual:.1%} left), to ask for one {show_seconds(self.submit_s)}"
        )


def fit_run(
    log: RunLog,
    demand: Demand,
    model: Model,
    rows: npt.NDArray[np.bool_],
    channels: int = 1,
    centre: Centre = "typical",
    measured_on: date | None = None,
) -> Fitted:
    """Fit a calibration to some tokens of a log.

    Compute of a token, and managing of a load, are `figure`s: means of the middle half. The time
    of loads comes from what compute waited. By the order of a step (docs/model.md), in a layer
    that loads m of its k experts over one channel

        waiting = m load - (m - 1) submit - (k - 1) expert

    as long as a load takes longer than what hides it: the other experts that are there, and asking
    for the next load. `load` and `expert` come from non-negative least squares of this sum over
    the layers of a token. Over several channels, or where nothing was waited for, a load takes
    what reads took, by bytes, and no expert is told apart. A log with the whole time alone is
    split by least squares into what every token takes and what grows with the bytes. Experts are
    as they are read: `raw`.

    Args:
        log: of the run, a row a decode token.
        demand: of the same tokens.
        model: that ran.
        rows: [tokens] bool, which to fit on; no other is looked at.
        channels: loads that move side by side.
        centre: `typical` for means of the middle half, `mean` for plain means, which add up to
            the time of all tokens, pauses included.
        measured_on: day of the run; today by default.

    Raises:
        InputError: too few tokens, or the log does not tell how long a load takes.
    """
    tokens = int(rows.sum())
    if tokens < FEWEST:
        raise InputError(f"{log.name}: {tokens} tokens to fit on; it takes at least {FEWEST}")
    asked = demand.of(rows)
    if not asked.loads.any():
        raise InputError(
            f"{log.name}: no expert is loaded in the {tokens} tokens to fit on, so that nothing "
            "tells how fast loads are; take a run that loads some, or another capacity"
        )
    compute, submit = _on_compute(log, asked, rows, centre)
    loads = _Loads(log, asked, model, rows, channels, submit.value)
    if compute is None:
        compute = _figure(np.full(tokens, loads.base_s), centre)
    layers, top_k = len(model.layer_bytes), model.top_k
    # Experts cannot take longer than all of compute.
    expert_s = min(loads.expert_s, compute.value / (layers * top_k))
    calibration = Calibration(
        machine=Machine(
            cpu=f"of the run in {log.name}",
            cores=1,
            system="unknown",
            versions={},
            measured_on=measured_on or date.today(),
        ),
        model=model.facts,
        link=loads.link(max(model.layer_bytes), tokens),
        compute=_compute(compute, expert_s, layers, top_k),
        handover=HandoverFigures(
            submit_s=submit,
            # Part of a load: a log has no time at which one begins.
            start_s=_known(0.0, tokens),
            between_s=_known(0.0, tokens),
            wake_s=_known(0.0, tokens),
        ),
        codecs=[_raw(model, tokens)],
    )
    mean_bytes = asked.nbytes.sum() / asked.loads.sum()
    return Fitted(
        calibration,
        tokens,
        loads.source,
        compute.value,
        float(loads.latency_s + mean_bytes * loads.s_per_byte),
        submit.value,
        expert_s,
        loads.residual,
    )


def _on_compute(
    log: RunLog, asked: Demand, rows: npt.NDArray[np.bool_], centre: Centre
) -> tuple[Figure | None, Figure]:
    """Compute of a token, None where the log has no parts, and managing of one load."""
    computed = log.computed_s
    compute = None if computed is None else _figure(computed[rows], centre)
    if log.mgmt_s is None:
        return compute, _known(0.0, len(asked.loads))
    some = asked.loads > 0
    each = log.mgmt_s[rows][some] / asked.loads[some]
    submit = figure(each.tolist())
    if centre == "mean":  # over loads, so that it adds up
        mean = log.mgmt_s[rows].sum() / asked.loads.sum()
        submit = submit.model_copy(update={"value": float(mean)})
    return compute, submit


class _Loads:
    """How long loads take.

    Args:
        log: of the run.
        asked: of the tokens to fit on.
        model: that ran.
        rows: these tokens.
        channels: loads side by side.
        submit_s: managing of one load, s.
    """

    def __init__(
        self,
        log: RunLog,
        asked: Demand,
        model: Model,
        rows: npt.NDArray[np.bool_],
        channels: int,
        submit_s: float,
    ) -> None:
        self.base_s = self.expert_s = self.latency_s = self.s_per_byte = 0.0
        self._alike = len(set(model.layer_bytes)) == 1
        self._asked = asked
        waited = log.waited_s
        if waited is not None and channels == 1:
            # Compute asks for the next load of a layer while the one before moves.
            hidden = submit_s * (asked.loads - asked.layers)
            others = np.asarray(-(model.top_k - 1.0) * asked.layers, np.float64)
            terms: list[Floats] = [others] if model.top_k > 1 else []
            found = self._fit("stall", waited[rows] + hidden, terms)
            self.expert_s = float(found[0]) if terms else 0.0
        if not self._known and log.io_s is not None:
            self.expert_s = 0.0
            self._fit("io", log.io_s[rows], [])
        if not self._known and waited is None and channels == 1:
            wall = log.wall_s[rows] - (0.0 if log.mgmt_s is None else log.mgmt_s[rows])
            self.base_s = float(self._fit("wall", wall, [np.ones_like(wall)])[0])
        if not self._known:
            raise InputError(
                f"{log.name}: nothing tells how long a load takes"
                + (
                    "; over several channels it takes io_ms"
                    if channels > 1
                    else ": no time grows with the bytes that are loaded"
                )
            )

    @property
    def _known(self) -> bool:
        return self.latency_s + self.s_per_byte > 0

    def _fit(self, source: str, seconds: Floats, terms: list[Floats]) -> Floats:
        """Non-negative least squares of seconds by terms, and by loads; what the terms take."""
        asked = self._asked
        own: list[Floats] = [asked.nbytes.astype(float)]
        if not self._alike:  # else latency and bytes are in one proportion
            own.append(asked.loads.astype(float))
        scales = [max(float(np.abs(one).max()), 1e-300) for one in (*terms, *own)]
        columns = np.column_stack([*terms, *own]) / scales
        found, left = nnls(columns, seconds)
        found = found / scales
        self.source = source
        self.s_per_byte = float(found[len(terms)])
        self.latency_s = 0.0 if self._alike else float(found[-1])
        mean = float(np.mean(seconds))
        self.residual = float(left / math.sqrt(len(seconds)) / mean) if mean > 0 else 0.0
        return np.asarray(found, float)

    def link(self, nbytes: int, samples: int) -> LinkFigures:
        """As a calibration has it; `nbytes` of the largest expert."""
        # A load without bytes to speak of is as fast as the clock can count.
        bytes_per_s = 1 / max(self.s_per_byte, 1e-15)
        sizes = (nbytes, 2 * nbytes)
        return LinkFigures(
            label="MEASURED",
            copies=[
                SizedFigure(size=size, seconds=_known(self.latency_s + size / bytes_per_s, samples))
                for size in sizes
            ],
            latency_s=self.latency_s,
            bytes_per_s=bytes_per_s,
            residual=self.residual,
            overshoot_s=_known(0.0, samples),
        )


def _compute(token: Figure, expert_s: float, layers: int, top_k: int) -> ComputeFigures:
    """Compute of one token, the same in each layer but for its experts; none in the head."""

    def dense(seconds: float) -> float:
        return max(0.0, seconds / layers - top_k * expert_s)

    layer = token.model_copy(
        update={name: dense(getattr(token, name)) for name in ("value", "p10", "p90")}
    )
    none = _known(0.0, token.samples)
    return ComputeFigures(
        label="MEASURED",
        first=[SizedFigure(size=1, seconds=layer)],
        dense=[SizedFigure(size=1, seconds=layer)],
        head=[SizedFigure(size=1, seconds=none)],
        dispatch=[SizedFigure(size=1, seconds=none)],
        expert=[SizedFigure(size=1, seconds=_known(expert_s, token.samples))],
    )


def _raw(model: Model, samples: int) -> CodecFigures:
    """Experts as they are read: nothing is decoded."""
    nothing = _known(0.0, samples)
    return CodecFigures(
        label="MEASURED",
        codec="raw",
        options={},
        bound=0.0,
        placement="device",
        blob_bytes=[[nbytes] * model.experts for nbytes in model.layer_bytes],
        ratio=1.0,
        largest_error=0.0,
        fallbacks=0,
        encode_s=nothing,
        decode_s=nothing,
        compute_slowdown=1.0,
        decode_slowdown=1.0,
    )


def _figure(samples: Floats, centre: Centre) -> Figure:
    made = figure(samples.tolist())
    if centre == "mean":
        return made.model_copy(update={"value": float(samples.mean())})
    return made


def _known(seconds: float, samples: int) -> Figure:
    """A figure without a spread of its own."""
    return Figure(label="MEASURED", value=seconds, p10=seconds, p90=seconds, samples=samples)
