"""`offsim evaluate`: accuracy with an error in the experts, item by item against none."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offsim.cli import display, options
from offsim.cli.groups import grouped
from offsim.cli.weight_errors import Asked

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from offsim.accuracy import Difference, WeightError
    from offsim.accuracy.comparison import Comparison
    from offsim.accuracy.harness import Scored
    from offsim.accuracy.scopes import Usage

HARNESS = "lm-evaluation-harness"
OWN_ITEMS = 100
ALL_TASKS = "all"


@grouped
def evaluate(
    *,
    tasks: Annotated[
        str | None,
        typer.Option(help="Tasks of the embedded model, such as add,chain; all by default."),
    ] = None,
    items: Annotated[
        int | None,
        typer.Option(
            help=f"Of each task; {OWN_ITEMS} by default, of the harness all that there are.", min=1
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the items that are drawn.")] = 0,
    asked: Asked,
    harness: Annotated[
        list[str] | None,
        typer.Option(
            help="A task of lm-evaluation-harness by its name, or its YAML file; may be given "
            "several times.",
            rich_help_panel=HARNESS,
        ),
    ] = None,
    include_path: Annotated[
        Path | None,
        typer.Option(help="Folder of YAML files with tasks.", rich_help_panel=HARNESS),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of any transformers MoE model with its tokenizer, in place of the "
            "embedded model.",
            rich_help_panel=HARNESS,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Measure accuracy with an error in the experts, paired item by item with no error.

    Intervals are of 95 %, over items and, where several, over seeds of the noise.

    Example: offsim evaluate --tasks add,chain --error uniform --bound sigma:0.5 --scope layer:3
    """
    from offsim.errors import InputError

    if harness is None and (include_path is not None or model is not None):
        raise InputError("--include-path and --model are of the harness; give --harness too")
    if harness is not None and (tasks is not None or seed):
        raise InputError("--tasks and --seed are of the embedded tasks; leave out --harness")
    if model is not None and not (model / "config.json").is_file():
        raise InputError(f"{model}: no model (config.json, *.safetensors) in this folder")
    errors, usage = asked.errors(), asked.usage()
    facts: dict[str, Any] = {
        "label": "MEASURED",
        "error": errors[0].model_dump(mode="json", exclude={"seed"}) if errors else None,
        "seeds": len(errors),
    }
    if harness is None:
        found = _own(_names(tasks), items or OWN_ITEMS, seed, errors, usage)
        facts["tasks"] = {
            task: {score: _facts(one, bool(errors)) for score, one in scores.items()}
            for task, scores in found.items()
        }
        if not as_json:
            _show_own(found, errors)
    else:
        scored = _harness(harness, include_path, model, items, errors, usage)
        facts["metrics"] = [_scored_facts(before, after) for before, after in scored]
        if not as_json:
            _show_scored(scored, errors)
    if as_json:
        display.emit_json(facts)


def _names(tasks: str | None) -> list[str]:
    """The embedded tasks asked for, each once.

    Raises:
        InputError: there is no such task.
    """
    from offsim.errors import InputError
    from offsim.testbed.tasks import TASKS

    names = list(dict.fromkeys(tasks.split(","))) if tasks is not None else list(TASKS)
    for name in names:
        if name not in TASKS:
            raise InputError(f"no task is called {name!r}; there are {', '.join(TASKS)}")
    return names


def _check_places(
    model: "PreTrainedModel", errors: "list[WeightError]", usage: "Usage | None"
) -> None:
    """Refuse a scope that is not of the model before the long work."""
    from offsim.accuracy import Places
    from offsim.model.experts import shape_of

    shape = shape_of(model)
    places = Places(shape.layers, shape.experts, usage)
    for error in errors[:1]:  # the others differ in the seed
        error.scope.mask(places)


def _own(
    names: list[str],
    items: int,
    seed: int,
    errors: "list[WeightError]",
    usage: "Usage | None",
) -> "dict[str, dict[str, Comparison]]":
    """By task, and of several together, ICA and PIA without an error and with it."""
    with display.progress() as tell:
        tell("loading the embedded model", 0.0)
        import numpy as np

        from offsim.accuracy import Questions, injected
        from offsim.accuracy.comparison import compare
        from offsim.testbed.load import load

        model = load()
        _check_places(model, errors, usage)
        tell("asking without an error", 0.1)
        questions = Questions(model, items, seed, names)
        answers = []
        for number, error in enumerate(errors):
            tell(f"asking with {error}", 0.2 + 0.8 * number / len(errors))
            with injected(model, error, usage=usage):
                answers.append(questions.ask(model))
    asked = {name: [name] for name in names} | ({ALL_TASKS: names} if len(names) > 1 else {})
    before, after = questions.unperturbed, answers or [questions.unperturbed]
    return {
        name: {
            "ica": compare(before.ica(*of), np.stack([one.ica(*of) for one in after])),
            "pia": compare(before.pia(*of), np.stack([one.pia(*of) for one in after])),
        }
        for name, of in asked.items()
    }


def _harness(
    tasks: list[str],
    include_path: Path | None,
    folder: Path | None,
    items: int | None,
    errors: "list[WeightError]",
    usage: "Usage | None",
) -> "list[tuple[Scored, list[Scored]]]":
    """Each metric of the harness without an error, and with it under each seed."""
    from offsim.accuracy import injected
    from offsim.accuracy.harness import HarnessTasks, language_model
    from offsim.testbed.load import load

    asked = HarnessTasks(tasks, include_path, items)
    model, tokenizer = (load(), None) if folder is None else _of_user(folder)
    _check_places(model, errors, usage)
    lm = language_model(model, tokenizer)
    with injected(model):
        before = asked.ask(lm)
    after = []
    for error in errors:
        with injected(model, error, usage=usage):
            after.append(asked.ask(lm))
    return [(one, [run[at] for run in after]) for at, one in enumerate(before)]


def _of_user(folder: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A model and its tokenizer from a folder; nothing is downloaded, and no code of it runs."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from offsim.errors import InputError

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", use_safetensors=True, **local
        )
    except (OSError, ValueError, KeyError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{folder}: the model cannot be loaded: {said}") from error
    if not tokenizer.encode("a", add_special_tokens=False):  # transformers made an empty one
        raise InputError(f"{folder}: no tokenizer (tokenizer.json) in this folder")
    model.eval()
    return model, tokenizer


def _facts(one: "Comparison", perturbed: bool) -> dict[str, Any]:
    """A comparison for machines; without an error there is nothing to compare."""
    if not perturbed:
        return {"before": asdict(one.before)}
    return {
        **{name: asdict(getattr(one, name)) for name in ("before", "after", "change")},
        "worse": one.test.worse.tolist(),
        "better": one.test.better.tolist(),
        "mcnemar_p": one.test.p,
        "detectable": one.detectable,
    }


def _judged(
    before: "Scored", after: "list[Scored]"
) -> "tuple[Difference | None, Comparison | None]":
    """The change where items have numbers, and its test where they are right or wrong."""
    import numpy as np

    from offsim.accuracy import difference
    from offsim.accuracy.comparison import compare

    runs = [before, *after]
    if not after or not all(one.paired for one in runs):
        return None, None
    values = np.stack([one.values for one in after])
    binary = all(one.binary for one in runs)
    compared = compare(before.values == 1, values == 1) if binary else None
    return difference(before.values, values), compared


def _scored_facts(before: "Scored", after: "list[Scored]") -> dict[str, Any]:
    """A metric of the harness for machines."""
    change, compared = _judged(before, after)
    return {
        "task": before.task,
        "metric": before.metric,
        "filter": before.filter,
        "items": len(before.items),
        "before": before.value,
        "before_stderr": before.stderr,
        "after": [one.value for one in after],
        "after_stderr": [one.stderr for one in after],
        **({"change": asdict(change)} if change is not None else {}),
        **({"mcnemar_p": compared.test.p} if compared is not None else {}),
        **({"detectable": compared.detectable} if compared is not None else {}),
    }


def _between(one: "Difference", sign: str = "") -> str:
    mean, low, high = (round(value, 3) + 0.0 for value in (one.mean, one.low, one.high))  # no -0
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _show_own(found: "dict[str, dict[str, Comparison]]", errors: "list[WeightError]") -> None:
    """One table for ICA and one for PIA."""
    import pandas as pd

    from offsim.accuracy import holm

    for score in ("ica", "pia"):
        scores = {name: of[score] for name, of in found.items()}
        tasks = [name for name in scores if name != ALL_TASKS]
        corrected = dict(zip(tasks, holm([scores[name].test.p for name in tasks]), strict=True))
        rows = []
        for name, one in scores.items():
            row = {"task": name, "items": one.before.items, "without": _between(one.before)}
            if errors:
                row |= {
                    "with": _between(one.after),
                    "change": _between(one.change, "+"),
                    "McNemar p": f"{corrected.get(name, one.test.p):.2g}",
                    "detectable": f"{one.detectable:.3f}",
                }
            rows.append(row)
        display.show_table(f"{score.upper()} {_under(errors)} [MEASURED]", pd.DataFrame(rows))
    if errors:
        typer.echo(
            "p of the tasks corrected for their number (Holm); detectable: the smallest change "
            "that so many items show in one seed (power 80 %)"
        )


def _under(errors: "list[WeightError]") -> str:
    """What tables are of."""
    if not errors:
        return "without an error"
    first = errors[0]
    size = "" if first.bound is None else f" {first.bound}"
    seeds = f", {len(errors)} seeds" if len(errors) > 1 else ""
    return f"without an error and with {first.source}{size} in {first.scope}{seeds}"


def _show_scored(scored: "list[tuple[Scored, list[Scored]]]", errors: "list[WeightError]") -> None:
    """One table of all metrics of the harness."""
    import numpy as np
    import pandas as pd

    rows = []
    for before, after in scored:
        row: dict[str, Any] = {
            "task": before.task,
            "metric": f"{before.metric}, {before.filter}",
            "items": len(before.items),
            "without": f"{before.value:.3f} ± {before.stderr:.3f}",
        }
        if after:
            change, compared = _judged(before, after)
            row |= {
                "with": f"{np.mean([one.value for one in after]):.3f}",
                "change": "" if change is None else _between(change, "+"),
                "McNemar p": "" if compared is None else f"{compared.test.p:.2g}",
                "detectable": "" if compared is None else f"{compared.detectable:.3f}",
            }
        rows.append(row)
    display.show_table(f"lm-evaluation-harness {_under(errors)} [MEASURED]", pd.DataFrame(rows))
