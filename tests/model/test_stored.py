import pytest
import torch

from offsim.model.stored import LAYOUTS, Named, StoredAs

GATE, UP, DOWN = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0)).unbind()
DOWN = DOWN.t().contiguous()  # [4, 6]: width 6, hidden 4
BOTH = torch.cat([GATE, UP])
TURNS = torch.stack([GATE, UP], 1).flatten(0, 1)
PARTS = {
    "gate_proj, up_proj and down_proj of each expert": [GATE, UP, DOWN],
    "w1, w3 and w2 of each expert": [GATE, UP, DOWN],
    "gate_up_proj and down_proj of all experts, transposed, gate and up interleaved": [
        TURNS.t(),
        DOWN.t(),
    ],
    "gate_up_proj and down_proj of all experts in MXFP4, gate and up interleaved": [TURNS, DOWN],
    "gate_up_proj and down_proj of all experts": [BOTH, DOWN],
    "input_linear and output_linear of all experts": [BOTH, DOWN],
}
EACH_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.title)


@EACH_LAYOUT
def test_matrices_are_as_offsim_has_them(layout: StoredAs) -> None:
    found = list(layout.matrices(list(PARTS[layout.title])))
    assert all(matrix.is_contiguous() for matrix in found)
    for matrix, expected in zip(found, (GATE, UP, DOWN), strict=True):
        assert torch.equal(matrix, expected)


@EACH_LAYOUT
def test_a_layer_is_in_one_layout(layout: StoredAs) -> None:
    names = [*layout.names, layout.beside] if layout.beside else [*layout.names]
    assert next(one for one in LAYOUTS if one.fits([*names, "gate.weight"])) is layout
    assert not layout.fits(names[1:])
    assert layout.stacked == (len(layout.names) == 2)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (
            "model.layers.3.mlp.experts.12.up_proj.weight",
            Named(3, "model.layers.3.mlp.", "experts.{}.up_proj.weight", 12),
        ),
        (
            "model.layers.10.block_sparse_moe.input_linear.weight",
            Named(10, "model.layers.10.block_sparse_moe.", "input_linear.weight", 0),
        ),
        (
            "model.language_model.layers.0.mlp.experts.gate_up_proj",
            Named(0, "model.language_model.layers.0.mlp.", "experts.gate_up_proj", 0),
        ),
        ("layers.0.mlp.gate.weight", Named(0, "layers.0.mlp.", "gate.weight", 0)),
        ("mtp.layers.0.mlp.experts.0.up_proj.weight", None),
        ("model.mtp.layers.0.mlp.experts.0.up_proj.weight", None),
        ("model.embed_tokens.weight", None),
        ("model.layers.x.mlp.gate.weight", None),
    ],
)
def test_what_the_name_of_a_tensor_says(name: str, found: Named | None) -> None:
    assert Named.of(name) == found
