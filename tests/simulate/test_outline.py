"""Where one plan serves every table of bounds."""

import pytest

from offsim.policy.policy import Policy
from offsim.simulate.layered import apart
from offsim.simulate.outline import counts_bytes


@pytest.mark.parametrize(
    ("fields", "counts", "alone"),
    [
        ({}, False, True),
        ({"cache": "s3-fifo", "host_tokens": 2}, False, True),
        ({"prefetch": "oracle", "prefetch_bytes": 9}, True, False),
        ({"keep": "both"}, True, True),
        ({"keep": "both", "scope": "global"}, True, False),
        ({"host_bytes": 1}, True, False),
    ],
)
def test_where_bytes_decide(fields: dict[str, object], counts: bool, alone: bool) -> None:
    policy = Policy.model_validate(fields)
    assert (counts_bytes(policy), apart(policy)) == (counts, alone)
