"""`offsim trace record|info`: router traces."""

from pathlib import Path
from typing import Annotated

import typer

from offsim.cli import display, options

app = typer.Typer(help="Record router traces and look into them.", no_args_is_help=True)


@app.command()
def record(
    out: Annotated[Path, typer.Option(help="Trace file to write.")],
    codec: options.Codec = "raw",
    bound: options.Bound = 0.0,
    requests: options.Requests = 16,
    tokens: options.Tokens = 32,
    seed: options.Seed = 5,
    as_json: options.Json = False,
) -> None:
    """Record the router of the embedded model, as a codec and bound leave its experts.

    Example: offsim trace record --out embedded.safetensors --requests 16 --tokens 32
    """
    from offsim.cli.policies import policy_of
    from offsim.files import check_writable

    check_writable(out.parent)
    policy = policy_of(codec, bound)
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
        tell(f"recording {requests} requests", 0.3)
        trace = recorded(model, MODEL, store, prompts(requests, seed), tokens).trace
        save_trace(trace, out)
    facts = {"trace": str(out), "tokens": trace.tokens, "layers": trace.layers}
    if as_json:
        display.emit_json(facts)
    else:
        typer.echo(f"{out}: {trace.tokens} tokens, {trace.layers} layers, top-{trace.top_k}")


@app.command()
def info(
    trace: Annotated[Path, typer.Argument(help="Trace file.")],
    slots: Annotated[
        int | None, typer.Option(help="Also give the working-set ratio at so many slots.", min=1)
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Also draw it into this PNG.")] = None,
    as_json: options.Json = False,
) -> None:
    """Say what a trace holds and how it uses the experts of each layer.

    Example: offsim trace info traces/embedded.safetensors --slots 4 --figure usage.png
    """
    from offsim.trace import load_trace
    from offsim.trace.statistics import use_table, working_set_ratio

    loaded = load_trace(trace)
    table = use_table(loaded)
    facts = {
        **loaded.info.model_dump(),
        "tokens": loaded.tokens,
        "layers": loaded.layers,
        "top_k": loaded.top_k,
        "requests": len(set(loaded.request.tolist())),
    }
    if slots:
        facts["working_set_ratio"] = working_set_ratio(loaded, slots)
    if figure:
        from offsim.files import replacing
        from offsim.report import trace_figure

        with replacing(figure) as partial:
            trace_figure(loaded).savefig(partial, format="png", dpi=150)
    if as_json:
        display.emit_json({**facts, "by_layer": table.to_dict(orient="records")})
        return
    for name, value in facts.items():
        typer.echo(f"{name.replace('_', ' ')}: {value}")
    display.show_table("Use of the experts by layer", table)
