"""The experts of a checkpoint folder, one at a time and without loading the model."""

import math
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from offsim.errors import InputError
from offsim.model.experts import ExpertShape
from offsim.model.quantised import BLOCK, PER_BYTE, block_of, from_fp8, from_mxfp4
from offsim.model.shards import CONFIG, Place, Shards
from offsim.model.stored import LAYOUTS, Named, StoredAs

FLOAT_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
"""Dtypes that offsim compresses, and the bytes of a weight."""
FP8, MXFP4 = "F8_E4M3", "U8"
SCALES = "_scale_inv"
"""After the name of an FP8 weight: the scales of its blocks."""
PACKED = {FP8: "FP8", MXFP4: "MXFP4"}
"""Dtypes that are read as bf16, with the name of the format."""
BF16_BYTES = 2


@dataclass(frozen=True, slots=True)
class _Block:
    """The part of a layer that has its experts.

    Attributes:
        prefix: of the names of its tensors.
        layout: how they are stored.
        experts: how many.
    """

    prefix: str
    layout: StoredAs
    experts: int

    def names(self, expert: int) -> list[str]:
        """Of the tensors that hold the weights of an expert."""
        return [self.prefix + name.format(expert) for name in self.layout.names]


class CheckpointExperts:
    """The experts of a checkpoint; fulfils `offsim.model.experts.Experts`.

    Made by `open_experts`. A read keeps nothing, so several threads may read at once.

    Attributes:
        folder: of the checkpoint.
        shape: of the experts; weights in FP8 or MXFP4 count as the bf16 that they are read as.
        layout: how they are stored.
        layer_numbers: of the layers that have experts, rising; MoE layer 0 is the first of them.
        stored_bytes: of one expert in the files, with the scales of its weights.
        stored_as: BF16, F16, F32, FP8 or MXFP4.
        packed: whether that is FP8 or MXFP4, so that reading gives more bits than are stored.
    """

    def __init__(self, shards: Shards) -> None:
        self.folder = shards.folder
        self._shards = shards
        self._fp8_block = _fp8_block(shards)
        found = _blocks(shards)
        self.layer_numbers = tuple(found)
        self._blocks = list(found.values())
        first = self._blocks[0]
        self.layout = first.layout
        stored = self._check_alike()
        self.stored_bytes = sum(_bytes(place, self.layout.stacked) for place in stored)
        dtype = stored[0].dtype
        self.packed = dtype in PACKED
        self.stored_as = PACKED.get(dtype, dtype)
        hidden, width = self._sizes(stored[: len(self.layout.names)])
        self.shape = ExpertShape(
            len(found), first.experts, hidden, width, FLOAT_BYTES.get(dtype, BF16_BYTES)
        )

    def identity(self, layer: int, expert: int) -> Hashable:
        """Every expert is its own."""
        return layer, expert

    def matrices(self, layer: int, expert: int) -> tuple[torch.Tensor, ...]:
        """Gate [width, hidden], up [width, hidden] and down [hidden, width].

        Contiguous, in memory of their own, in the stored dtype; bf16 where that is FP8 or MXFP4.

        Args:
            layer: index of the MoE layer.
            expert: of it.

        Raises:
            InputError: a file cannot be read any more.
        """
        return tuple(self.each_matrix(layer, expert))

    def each_matrix(self, layer: int, expert: int) -> Iterator[torch.Tensor]:
        """The same, each read when it is asked for; who drops one before has memory for the next.

        Raises:
            InputError: a file cannot be read any more.
        """
        names = self._blocks[layer].names(expert)
        return self.layout.matrices(self._weights(name, expert) for name in names)

    @property
    def note(self) -> str:
        """What a reader of results must know of these weights; empty where there is nothing."""
        if not self.packed:
            return ""
        bits = 8 * self.stored_bytes / self.shape.values
        return (
            f"{self.folder}: its experts are stored in {self.stored_as}, {bits:.3g} bits a weight, "
            "and are read as bf16; such weights leave little to compress, and a ratio against "
            f"bf16 is not one against the file ({self.stored_bytes} bytes an expert)"
        )

    def _weights(self, name: str, expert: int) -> torch.Tensor:
        """A 2-D tensor of an expert, not packed any more."""
        part = expert if self.layout.stacked else None
        stored = self._shards.read(name, part)
        scales = _scales_of(name, self._shards.tensors[name].dtype)
        if scales is None:
            return stored
        if self.stored_as == "MXFP4":
            return from_mxfp4(stored, self._shards.read(scales, part))
        return from_fp8(stored, self._shards.read(scales, part), self._fp8_block)

    def _check_alike(self) -> list[Place]:
        """Places of the weights, then of the scales, of the first expert: all are the same.

        Raises:
            InputError: a tensor is missing or differs, or is of a dtype that cannot be read.
        """
        first = self._blocks[0]
        expected: list[Place] = []
        for block in self._blocks:
            if block.layout is not first.layout or block.experts != first.experts:
                raise InputError(
                    f"{self.folder}: {first.prefix}* has {first.experts} experts as "
                    f"{first.layout.title}, {block.prefix}* {block.experts} as "
                    f"{block.layout.title}; offsim reads models whose layers are alike"
                )
            for expert in range(1 if block.layout.stacked else block.experts):
                names = block.names(expert)
                scales = [_scales_of(name, self._weights_at(name).dtype) for name in names]
                names += [name for name in scales if name is not None]
                places = [self._place(name) for name in names]
                expected = expected or places
                for name, place, other in zip(names, places, expected, strict=True):
                    if (place.shape, place.dtype) != (other.shape, other.dtype):
                        raise InputError(
                            f"{place.file}: {name} is {place.dtype} {list(place.shape)}, that of "
                            f"the first expert {other.dtype} {list(other.shape)}; offsim reads "
                            "models whose experts are alike"
                        )
        return expected

    def _place(self, name: str) -> Place:
        """Where a tensor is.

        Raises:
            InputError: it is not there.
        """
        place = self._shards.tensors.get(name)
        if place is None and name.endswith(SCALES):
            raise InputError(
                f"{self.folder}: no file has the scales {name}; offsim reads FP8 with scales of "
                "blocks, so get all of its files, or the checkpoint that it was made from"
            )
        if place is None:
            raise InputError(f"{self.folder}: no file has the tensor {name}; download it again")
        return place

    def _weights_at(self, name: str) -> Place:
        """Where weights are.

        Raises:
            InputError: they are not there, or stored in a way that offsim does not read.
        """
        place = self._place(name)
        if place.dtype in FLOAT_BYTES or _scales_of(name, place.dtype) is not None:
            return place
        raise InputError(
            f"{place.file}: {name} is stored as {place.dtype}; offsim reads "
            f"{', '.join(FLOAT_BYTES)}, FP8 and MXFP4, so use the checkpoint that it was made from"
        )

    def _sizes(self, stored: Sequence[Place]) -> tuple[int, int]:
        """Hidden and width.

        Raises:
            InputError: the tensors of an expert do not fit each other.
        """
        shapes = [place.shape[1:] if self.layout.stacked else place.shape for place in stored]
        if self.stored_as == "MXFP4":
            shapes = [(*shape[:-2], math.prod(shape[-2:]) * PER_BYTE) for shape in shapes]
        if self.layout.transposed:
            shapes = [shape[::-1] for shape in shapes]
        if len(shapes[-1]) == 2 and len({place.dtype for place in stored}) == 1:
            hidden, width = shapes[-1]
            gates = [(2 * width, hidden)] if len(shapes) == 2 else [(width, hidden)] * 2
            if shapes == [*gates, (hidden, width)]:
                return hidden, width
        found = ", ".join(f"{place.dtype} {list(place.shape)}" for place in stored)
        raise InputError(
            f"{stored[0].file}: {self.layout.title} are {found}, which do not fit each other"
        )


def open_experts(folder: Path) -> CheckpointExperts:
    """The experts of a checkpoint folder. Only the headers of its files are read.

    Args:
        folder: safetensors files as transformers or the maker of the model wrote them, with
            `config.json`, which says how many layers there are.

    Raises:
        InputError: no safetensors file, one that is damaged, cut or missing, no experts, or
            experts stored in a way that offsim does not read.
        FormatError: the index or the config is not as transformers writes it.

    Warns:
        UserWarning: the weights are in FP8 or MXFP4, which leaves little to compress.
    """
    experts = CheckpointExperts(Shards(folder))
    if experts.note:
        warnings.warn(experts.note, stacklevel=2)
    return experts


def _blocks(shards: Shards) -> dict[int, _Block]:
    """The block of each layer that has experts, by the number of the layer, rising."""
    names: dict[tuple[int, str], dict[str, set[int]]] = {}
    layers = _layers(shards.config)
    for name in shards.tensors:
        named = Named.of(name)
        if named is not None and (layers is None or named.layer < layers):
            of_block = names.setdefault((named.layer, named.block), {})
            of_block.setdefault(named.rest, set()).add(named.expert)
    found: dict[int, _Block] = {}
    for (layer, prefix), experts in sorted(names.items()):
        layout = next((layout for layout in LAYOUTS if layout.fits(experts)), None)
        if layout is None:
            continue
        key = layout.names[0]
        if layout.stacked:
            place = shards.tensors[prefix + key]
            if len(place.shape) < 3:  # a shared expert in the same words
                continue
            count = place.shape[0]
        else:
            count = max(experts[key]) + 1
        if layer in found:
            raise InputError(
                f"{shards.folder}: layer {layer} has experts twice, as {found[layer].prefix}* and "
                f"as {prefix}*; offsim reads language models alone"
            )
        found[layer] = _Block(prefix, layout, count)
    if not found:
        raise InputError(_unknown(shards))
    return found


def _unknown(shards: Shards) -> str:
    """Why no experts were found."""
    like = [name for name in shards.tensors if ".experts." in name and "shared" not in name]
    if not like:
        return f"{shards.folder}: no tensor is named like an expert's; it is no MoE checkpoint"
    place = shards.tensors[like[0]]
    how = shards.config.get("quantization_config")
    method = how.get("quant_method") if isinstance(how, dict) else None
    return (
        f"{shards.folder}: its experts are stored in a way that offsim does not read (such as "
        f"{like[0]}, {place.dtype} {list(place.shape)}"
        + (f", quantised by {method}" if method else "")
        + "); there are: "
        + "; ".join(layout.title for layout in LAYOUTS)
    )


def _layers(config: Mapping[str, Any]) -> int | None:
    """Layers of the model; those after them predict later tokens. None where it is not known."""
    inner = config.get("text_config")
    found = (inner if isinstance(inner, dict) else config).get("num_hidden_layers")
    return found if isinstance(found, int) else None


def _fp8_block(shards: Shards) -> tuple[int, int]:
    """Rows and columns under one scale.

    Raises:
        InputError: the config has something else there.
    """
    how = shards.config.get("quantization_config")
    block = how.get("weight_block_size") if isinstance(how, dict) else None
    return BLOCK if block is None else block_of(shards.folder / CONFIG, block)


def _scales_of(name: str, dtype: str) -> str | None:
    """The name of the scales of a tensor; None where its weights are plain."""
    if dtype == FP8:
        return f"{name}{SCALES}"
    if dtype == MXFP4 and name.endswith("_blocks"):
        return f"{name.removesuffix('_blocks')}_scales"
    return None


def _bytes(place: Place, stacked: bool) -> int:
    """Bytes that a tensor holds of one expert."""
    shape = place.shape[1:] if stacked else place.shape
    return math.prod(shape) * FLOAT_BYTES.get(place.dtype, 1)
