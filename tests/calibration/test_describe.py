"""What models weigh, against the models themselves."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel

from offsim.calibration.describe import describe
from offsim.calibration.profiles import load_shape
from offsim.errors import FormatError, InputError, OffsimError
from offsim.files import write_yaml
from tests.families import EXPERTS, FAMILIES, HIDDEN, MOE_LAYERS, WIDTH, family

LATENT = ("deepseek-v2", "deepseek-v3")
NUMBERS = {"qwen2-moe": (0, 2), "deepseek-v2": (1, 2), "deepseek-v3": (1, 2)}
SMALL = ("norm", "bias", "sinks", "shared_expert_gate")
"""What a shape leaves out: norms, biases and gates of one row."""


@pytest.fixture(scope="module", params=FAMILIES)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, PreTrainedModel, Path]:
    """A family, a model of it in bf16 and its checkpoint."""
    folder = tmp_path_factory.mktemp("described") / "tiny"
    model = family(request.param).to(torch.bfloat16)
    model.save_pretrained(folder)
    return request.param, model, folder


def counted(model: PreTrainedModel, *without: str) -> int:
    """Parameters whose names have none of these parts."""
    named = model.named_parameters()
    return sum(one.numel() for name, one in named if not any(part in name for part in without))


def test_experts_are_those_of_the_model(made: tuple[str, PreTrainedModel, Path]) -> None:
    name, model, folder = made
    found = describe(folder)
    shape = found.shape
    assert found.model_type == model.config.model_type
    assert found.layers == 3
    assert found.moe_layers == NUMBERS.get(name, (0, 1, 2))
    assert (shape.moe_layers, shape.dense_layers) == (MOE_LAYERS[name], 3 - MOE_LAYERS[name])
    assert (shape.experts, shape.top_k) == (EXPERTS, 2 if name == "phimoe" else 3)
    assert (shape.hidden, shape.expert_width) == (HIDDEN, WIDTH)
    assert (found.dtype, found.checked, shape.expert_bits) == ("BF16", True, 16)
    assert shape.expert_bytes == 2 * 3 * HIDDEN * WIDTH
    experts = sum(
        parameter.nbytes
        for key, parameter in model.named_parameters()
        if key.endswith(("experts.gate_up_proj", "experts.down_proj"))
    )
    assert shape.experts_bytes == experts
    assert shape.title == "tiny"
    assert shape.label == "ESTIMATED"


def test_totals_are_those_of_the_model(made: tuple[str, PreTrainedModel, Path]) -> None:
    _, model, folder = made
    found, shape = describe(folder), describe(folder).shape
    assert shape.parameters == shape.total_parameters.value == counted(model, *SMALL)
    resident = counted(model, *SMALL, ".experts.")
    assert shape.resident_bytes == 2 * resident
    embedding = model.get_input_embeddings().weight.numel()
    assert found.dense_weights == resident - (0 if shape.tied else embedding)
    assert found.dense_flop == 2 * found.dense_weights
    assert found.expert_flop == 2 * len(found.moe_layers) * shape.top_k * 3 * HIDDEN * WIDTH


def test_the_cache_of_a_token_is_that_of_the_model(
    made: tuple[str, PreTrainedModel, Path],
) -> None:
    name, model, folder = made
    found = describe(folder)
    if name in LATENT:  # transformers keeps keys and values, not the latents that are meant here
        config = model.config
        assert found.kv_bytes == 3 * 2 * (config.kv_lora_rank + config.qk_rope_head_dim)
        return
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(input_ids=torch.tensor([[1, 2, 3, 4, 5]]), past_key_values=cache, use_cache=True)
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert 5 * found.kv_bytes == kept
    heads = model.config.num_attention_heads
    assert found.attention_flop == 3 * 4 * heads * found.shape.attention.head_dim


def test_a_config_alone_says_the_same(made: tuple[str, PreTrainedModel, Path]) -> None:
    _, _, folder = made
    full, bare = describe(folder), describe(folder / "config.json")
    assert (full.checked, bare.checked) == (True, False)
    assert bare.shape == full.shape
    assert bare.dtype == full.dtype


def test_the_shape_is_one_that_profiles_take(
    made: tuple[str, PreTrainedModel, Path], tmp_path: Path
) -> None:
    _, _, folder = made
    shape = describe(folder).shape
    write_yaml(tmp_path / "shape.yaml", shape)
    assert load_shape(tmp_path / "shape.yaml") == shape


def config_of(name: str, folder: Path, **changes: Any) -> Path:
    """The config file of a family, with other fields."""
    family(name).config.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def changed(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_dtypes_of_a_config(tmp_path: Path) -> None:
    for said, name, bits in (("float32", "F32", 32), ("float16", "F16", 16)):
        found = describe(config_of("mixtral", tmp_path, dtype=said))
        assert (found.dtype, found.shape.expert_bits, found.shape.dense_bits) == (name, bits, bits)
    found = describe(config_of("mixtral", tmp_path, dtype=None))
    assert found.dtype == "BF16"
    assert "bfloat16 is assumed" in found.shape.note


def test_quantised_experts_of_a_config(tmp_path: Path) -> None:
    mxfp4 = describe(
        config_of(
            "gpt-oss", tmp_path, dtype="bfloat16", quantization_config={"quant_method": "mxfp4"}
        )
    )
    assert (mxfp4.dtype, mxfp4.shape.expert_bits, mxfp4.shape.dense_bits) == ("MXFP4", 4.25, 16)
    assert mxfp4.shape.expert_bytes == 3 * HIDDEN * WIDTH * 17 // 32
    how = {"quant_method": "fp8", "weight_block_size": [8, 4]}
    fp8 = describe(config_of("deepseek-v3", tmp_path, quantization_config=how))
    assert (fp8.dtype, fp8.shape.expert_bits, fp8.shape.dense_bits) == ("FP8", 9, 9)


def test_what_a_reader_must_know_is_noted(tmp_path: Path) -> None:
    def note(name: str, **changes: Any) -> str:
        return describe(config_of(name, tmp_path, dtype="bfloat16", **changes)).shape.note

    assert note("mixtral") == ""
    assert note("gpt-oss") == "Biases are left out."
    assert "not all before the others; they are counted as if so" in note("qwen2-moe")
    assert "multi-token prediction are left out" in note("deepseek-v3", num_nextn_predict_layers=1)
    found = describe(config_of("gpt-oss", tmp_path, sliding_window=16))
    (layers,) = found.windows.values()
    assert 0 < layers < 3
    assert f"{layers} of 3 layers attend to at most 16 tokens." in found.shape.note
    assert found.windowed_kv_bytes == found.kv_bytes * layers // 3


def refused(path: Path, kind: type[OffsimError] = InputError) -> str:
    with pytest.raises(kind) as told:
        describe(path)
    assert len(str(told.value).splitlines()) == 1
    return str(told.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model_type": "llama"}, "model_type is 'llama', of which offsim knows no routed experts"),
        ({}, "model_type is None"),
        ({"model_type": "x", "text_config": {}}, "it has a text_config, whose model is not read"),
    ],
)
def test_an_unsupported_architecture_is_named(
    tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fields))
    told = refused(tmp_path)
    assert says in told
    assert all(known in told for known in ("mixtral", "deepseek_v3", "granitemoe"))


@pytest.mark.parametrize(
    ("name", "changes", "kind", "says"),
    [
        ("mixtral", {"num_local_experts": 0}, OffsimError, "num_local_experts is 0"),
        ("qwen2-moe", {"mlp_only_layers": [0, 1, 2]}, InputError, "0 of 3 layers may have experts"),
        ("qwen2-moe", {"shared_expert_intermediate_size": 20}, InputError, "20 wide, which is no"),
        (
            "mixtral",
            {"quantization_config": {"quant_method": "awq"}},
            InputError,
            "quantised by awq",
        ),
        ("mixtral", {"hidden_size": -4}, FormatError, "head_dim is -2"),
        ("mixtral", {"vocab_size": 0}, FormatError, "vocab"),
        ("mixtral", {"intermediate_size": "wide"}, FormatError, "intermediate_size"),
        ("mixtral", {"dtype": "int8"}, InputError, "dtype is int8; offsim knows bfloat16"),
    ],
)
def test_a_config_that_cannot_be_is_one_sentence(
    tmp_path: Path, name: str, changes: dict[str, Any], kind: type[OffsimError], says: str
) -> None:
    told = refused(config_of(name, tmp_path, **changes), kind)
    assert "config.json: " in told
    assert says in told


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_local_experts": 4}, "experts a layer: 4 in the config, 8 in the tensors beside it"),
        ({"intermediate_size": 24}, "expert width: 24 in the config, 16 in the tensors"),
        ({"hidden_size": 64}, "hidden: 64 in the config, 32 in the tensors"),
        ({"num_hidden_layers": 4}, "layers with experts: [0, 1, 2, 3] in the config, [0, 1, 2]"),
    ],
)
def test_tensors_of_another_model_are_refused(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    family("mixtral").save_pretrained(tmp_path)
    changed(tmp_path, **changes)
    assert says in refused(tmp_path)


def test_what_is_not_there(tmp_path: Path) -> None:
    assert "config.json: cannot be read" in refused(tmp_path)
    assert "none: cannot be read" in refused(tmp_path / "none")
    (tmp_path / "config.json").write_text("[1]")
    assert "a config is a JSON object, not list" in refused(tmp_path, FormatError)
