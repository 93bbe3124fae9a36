import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedModel

from offsim.accuracy import (
    Questions,
    Texts,
    WeightError,
    difference,
    embedded_texts,
    holm,
    injected,
    pieces,
)
from offsim.accuracy.harness import export_task
from offsim.codec.bounds import Bound
from offsim.testbed.load import CHECKPOINT, load
from offsim.trace import save_trace
from tests.builders import TOY

from .test_cli import run

NOISE = ("--error", "uniform", "--bound", "sigma:0.75", "--seeds", "2", "--sequences", "4")


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
    texts = Texts(model, embedded_texts(4))
    after, read = [], []
    for seed in range(2):
        error = WeightError(source="uniform", bound=Bound(0.75, "sigma"), seed=seed)
        with injected(model, error):
            after.append(questions.ask(model))
            read.append(texts.read(model))
    agreed = difference(np.ones(12), np.array([one.agreed("chain") for one in after]))
    shown = found["tasks"]["chain"]["agreement"]
    assert shown["mean"] == pytest.approx(1 + agreed.mean)
    assert 0 < shown["mean"] < 1
    assert (shown["low"], shown["items"], shown["seeds"]) == (pytest.approx(1 + agreed.low), 12, 2)
    exact = np.mean([one.exact("add", "chain") for one in after])
    assert found["tasks"]["all"]["exact"]["mean"] == pytest.approx(exact)
    shown = found["texts"]
    assert (shown["sequences"], shown["tokens"]) == (4, 128)
    assert shown["perplexity_before"] == pytest.approx(texts.unperturbed.perplexity)
    mean = np.exp(np.mean([one.nll for one in read]))
    assert shown["perplexity"]["low"] < mean < shown["perplexity"]["high"]
    assert shown["perplexity"]["mean"] == pytest.approx(mean)
    assert mean > shown["perplexity_before"]
    kl = difference(np.zeros(4), np.array([one.kl for one in read]))
    assert (shown["kl"]["mean"], shown["kl"]["low"]) == (kl.mean, kl.low)
    assert (shown["kl"]["items"], shown["kl"]["seeds"]) == (4, 2)
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
    assert set(found["tasks"]["copy"]) == {"ica", "pia"}
    assert set(found["tasks"]["copy"]["pia"]) == {"before"}
    assert found["texts"].keys() == {"sequences", "tokens", "perplexity_before"}
    assert 1 < found["texts"]["perplexity_before"] < 128
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
    assert "Greedy answers, shares that are as without an error [MEASURED]" in shown
    title = "Texts without an error and with codec:cuszp 0.03125 in layers:0-2 [MEASURED]"
    assert title in " ".join(shown.split())
    assert "KL, nats a token" in shown
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


@pytest.mark.parametrize(
    "error", ["--error uniform", "--error normal", "--codec sz3", "--codec cuszp"]
)
def test_a_bound_of_zero_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: str
) -> None:
    bound = "sigma:0" if "uniform" in error else "0.0"
    asked = ("--tasks", "chain", "--items", "8", "--sequences", "3", *error.split())
    found = evaluated(monkeypatch, capsys, *asked, "--bound", bound)
    assert found["error"]["bound"] is None
    task, texts = found["tasks"]["chain"], found["texts"]
    for score in ("ica", "pia"):
        assert task[score]["change"]["mean"] == 0
        assert not any(task[score]["worse"] + task[score]["better"])
    assert task["exact"]["mean"] == task["agreement"]["mean"] == 1
    assert texts["kl"]["mean"] == texts["kl"]["high"] == texts["nll_change"]["mean"] == 0
    assert texts["perplexity"]["mean"] == texts["perplexity_before"]


def test_a_bound_of_zero_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--tasks", "copy", "--items", "2", "--sequences", "2", "--error", "normal")
    assert run(monkeypatch, "evaluate", *asked, "--bound", "0", "--seeds", "1") == 0
    assert "ICA without an error and with normal 0 in all [MEASURED]" in capsys.readouterr().out


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


def test_a_text_is_read_by_the_embedded_model_and_by_one_of_the_user(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    from tests.accuracy.test_harness import characters

    lines = "".join(f"{n}+{n}={2 * n};\n" for n in range(100))
    error = WeightError(source="codec:cuszp", bound=Bound(0.0625))

    def expected(model: PreTrainedModel) -> tuple[float, float]:
        texts = Texts(model, pieces([ord(one) for one in "\n" + lines], 64))
        with injected(model, error):
            return texts.unperturbed.perplexity, texts.read(model).mean_kl

    (tmp_path / "text.txt").write_text(lines)
    asked = ("--text", str(tmp_path / "text.txt"), "--codec", "cuszp", "--bound", "0.0625")
    own = evaluated(monkeypatch, capsys, "--tasks", "copy", "--items", "1", *asked)["texts"]
    assert (own["sequences"], own["tokens"]) == ((len(lines) + 1) // 128, 128)
    assert (own["perplexity_before"], own["kl"]["mean"]) == pytest.approx(expected(load()))
    shutil.copytree(CHECKPOINT, tmp_path / "model")
    characters().save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text("\n" + lines)  # the embedded one puts it before the text
    found = evaluated(monkeypatch, capsys, *asked, "--model", str(tmp_path / "model"))
    assert "tasks" not in found
    theirs = found["texts"]
    assert theirs["sequences"] == own["sequences"]
    stored = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto")
    assert (theirs["perplexity_before"], theirs["kl"]["mean"]) == pytest.approx(expected(stored))
    few = evaluated(monkeypatch, capsys, *asked[:2], "--sequences", "2", "--tasks", "copy")
    assert few["texts"]["sequences"] == 2


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
        ("--codec rtn-int4 --bound 0", "codec:rtn-int4 takes no bound"),
        ("--error uniform --bound much:0", "no bound is called 'much'"),
        ("--codec sz3 --bound 0.1 --seeds 3", "draws nothing, so all seeds are the same"),
        ("--codec sz3 --error normal --bound 1", "exclude each other"),
        ("--error normal --bound 1 --scope layer:9", "the model has layers 0 to 8"),
        ("--error normal --bound 1 --scope here", "'here' is no scope"),
        ("--error normal --bound 1 --scope top2:all", "needs the usage of experts"),
        ("--error normal --bound 1 --trace none", "none: no such trace file"),
        ("--error normal --bound 1 --trace {toy}", "record a trace of this model"),
        ("--include-path .", "--include-path is of the harness"),
        ("--model {here}", "--model answers the harness or reads a text; give --harness or --text"),
        ("--model {here} --text x --tasks add", "--tasks and --seed are of the embedded tasks"),
        ("--text none.txt", "none.txt"),
        ("--tasks copy --items 1 --text {here}/other.txt", "other.txt: character 'ä' at 2 is not"),
        ("--tasks copy --items 1 --text {here}/empty.txt", "a text to read has 2 tokens or more"),
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
    (tmp_path / "other.txt").write_text("wäre", encoding="utf-8")
    (tmp_path / "empty.txt").touch()
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
