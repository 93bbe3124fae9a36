"""A calibration without the machine: from data sheets and the shape of a model, ESTIMATED."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from offsim import __version__
from offsim.calibration.hardware import (
    LABEL,
    Disk,
    Gpu,
    Host,
    Link,
    MachineParts,
    PartFile,
    Profile,
)
from offsim.calibration.rates import bits_per_weight
from offsim.calibration.schema import (
    Calibration,
    CodecFigures,
    ComputeFigures,
    DiskFigures,
    Figure,
    HandoverFigures,
    LinkFigures,
    Machine,
    SizedFigure,
)
from offsim.calibration.shapes import BF16_BITS, ModelShape
from offsim.errors import FormatError, InputError
from offsim.files import read_yaml

FOLDER = Path(__file__).parents[2] / "calibration"
"""Of a checkout: where short names are looked up."""

CONTEXT = 1024
"""Assumption: tokens that each token attends to."""
ASSUMED_SIGMA = 0.02
"""Assumption, where the deviation of a model's weights is not known: what the configs of all
these models give as `initializer_range`, their deviation before training."""
DENSE_KERNELS, EXPERT_KERNELS, HEAD_KERNELS, DISPATCH_KERNELS = 12, 3, 3, 6
"""Assumptions, for a runtime that fuses little: norms, projections, rotation, attention, router
and choice; two products and the activation; norm, product and choice; gather and weighted sum."""
MATRICES = 3
"""Gate, up and down: each is a stream of its own for a codec."""
USABLE = 0.9
"""Assumption: share of device memory that weights may take; the rest is for the KV cache."""
TOKENS = tuple(2**power for power in range(13))
COPIES = tuple(2**power for power in range(12, 29, 2))
F32_BYTES = 4


def load_profile(which: str | Path) -> Profile:
    """A machine with its parts, which are found beside its file.

    Args:
        which: path of its file, or the short name of one of `calibration/profiles`.

    Raises:
        InputError: no such file, or it is a part and not a machine.
        FormatError: a file is not as `offsim.calibration.hardware` has it.
    """
    path = _path(which, "profiles", "machine", machine_names)
    machine = read_yaml(path, PartFile).root
    if not isinstance(machine, MachineParts):
        raise InputError(f"{path}: this is a {machine.kind}, not a machine")
    gpu, link, host, disk = (
        read_yaml(path.with_name(f"{name}.yaml"), PartFile).root
        for name in (machine.gpu, machine.link, machine.host, machine.disk)
    )
    for wanted, part in ((Gpu, gpu), (Link, link), (Host, host), (Disk, disk)):
        if not isinstance(part, wanted):
            raise FormatError(f"{path}: {part.title} is a {part.kind}, not a {wanted.__name__}")
    parts = {"gpu": gpu, "link": link, "host": host, "disk": disk}
    return Profile.model_validate({"name": path.stem, "title": machine.title, **parts})


def load_shape(which: str | Path) -> ModelShape:
    """The shape of a model.

    Args:
        which: path of its file, or the short name of one of `calibration/models`.

    Raises:
        InputError: no such file.
        FormatError: it is not as `offsim.calibration.shapes` has it.
    """
    return read_yaml(_path(which, "models", "model", model_names), ModelShape)


def machine_names() -> list[str]:
    """Short names of the machines of this checkout; parts of machines are left out."""
    files = sorted((FOLDER / "profiles").glob("*.yaml"))
    found = ((path, read_yaml(path, PartFile).root) for path in files)
    return [path.stem for path, part in found if isinstance(part, MachineParts)]


def model_names() -> list[str]:
    """Short names of the model shapes of this checkout."""
    return [path.stem for path in sorted((FOLDER / "models").glob("*.yaml"))]


def roofline(profile: Profile, nbytes: float, flop: float, kernels: int = 0) -> float:
    """Seconds of a piece of work: the longest of its memory traffic, its FLOPs and its launches.

    max(bytes / bandwidth, FLOPs / rate), both as they are reached (Williams, Waterman, Patterson:
    Roofline, CACM 52(4), 2009, doi 10.1145/1498765.1498785). Kernels are launched ahead, so their
    launches hide behind the work, or the work behind them.

    Args:
        profile: of the machine.
        nbytes: read from device memory.
        flop: floating-point operations, a multiply-add counting 2.
        kernels: launched for it.
    """
    work = max(nbytes / profile.memory_bytes_per_s, flop / profile.flop_per_s)
    return max(work, kernels * profile.gpu.launch_s.value)


def slots_that_fit(profile: Profile, shape: ModelShape) -> int:
    """Experts, as stored, that each layer can keep on the device beside everything else."""
    free = USABLE * profile.gpu.memory_bytes.value - shape.resident_bytes
    return max(0, min(shape.experts, int(free // (shape.moe_layers * shape.expert_bytes))))


def estimated(
    profile: Profile,
    shape: ModelShape,
    codecs: Sequence[tuple[str, float]] = (("raw", 0.0),),
    sigma: float | None = None,
    context: int = CONTEXT,
) -> Calibration:
    """A calibration in which every part is ESTIMATED.

    Compute is a `roofline` of the weights as stored, with a cache of keys and values in bf16;
    activations are left out. A copy is latency + bytes / bandwidth. A blob has the bits of
    `bits_per_weight`. cuSZp decodes float32 values at the rate of a paper, SZ3 on one core at the
    rate measured by this project, and what SZ3 has decoded is copied within the device. Raw bytes
    arrive in their slot. Hand-overs take one launch each. Decoder and compute are assumed not to
    slow each other (both slowdowns are 1), and idle compute not to lose its caches. A read from
    disk is latency + bytes / bandwidth. The host computes an expert in the longer of the times
    that its memory and its products take, where its file says how fast both are.

    Args:
        profile: of the machine.
        shape: of the model.
        codecs: names and absolute bounds, unit of the weights: `raw` (bound 0), `cuszp`, `sz3`.
        sigma: standard deviation of the experts' weights; None for that of the shape, or else
            ASSUMED_SIGMA.
        context: tokens that each token attends to, >= 0.

    Raises:
        InputError: another codec, a bound outside the rates that are known, a lossy codec for
            weights stored in fewer than 16 bits, or a context below 0.
    """
    if context < 0:
        raise InputError(f"a context is a number of tokens from 0 on, not {context}")
    if sigma is None:
        sigma = shape.sigma or ASSUMED_SIGMA
    link, launch = profile.link, profile.gpu.launch_s.value
    return Calibration(
        machine=Machine(
            cpu=f"{profile.title}, from data sheets [{LABEL}]",
            cores=int(profile.host.cores.value),
            system="none",
            versions={"offsim": __version__},
            measured_on=profile.checked_on,
        ),
        model=shape.facts(shape.title),
        link=LinkFigures(
            label="ESTIMATED",
            copies=_table(
                COPIES, lambda size: link.latency_s.value + size / link.bytes_per_s.value
            ),
            latency_s=link.latency_s.value,
            bytes_per_s=link.bytes_per_s.value,
            residual=0.0,
            overshoot_s=_figure(0.0),
        ),
        compute=_compute(profile, shape, context),
        handover=HandoverFigures(
            submit_s=_figure(launch),
            start_s=_figure(launch),
            between_s=_figure(launch),
            wake_s=_figure(launch),
        ),
        codecs=[_codec(profile, shape, *key, sigma) for key in dict.fromkeys(codecs)],
        disk=DiskFigures(
            label="ESTIMATED",
            latency_s=profile.disk.latency_s.value,
            bytes_per_s=profile.disk.bytes_per_s.value,
        ),
    )


def _compute(profile: Profile, shape: ModelShape, context: int) -> ComputeFigures:
    attention = shape.attention
    cached = context * attention.cached * BF16_BITS / 8

    def layer(tokens: int, weights: int, bf16_weights: int) -> float:
        nbytes = weights * shape.dense_bits / 8 + bf16_weights * BF16_BITS / 8 + cached
        flop = tokens * (2 * (weights + bf16_weights) + context * attention.flop_a_pair)
        return roofline(profile, nbytes, flop, DENSE_KERNELS)

    def dense(tokens: int) -> float:
        return layer(tokens, shape.shared_weights, shape.router_weights)

    def first(tokens: int) -> float:
        return shape.dense_layers * layer(tokens, shape.dense_layer_weights, 0) + dense(tokens)

    def head(tokens: int) -> float:
        # Only the last token of a prompt is predicted from.
        nbytes = shape.head_weights * BF16_BITS / 8
        return roofline(profile, nbytes, 2 * shape.head_weights, HEAD_KERNELS)

    def dispatch(tokens: int) -> float:
        # The choice is read back to the host; then each token is gathered and summed top-k times.
        moved = 2 * tokens * shape.top_k * shape.hidden * BF16_BITS / 8
        return profile.link.latency_s.value + roofline(profile, moved, 0, DISPATCH_KERNELS)

    def expert(tokens: int) -> float:
        flop = 2 * tokens * shape.expert_weights
        return roofline(profile, shape.expert_bytes, flop, EXPERT_KERNELS)

    on_host: list[SizedFigure] = []
    memory, rate = profile.host.memory_bytes_per_s, profile.host.flop_per_s
    if memory is not None and rate is not None:
        reading, flop_s = shape.expert_bytes / memory.value, 2 * shape.expert_weights / rate.value
        on_host = _table(TOKENS, lambda tokens: max(reading, tokens * flop_s))

    return ComputeFigures(
        label="ESTIMATED",
        first=_table(TOKENS, first),
        dense=_table(TOKENS, dense),
        head=_table(TOKENS, head),
        dispatch=_table(TOKENS, dispatch),
        expert=_table(TOKENS, expert),
        host_expert=on_host,
    )


def _codec(
    profile: Profile, shape: ModelShape, codec: str, bound: float, sigma: float
) -> CodecFigures:
    gpu, host = profile.gpu, profile.host
    stored, values = shape.expert_bytes, F32_BYTES * shape.expert_weights
    blob, encode_s, decode_s, unpack_s = stored, 0.0, 0.0, None
    if codec == "raw":
        if bound:
            raise InputError(f"codec raw is lossless and takes no bound, not {bound:g}")
    else:
        blob = math.ceil(shape.expert_weights * bits_per_weight(codec, bound, sigma) / 8)
        if shape.expert_bits < BF16_BITS:
            raise InputError(
                f"{shape.title} is stored in {shape.expert_bits:g} bits a weight, {codec} takes "
                "weights of 16 or 32; only raw can be estimated for it"
            )
    if codec == "cuszp":
        launches = MATRICES * gpu.launch_s.value
        encode_s = launches + values / gpu.cuszp_encode_bytes_per_s.value
        decode_s = launches + values / gpu.cuszp_decode_bytes_per_s.value
    elif codec == "sz3":
        encode_s = values / host.sz3_encode_bytes_per_s.value
        decode_s = values / host.sz3_decode_bytes_per_s.value
        unpack_s = roofline(profile, 2 * stored, 0, kernels=1)  # read and written
    return CodecFigures(
        label="ESTIMATED",
        codec=codec,
        options=OPTIONS[codec],
        bound=bound,
        placement="device" if unpack_s is None else "host",
        blob_bytes=[[blob] * shape.experts for _ in range(shape.moe_layers)],
        ratio=stored / blob,
        largest_error=bound,
        fallbacks=0,
        encode_s=_figure(encode_s),
        decode_s=_figure(decode_s),
        unpack_s=None if unpack_s is None else _figure(unpack_s),
        compute_slowdown=1.0,
        decode_slowdown=1.0,
    )


OPTIONS: dict[str, dict[str, str]] = {
    "raw": {},
    "cuszp": {"mode": "fixed"},
    "sz3": {"algorithm": "NOPRED"},
}
"""With which the rates were measured: the defaults of the codecs."""


def _figure(seconds: float) -> Figure:
    return Figure(label="ESTIMATED", value=seconds, p10=seconds, p90=seconds, samples=1)


def _table(sizes: Iterable[int], seconds: Callable[[int], float]) -> list[SizedFigure]:
    return [SizedFigure(size=size, seconds=_figure(seconds(size))) for size in sizes]


def _path(which: str | Path, folder: str, what: str, names: Callable[[], list[str]]) -> Path:
    """The file of a path or of a short name."""
    path = Path(which)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        return path
    named = FOLDER / folder / f"{which}.yaml"
    if named.is_file():
        return named
    if not named.parent.is_dir():
        raise InputError(
            f"{named.parent}: no such folder, so {which!r} cannot be a short name; give the path "
            f"of the {what}'s file"
        )
    raise InputError(f"{named}: no such {what}; there are {', '.join(names())}")
