"""`offsim evaluate`: accuracy with an error in the experts, item by item against none."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offsim.cli import display, options
from offsim.cli.groups import grouped
from offsim.cli.weight_errors import Asked

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from offsim.accuracy import WeightError
    from offsim.accuracy.harness import HarnessTasks
    from offsim.accuracy.scopes import Usage

HARNESS = "lm-evaluation-harness"
TEXTS = "Perplexity and divergence"
OWN_ITEMS = 100
SEQUENCES, LENGTH = 64, 128


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
            "embedded model; needs --harness or --text.",
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Text file (UTF-8) of which perplexity and divergence are taken; by default the "
            "embedded model reads held-out texts of its own.",
            rich_help_panel=TEXTS,
        ),
    ] = None,
    sequences: Annotated[
        int,
        typer.Option(
            help=f"Of {LENGTH} tokens each that are read; their logits stay in memory.",
            min=1,
            rich_help_panel=TEXTS,
        ),
    ] = SEQUENCES,
    as_json: options.Json = False,
) -> None:
    """Measure accuracy with an error in the experts, paired item by item with no error.

    Besides: how far greedy answers stay the same, perplexity, and the divergence (KL) of the
    next-token distribution from the model without an error. Intervals are of 95 %, over items or
    sequences and, where several, over seeds of the noise.

    Example: offsim evaluate --tasks add,chain --error uniform --bound sigma:0.5 --scope layer:3
    """
    from offsim.accuracy import injected
    from offsim.cli.evaluated import HarnessMetrics, OwnTasks, Part, ReadTexts
    from offsim.files import read_text

    _check_options(harness, include_path, model, text, own=tasks is not None or bool(seed))
    errors, usage = asked.errors(), asked.usage()
    facts: dict[str, Any] = {
        "label": "MEASURED",
        "error": errors[0].model_dump(mode="json", exclude={"seed"}) if errors else None,
        "seeds": len(errors),
    }
    names = _names(tasks)
    written = None if text is None else read_text(text)
    of_harness = _harness_tasks(harness, include_path, items)
    with display.progress(quiet=of_harness is not None) as tell:  # the harness has its own bars
        tell("loading the model", 0.0)
        loaded, tokenizer = _loaded(model)
        _check_places(loaded, errors, usage)
        texts = None
        if written is not None or of_harness is None:
            texts = _sequences(written, text, tokenizer, sequences)
        tell("asking without an error", 0.1)
        parts: list[Part] = []
        if of_harness is not None:
            parts.append(HarnessMetrics(of_harness, loaded, tokenizer))
        elif model is None:
            parts.append(OwnTasks(loaded, names, items or OWN_ITEMS, seed))
        if texts is not None:
            parts.append(ReadTexts(loaded, texts))
        for number, error in enumerate(errors):
            tell(f"asking with {error}", 0.2 + 0.8 * number / len(errors))
            with injected(loaded, error, usage=usage):
                for part in parts:
                    part.ask(loaded)
    for part in parts:
        facts |= part.facts()
        if not as_json:
            part.show(errors)
    if as_json:
        display.emit_json(facts)


def _check_options(
    harness: list[str] | None,
    include_path: Path | None,
    model: Path | None,
    text: Path | None,
    *,
    own: bool,
) -> None:
    """Refuse options that do not go together; `own` are those of the embedded tasks."""
    from offsim.errors import InputError

    if harness is None and include_path is not None:
        raise InputError("--include-path is of the harness; give --harness too")
    if harness is None and model is not None and text is None:
        raise InputError("--model answers the harness or reads a text; give --harness or --text")
    if (harness is not None or model is not None) and own:
        raise InputError(
            "--tasks and --seed are of the embedded tasks; leave out --harness and --model"
        )
    if model is not None and not (model / "config.json").is_file():
        raise InputError(f"{model}: no model (config.json, *.safetensors) in this folder")


def _sequences(
    written: str | None, path: Path | None, tokenizer: "PreTrainedTokenizerBase | None", most: int
) -> list[list[int]]:
    """Sequences of one length of a text, or of the embedded model's own texts.

    Raises:
        InputError: the text is too short, or has characters that the embedded model does not read.
    """
    from offsim.accuracy import embedded_texts, pieces
    from offsim.errors import InputError
    from offsim.testbed import tokenizer as embedded

    if written is None:
        return embedded_texts(most, LENGTH)
    if tokenizer is not None:
        return pieces(tokenizer.encode(written, add_special_tokens=False), most, LENGTH)
    try:
        ids = embedded.encode("\n" + written)  # every text of its training follows an end of line
    except ValueError as error:
        raise InputError(
            f"{path}: {error}; the embedded model reads ASCII, --model another one"
        ) from error
    return pieces(ids, most, LENGTH)


def _harness_tasks(
    names: list[str] | None, include_path: Path | None, items: int | None
) -> "HarnessTasks | None":
    if names is None:
        return None
    from offsim.accuracy.harness import HarnessTasks

    return HarnessTasks(names, include_path, items)


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


def _loaded(
    folder: Path | None,
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase | None]":
    """The embedded model, which has no such tokenizer, or a model of the user's."""
    if folder is not None:
        return _of_user(folder)
    from offsim.testbed.load import load

    return load(), None


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
