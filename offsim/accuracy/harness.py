"""Tasks of lm-evaluation-harness, asked of a model with and without an error.

The harness is the extra `eval`; it loads where it is used.
"""

import json
import math
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from offsim.errors import InputError
from offsim.files import write_text
from offsim.testbed.scores import held_out_items

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

BATCH = 16
"""Sequences at a time of a model with a tokenizer of its own."""
LONGEST = 48
"""Most tokens of an answer of the embedded model, where a task does not say; as in `Questions`."""
RESAMPLES = 1000
"""Of the harness's bootstrap of those metrics whose standard error has no closed form."""
SEEDS = {"python": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234}
"""Of the random draws of tasks: those of the harness's own command."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One metric of one task, MEASURED by the harness.

    Attributes:
        task: its name.
        metric: such as `exact_match` or `acc`.
        filter: what the harness took from the answers, such as `strict-match`; `none` is all.
        value: the metric, in its own unit.
        stderr: the harness's standard error of it over items; NaN where it gives none.
        values: the metric of each item, [items] float64; NaN where that is not a number.
        items: what was asked, a hash for each item: equal ones are equal documents.
    """

    task: str
    metric: str
    filter: str
    value: float
    stderr: float
    values: npt.NDArray[np.float64]
    items: tuple[str, ...]

    @property
    def paired(self) -> bool:
        """Whether each item has a number, so that runs pair item by item."""
        return bool(np.isfinite(self.values).all())

    @property
    def binary(self) -> bool:
        """Whether each item is right or wrong."""
        return bool(np.isin(self.values, (0, 1)).all())


class HarnessTasks:
    """Tasks of the harness with their data, loaded once, asked as often as wanted.

    Data comes from where the task's file says: from local files, or over the network.

    Args:
        tasks: names of tasks, groups or tags, or paths of YAML files of tasks. A task's folder may
            hold Python code, which runs.
        include_path: a folder whose YAML files are searched for the names before the harness's own.
        items: the first so many of each task; all where None.

    Raises:
        InputError: the extra `eval` is not installed; a task is not known, or its data cannot be
            had; it runs code that the model wrote, or wants more than text.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        include_path: Path | None = None,
        items: int | None = None,
    ) -> None:
        if include_path is not None and not include_path.is_dir():
            raise InputError(f"{include_path}: there is no such folder; name one with YAML files")
        manager = _manager(tasks, include_path)
        self._items = items
        with _apart():
            self._loaded = _loaded(manager, tasks)
        for name, task in self._loaded["tasks"].items():
            if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
                raise InputError(
                    f"the task {name} runs code that the model writes, or wants more than text; "
                    "choose another"
                )
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=SEEDS["fewshot"])

    def ask(self, model: "LM") -> list[Scored]:
        """Every metric of every task, of a model as it stands, with whatever error it runs under.

        The random draws of the harness are the same each time, and leave those of the caller
        alone.

        Args:
            model: as of `language_model`.
        """
        from lm_eval.evaluator import evaluate

        with _apart():
            found = evaluate(
                lm=model,
                task_dict=self._loaded,
                limit=self._items,
                bootstrap_iters=RESAMPLES,
                log_samples=True,
            )
        return [
            one
            for name in self._loaded["tasks"]
            for one in _scored(name, found["results"][name], found["samples"][name])
        ]


def language_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None, batch: int = BATCH
) -> "LM":
    """A model as the harness sees it; it holds the model itself, and an error injected in it.

    Args:
        model: a causal language model.
        tokenizer: its own; None for the bytes of the embedded model.
        batch: sequences at a time, for a model with a tokenizer of its own.

    Raises:
        InputError: the extra `eval` is not installed.
    """
    with _extra():
        if tokenizer is None:
            from offsim.accuracy.embedded_lm import EmbeddedLM

            return EmbeddedLM(model)
        from lm_eval.models.huggingface import HFLM
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch)


def export_task(folder: Path, name: str, items: int, seed: int = 0) -> Path:
    """Write a task of the embedded model as a local task of the harness: a YAML and a JSONL file.

    The harness's `exact_match` with the filter `ica` is then ICA, with the filter `pia` PIA, item
    by item, over the items of `Questions(model, items, seed, [name])`.

    Args:
        folder: made where it is not there; the YAML file names the data by its whole path.
        name: of the task, one of `offsim.testbed.tasks.TASKS`.
        items: how many.
        seed: of their draw.

    Returns:
        The YAML file; the harness knows the task as `offsim_NAME`.

    Raises:
        InputError: a file cannot be written.
    """
    asked = held_out_items(items, seed, [name])[name]
    rows = [{"prompt": item.prompt, "content": item.content} for item in asked]
    data = folder.resolve() / f"{name}.jsonl"
    write_text(data, "".join(json.dumps(row) + "\n" for row in rows))
    steps = any(item.answer != f"[{item.content}]" for item in asked)  # some task has free steps
    filters = {
        "ica": rf"\A{'[^][]*' if steps else ''}\[([A-Za-z0-9]+)\]\Z",
        "pia": r"([A-Za-z0-9]+)[^A-Za-z0-9]*\Z",
    }
    task = {
        "task": f"offsim_{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "content",
        "target_delimiter": "",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": LONGEST},
        "filter_list": [
            {"name": filter_name, "filter": [_first_match(pattern), {"function": "take_first"}]}
            for filter_name, pattern in filters.items()
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }
    path = folder / f"{name}.yaml"
    write_text(path, yaml.safe_dump(task, sort_keys=False, width=100))
    return path


def _first_match(pattern: str) -> dict[str, Any]:
    """The harness's filter that keeps what a pattern's group holds, or nothing."""
    return {"function": "regex", "regex_pattern": pattern, "group_select": 0, "fallback": ""}


@contextmanager
def _extra() -> Iterator[None]:
    """Around imports of the harness."""
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"tasks of lm-evaluation-harness need it ({error}); run: pip install 'offsim[eval]'"
        ) from error


def _manager(tasks: Sequence[str], include_path: Path | None) -> "TaskManager":
    """What finds the tasks; the harness's own 10,000 files are read only where one is asked for."""
    with _extra():
        from lm_eval.tasks import TaskManager
    local = TaskManager(include_path=include_path, include_defaults=False)
    own = set(local.all_subtasks)
    if all(name in own or _is_file(name) for name in tasks):
        return local
    return TaskManager(include_path=include_path)


def _is_file(name: str) -> bool:
    return Path(name).suffix in (".yaml", ".yml")


def _loaded(manager: "TaskManager", tasks: Sequence[str]) -> dict[str, Any]:
    for name in tasks:
        if not (name in manager.task_index or (_is_file(name) and Path(name).is_file())):
            raise InputError(
                f"{name}: no such file, and no task of lm-evaluation-harness is called so; give a "
                "YAML file, or the folder that has it as include path"
            )
    try:
        found: dict[str, Any] = manager.load(list(dict.fromkeys(tasks)))
    except Exception as error:  # whatever a foreign task does when it loads
        said = " ".join(str(error).split())
        raise InputError(f"{', '.join(tasks)}: cannot be loaded: {said}") from error
    return found


def _scored(
    name: str, results: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]
) -> Iterator[Scored]:
    """The metrics of a task, from what the harness returns for it."""
    logged: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        logged.setdefault(sample["filter"], []).append(sample)
    for key, value in results.items():
        metric, comma, taken = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        rows = sorted(logged[taken], key=lambda sample: sample["doc_id"])
        stderr = results.get(f"{metric}_stderr,{taken}")
        yield Scored(
            name,
            metric,
            taken,
            _number(value),
            _number(stderr),
            np.array([_number(row.get(metric)) for row in rows], np.float64),
            tuple(row["doc_hash"] for row in rows),
        )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float | np.number | np.bool_) else math.nan


@contextmanager
def _apart() -> Iterator[None]:
    """Keeps what the harness does to the process within the block.

    It draws from the global generators, prints on stdout, and forks for its bootstrap.
    """
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the harness's own
    forking = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with torch.random.fork_rng(devices=[]), redirect_stdout(sys.stderr):
            random.seed(SEEDS["python"])
            np.random.seed(SEEDS["numpy"])  # noqa: NPY002  # see above
            torch.manual_seed(SEEDS["torch"])
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002  # see above
        if forking is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = forking
