"""`offsim evaluate`: accuracy with an error in the experts, item by item against none."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offsim.cli import display, evaluated, options
from offsim.cli.groups import grouped
from offsim.cli.weight_errors import Asked

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from offsim.accuracy import WeightError
    from offsim.accuracy.comparison import Comparison
    from offsim.accuracy.harness import Scored
    from offsim.accuracy.scopes import Usage

HARNESS = "lm-evaluation-harness"
OWN_ITEMS = 100


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
        facts["tasks"] = evaluated.own_facts(found, bool(errors))
        if not as_json:
            evaluated.show_own(found, errors)
    else:
        scored = _harness(harness, include_path, model, items, errors, usage)
        facts["metrics"] = evaluated.scored_facts(scored)
        if not as_json:
            evaluated.show_scored(scored, errors)
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
    asked = {name: [name] for name in names} | (
        {evaluated.ALL_TASKS: names} if len(names) > 1 else {}
    )
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
