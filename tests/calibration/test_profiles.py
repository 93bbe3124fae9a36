import importlib.util
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from offsim.calibration import profiles
from offsim.calibration.hardware import MachineParts, PartFile, Profile, Sourced
from offsim.calibration.profiles import (
    CONTEXT,
    TOKENS,
    estimated,
    load_profile,
    load_shape,
    machine_names,
    model_names,
    roofline,
    slots_that_fit,
)
from offsim.calibration.rates import CODECS, bits_per_weight, read_rates
from offsim.calibration.reading import at_size
from offsim.calibration.schema import Calibration, Figure
from offsim.calibration.shapes import ModelShape
from offsim.errors import FormatError, InputError
from offsim.files import read_yaml, write_yaml
from offsim.policy.policy import Policy
from offsim.simulate import simulate
from offsim.simulate.placement import best_host_tokens
from tests.builders import trace_of

HERE = Path(__file__).parents[2] / "calibration"
FILES = sorted((HERE / "profiles").glob("*.yaml"))
EACH_FILE = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
EACH_MACHINE = pytest.mark.parametrize("machine", machine_names())
EACH_MODEL = pytest.mark.parametrize("model", model_names())
LOSSY = [("raw", 0.0), ("cuszp", 2.0**-9), ("sz3", 2.0**-9)]
MIXTRAL, RTX = load_shape("mixtral-8x7b"), load_profile("rtx-4090-pcie4")


def with_gpu(**values: float) -> Profile:
    """The RTX 4090 with other numbers."""
    changed = {name: Sourced(value=value, source="a test") for name, value in values.items()}
    return RTX.model_copy(update={"gpu": RTX.gpu.model_copy(update=changed)})


def with_link(bytes_per_s: float) -> Profile:
    speed = Sourced(value=bytes_per_s, source="a test")
    return RTX.model_copy(update={"link": RTX.link.model_copy(update={"bytes_per_s": speed})})


def labels(value: object) -> set[str]:
    """Every label within a dumped calibration."""
    if isinstance(value, dict):
        own = {value["label"]} if "label" in value else set()
        return own.union(*map(labels, value.values()))
    return set().union(*map(labels, value)) if isinstance(value, list) else set()


def seconds(calibration: Calibration) -> list[float]:
    """All times of the compute of a calibration, s."""
    compute = calibration.compute
    tables = (compute.first, compute.dense, compute.head, compute.dispatch, compute.expert)
    return [point.seconds.value for table in tables for point in table]


def test_there_are_the_machines_and_models_that_people_ask_for() -> None:
    assert machine_names() == [
        "a100-80gb-pcie4",
        "h100-pcie-pcie5",
        "h100-sxm-pcie5",
        "l4-pcie4",
        "rtx-4090-pcie3",
        "rtx-4090-pcie4",
    ]
    assert len(model_names()) == 8


@EACH_FILE
def test_every_number_of_a_committed_file_has_a_source(path: Path) -> None:
    part = read_yaml(path, PartFile).root
    numbers = [value for _, value in part if isinstance(value, Sourced)]
    assert bool(numbers) != isinstance(part, MachineParts)
    for number in numbers:
        assert number.value > 0
        assert number.assumed or "http" in number.source or "measured" in number.source


@EACH_MACHINE
def test_a_machine_has_its_parts(machine: str) -> None:
    profile = load_profile(machine)
    assert profile.name == machine
    assert profile.label == "ESTIMATED"
    assert profile.memory_bytes_per_s < profile.gpu.memory_bytes_per_s.value
    assert profile.flop_per_s < profile.gpu.flop_per_s.value
    # Disk, link and memory: each faster than the one before.
    assert profile.disk.bytes_per_s.value < profile.link.bytes_per_s.value
    assert profile.link.bytes_per_s.value < profile.memory_bytes_per_s
    assert "gpu.launch_s" in profile.assumptions()
    assert "gpu.memory_bytes" not in profile.assumptions()
    assert load_profile(HERE / "profiles" / f"{machine}.yaml") == profile


@EACH_MODEL
def test_parameters_add_up_to_the_published_count(model: str) -> None:
    shape = load_shape(model)
    assert shape.label == "ESTIMATED"
    assert shape.parameters == pytest.approx(shape.total_parameters.value, rel=0.01)
    assert shape.config.startswith("https://huggingface.co/")
    assert load_shape(HERE / "models" / f"{model}.yaml") == shape


def test_bytes_of_known_experts() -> None:
    assert MIXTRAL.expert_bytes == 3 * 4096 * 14336 * 2
    assert MIXTRAL.facts("m").expert_bytes == MIXTRAL.expert_bytes
    # A router trace of a GGUF file called Q4_K_M (BigMoeOnEdge) says 13,219,200: llama.cpp leaves
    # the experts in MXFP4, so the bytes are the same, biases left out.
    oss = load_shape("gpt-oss-120b")
    assert oss.expert_bytes == load_shape("gpt-oss-20b").expert_bytes == 13_219_200
    assert oss.facts("o").dtype_bytes == 1  # the smallest that a calibration can say
    assert oss.facts("o").expert_bytes == 13_219_200
    # FP8 with one float32 for every 128 x 128 weights.
    assert load_shape("deepseek-v3").expert_bytes == 3 * 7168 * 2048 + 3 * 16 * 56 * 4
    assert load_shape("moonlight-16b-a3b").expert_bytes == 3 * 2048 * 1408 * 2


def test_attention_by_hand() -> None:
    # Mixtral: 2 x 4096 x 4096 for queries and output, 2 x 4096 x 1024 for keys and values.
    assert MIXTRAL.attention.weights(4096) == 2 * 4096 * 4096 + 2 * 4096 * 1024
    assert MIXTRAL.attention.cached == 2 * 8 * 128
    assert MIXTRAL.attention.flop_a_pair == 4 * 32 * 128
    lite = load_shape("deepseek-v2-lite").attention
    query, down, up, out = 2048 * 16 * 192, 2048 * 576, 512 * 16 * 256, 16 * 128 * 2048
    assert lite.weights(2048) == query + down + up + out
    assert lite.cached == 576
    assert lite.flop_a_pair == 2 * 16 * (576 + 512)
    v3 = load_shape("deepseek-v3").attention
    compressed = 7168 * 1536 + 1536 * 128 * 192
    rest = 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168
    assert v3.weights(7168) == compressed + rest


def test_the_roofline_has_three_limits() -> None:
    memory, flop, launch = RTX.memory_bytes_per_s, RTX.flop_per_s, RTX.gpu.launch_s.value
    assert roofline(RTX, memory, 1.0) == 1.0
    assert roofline(RTX, 1.0, 2 * flop) == 2.0
    assert roofline(RTX, 1.0, 1.0, kernels=7) == pytest.approx(7 * launch)
    assert roofline(RTX, 0.0, 0.0) == 0.0


def test_few_tokens_read_memory_and_many_compute() -> None:
    expert = estimated(RTX, MIXTRAL).compute.expert
    reading = MIXTRAL.expert_bytes / RTX.memory_bytes_per_s
    assert at_size(expert, 1) == at_size(expert, 64) == reading
    assert at_size(expert, 4096) == 2 * 4096 * MIXTRAL.expert_weights / RTX.flop_per_s > reading
    small = estimated(RTX, MIXTRAL.model_copy(update={"hidden": 64, "expert_width": 64}))
    assert at_size(small.compute.expert, 1) == 3 * RTX.gpu.launch_s.value


def test_the_dense_part_by_hand() -> None:
    attention, router = MIXTRAL.attention.weights(4096), 8 * 4096
    cached = CONTEXT * 2 * 8 * 128 * 2
    compute = estimated(RTX, MIXTRAL).compute
    one = (2 * (attention + router) + cached) / RTX.memory_bytes_per_s
    assert compute.first == compute.dense
    assert compute.dense[0].seconds.value == pytest.approx(one)
    many = 4096 * (2 * (attention + router) + CONTEXT * 4 * 32 * 128) / RTX.flop_per_s
    assert compute.dense[-1].seconds.value == pytest.approx(many)
    head = 2 * 32000 * 4096 / RTX.memory_bytes_per_s
    assert compute.head[0].seconds.value == compute.head[-1].seconds.value == head


def test_leading_layers_without_experts_belong_to_the_first_part() -> None:
    shape = load_shape("deepseek-v3")
    compute = estimated(RTX, shape).compute
    extra = compute.first[0].seconds.value - compute.dense[0].seconds.value
    cached = CONTEXT * 576 * 2
    weights = 3 * shape.dense_layer_weights * shape.dense_bits / 8
    assert extra == pytest.approx((weights + 3 * cached) / RTX.memory_bytes_per_s)


def test_a_longer_context_takes_longer() -> None:
    none, some, more = (estimated(RTX, MIXTRAL, context=n) for n in (0, 1024, 65536))
    dense = [c.compute.dense[0].seconds.value for c in (none, some, more)]
    assert dense[0] < dense[1] < dense[2]
    with pytest.raises(InputError, match="not -1"):
        estimated(RTX, MIXTRAL, context=-1)


@EACH_MODEL
@EACH_MACHINE
def test_every_part_of_an_estimate_says_so(machine: str, model: str) -> None:
    shape = load_shape(model)
    keys = LOSSY if shape.expert_bits == 16 else LOSSY[:1]
    calibration = estimated(load_profile(machine), shape, keys)
    # Without the sizes of experts, of which there are thousands and which have no label.
    brief = calibration.model_dump(mode="json", exclude={"codecs": {"__all__": {"blob_bytes"}}})
    assert labels(brief) == {"ESTIMATED"}
    assert not calibration.measured
    assert "ESTIMATED" in calibration.machine.cpu
    for figures in calibration.codecs:
        assert len(figures.blob_bytes) == shape.moe_layers
        assert {len(row) for row in figures.blob_bytes} == {shape.experts}
        assert len({size for row in figures.blob_bytes for size in row}) == 1
    assert calibration.codecs[0].blob_bytes[0][0] == shape.expert_bytes
    assert [f.ratio for f in calibration.codecs] == sorted(f.ratio for f in calibration.codecs)
    disk = load_profile(machine).disk
    assert calibration.disk is not None
    assert calibration.disk.bytes_per_s == disk.bytes_per_s.value
    assert calibration.disk.latency_s == disk.latency_s.value


def test_an_estimate_survives_its_file(tmp_path: Path) -> None:
    shape = load_shape("olmoe-1b-7b")
    calibration = estimated(RTX, shape, LOSSY)
    write_yaml(tmp_path / "c.yaml", calibration)
    assert read_yaml(tmp_path / "c.yaml", Calibration) == calibration


@pytest.mark.parametrize("name", ["memory_bytes_per_s", "flop_per_s"])
def test_a_faster_device_is_never_slower(name: str) -> None:
    before = None
    for factor in (0.1, 0.5, 1.0, 2.0, 100.0):
        now = seconds(estimated(with_gpu(**{name: factor * 1e12}), MIXTRAL))
        assert before is None or all(a >= b for a, b in zip(before, now, strict=True))
        before = now


def test_a_faster_link_is_never_slower() -> None:
    slow, fast = (estimated(with_link(speed), MIXTRAL).link for speed in (1e9, 2e9))
    assert all(
        a.seconds.value > b.seconds.value for a, b in zip(slow.copies, fast.copies, strict=True)
    )
    assert at_size(slow.copies, 1 << 20) == pytest.approx(slow.latency_s + (1 << 20) / 1e9)


def test_more_tokens_never_take_less() -> None:
    compute = estimated(RTX, MIXTRAL).compute
    for table in (compute.first, compute.dense, compute.dispatch, compute.expert):
        assert [point.size for point in table] == list(TOKENS)
        times = [point.seconds.value for point in table]
        assert times == sorted(times)


def test_the_host_reads_an_expert_or_multiplies_with_it_whichever_takes_longer() -> None:
    host = RTX.host
    assert host.memory_bytes_per_s is not None
    assert host.flop_per_s is not None
    reading = MIXTRAL.expert_bytes / host.memory_bytes_per_s.value
    product = 2 * MIXTRAL.expert_weights / host.flop_per_s.value
    table = {point.size: point.seconds for point in estimated(RTX, MIXTRAL).compute.host_expert}
    assert table[1].value == reading > product
    assert table[4096].value == pytest.approx(4096 * product)
    assert {figure.label for figure in table.values()} == {"ESTIMATED"}


def test_one_token_is_computed_on_the_host_and_a_long_prompt_is_not() -> None:
    calibration = estimated(RTX, MIXTRAL)
    assert 1 <= best_host_tokens(Policy(), calibration, None) < 4096
    # Over a link that is faster than its memory, the host never is.
    assert best_host_tokens(Policy(), estimated(with_link(1e15), MIXTRAL), None) == 0


@pytest.mark.parametrize("name", ["memory_bytes_per_s", "flop_per_s"])
def test_a_host_of_which_little_is_known_computes_nothing(name: str) -> None:
    host = RTX.host.model_copy(update={name: None})
    made = estimated(RTX.model_copy(update={"host": host}), MIXTRAL)
    assert made.compute.host_expert == []
    with pytest.raises(InputError, match=r"add `compute\.host_expert`"):
        best_host_tokens(Policy(), made, None)


def test_where_codecs_decode_and_how_long_it_takes() -> None:
    raw, cuszp, sz3 = estimated(RTX, MIXTRAL, LOSSY, sigma=2.0**-6).codecs
    values, weights = 4 * MIXTRAL.expert_weights, MIXTRAL.expert_weights
    assert (raw.placement, raw.ratio, raw.decode_s.value) == ("device", 1.0, 0.0)
    assert (cuszp.placement, cuszp.bound, cuszp.options) == ("device", 2.0**-9, {"mode": "fixed"})
    # The bound is an eighth of the deviation, a row of the table.
    bits = {codec: dict(zip(*read_rates()[codec], strict=True))[0.125] for codec in CODECS}
    assert cuszp.blob_bytes[0][0] == math.ceil(weights * bits["cuszp"] / 8)
    assert sz3.blob_bytes[0][0] == math.ceil(weights * bits["sz3"] / 8)
    rate = RTX.gpu.cuszp_decode_bytes_per_s.value
    assert cuszp.decode_s.value == pytest.approx(values / rate, rel=0.01)
    assert sz3.placement == "host"
    assert sz3.decode_s.value == values / RTX.host.sz3_decode_bytes_per_s.value
    assert isinstance(sz3.unpack_s, Figure)
    assert sz3.unpack_s.value == 2 * MIXTRAL.expert_bytes / RTX.memory_bytes_per_s
    assert (cuszp.compute_slowdown, sz3.decode_slowdown) == (1.0, 1.0)


def test_a_simulation_on_it_is_estimated() -> None:
    shape = load_shape("olmoe-1b-7b")
    calibration = estimated(RTX, shape, LOSSY)
    top = list(range(shape.top_k))
    trace = trace_of([[top] * shape.moe_layers, [[8, *top[1:]]] * shape.moe_layers], shape.experts)
    ends = {}
    for codec, bound in LOSSY:
        record = simulate(trace, Policy(codec=codec, bound=bound, slots=8), calibration)
        assert record.label == "ESTIMATED"
        ends[codec] = record.steps[-1].end
    # Smaller on the wire, and decoded faster than the link: that is what cuSZp is for. SZ3 on one
    # core is not.
    assert ends["cuszp"] < ends["raw"] < ends["sz3"]


@pytest.mark.parametrize(
    ("keys", "sigma", "says"),
    [
        ([("zip", 0.1)], None, "no rates are known for codec zip; there are cuszp, sz3"),
        ([("cuszp:mode=plain", 0.1)], None, "no rates are known for codec cuszp:mode=plain"),
        ([("raw", 0.1)], None, "raw is lossless and takes no bound, not 0.1"),
        ([("sz3", 0.0)], None, "positive numbers, not 0 and 0.02"),
        ([("sz3", math.nan)], None, "positive numbers, not nan and 0.02"),
        ([("sz3", 0.001)], -1.0, "positive numbers, not 0.001 and -1"),
        ([("sz3", 1.0)], None, "is 50 standard deviations of weights with sigma 0.02; rates are"),
        ([("cuszp", 1e-9)], 1.0, "rates are known from 0.00391 to 2"),
    ],
)
def test_what_cannot_be_estimated_is_refused(
    keys: list[tuple[str, float]], sigma: float | None, says: str
) -> None:
    with pytest.raises(InputError, match=says.replace("(", r"\(")):
        estimated(RTX, MIXTRAL, keys, sigma)


def test_weights_of_few_bits_are_not_compressed_again() -> None:
    with pytest.raises(InputError, match=r"gpt-oss-20b is stored in 4\.25 bits a weight, cu"):
        estimated(RTX, load_shape("gpt-oss-20b"), [("cuszp", 0.002)])


def test_how_many_experts_fit() -> None:
    assert slots_that_fit(RTX, MIXTRAL) == 1
    assert slots_that_fit(load_profile("h100-sxm-pcie5"), load_shape("olmoe-1b-7b")) == 64
    assert slots_that_fit(RTX, load_shape("deepseek-v3")) == 0


def test_rates_fall_with_the_bound_and_stay_above_the_entropy() -> None:
    for ratios, bits in read_rates().values():
        assert ratios == sorted(ratios)
        assert bits == sorted(bits, reverse=True)
    # 0.5 log2(2 pi e) - log2(2 bound / sigma): Cover and Thomas, theorem 8.3.1.
    for bound in (2.0**-12, 0.0003, 2.0**-9):
        ideal = 0.5 * math.log2(2 * math.pi * math.e) - math.log2(2 * bound / 0.02)
        assert ideal < bits_per_weight("sz3", bound, 0.02) < ideal + 0.12
        assert ideal + 0.8 < bits_per_weight("cuszp", bound, 0.02) < ideal + 1.3
    # Only the ratio counts, and the ends belong to the table.
    assert bits_per_weight("sz3", 2e-3, 0.02) == pytest.approx(bits_per_weight("sz3", 2, 20))
    assert bits_per_weight("cuszp", 0.04, 0.02) == pytest.approx(1.79849)


def test_the_committed_rates_are_those_that_the_script_measures() -> None:
    spec = importlib.util.spec_from_file_location("rates_script", HERE / "rates.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    rows = script.measured_rates(1 << 16, [-9, -6])
    assert len(rows) == 4
    for row in rows:
        bits = bits_per_weight(row["codec"], row["bound_of_sigma"], 1.0)
        assert row["bits_per_weight"] == pytest.approx(bits, rel=0.02)
        assert row["ideal_bits"] < row["bits_per_weight"]


def test_a_broken_table_of_rates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("codec,bits\nsz3,1\n")
    with pytest.raises(FormatError, match="the columns are not codec, bound_of_sigma"):
        read_rates(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("codec,bound_of_sigma,bits_per_weight,ideal_bits\nsz3,x,1,1\n")
    with pytest.raises(FormatError, match="line 2 has no numbers"):
        read_rates(tmp_path / "b.csv")


def test_names_that_are_not_there_are_answered_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match=r"b300\.yaml: no such machine; there are a100-80gb-pcie4,"
    ):
        load_profile("b300")
    with pytest.raises(InputError, match=r"grok\.yaml: no such model; there are deepseek-v2-lite,"):
        load_shape("grok")
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        load_profile(tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"l4\.yaml: this is a gpu, not a machine"):
        load_profile("l4")
    monkeypatch.setattr(profiles, "FOLDER", tmp_path / "calibration")
    with pytest.raises(InputError, match="no such folder, so 'l4-pcie4' cannot be a short name"):
        load_profile("l4-pcie4")
    assert machine_names() == model_names() == []


def test_parts_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    for name in ("l4", "pcie4", "server", "nvme4"):
        (tmp_path / f"{name}.yaml").write_text((HERE / "profiles" / f"{name}.yaml").read_text())
    text = (HERE / "profiles" / "l4-pcie4.yaml").read_text()
    (tmp_path / "a.yaml").write_text(text)
    assert load_profile(tmp_path / "a.yaml").gpu == load_profile("l4-pcie4").gpu
    (tmp_path / "b.yaml").write_text(text.replace("gpu: l4", "gpu: pcie4"))
    with pytest.raises(FormatError, match=r"PCIe 4\.0 x16 is a link, not a Gpu"):
        load_profile(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_text(text.replace("disk: nvme4", "disk: tape"))
    with pytest.raises(InputError, match=r"tape\.yaml: cannot be read"):
        load_profile(tmp_path / "c.yaml")
    (tmp_path / "d.yaml").write_text(text.replace("kind: machine", "kind: toaster"))
    with pytest.raises(FormatError, match="toaster"):
        load_profile(tmp_path / "d.yaml")


def test_impossible_numbers_are_refused() -> None:
    gpu = RTX.gpu.model_dump(mode="json")
    gpu["memory_share"]["value"] = 1.5
    with pytest.raises(ValidationError, match="memory_share"):
        PartFile.model_validate(gpu)
    link = RTX.link.model_dump(mode="json")
    link["bytes_per_s"]["value"] = 1e12
    with pytest.raises(ValidationError, match="above nominal_bytes_per_s"):
        PartFile.model_validate(link)
    shape = MIXTRAL.model_dump(mode="json") | {"colour": "blue"}
    with pytest.raises(ValidationError, match="colour"):
        ModelShape.model_validate(shape)
