"""What a model weighs and computes, read from its checkpoint folder or its `config.json` alone."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from pydantic import ValidationError
from transformers import CONFIG_MAPPING, PretrainedConfig

from offsim.calibration.families import FAMILIES, Family, window_of
from offsim.calibration.hardware import Sourced
from offsim.calibration.shapes import BF16_BITS, ModelShape
from offsim.errors import FormatError, InputError
from offsim.files import first_problem
from offsim.model.quantised import BLOCK, block_of
from offsim.model.reader import CheckpointExperts
from offsim.model.shards import CONFIG, Shards, config_in

F32_BITS = 32
DTYPES = {"bfloat16": ("BF16", 16), "float16": ("F16", 16), "float32": ("F32", 32)}
"""Names of config files: as safetensors has them, and bits."""
ASSUMED = "bfloat16"
MXFP4_BITS = 4.25
"""Four bits a weight and an 8-bit scale for every 32 (OCP Microscaling Formats v1.0)."""
BF16_BYTES = BF16_BITS // 8


@dataclass(frozen=True, slots=True)
class Description:
    """A model by its config, and by its tensors where they are there.

    Attributes:
        model_type: architecture, as transformers calls it.
        shape: sizes of the model.
        layers: of the model, with experts or without.
        moe_layers: numbers of the layers that have experts, rising.
        dtype: in which the experts are stored: BF16, F16, F32, FP8 or MXFP4.
        checked: whether the sizes and bits of the experts are those of tensors.
        windows: how many layers attend to at most so many tokens, by that number.
    """

    model_type: str
    shape: ModelShape
    layers: int
    moe_layers: tuple[int, ...]
    dtype: str
    checked: bool
    windows: dict[int, int]

    @property
    def dense_weights(self) -> int:
        """Weights that every token is multiplied with: all but routed experts and embedding."""
        shape = self.shape
        layer = shape.shared_weights + shape.router_weights
        dense = shape.dense_layers * shape.dense_layer_weights
        return shape.moe_layers * layer + dense + shape.head_weights

    @property
    def dense_flop(self) -> int:
        """FLOPs of a token outside of the routed experts, a multiply-add counting 2.

        Without attention to other tokens, which is `attention_flop`.
        """
        return 2 * self.dense_weights

    @property
    def expert_flop(self) -> int:
        """FLOPs of a token in the routed experts of all layers."""
        return 2 * self.shape.moe_layers * self.shape.top_k * self.shape.expert_weights

    @property
    def attention_flop(self) -> int:
        """FLOPs of a token for each token that it attends to in all layers."""
        return self.layers * self.shape.attention.flop_a_pair

    @property
    def kv_bytes(self) -> int:
        """Bytes that a token leaves in the cache of all layers, in bf16."""
        return self.layers * self.shape.attention.cached * BF16_BYTES

    @property
    def windowed_kv_bytes(self) -> int:
        """Of `kv_bytes`, those of layers that keep no more tokens than their window."""
        return sum(self.windows.values()) * self.shape.attention.cached * BF16_BYTES


def describe(path: Path) -> Description:
    """Describe a model. Nothing is downloaded, and no code of a checkpoint is run.

    Args:
        path: a folder with `config.json`, or such a file. Where the folder has safetensors files,
            the sizes and bits of the experts are theirs, and must be those of the config.

    Raises:
        InputError: no such file, an architecture that offsim does not know, one without routed
            experts, or tensors that are not those of the config.
        FormatError: a config that transformers refuses, or with sizes that are not positive.
    """
    file = path / CONFIG if path.is_dir() else path
    config = _config(file)
    family = FAMILIES[config.model_type]
    tensors = path.is_dir() and any(path.glob("*.safetensors*"))
    experts = CheckpointExperts(Shards(path)) if tensors else None
    try:
        found = _described(file, config, family, experts)
    except ValidationError as error:
        raise FormatError(f"{file}: {first_problem(error)}") from error
    except (AttributeError, TypeError, ZeroDivisionError) as error:
        raise FormatError(f"{file}: a field is missing or no number ({error})") from error
    return found


def _config(file: Path) -> PretrainedConfig:
    """The config as transformers has it.

    Raises:
        InputError: it cannot be read, or is of no architecture with experts that offsim knows.
        FormatError: transformers refuses it.
    """
    fields = config_in(file)
    kind = fields.get("model_type")
    if kind not in FAMILIES:
        inner = fields.get("text_config")
        hint = "; it has a text_config, whose model is not read" if isinstance(inner, dict) else ""
        raise InputError(
            f"{file}: model_type is {kind!r}, of which offsim knows no routed experts{hint}; it "
            f"knows {', '.join(FAMILIES)}"
        )
    try:
        config: PretrainedConfig = CONFIG_MAPPING[kind].from_dict(fields)
    except (StrictDataclassError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise FormatError(f"{file}: transformers refuses it: {reason}") from error
    return config


def _described(
    file: Path, config: PretrainedConfig, family: Family, experts: CheckpointExperts | None
) -> Description:
    layers = config.num_hidden_layers
    sparse = tuple(layer for layer in range(layers) if family.sparse(config, layer))
    if not sparse or not getattr(config, family.experts):
        raise InputError(
            f"{file}: {family.experts} is {getattr(config, family.experts)} and {len(sparse)} of "
            f"{layers} layers may have experts; offsim describes models with routed experts"
        )
    width, shared = getattr(config, family.width), family.shared_width(config)
    if shared % width:
        raise InputError(
            f"{file}: what serves every token is {shared} wide, which is no whole number of "
            f"experts of {width}; no model file can say that"
        )
    dtype, expert_bits, dense_bits = _stored(file, config)
    if experts is not None:
        dtype, expert_bits = experts.stored_as, 8 * experts.stored_bytes / experts.shape.values
    each = (window_of(config, layer) for layer in range(layers))
    windows = Counter(window for window in each if window is not None)
    shape = ModelShape(
        title=file.resolve().parent.name,
        config=str(file),
        total_parameters=Sourced(value=1.0, source=f"computed from {CONFIG}"),
        vocabulary=config.vocab_size,
        tied=bool(config.tie_word_embeddings),
        hidden=config.hidden_size,
        dense_layers=layers - len(sparse),
        dense_width=config.intermediate_size if len(sparse) < layers else 0,
        moe_layers=len(sparse),
        experts=getattr(config, family.experts),
        top_k=config.num_experts_per_tok,
        expert_width=width,
        shared_experts=shared // width,
        attention=family.attention(config),
        expert_bits=expert_bits,
        dense_bits=dense_bits,
        sigma=None,
        note=" ".join(_notes(config, family, sparse, windows)),
    )
    if experts is not None:
        _check(file, sparse, shape, experts)
    total = Sourced(value=shape.parameters, source=f"sum over the sizes in {CONFIG}")
    return Description(
        model_type=config.model_type,
        shape=shape.model_copy(update={"total_parameters": total}),
        layers=layers,
        moe_layers=sparse,
        dtype=dtype,
        checked=experts is not None,
        windows=dict(windows),
    )


def _stored(file: Path, config: PretrainedConfig) -> tuple[str, float, float]:
    """How experts are stored, in words and bits a weight, and the bits of the dense weights.

    Raises:
        InputError: in a way whose bits offsim does not know.
    """
    plain = str(config.dtype or ASSUMED).removeprefix("torch.")
    if plain not in DTYPES:
        raise InputError(f"{file}: dtype is {plain}; offsim knows {', '.join(DTYPES)}")
    name, bits = DTYPES[plain]
    how = getattr(config, "quantization_config", None)
    if not how:
        return name, bits, bits
    method = how.get("quant_method") if isinstance(how, dict) else how
    if method == "mxfp4":
        return "MXFP4", MXFP4_BITS, bits
    if method == "fp8":
        rows, columns = block_of(file, how.get("weight_block_size") or BLOCK)
        scaled = 8 + F32_BITS / (rows * columns)
        return "FP8", scaled, scaled
    raise InputError(
        f"{file}: its weights are quantised by {method}, whose bits offsim does not know; it knows "
        "fp8 and mxfp4, so give the checkpoint that it was made from"
    )


def _notes(
    config: PretrainedConfig, family: Family, sparse: tuple[int, ...], windows: Mapping[int, int]
) -> Iterator[str]:
    """What a reader of the numbers must know, a sentence each."""
    layers = config.num_hidden_layers
    if family.biased:
        yield "Biases are left out."
    if getattr(config, "num_nextn_predict_layers", None):
        yield "Layers for multi-token prediction are left out."
    if sparse != tuple(range(layers - len(sparse), layers)):
        yield "Layers without experts are not all before the others; they are counted as if so."
    for window, count in sorted(windows.items()):
        yield f"{count} of {layers} layers attend to at most {window} tokens."
    if config.dtype is None:
        yield f"The config names no dtype; {ASSUMED} is assumed."


def _check(
    file: Path, sparse: tuple[int, ...], shape: ModelShape, experts: CheckpointExperts
) -> None:
    """Refuse tensors that are not those of the config.

    Raises:
        InputError: a number differs.
    """
    there = experts.shape
    for what, said, found in (
        ("layers with experts", list(sparse), list(experts.layer_numbers)),
        ("experts a layer", shape.experts, there.experts),
        ("hidden", shape.hidden, there.hidden),
        ("expert width", shape.expert_width, there.width),
    ):
        if said != found:
            raise InputError(
                f"{file}: {what}: {said} in the config, {found} in the tensors beside it; they are "
                "not of one checkpoint"
            )
