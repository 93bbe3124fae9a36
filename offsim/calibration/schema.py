"""The calibration file: one YAML a machine, checked on load. docs/formats.md describes it."""

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from offsim.calibration.uncertainty import InnerRun, Replicates, floats
from offsim.errors import InputError

VERSION = 1
SAME = 1e-9
"""Share of a bound by which a calibrated one may differ from it and is the same."""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


Source = Literal["MEASURED", "ESTIMATED"]
"""Measured here, or taken from a data sheet or a paper."""


class Strict(BaseModel):
    """A part of the file; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(Strict):
    """One number with its spread.

    Attributes:
        label: where it comes from.
        value: the one that the model uses, s.
        p10: a tenth of the samples are below it, s.
        p90: a tenth are above it, s.
        samples: how many.
    """

    label: Source
    value: Seconds
    p10: Seconds
    p90: Seconds
    samples: int = Field(ge=1)


class SizedFigure(Strict):
    """A time as a function of a size."""

    size: int = Field(ge=0)
    seconds: Figure


class Machine(Strict):
    """Where and with what it was measured."""

    cpu: str
    cores: int = Field(ge=1)
    system: str
    versions: dict[str, str]
    measured_on: date


class ModelFacts(Strict):
    """The model whose experts were measured; sizes as in `offsim.model.ExpertShape`.

    Attributes:
        stored_bytes: of one expert, where they are not those of its weights times `dtype_bytes`:
            weights of fewer than 8 bits, and scales beside them. None where they are.
    """

    name: str
    layers: int = Field(ge=1)
    experts: int = Field(ge=1)
    top_k: int = Field(ge=1)
    hidden: int = Field(ge=1)
    width: int = Field(ge=1)
    dtype_bytes: int = Field(ge=1, le=8)
    stored_bytes: int | None = Field(default=None, ge=1)

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert in its stored dtype."""
        if self.stored_bytes is not None:
            return self.stored_bytes
        return 3 * self.hidden * self.width * self.dtype_bytes


class LinkFigures(Strict):
    """Host to device.

    Attributes:
        label: where the plain numbers of this part come from.
        copies: seconds of one plain copy by bytes.
        latency_s: of the fit seconds = latency + bytes / bytes_per_s.
        bytes_per_s: of the same fit.
        residual: largest relative error of the fit over the sweep.
        overshoot_s: by how much a paced transfer is noticed later than bytes / bandwidth; the link
            itself goes on meanwhile.
    """

    label: Source
    copies: list[SizedFigure] = Field(min_length=2)
    latency_s: Seconds
    bytes_per_s: Positive
    residual: float = Field(ge=0)
    overshoot_s: Figure


class CopyFigures(Strict):
    """Plain copies from host memory of one kind to a device, so many side by side.

    Attributes:
        memory: `pinned`, which the device reads by itself, or `pageable`, any other.
        channels: copies that begin together, each asked for by a thread of its own.
        copies: seconds until all of them are there, by the bytes of one.
    """

    memory: Literal["pinned", "pageable"]
    channels: int = Field(ge=1)
    copies: list[SizedFigure] = Field(min_length=1)


class DecoderFigures(Strict):
    """What decodes one expert from memory of a device into memory of the device.

    Attributes:
        decoder: kernels or a library, for people.
        codec: whose blobs it decodes, with its options.
        bound: of the blobs, absolute, unit of the weights; 0 for a lossless codec.
        blob_bytes: of the expert.
        ratio: its stored bytes over blob bytes.
        decode_s: from the call until the device is through, all of its matrices.
    """

    decoder: str
    codec: str
    bound: float = Field(ge=0, allow_inf_nan=False)
    blob_bytes: int = Field(ge=1)
    ratio: Positive
    decode_s: Figure


class DeviceFigures(Strict):
    """A device with memory of its own. No simulation goes by what is here.

    Attributes:
        label: where the plain numbers of this part come from.
        name: of the device, for people.
        copies: by kind of host memory and by how many there are side by side; those from pinned
            memory one at a time are `copies` of the link.
        decoders: on the same experts, side by side.
        left_out: what might have been among them and is not, and why: each a sentence.
    """

    label: Source
    name: str
    copies: list[CopyFigures] = Field(min_length=1)
    decoders: list[DecoderFigures] = Field(default_factory=list)
    left_out: list[str] = Field(default_factory=list)


class DiskFigures(Strict):
    """Disk to host memory: one read at a time, of one blob.

    Attributes:
        label: where the plain numbers of this part come from.
        latency_s: of the fit seconds = latency + bytes / bytes_per_s.
        bytes_per_s: of the same fit.
        residual: largest relative error of the fit over the sweep; 0 where there was none.
    """

    label: Source
    latency_s: Seconds
    bytes_per_s: Positive
    residual: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class CoolingPoint(Strict):
    """What compute loses because it stood idle: its caches hold other things by then.

    Attributes:
        idle_s: how long it stood idle in a layer.
        extra: by how much its work took longer from there to the experts of the next layer, s.
    """

    idle_s: Seconds
    extra: Figure


class ForesightFigures(Strict):
    """What a prefetcher adds to each lookup, beside what each load costs.

    Attributes:
        prefetch: its name.
        distance: layers that it looks ahead.
        seconds: by the tokens of the step: the gates of the layers ahead, if it asks them, and
            naming their experts.
        fetch_s: compute's own time to ask for one load ahead; None where it is that of any load.
    """

    prefetch: str
    distance: int = Field(ge=1)
    seconds: list[SizedFigure] = Field(min_length=1)
    fetch_s: Seconds | None = None


class ComputeFigures(Strict):
    """Compute by number of tokens in the step. `size` is the number of tokens.

    Attributes:
        label: where the plain numbers of this part come from.
        first: from the start of a step to the experts of layer 0: embedding, mask and dense part.
        dense: dense part of any later layer.
        head: from the last layer's experts to the token.
        dispatch: cache lookup, queueing and the weighted sum of one layer.
        expert: one expert, by the tokens that it serves.
        host_expert: the same on the host, its weights in host memory in the stored dtype; empty
            where it is not known.
        cooling: what a layer loses, by the time that compute stood idle in it, one token.
        still_cold: share of that loss that the next layer has too where nothing is waited for.
        foresight: of prefetchers; empty where it is not known.
        attention_s: what a token adds to each layer for each token of its request that an earlier
            step computed; `first` and `dense` are without it. None: they are at some context.
    """

    label: Source
    first: list[SizedFigure] = Field(min_length=1)
    dense: list[SizedFigure] = Field(min_length=1)
    head: list[SizedFigure] = Field(min_length=1)
    dispatch: list[SizedFigure] = Field(min_length=1)
    expert: list[SizedFigure] = Field(min_length=1)
    host_expert: list[SizedFigure] = Field(default_factory=list)
    cooling: list[CoolingPoint] = Field(default_factory=list)
    still_cold: float = Field(default=0.0, ge=0, le=1)
    foresight: list[ForesightFigures] = Field(default_factory=list)
    attention_s: Figure | None = None


class HandoverFigures(Strict):
    """What threads lose when one wakes the other.

    Attributes:
        submit_s: compute's own time to ask for one load.
        start_s: from asking to the first stage being served, worker idle.
        between_s: from the end of a stage to the next being served, worker idle.
        wake_s: from the end of a load to compute going on.
    """

    submit_s: Figure
    start_s: Figure
    between_s: Figure
    wake_s: Figure


class KeptFigures(Strict):
    """Experts that the device keeps as blobs, and decodes at each use.

    Attributes:
        decode_s: one blob, into a place that is used again and again.
        expert: one expert by its tokens, computed from there: caches may still hold it.
    """

    decode_s: Figure
    expert: list[SizedFigure] = Field(min_length=1)


class Sampled(Strict):
    """Which experts the sizes of all were taken from, and how sure that leaves them.

    Attributes:
        experts: that were compressed, as many of each layer as of any other or one more.
        ratio_low: lower end of the 95 % interval of the ratio; None for a single expert.
        ratio_high: upper end.
        p10_bytes: a tenth of their blobs are smaller.
        p90_bytes: a tenth are larger.
    """

    experts: int = Field(ge=1)
    ratio_low: Positive | None
    ratio_high: Positive | None
    p10_bytes: int = Field(ge=0)
    p90_bytes: int = Field(ge=0)


class CodecFigures(Strict):
    """One codec at one bound on all experts of the model.

    Attributes:
        label: where the plain numbers of this part come from; ESTIMATED where sizes are those of a
            sample.
        codec: its name.
        options: its options.
        bound: absolute, unit of the weights, 0 for a lossless codec.
        placement: where it decodes.
        blob_bytes: [layers][experts] bytes of each expert's blob.
        matrix_bytes: [layers][experts][3] bytes of its gate, up and down, where that is known.
        ratio: stored bytes over blob bytes, against the stored dtype, over all experts.
        largest_error: largest |x - x'| in the stored dtype, over all experts that were compressed.
        fallbacks: matrices of them that had to be stored raw.
        encode_s: one expert.
        decode_s: one expert right after another, on the host for a host codec, into the slot for
            a device codec.
        alone_s: the same where the decoder was idle before; None where that is no different.
        chunk_s: how much longer one takes for each further chunk in which loads come meanwhile, s:
            the link's thread wakes at each of them, on the decoder's core.
        arrival_s: what each part in which a load comes costs compute that works meanwhile, s: the
            link's thread wakes for it.
        unpack_s: from the decoded bytes in the stored dtype into the slot; host codecs only.
        compute_slowdown: how many times longer compute takes while this codec decodes, >= 1.
        expert_slowdown: the same of experts; None where they are slowed as all compute is.
        decode_slowdown: how many times longer decoding takes while compute runs, >= 1.
        kept: of experts that the device keeps as blobs; None where they take no other time.
        foresight: of prefetchers beside this codec; empty where `compute.foresight` has it.
        sampled: the sample that the sizes are from; None where every expert was compressed.
    """

    label: Source
    codec: str
    options: dict[str, str]
    bound: float = Field(ge=0, allow_inf_nan=False)
    placement: Literal["host", "device"]
    blob_bytes: list[list[int]]
    matrix_bytes: list[list[list[int]]] | None = None
    ratio: Positive
    largest_error: float = Field(ge=0, allow_inf_nan=False)
    fallbacks: int = Field(ge=0)
    encode_s: Figure
    decode_s: Figure
    alone_s: Figure | None = None
    chunk_s: Seconds = 0.0
    arrival_s: Seconds = 0.0
    unpack_s: Figure | None = None
    compute_slowdown: float = Field(ge=1, allow_inf_nan=False)
    expert_slowdown: float | None = Field(default=None, ge=1, allow_inf_nan=False)
    decode_slowdown: float = Field(ge=1, allow_inf_nan=False)
    kept: KeptFigures | None = None
    foresight: list[ForesightFigures] = Field(default_factory=list)
    sampled: Sampled | None = None

    @property
    def experts_slowdown(self) -> float:
        """How many times longer experts take while this codec decodes."""
        return self.compute_slowdown if self.expert_slowdown is None else self.expert_slowdown

    @property
    def woken_s(self) -> float:
        """How much longer one takes whose decoder was idle before, s.

        Below 0 where the decoder shares its core with threads that are idle then.
        """
        return 0.0 if self.alone_s is None else self.alone_s.value - self.decode_s.value

    @model_validator(mode="after")
    def _host_codecs_unpack(self) -> Self:
        if (self.placement == "host") != (self.unpack_s is not None):
            raise ValueError("unpack_s is given for host codecs and for no other")
        return self

    @model_validator(mode="after")
    def _samples_estimate(self) -> Self:
        if self.sampled is not None and self.label != "ESTIMATED":
            raise ValueError("sizes from a sample of experts are ESTIMATED")
        return self

    @model_validator(mode="after")
    def _matrices_make_the_expert(self) -> Self:
        if self.matrix_bytes is None:
            return self
        if any(len(parts) != 3 or min(parts) < 0 for row in self.matrix_bytes for parts in row):
            raise ValueError("matrix_bytes is the bytes of three matrices for each expert")
        if [[sum(parts) for parts in row] for row in self.matrix_bytes] != self.blob_bytes:
            raise ValueError("matrix_bytes does not sum to blob_bytes")
        return self


class Calibration(Strict):
    """Everything that the simulator knows of a machine.

    `replicates` and `inner_runs` say how sure it is; without them predictions have no band.
    `device` is there where a device with memory of its own was measured.
    """

    format: Literal["offsim-calibration"] = "offsim-calibration"
    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    machine: Machine
    model: ModelFacts
    link: LinkFigures
    compute: ComputeFigures
    handover: HandoverFigures
    codecs: list[CodecFigures] = Field(min_length=1)
    disk: DiskFigures | None = None
    device: DeviceFigures | None = None
    replicates: Replicates | None = None
    inner_runs: list[InnerRun] = Field(default_factory=list)

    @model_validator(mode="after")
    def _replicates_are_of_these_figures(self) -> Self:
        known = {} if self.replicates is None else self.replicates.values
        unknown = known.keys() - (floats(self).keys() if known else set())
        if unknown:
            raise ValueError(f"replicates: there is no figure {min(unknown)}")
        return self

    @model_validator(mode="after")
    def _one_size_an_expert(self) -> Self:
        shape = (self.model.layers, self.model.experts)
        for codec in self.codecs:
            rows = {len(row) for row in codec.blob_bytes}
            if (len(codec.blob_bytes), *rows) != shape:
                raise ValueError(f"{codec.codec}: blob_bytes is not {shape[0]} x {shape[1]}")
        return self

    @property
    def measured(self) -> bool:
        """Whether every part was measured; a simulation on any other is ESTIMATED."""
        labels = {self.link.label, self.compute.label, self.handover.wake_s.label}
        labels |= {point.seconds.label for point in self.compute.host_expert}
        labels |= {part.label for part in (self.disk, self.device) if part is not None}
        return labels | {codec.label for codec in self.codecs} == {"MEASURED"}

    def codec(self, name: str, bound: float) -> CodecFigures:
        """The figures of a codec at a bound.

        Raises:
            InputError: it was not calibrated.
        """
        for figures in self.codecs:
            if figures.codec == name and abs(figures.bound - bound) <= SAME * abs(bound):
                return figures
        known = ", ".join(f"{f.codec} {f.bound:g}" if f.bound else f.codec for f in self.codecs)
        raise InputError(
            f"{name} at bound {bound:g} is not in the calibration (it has {known}); "
            "calibrate with this codec and bound"
        )
