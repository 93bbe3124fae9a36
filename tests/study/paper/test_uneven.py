import copy

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from offsim.accuracy import Places
from offsim.errors import InputError
from offsim.study.paper import uneven as measured
from offsim.study.paper.sizes import blob_bytes
from offsim.study.paper.uneven import TIGHTER, table_bytes, tight_scopes, uneven_of

USAGE = np.array([[1, 9]])


@pytest.fixture
def larger(tiny_model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> PreTrainedModel:
    """One layer of two Gaussian experts, large enough for the headers of blobs not to count."""
    monkeypatch.setattr(measured, "ALPHAS", (0.3,))
    monkeypatch.setattr(measured, "LOG2_STEP", 0.02)
    config = copy.copy(tiny_model.config)
    config.num_hidden_layers, config.num_experts, config.moe_intermediate_size = 1, 2, 1024
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return type(tiny_model)(config).eval()


def test_two_bounds_have_the_size_of_one(larger: PreTrainedModel) -> None:
    found = uneven_of(larger, "0" * 16, USAGE)
    assert [table.name for table in found.tables] == list(tight_scopes(2))
    for table in found.tables:
        assert table.uniform_bytes == blob_bytes(larger, "cuszp", 0.3)
        assert table.bytes == pytest.approx(table.uniform_bytes, rel=0.02)
        assert table.tight == pytest.approx(0.3 * TIGHTER)
        assert table.loose > 0.3
        at = table.scope.mask(Places(1, 2, USAGE))
        assert table.bytes == table_bytes(larger, np.where(at, table.tight, table.loose))
    loose = {table.name: table.loose for table in found.tables}
    # What is more in two of three matrices is much less in the third, and the other way round.
    one, two = loose["gate and up tight, down loose"], loose["down tight, gate and up loose"]
    assert two < loose["hot tight, cold loose"] < one


def test_the_hot_half_is_the_more_used_one(larger: PreTrainedModel) -> None:
    hot = uneven_of(larger, "0" * 16, USAGE).tables[0]
    assert hot.scope.mask(Places(1, 2, USAGE))[0].all(1).tolist() == [False, True]


def test_a_size_out_of_reach_is_told(
    larger: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "LOG2_ALPHAS", (-9.0, -4.0))
    with pytest.raises(InputError, match="hot tight, cold loose: no loose bound makes it as large"):
        uneven_of(larger, "0" * 16, USAGE)
