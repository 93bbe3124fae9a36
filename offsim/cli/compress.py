"""`offsim compress` and `offsim verify`: the experts of a checkpoint as a folder of blobs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offsim.cli import display, options

if TYPE_CHECKING:
    from offsim.codec.folder import Index
    from offsim.policy.bounds import Bounds

Jobs = Annotated[
    int | None, typer.Option(help="Processes, each with one expert; one a core.", min=1)
]


def compress(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a Hugging Face checkpoint.")],
    out: Annotated[
        Path, typer.Option(help="Folder for the blobs; what it has of the same job is kept.")
    ],
    codec: Annotated[
        str | None, typer.Option(help="raw, cuszp, sz3, ...: `offsim codecs list`.")
    ] = None,
    bound: Annotated[
        str | None,
        typer.Option(
            help="Largest error of a weight in its stored dtype, such as 0.001 or sigma:0.25."
        ),
    ] = None,
    bounds: options.BoundsFile = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="File (YAML, docs/formats.md) that says codec and bounds in their place."
        ),
    ] = None,
    jobs: Jobs = None,
    as_json: options.Json = False,
) -> None:
    """Compress every expert of a checkpoint into a folder, in which every bound was verified.

    What was stopped, by Ctrl-C, a full disk or in any other way, goes on where it was when the
    same command is given again; the bytes are the same then, and whatever --jobs is.

    Example: offsim compress Mixtral-8x7B --codec cuszp --bound sigma:0.25 --out experts
    """
    from offsim.study.compress import GO_ON
    from offsim.study.compress import compress as run

    name, table = _asked(codec, bound, bounds, policy)
    try:
        with display.progress(quiet=as_json) as tell:
            index = run(
                checkpoint,
                out,
                name,
                table,
                jobs or _cores(),
                tell,
                lambda text: typer.echo(f"offsim: note: {text}", err=True),
            )
    except KeyboardInterrupt:
        typer.echo(f"offsim: {out} keeps what is done; {GO_ON}", err=True)
        raise
    if as_json:
        display.emit_json({**_facts(index), "label": "MEASURED"})
    else:
        _show(index, out)


def verify(
    folder: Annotated[Path, typer.Argument(help="Folder that `offsim compress` made.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="The checkpoint that it was made of: every weight is compared with it."),
    ] = None,
    jobs: Jobs = None,
    as_json: options.Json = False,
) -> None:
    """Check every byte of a folder, decode every matrix and, with the checkpoint, every bound.

    Exit code 1 where anything is wrong, with a line for each problem.

    Example: offsim verify experts --checkpoint Mixtral-8x7B
    """
    from dataclasses import asdict

    from offsim.study.verify import verify as run
    from offsim.units import show_bytes

    with display.progress(quiet=as_json) as tell:
        found = run(folder, checkpoint, jobs or _cores(), tell)
    if as_json:
        display.emit_json({**asdict(found), "label": "MEASURED"})
    for problem in found.problems:
        typer.echo(f"offsim: {problem}", err=True)
    if found.problems:
        raise typer.Exit(1)
    if not as_json:
        error = "" if found.largest_error is None else f", largest error {found.largest_error:.4g}"
        typer.echo(
            f"{folder}: {found.experts} experts in {show_bytes(found.bytes)} are whole and decode"
            f"{error} [MEASURED]"
        )


def _asked(
    codec: str | None, bound: str | None, file: Path | None, policy: Path | None
) -> "tuple[str, Bounds | None]":
    """Codec and bounds.

    Raises:
        InputError: options that exclude each other, no codec, or a file that cannot be read.
        FormatError: a file is not what it should be.
    """
    from offsim.codec.bounds import Bound
    from offsim.errors import InputError
    from offsim.files import read_yaml
    from offsim.policy.bounds import Bounds
    from offsim.policy.stored import read_policy

    if policy is not None:
        if any(one is not None for one in (codec, bound, file)):
            raise InputError(
                "--policy says codec and bounds; leave --codec, --bound and --bounds out"
            )
        return read_policy(policy)
    if codec is None:
        raise InputError("--codec says how experts are compressed; give it, or --policy")
    if bound is not None and file is not None:
        raise InputError("--bound and --bounds exclude each other; give one")
    if file is not None:
        return codec, read_yaml(file, Bounds)
    return codec, None if bound is None else Bounds(default=Bound.parse(bound))


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _facts(index: "Index") -> dict[str, object]:
    """What an index says, without its files."""
    return index.model_dump(mode="json", exclude={"layers", "format", "version"})


def _show(index: "Index", out: Path) -> None:
    from offsim.units import show_bytes

    job = index.job
    ratio = "unknown" if index.ratio is None else f"{index.ratio:.4g}"
    facts = {
        "experts": f"{job.layers} layers x {job.experts}",
        "stored": f"{show_bytes(index.stored_bytes)} in the checkpoint",
        "payloads": show_bytes(index.payload_bytes),
        "ratio": ratio,
        "files": show_bytes(index.bytes),
    }
    display.show_facts(f"{out} under {job.codec} [MEASURED]", facts)
