import json
import random
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from offsim.accuracy import Questions, Scope, Texts, WeightError, injected
from offsim.accuracy.harness import HarnessTasks, Scored, export_task, language_model
from offsim.codec.bounds import Bound
from offsim.errors import InputError
from offsim.testbed import tokenizer
from offsim.testbed.load import load
from offsim.testbed.scores import held_out_items
from offsim.testbed.tasks import TASKS

OWN = ["add", "word"]
ITEMS = 20
LARGE = WeightError(source="uniform", bound=Bound(1.0, "sigma"), scope=Scope("layers:2-6"))
CHOICES = [
    {"question": "2+2=", "choices": ["[4]", "[5]", "[22]"], "right": 0},
    {"question": "9-3=", "choices": ["[3]", "[6]"], "right": 1},
    {"question": "dog: ", "choices": ["x y z", "7"], "right": 1},
    {"question": "20+5=", "choices": ["[25]\n", "[15]\n", "[52]\n"], "right": 0},
]


@pytest.fixture(scope="module")
def embedded() -> PreTrainedModel:
    return load()


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The harness, whose data stays in the folder of the test, and no network."""
    why = "needs the extra eval: pip install 'offsim[eval]'"
    pytest.importorskip("lm_eval.evaluator", reason=why, exc_type=ImportError)
    import datasets

    def refused(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def exported(folder: Path, *tasks: str) -> HarnessTasks:
    for task in tasks:
        export_task(folder, task, ITEMS)
    return HarnessTasks([f"offsim_{task}" for task in tasks], folder)


def local_task(folder: Path, rows: list[dict[str, Any]], **fields: Any) -> Path:
    """A YAML file of a task over these rows."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "local",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        **fields,
    }
    (folder / "local.yaml").write_text(yaml.safe_dump(task))
    return folder / "local.yaml"


def choices(folder: Path) -> Path:
    return local_task(
        folder,
        CHOICES,
        output_type="multiple_choice",
        doc_to_text="{{question}}",
        doc_to_choice="choices",
        doc_to_target="right",
        target_delimiter="",
        metric_list=[{"metric": "acc"}, {"metric": "acc_norm"}],
    )


def generated(folder: Path, prompt: str, **how: Any) -> HarnessTasks:
    path = local_task(
        folder,
        [{"prompt": prompt, "content": "4"}],
        output_type="generate_until",
        doc_to_text="{{prompt}}",
        doc_to_target="content",
        generation_kwargs=how,
        metric_list=[{"metric": "exact_match"}],
    )
    return HarnessTasks([str(path)])


def characters() -> PreTrainedTokenizerFast:
    """The embedded vocabulary as a tokenizer of transformers."""
    made = Tokenizer(models.WordLevel({chr(i): i for i in range(128)}, unk_token=chr(0)))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    made.post_processor = processors.TemplateProcessing(
        single="\n $A", special_tokens=[("\n", tokenizer.END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="\n",
        bos_token="\n",
        pad_token=chr(0),
        clean_up_tokenization_spaces=False,
    )


@pytest.mark.usefixtures("harness")
def test_own_tasks_through_the_harness_are_equal_item_by_item(
    embedded: PreTrainedModel, tmp_path: Path
) -> None:
    asked, questions = exported(tmp_path, *OWN), Questions(embedded, ITEMS, tasks=OWN)
    before = asked.ask(language_model(embedded))
    with injected(embedded, LARGE):
        after = asked.ask(language_model(embedded))
        own = questions.ask(embedded)
    assert [(one.task, one.filter) for one in after] == [
        (f"offsim_{task}", score) for task in OWN for score in ("ica", "pia")
    ]
    for plain, changed in zip(before, after, strict=True):
        task = changed.task.removeprefix("offsim_")
        of_own: dict[str, Callable[..., Any]] = {"ica": own.ica, "pia": own.pia}
        assert changed.values.tolist() == of_own[changed.filter](task).tolist()
        assert changed.value == pytest.approx(of_own[changed.filter](task).mean())
        assert changed.items == plain.items
        assert plain.values.tolist() == getattr(questions.unperturbed, plain.filter)(task).tolist()
        spread = changed.values.std(ddof=1) / ITEMS**0.5
        assert changed.stderr == pytest.approx(spread)
        assert changed.paired
        assert changed.binary
    assert 0.1 < own.ica().mean() < questions.unperturbed.ica().mean() - 0.1


SHAPES = (
    "[{0}]",
    "{0}",
    "[{0}",
    "[{0}] ",
    " [{0}]",
    "[[{0}]]",
    "[{0}][{0}]",
    "1+1=2;[{0}]",
    "[ {0}]",
)
SHAPES += (
    "[{0}].",
    "({0})",
    "[{0}] 7",
    "7[{0}]",
    "[]{0}",
    "[]",
    "",
    "{0}.[{0}]",
    "-[{0}]",
    "[-{0}]",
)


@pytest.mark.usefixtures("harness")
def test_answers_of_every_shape_are_judged_as_by_the_tasks(tmp_path: Path) -> None:
    from lm_eval.api.model import LM

    class Parrot(LM):
        """Answers with what it is given, one text an item and task."""

        def generate_until(self, requests: list[Any]) -> list[str]:
            asked = [request.args[0] for request in requests]
            return [said[prompt] for prompt in asked]

        def loglikelihood(self, requests: list[Any]) -> Any: ...

        def loglikelihood_rolling(self, requests: list[Any]) -> Any: ...

    items = held_out_items(2 * len(SHAPES))
    said = {
        item.prompt: SHAPES[at % len(SHAPES)].format(item.content)
        for asked in items.values()
        for at, item in enumerate(asked)
    }
    for name in items:
        export_task(tmp_path, name, 2 * len(SHAPES))
    found = HarnessTasks([f"offsim_{name}" for name in items], tmp_path).ask(Parrot())
    for one in found:
        name = one.task.removeprefix("offsim_")
        task = TASKS[name]
        judge = task.format_right if one.filter == "ica" else task.content_right
        expected = [float(judge(item, said[item.prompt])) for item in items[name]]
        assert one.values.tolist() == expected, (name, one.filter)
        assert 0 < sum(expected) < len(expected)
    shares = [one.value for one in found if one.task == "offsim_add"]
    assert shares[0] < shares[1]


@pytest.mark.usefixtures("harness")
def test_both_kinds_of_tokenizer_give_the_same(embedded: PreTrainedModel, tmp_path: Path) -> None:
    export_task(tmp_path, "add", 8)
    choices(tmp_path)
    asked = HarnessTasks(["offsim_add", "local"], tmp_path)
    with injected(embedded, LARGE):
        own = asked.ask(language_model(embedded))
        theirs = asked.ask(language_model(embedded, characters(), batch=4))
    for one, other in zip(own, theirs, strict=True):
        assert (one.task, one.metric, one.values.tolist()) == (
            other.task,
            other.metric,
            other.values.tolist(),
        )
        assert one.value == other.value


@pytest.mark.usefixtures("harness")
def test_choices_are_scored_by_their_likelihood(embedded: PreTrainedModel, tmp_path: Path) -> None:
    found = {
        one.metric: one
        for one in HarnessTasks([str(choices(tmp_path))]).ask(language_model(embedded))
    }
    assert set(found) == {"acc", "acc_norm"}
    expected = []
    for row in CHOICES:
        scores = [likelihood(embedded, row["question"], choice) for choice in row["choices"]]
        expected.append(float(np.argmax(scores) == row["right"]))
    assert found["acc"].values.tolist() == expected
    assert expected[0] == expected[1] == 1


def likelihood(model: PreTrainedModel, context: str, continuation: str) -> float:
    """Log-likelihood of a continuation, one pass over it alone."""
    ids = torch.tensor([tokenizer.encode(f"\n{context}{continuation}")])
    with torch.inference_mode():
        logs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return float(logs.gather(-1, ids[0, 1:, None])[-len(continuation) :].sum())


@pytest.mark.usefixtures("harness")
def test_likelihoods_of_pairs_in_batches_are_those_of_each(embedded: PreTrainedModel) -> None:
    lm = language_model(embedded)
    pairs = [("2+2=", "[4]"), ("", "hello"), ("a longer question? ", "[no]\n"), ("1+1=", "[3]")]
    found = lm.loglikelihood([_Request(pair) for pair in pairs], disable_tqdm=True)
    for (context, said), (value, greedy) in zip(pairs, found, strict=True):
        assert value == pytest.approx(likelihood(embedded, context, said), abs=1e-4)
        assert greedy == (said == "[4]")


class _Request:
    """What the harness gives a model for each request, as far as it is read."""

    def __init__(self, args: tuple[Any, ...]) -> None:
        self.args = args


@pytest.mark.usefixtures("harness")
def test_whole_texts_are_read_in_windows(embedded: PreTrainedModel) -> None:
    lm = language_model(embedded)
    text = "The model reads a text that is longer than its window. " * 12
    assert len(text) > lm.max_length
    short, long, empty = lm.loglikelihood_rolling([_Request((t,)) for t in (text[:60], text, "")])
    (reading,) = Texts(embedded, [tokenizer.encode("\n" + text[:60])]).unperturbed.nll
    assert short == pytest.approx(-reading * 60, rel=1e-5)
    first = likelihood(embedded, "", text[: lm.max_length])
    assert long < first < 0
    assert empty == 0


@pytest.mark.usefixtures("harness")
def test_metrics_of_no_item_are_not_paired(embedded: PreTrainedModel, tmp_path: Path) -> None:
    path = local_task(
        tmp_path,
        [{"text": "one line of text"}, {"text": "and another one"}],
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{text}}",
        metric_list=[{"metric": "byte_perplexity"}],
    )
    (found,) = HarnessTasks([str(path)]).ask(language_model(embedded))
    assert found.value > 1
    assert len(found.items) == 2
    assert not found.paired
    assert not found.binary


@pytest.mark.usefixtures("harness")
def test_asking_again_is_the_same_and_leaves_the_process_alone(
    embedded: PreTrainedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random.seed(3)
    torch.manual_seed(3)
    expected = random.random(), np.random.get_state()[1].tolist(), torch.rand(1)  # noqa: NPY002
    random.seed(3)
    torch.manual_seed(3)
    asked = exported(tmp_path, "add")
    first, second = (asked.ask(language_model(embedded)) for _ in range(2))
    assert (random.random(), np.random.get_state()[1].tolist(), torch.rand(1)) == expected  # noqa: NPY002
    assert [one.value for one in first] == [one.value for one in second]
    assert first[0].values.tolist() == second[0].values.tolist()
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("harness")
def test_the_first_items_can_be_asked_alone(embedded: PreTrainedModel, tmp_path: Path) -> None:
    whole = exported(tmp_path, "add").ask(language_model(embedded))
    part = HarnessTasks(["offsim_add"], tmp_path, 7).ask(language_model(embedded))
    assert part[0].items == whole[0].items[:7]
    assert part[0].values.tolist() == whole[0].values[:7].tolist()


@pytest.mark.usefixtures("harness")
def test_answers_end_where_a_task_says(embedded: PreTrainedModel) -> None:
    lm = language_model(embedded)
    prompt = "Tom has 23 pens, buys 14 and loses 5. How many? "
    ways: list[dict[str, Any]] = [{}, {"until": [";", ""]}, {"until": "="}, {"max_gen_toks": 3}]
    whole, steps, sums, short = lm.generate_until([_Request((prompt, how)) for how in ways])
    assert whole == "23+14=37;37-5=32;[32]"
    assert (steps, sums, short) == ("23+14=37", "23+14", "23+")
    long = "2+2=[4]\n" * 100 + "3+4="
    kept = long[-(lm.max_length - 48 - 1) :]
    cut, last = lm.generate_until([_Request((text, {})) for text in (long, kept)])
    assert len(long) > lm.max_length
    assert cut == last
    assert cut.startswith("[")


@pytest.mark.usefixtures("harness")
@pytest.mark.parametrize(
    ("prompt", "how", "says"),
    [
        ("2+2=é", {}, "cannot read this task: character 'é' at 4 is not ASCII"),
        ("2+2=", {"do_sample": True}, "the task asks for random answers"),
        ("2+2=", {"do_sample": False, "temperature": 0.7}, "the task asks for random answers"),
        ("2+2=", {"max_gen_toks": 512}, "asks for 512 tokens"),
    ],
)
def test_what_the_embedded_model_cannot_do_is_said(
    embedded: PreTrainedModel, tmp_path: Path, prompt: str, how: dict[str, Any], says: str
) -> None:
    asked = generated(tmp_path, prompt, until=["\n"], **how)
    with pytest.raises(InputError, match=says):
        asked.ask(language_model(embedded))


@pytest.mark.usefixtures("harness")
def test_tasks_that_cannot_be_had_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from lm_eval import tasks

    own = tasks.TaskManager

    def without_defaults(include_path: Path | None, include_defaults: bool = False) -> Any:
        return own(include_path=include_path, include_defaults=False)  # theirs take half a minute

    monkeypatch.setattr(tasks, "TaskManager", without_defaults)
    with pytest.raises(InputError, match="gsm9k: no such file, and no task of"):
        HarnessTasks(["gsm9k"], tmp_path)
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        HarnessTasks([str(tmp_path / "none.yaml")])
    with pytest.raises(InputError, match="none: there is no such folder"):
        HarnessTasks(["x"], tmp_path / "none")
    (tmp_path / "bad.yaml").write_text("neither: this\n")
    with pytest.raises(InputError, match=r"bad\.yaml: cannot be loaded: Unknown config shape"):
        HarnessTasks([str(tmp_path / "bad.yaml")])
    path = choices(tmp_path)
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(InputError, match=r"local\.yaml: cannot be loaded: Unable to find"):
        HarnessTasks([str(path)])
    unsafe = local_task(
        tmp_path, CHOICES, unsafe_code=True, output_type="multiple_choice", doc_to_text="x",
        doc_to_choice="choices", doc_to_target="right",
    )  # fmt: skip
    with pytest.raises(InputError, match="the task local runs code that the model writes"):
        HarnessTasks([str(unsafe)])


@pytest.mark.parametrize(
    "module", ["lm_eval.tasks", "lm_eval.models.huggingface", "offsim.accuracy.embedded_lm"]
)
def test_without_the_extra_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tiny_model: PreTrainedModel, module: str
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, module, None)
    uses: dict[str, Callable[[], object]] = {
        "lm_eval.tasks": lambda: HarnessTasks(["x"]),
        "lm_eval.models.huggingface": lambda: language_model(tiny_model, characters()),
        "offsim.accuracy.embedded_lm": lambda: language_model(tiny_model),
    }
    with pytest.raises(InputError, match=r"run: pip install 'offsim\[eval\]'"):
        uses[module]()


def test_exported_tasks_are_two_files_of_plain_data(tmp_path: Path) -> None:
    path = export_task(tmp_path / "new", "word", 5, seed=2)
    task = yaml.safe_load(path.read_text())
    data = Path(task["dataset_kwargs"]["data_files"]["test"]).read_text()
    rows = [json.loads(line) for line in data.splitlines()]
    assert sorted(each.name for each in path.parent.iterdir()) == ["word.jsonl", "word.yaml"]
    assert [set(row) for row in rows] == [{"prompt", "content"}] * 5


def test_values_say_whether_they_pair() -> None:
    def scored(*values: float) -> Scored:
        return Scored("t", "m", "none", 0.5, 0.1, np.array(values), tuple("ab"))

    found = [(one.paired, one.binary) for one in (scored(0, 1), scored(0.5, 1), scored(np.nan, 1))]
    assert found == [(True, True), (True, False), (False, False)]
