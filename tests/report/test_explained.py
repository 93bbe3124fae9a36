from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from offsim.report.explained import explained_figure
from offsim.report.style import png
from offsim.study.explain import Explained, Split, explain
from tests.study.cases import case


@pytest.fixture(scope="module")
def found() -> Explained:
    return explain(case())


def drawn(figure: Figure) -> tuple[list[float], list[float]]:
    """The widths of the bars above and below, ms."""
    above, below = figure.axes
    return (
        [bar.get_width() for bar in above.patches],
        [bar.get_width() for bar in below.patches],
    )


def test_the_parts_add_up_and_every_answer_has_a_bar(found: Explained) -> None:
    figure = explained_figure(found, "raw, lru 1")
    parts, saved = drawn(figure)
    assert sum(parts) == pytest.approx(1e3 * found.policy.tpot_s)
    assert saved == pytest.approx([1e3 * one.saved_s for one in (*found.changes, found.foresight)])
    assert figure.get_suptitle() == "Where a token's time goes: raw, lru 1"
    assert png(figure) == png(explained_figure(found, "raw, lru 1"))


def test_a_policy_that_beats_belady_leads_back(found: Explained) -> None:
    split = Split(compute_s=1.0, compulsory_s=0.5, capacity_s=2.0, policy_s=-0.5)
    figure = explained_figure(replace(found, split=split), "x")
    assert drawn(figure)[0] == pytest.approx([1000, 500, 2000, -500])
    assert png(figure).startswith(b"\x89PNG")


def test_nothing_helps(found: Explained) -> None:
    same = [replace(one, tpot_s=one.before_s) for one in found.changes]
    ahead = replace(found.foresight, with_s=found.foresight.without_s)
    figure = explained_figure(replace(found, changes=same, foresight=ahead), "x")
    assert drawn(figure)[1] == [0, 0, 0, 0]
