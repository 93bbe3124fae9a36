import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from offsim.accuracy import Questions, WeightError, difference, holm, injected
from offsim.accuracy.harness import export_task
from offsim.codec.bounds import Bound
from offsim.testbed.load import CHECKPOINT, load
from offsim.trace import save_trace
from tests.builders import TOY

from .test_cli import run

NOISE = ("--error", "uniform", "--bound", "sigma:0.75", "--seeds", "2")


def evaluated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, Any]:
    assert run(monkeypatch, "evaluate", *arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a task for the harness, whose data stays in the folder of the test."""
    why = "needs the extra eval: pip install 'offsim[eval]'"
    pytest.importorskip("lm_eval.evaluator", reason=why, exc_type=ImportError)
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    export_task(tmp_path, "add", 12)
    return tmp_path


def test_accuracy_is_paired_item_by_item(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(monkeypatch, capsys, "--tasks", "add,chain", "--items", "12", *NOISE)
    assert (found["label"], found["seeds"]) == ("MEASURED", 2)
    assert found["error"]["source"] == "uniform"
    model = load()
    questions = Questions(model, 12, tasks=["add", "chain"])
    after = []
    for seed in range(2):
        error = WeightError(source="uniform", bound=Bound(0.75, "sigma"), seed=seed)
        with injected(model, error):
            after.append(questions.ask(model))
    for name, tasks in {"add": ["add"], "chain": ["chain"], "all": ["add", "chain"]}.items():
        shown = found["tasks"][name]["ica"]
        before = questions.unperturbed.ica(*tasks)
        own = difference(before, [one.ica(*tasks) for one in after])  # type: ignore[arg-type]
        assert shown["before"]["mean"] == before.mean()
        assert (shown["change"]["mean"], shown["change"]["low"]) == (own.mean, own.low)
        assert len(shown["worse"]) == 2
        assert 0 < shown["detectable"] <= 1
    assert found["tasks"]["all"]["ica"]["change"]["mean"] < 0
    of_tasks = [found["tasks"][name]["ica"] for name in ("add", "chain")]
    corrected = holm([one["mcnemar_p"] for one in of_tasks])
    assert [one["mcnemar_p_holm"] for one in of_tasks] == corrected.tolist()
    assert "mcnemar_p_holm" not in found["tasks"]["all"]["ica"]  # one test of its own


def test_without_an_error_the_model_is_measured_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(monkeypatch, capsys, "--tasks", "copy", "--items", "5")
    assert found["error"] is None
    assert set(found["tasks"]) == {"copy"}
    assert set(found["tasks"]["copy"]["pia"]) == {"before"}
    assert run(monkeypatch, "evaluate", "--tasks", "copy", "--items", "5") == 0
    shown = capsys.readouterr().out
    assert "ICA without an error [MEASURED]" in shown
    assert "McNemar" not in shown


def test_tables_say_what_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--tasks", "add,add", "--items", "5", "--codec", "cuszp", "--bound", "0.03125")
    assert run(monkeypatch, "evaluate", *asked, "--scope", "layers: 0-2") == 0
    shown = capsys.readouterr().out
    assert "PIA without an error and with codec:cuszp 0.03125 in layers:0-2 [MEASURED]" in shown
    assert "detectable" in shown
    assert "not corrected for their number" in " ".join(shown.split())
    assert "all" not in shown.split("MEASURED")[1].split("PIA")[0], "one task needs no sum"


def test_a_codec_without_a_bound_and_a_scope_by_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = Path(__file__).parents[2] / "traces" / "embedded.safetensors"
    asked = ("--codec", "rtn-int4", "--scope", "top2:layer:0", "--trace", str(trace))
    found = evaluated(monkeypatch, capsys, "--tasks", "copy", "--items", "5", *asked)
    assert found["seeds"] == 1
    assert found["error"] == {
        "format": "offsim-weight-error",
        "version": 1,
        "source": "codec:rtn-int4",
        "bound": None,
        "scope": "top2:layer:0",
    }


def test_the_harness_gives_what_own_tasks_give(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    own = evaluated(monkeypatch, capsys, "--tasks", "add", "--items", "12", *NOISE)
    task = str(data / "add.yaml")
    found = evaluated(monkeypatch, capsys, "--harness", task, *NOISE)
    assert (found["label"], found["seeds"]) == ("MEASURED", 2)
    for row, score in zip(found["metrics"], ("ica", "pia"), strict=True):
        expected = own["tasks"]["add"][score]
        assert (row["metric"], row["filter"], row["items"]) == ("exact_match", score, 12)
        assert row["change"] == expected["change"]
        assert row["mcnemar_p"] == expected["mcnemar_p"]
        assert expected["mcnemar_p_holm"] == expected["mcnemar_p"]  # of one task
        assert row["mcnemar_p_holm"] == pytest.approx(min(1, 2 * row["mcnemar_p"]))  # of two
        assert row["before"] == expected["before"]["mean"]
        assert sum(row["after"]) / 2 == pytest.approx(expected["after"]["mean"])
    asked = ("--harness", "offsim_add", "--include-path", str(data), "--items", "3")
    assert run(monkeypatch, "evaluate", *asked, *NOISE) == 0
    shown = capsys.readouterr().out
    assert "lm-evaluation-harness without an error and with uniform sigma:0.75 in all" in shown
    assert "exact_match, ica" in shown
    assert "[MEASURED]" in shown


def test_the_harness_without_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    assert run(monkeypatch, "evaluate", "--harness", str(data / "add.yaml")) == 0
    assert "lm-evaluation-harness without an error [MEASURED]" in capsys.readouterr().out


def test_a_model_of_the_user_needs_its_tokenizer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    shutil.copytree(CHECKPOINT, data / "model")
    asked = ("--harness", str(data / "add.yaml"), "--model", str(data / "model"))
    assert run(monkeypatch, "evaluate", *asked) == 2
    assert "model: no tokenizer (tokenizer.json) in this folder" in capsys.readouterr().err
    config = json.loads((CHECKPOINT / "config.json").read_text())
    (data / "model" / "config.json").write_text(json.dumps({**config, "model_type": "new"}))
    assert run(monkeypatch, "evaluate", *asked) == 2
    assert "model: the model cannot be loaded: " in capsys.readouterr().err


def test_a_model_of_the_user_answers_as_the_embedded_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    from tests.accuracy.test_harness import characters

    shutil.copytree(CHECKPOINT, data / "model")
    characters().save_pretrained(data / "model")
    asked = ("--harness", str(data / "add.yaml"), "--codec", "cuszp", "--bound", "0.0625")
    own = evaluated(monkeypatch, capsys, *asked)
    theirs = evaluated(monkeypatch, capsys, *asked, "--model", str(data / "model"))
    assert [row["before"] for row in theirs["metrics"]] == [row["before"] for row in own["metrics"]]
    assert [row["items"] for row in theirs["metrics"]] == [12, 12]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--tasks add,multiply", "no task is called 'multiply'; there are add, sub"),
        ("--bound 0.1", "--bound is of an error; give --codec or --error too"),
        ("--scope all --seeds 2", "--scope, --seeds is of an error"),
        ("--error laplace --bound 0.1", "no error is called 'laplace'"),
        ("--error uniform", "uniform needs a size; give --bound"),
        ("--error uniform --bound -1", "an error bound is a positive number, not -1"),
        ("--codec zip --bound 1", "no codec is called 'zip'"),
        ("--codec sz3", "codec:sz3 needs a size; give --bound"),
        ("--codec rtn-int4 --bound 0.1", "codec:rtn-int4 takes no bound"),
        ("--codec sz3 --bound 0.1 --seeds 3", "draws nothing, so all seeds are the same"),
        ("--codec sz3 --error normal --bound 1", "exclude each other"),
        ("--error normal --bound 1 --scope layer:9", "the model has layers 0 to 8"),
        ("--error normal --bound 1 --scope here", "'here' is no scope"),
        ("--error normal --bound 1 --scope top2:all", "needs the usage of experts"),
        ("--error normal --bound 1 --trace none", "none: no such trace file"),
        ("--error normal --bound 1 --trace {toy}", "record a trace of this model"),
        ("--include-path .", "--include-path and --model are of the harness"),
        ("--harness x --tasks add", "--tasks and --seed are of the embedded tasks"),
        ("--harness x --model {here}", "no model (config.json, *.safetensors) in this folder"),
    ],
)
def test_wrong_input(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: str,
    says: str,
) -> None:
    save_trace(TOY, tmp_path / "toy.safetensors")
    given = arguments.format(toy=tmp_path / "toy.safetensors", here=tmp_path)
    assert run(monkeypatch, "evaluate", *given.split()) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert len(shown.err.strip().splitlines()) == 1
    assert shown.out == ""


def test_tasks_that_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    assert run(monkeypatch, "evaluate", "--harness", str(data / "sub.yaml")) == 2
    shown = capsys.readouterr()
    assert "sub.yaml: no such file, and no task of lm-evaluation-harness" in shown.err
    assert shown.out == ""


def test_help_has_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "evaluate", "--help") == 0
    assert "Example: offsim evaluate" in capsys.readouterr().out
