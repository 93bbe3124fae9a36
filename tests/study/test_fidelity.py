"""The experiment that judges predictions."""

from pathlib import Path

import pandas as pd
import pytest

from offsim.errors import FormatError
from offsim.study import fidelity as experiment
from offsim.study.calibrate import Effort
from offsim.study.design import POLICIES, Part
from offsim.study.fidelity import collected, fidelity, judged, table_path
from offsim.study.subject import DrivenSubject
from offsim.testbed.generated import generated_model
from tests.builders import foreseen, trace_of

METRICS = ("ttft", "tpot", "itl_p95", "throughput")


def row(part: str, simulated: float, measured: float, noise: float = 0.0) -> dict[str, object]:
    made: dict[str, object] = {
        "part": part,
        "repetition": 1,
        "codec": "raw",
        "bound": 0.0,
        "cache": "lru",
        "slots": 2,
        "prefetch": "none",
        "distance": 1,
        "chunk_bytes": 0,
        "tpot_noise": noise,
        "decisions_equal": True,
        "tokens_equal": True,
    }
    for metric in METRICS:
        made |= {f"{metric}_simulated": simulated, f"{metric}_measured": measured}
        made |= {f"{metric}_error": simulated / measured - 1}
        made |= {f"{metric}_low": 0.9 * simulated, f"{metric}_high": 1.1 * simulated}
    for name in ("bytes", "prefetch_bytes", "wasted_bytes"):
        made |= {f"{name}_simulated": 5, f"{name}_measured": 5}
    return made


def test_errors_order_and_bands_are_counted() -> None:
    rows = [row("a", 1.0, 1.0), row("a", 2.1, 2.0), row("b", 4.0, 2.0), row("b", 3.0, 2.5)]
    facts = judged(pd.DataFrame(rows))
    assert facts["errors"]["tpot"]["worst"] == 1.0  # type: ignore[index]
    assert facts["errors"]["tpot"]["median"] == pytest.approx((0.05 + 0.2) / 2)  # type: ignore[index]
    assert facts["groups"] == 2
    assert facts["best_named"] == 0.5
    assert facts["kendall_tau"] == 0.0  # one part in order, one reversed
    assert facts["kendall_tau_least"] == -1.0
    assert facts["covered"] == dict.fromkeys(METRICS, 0.5)
    assert facts["parts"]["a"]["covered"] == dict.fromkeys(METRICS, 1.0)  # type: ignore[index]


def test_what_the_noise_hides_is_not_held_against_the_prediction() -> None:
    rows = [row("b", 4.0, 2.0, 0.3), row("b", 3.0, 2.5, 0.3), row("b", 9.0, 8.0, 0.3)]
    facts = judged(pd.DataFrame(rows))
    assert facts["best_named"] == 1.0
    assert facts["kendall_tau"] == 1.0


def test_a_decision_or_byte_that_differs_is_told() -> None:
    table = pd.DataFrame([row("a", 1.0, 1.0), row("a", 2.0, 2.0)])
    assert judged(table)["bytes_equal"]
    table.loc[1, "wasted_bytes_measured"] = 6
    assert not judged(table)["bytes_equal"]


def tiny() -> DrivenSubject:
    steps = [[[n % 4, (n + 1 + layer) % 4] for layer in range(3)] for n in range(9)]
    steps = [[[a, b if a != b else (b + 1) % 4] for a, b in layers] for layers in steps]
    model = generated_model((3, 4, 16, 16))
    return DrivenSubject(model, foreseen(trace_of(steps), 2))


TINY = Part("tiny", (("raw", 0.0), ("cuszp", 2.0**-8)), tiny, Effort(3, 1, 4, 2), 1, 6, 1)


def test_a_part_is_run_for_real_and_its_decisions_are_those_predicted(tmp_path: Path) -> None:
    table, facts = fidelity(tmp_path, 1, parts=[TINY])
    assert len(table) == POLICIES
    assert facts["decision_logs_equal"]
    assert facts["bytes_equal"]
    assert facts["covered"] is not None
    assert {path.name for path in (tmp_path / "repetitions").iterdir()} == {
        "tiny-1.csv",
        "tiny-1.yaml",
    }


def test_what_is_there_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    def checked(one: Part, number: int, *_: object) -> pd.DataFrame:
        if number == 1 and len(done) == 1:
            done.append(-1)
            raise KeyboardInterrupt
        done.append(number)
        return pd.DataFrame([row(one.name, 1.0, 1.0), row(one.name, 2.0, 2.0)])

    monkeypatch.setattr(experiment, "checked", checked)
    slept: list[float] = []
    with pytest.raises(KeyboardInterrupt):
        fidelity(tmp_path, 3, parts=[TINY])
    assert table_path(tmp_path, "tiny", 0).exists()
    table, _ = fidelity(tmp_path, 3, 100.0, [TINY], sleep=slept.append)
    assert done == [0, -1, 1, 2]
    assert len(table) == 6
    assert [90 < seconds <= 100 for seconds in slept] == [True]


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no table"):
        collected(tmp_path)
    path = table_path(tmp_path, "tiny", 0)
    path.parent.mkdir()
    path.write_text("a,b\n1,2\n")
    with pytest.raises(FormatError, match=r"tiny-1\.csv: it lacks the column part"):
        collected(tmp_path)
