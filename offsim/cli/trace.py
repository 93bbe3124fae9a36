"""`offsim trace record|import|synth|cut|info`: router traces."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offsim.cli import display, options
from offsim.cli.groups import grouped
from offsim.cli.own_model import Drawing, OwnModel

if TYPE_CHECKING:
    from offsim.model.sampling import Sampling
    from offsim.policy.policy import Policy
    from offsim.trace import Trace

REQUESTS = 16
"""That the embedded model answers where nothing is said."""
app = typer.Typer(
    help="Record, import and make router traces, and look into them.", no_args_is_help=True
)


@app.command()
@grouped
def record(
    *,
    out: Annotated[Path, typer.Option(help="Trace file to write.")],
    codec: options.Codec = "raw",
    bound: options.Bound = 0.0,
    requests: Annotated[
        int | None,
        typer.Option(
            help=f"Requests, of mixed tasks: {REQUESTS}; or the first so many prompts: all.", min=1
        ),
    ] = None,
    tokens: options.Tokens = 32,
    stop: Annotated[
        bool,
        typer.Option(
            "--stop",
            help="With --model: an answer ends with its end-of-text token, if that comes before "
            "--tokens.",
        ),
    ] = False,
    seed: options.Seed = None,
    lookahead: Annotated[
        int,
        typer.Option(
            help="Also ask the gates of so many next layers, with the hidden states of each layer: "
            "what the prefetcher `gate` goes by.",
            min=0,
        ),
    ] = 0,
    own: OwnModel,
    drawing: Drawing,
    as_json: options.Json = False,
) -> None:
    """Record the router of the embedded model, as a codec and bound leave its experts.

    With --model, that of a checkpoint whose experts are read as they are used; the trace is on
    disk as it grows, so that a million tokens take no more memory than some thousand.

    Example: offsim trace record --out embedded.safetensors --requests 16 --tokens 32
    Or: offsim trace record --model olmoe --prompts prompts.txt --sample 0.8 --out olmoe.safetensors
    """
    from offsim.cli.policies import policy_of
    from offsim.errors import InputError
    from offsim.files import check_writable

    policy = policy_of(codec, bound)
    sampling = drawing.sampling(own, seed)
    is_own = own.model is not None
    if stop and not is_own:
        raise InputError("--stop is of a checkpoint; give --model and --prompts, or leave it out")
    check_writable(out.parent)
    if is_own:
        facts = _recorded(own, out, policy, requests, tokens, lookahead, sampling, stop=stop)
        _tell_recorded(facts, as_json)
        return
    with display.progress() as tell:
        tell("loading the embedded model", 0.0)
        from offsim.codec import codec_named
        from offsim.runtime import ExpertStore
        from offsim.study.prepare import recorded
        from offsim.study.study import MODEL
        from offsim.study.workload import prompts
        from offsim.testbed.load import load
        from offsim.trace import save_trace

        model = load()
        store = ExpertStore.of(model, codec_named(policy.codec), bound)
        asked = prompts(requests or REQUESTS, options.SEED if seed is None else seed)
        tell(f"recording {len(asked)} requests", 0.3)
        trace = recorded(model, MODEL, store, asked, tokens, lookahead).trace
        save_trace(trace, out)
    shape = {"layers": trace.layers, "top_k": trace.top_k}
    _tell_recorded({"trace": str(out), "tokens": trace.tokens, **shape}, as_json)


def _recorded(
    own: OwnModel,
    out: Path,
    policy: "Policy",
    requests: int | None,
    tokens: int,
    lookahead: int,
    sampling: "Sampling | None",
    *,
    stop: bool,
) -> dict[str, Any]:
    """Record a checkpoint of the user; what there is to tell of the trace.

    Raises:
        InputError: another codec than raw, no token that ends a text, or as for `OwnModel.subject`.
    """
    from offsim.errors import InputError

    if policy.codec != "raw":
        raise InputError("--codec and --bound are of the embedded model; with --model give neither")
    with display.progress() as tell:
        tell("opening the checkpoint", 0.0)
        from offsim.model.generate import end_tokens
        from offsim.study.checkpoint import recorded_to

        subject = own.subject(tokens, sampling=sampling)
        ends = end_tokens(subject.model) if stop else ()
        asked = subject.prompts[:requests]
        steps = iter(range(1, subject.steps(asked, tokens) + 1))

        def progress() -> None:
            step = next(steps)
            tell(f"recording step {step} of {len(asked) * tokens}", step / (len(asked) * tokens))

        rows = recorded_to(out, subject, asked, tokens, lookahead, progress, ends)
    shape = {"layers": subject.facts.layers, "top_k": subject.facts.top_k}
    return {"trace": str(out), "tokens": rows, **shape}


def _tell_recorded(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        display.emit_json(facts)
    else:
        typer.echo(
            f"{facts['trace']}: {facts['tokens']} tokens, {facts['layers']} layers, "
            f"top-{facts['top_k']}"
        )


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="File that another program wrote.")],
    source: Annotated[
        str,
        typer.Option(
            "--format", help="Of the file: vllm, sglang, megatron, bigmoe, cachelab, arrays."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Trace file to write.")],
    experts: Annotated[int | None, typer.Option(help="Experts that a layer has.", min=1)] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    prompt: Annotated[
        int | None, typer.Option(help="Tokens of each prompt; 0 for decode alone.", min=0)
    ] = None,
    layers: Annotated[
        int | None, typer.Option(help="Layers of flat arrays (sglang, base64).", min=1)
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Experts a token of flat arrays.", min=1)
    ] = None,
    dummy_rows: Annotated[
        int, typer.Option(help="Rows of a profiling forward of vllm; 0 keeps them.", min=0)
    ] = 8192,
    as_json: options.Json = False,
) -> None:
    """Read a trace that another program wrote, and write it as a trace of offsim.

    Example: offsim trace import run.csv --format bigmoe --out run.safetensors
    """
    from offsim.files import check_writable
    from offsim.trace.importers import Options, importer_named

    importer = importer_named(source)
    check_writable(out.parent)
    asked = Options(
        experts=experts,
        model=model,
        prompt=prompt,
        layers=layers,
        top_k=top_k,
        dummy_rows=dummy_rows,
    )
    with display.progress(as_json) as tell:
        tell(f"reading {file.name}", 0.0)
        trace = importer.read(file, asked)
    _write(trace, out, as_json)


@app.command()
def synth(
    like: Annotated[Path, typer.Option(help="Trace file to learn from.")],
    out: Annotated[Path, typer.Option(help="Trace file to write.")],
    requests: Annotated[
        int | None, typer.Option(help="Requests; as in the original by default.", min=1)
    ] = None,
    prompt: Annotated[
        int | None, typer.Option(help="Tokens of each prompt; the original's mean.", min=0)
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Decode tokens of a request; the original's mean.", min=0)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.", min=0)] = 0,
    layers: Annotated[int | None, typer.Option(help="MoE layers.", min=1)] = None,
    experts: Annotated[int | None, typer.Option(help="Experts a layer.", min=1)] = None,
    top_k: Annotated[int | None, typer.Option(help="Experts a token and layer.", min=1)] = None,
    as_json: options.Json = False,
) -> None:
    """Make a trace that takes experts as a recorded one does, of any length and shape.

    Example: offsim trace synth --like embedded.safetensors --out wide.safetensors --experts 128
    """
    from offsim.files import check_writable
    from offsim.trace import load_trace
    from offsim.trace.synth import check_size, fit, generate, typical_size

    original = load_trace(like)
    given = (requests, prompt, tokens)
    size = [
        usual if own is None else own
        for own, usual in zip(given, typical_size(original), strict=True)
    ]
    learnt_shape = (original.layers, original.info.experts_per_layer, original.top_k)
    shape = [
        has if own is None else own
        for own, has in zip((layers, experts, top_k), learnt_shape, strict=True)
    ]
    check_size(size[0], size[1], size[2], (shape[0], shape[1], shape[2]))
    check_writable(out.parent)
    with display.progress(as_json) as tell:
        learnt = fit(original, tell)
        tell("generating", 0.9)
        trace = generate(learnt, size[0], size[1], size[2], seed, *shape)
    _write(trace, out, as_json)


@app.command()
def cut(
    trace: Annotated[Path, typer.Argument(help="Trace file.")],
    out: Annotated[Path, typer.Option(help="Trace file to write.")],
    layers: Annotated[int | None, typer.Option(help="The first so many MoE layers.", min=1)] = None,
    requests: Annotated[int | None, typer.Option(help="The first so many.", min=1)] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Output tokens of each request at most.", min=1)
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write the first layers, requests and tokens of a trace.

    Example: offsim trace cut long.safetensors --requests 4 --tokens 64 --out short.safetensors
    """
    from offsim.files import check_writable
    from offsim.trace import load_trace
    from offsim.trace.cut import cut as part_of

    check_writable(out.parent)
    _write(part_of(load_trace(trace), layers, requests, tokens), out, as_json)


def _write(trace: "Trace", out: Path, as_json: bool) -> None:
    """Save a trace and say what is in it."""
    from offsim.trace import save_trace

    save_trace(trace, out)
    facts = {
        "trace": str(out),
        **trace.info.model_dump(exclude_none=True),
        "tokens": trace.tokens,
        "layers": trace.layers,
        "top_k": trace.top_k,
        "requests": len(set(trace.request.tolist())),
    }
    if as_json:
        display.emit_json(facts)
        return
    typer.echo(
        f"{out}: {facts['requests']} requests, {trace.tokens} tokens, {trace.layers} layers, "
        f"top-{trace.top_k} of {trace.info.experts_per_layer}"
    )
    typer.echo(trace.info.source)


@app.command()
def info(
    trace: Annotated[Path, typer.Argument(help="Trace file.")],
    slots: Annotated[
        int | None, typer.Option(help="Also give the working-set ratio at so many slots.", min=1)
    ] = None,
    together: Annotated[
        int | None,
        typer.Option(
            help="Also give the mean distinct experts of a layer and step where the first so many "
            "requests decode their tokens together.",
            min=1,
        ),
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw it into this PNG.")] = None,
    as_json: options.Json = False,
) -> None:
    """Say what a trace holds and how it uses the experts of each layer.

    Example: offsim trace info traces/embedded.safetensors --slots 4 --figure usage.png
    """
    from offsim.trace import load_trace
    from offsim.trace.statistics import distinct_together, use_table, working_set_ratio

    loaded = load_trace(trace)
    table = use_table(loaded)
    facts = {
        **loaded.info.model_dump(exclude_none=True),
        "tokens": loaded.tokens,
        "layers": loaded.layers,
        "top_k": loaded.top_k,
        "requests": len(set(loaded.request.tolist())),
    }
    if loaded.lookahead is not None:
        facts["lookahead"] = loaded.lookahead.shape[2]
    if slots:
        facts["working_set_ratio"] = working_set_ratio(loaded, slots)
    if together:
        facts["distinct_together"] = distinct_together(loaded, together)
    if figure:
        from offsim.files import replacing
        from offsim.report import trace_figure

        with replacing(figure) as partial:
            trace_figure(loaded).savefig(partial, format="png", dpi=150)
    if as_json:
        display.emit_json({**facts, "by_layer": table.to_dict(orient="records")})
        return
    sizes = sorted(set(loaded.info.layer_bytes or ()))
    if len(sizes) == 1:
        facts["layer_bytes"] = sizes[0]
    for name, value in facts.items():
        typer.echo(f"{name.replace('_', ' ')}: {value}")
    display.show_table("Use of the experts by layer", table)
