"""`offsim compress` of a generated checkpoint: its speed against the codec's own, and its memory.

The codec's own speed is that of `encode_expert` on an expert in memory, in as many processes,
measured before and after: it encodes and verifies the bound as `offsim compress` does, and neither
reads nor writes. Memory is that of all processes together (PSS: shared pages count once). It is
that of a second run, since who looks at it again and again takes time from what is measured.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from multiprocessing import connection, synchronize
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import torch

from offsim.codec.bounds import Bound
from offsim.codec.expert import encode_expert
from offsim.codec.registry import codec_named
from offsim.policy.bounds import Bounds
from offsim.study.compress import compress

MB = 1_000_000
HIDDEN, WIDTH = 4096, 2730
EXPERT_BYTES = 3 * HIDDEN * WIDTH * 2
BOUND = Bound(2.0**-10)
LEAST_S = 4.0
"""That the codec's own speed is measured for."""
Memory = Counter[str]


def generate(folder: Path, layers: int, experts: int) -> None:
    """A checkpoint like Mixtral's, a shard a layer; experts are windows of one field of weights."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "dtype": "bfloat16",
        "num_hidden_layers": layers,
        "num_local_experts": experts,
        "num_experts_per_tok": 2,
        "hidden_size": HIDDEN,
        "intermediate_size": WIDTH,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
    }
    (folder / "config.json").write_text(json.dumps(config))
    matrix = EXPERT_BYTES // 3
    field = torch.randn(matrix + layers * experts * 3 * 64, dtype=torch.float32) * 0.02
    weights = field.bfloat16().view(torch.uint8).numpy()
    shapes = {"w1": (WIDTH, HIDDEN), "w2": (HIDDEN, WIDTH), "w3": (WIDTH, HIDDEN)}
    number, owners = 0, {}
    for layer in range(layers):
        name = f"model-{layer + 1:05}-of-{layers:05}.safetensors"
        header, end = {}, 0
        for expert in range(experts):
            for kind, shape in shapes.items():
                key = f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{kind}.weight"
                place = [end, end + matrix]
                header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": place}
                end, owners[key] = end + matrix, name
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for _ in range(3 * experts):
                file.write(weights[128 * number : 128 * number + matrix].data)
                number += 1
    index = {"metadata": {}, "weight_map": owners}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def family(process: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield process
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))
    except OSError:  # it ended
        return


def memory(process: int) -> Memory:
    """Bytes of a process and its descendants, by kind."""
    total: Memory = Counter()
    for one in family(process):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:
            continue
        total.update({name: 1024 * int(kb) for name, kb, *_ in map(str.split, lines)})
    return total


def timed(*command: str | Path) -> tuple[str, float]:
    """What a command prints, and its seconds."""
    start = perf_counter()
    ended = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
    return ended.stdout, perf_counter() - start


def watched(*command: str | Path) -> Memory:
    """The most memory of each kind that a command has."""
    peak = Counter[str]()
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL) as program:
        while program.poll() is None:
            peak |= memory(program.pid)
            sleep(0.02)
    if program.returncode:
        raise subprocess.CalledProcessError(program.returncode, command)
    return peak


def own(
    codec: str, link: connection.Connection, all_ready: synchronize.Barrier, number: int
) -> None:
    """Encode an expert again and again; say how many bytes in how many seconds."""
    torch.set_num_threads(1)
    values = np.random.default_rng(number).normal(0, 0.02, EXPERT_BYTES // 2).astype(np.float32)
    flat = torch.from_numpy(values).bfloat16()
    parts = flat.view(3, -1)
    matrices = [parts[0].view(WIDTH, HIDDEN), parts[1].view(WIDTH, HIDDEN)]
    matrices.append(parts[2].view(HIDDEN, WIDTH))
    kind = codec_named(codec)
    encode_expert(matrices, kind, [BOUND] * 3)
    all_ready.wait()
    start, done = perf_counter(), 0
    while perf_counter() - start < LEAST_S:
        encode_expert(matrices, kind, [BOUND] * 3)
        done += EXPERT_BYTES
    link.send([done, perf_counter() - start])


def own_rate(codec: str, jobs: int) -> float:
    """Bytes a second of so many processes together."""
    context = multiprocessing.get_context("spawn")
    barrier, rate = context.Barrier(jobs), 0.0
    links, processes = [], []
    for number in range(jobs):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=own, args=(codec, theirs, barrier, number)))
        processes[-1].start()
        links.append(ours)
    for link, process in zip(links, processes, strict=True):
        done, seconds = link.recv()
        rate += done / seconds
        process.join()
    return rate


def timed_compress(checkpoint: Path, out: Path, codec: str, jobs: int) -> None:
    """Compress, and print the seconds from the opened checkpoint to the last byte on the disk."""
    opened = perf_counter()

    def tell(what: str, share: float) -> None:
        nonlocal opened
        if what == "compressing":
            opened = perf_counter()

    index = compress(checkpoint, out, codec, Bounds(default=BOUND), jobs, tell)
    print(json.dumps({"seconds": perf_counter() - opened, "ratio": index.ratio}))


def shown(peak: Memory) -> str:
    own = f"{peak['Pss_Anon:'] / MB:.0f} MB of it in no file"
    return f"PSS {peak['Pss:'] / MB:.0f} MB ({own}; sum of RSS {peak['Rss:'] / MB:.0f} MB)"


def measure(folder: Path, codecs: list[str], jobs: int) -> None:
    checkpoint = folder / "checkpoint"
    offsim = Path(sys.executable).with_name("offsim")
    sample = ("codecs", "bench", "--checkpoint", checkpoint, "--experts", "4", "--repeats", "1")
    for command in (
        (offsim, "model", checkpoint),
        (offsim, *sample, "--codec", "cuszp", "--bound", str(BOUND.value)),
    ):
        _, seconds = timed(*command)
        name = " ".join(map(str, command[1:3]))
        print(f"offsim {name}: {seconds:.1f} s, peak {shown(watched(*command))}")
    total = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
    for codec in codecs:
        out = folder / f"out-{codec}"
        command = (sys.executable, __file__, "--run", codec, "--jobs", str(jobs), folder)
        peak = watched(*command)
        empty(out)
        rates = [own_rate(codec, jobs)]
        text, seconds = timed(*command)
        rates.append(own_rate(codec, jobs))
        found = json.loads(text)
        rate, codec_rate = total / found["seconds"], sum(rates) / 2
        print(
            f"{codec} {BOUND}: ratio {found['ratio']:.3f}; {rate / MB:.0f} MB/s, the codec's own "
            f"{codec_rate / MB:.0f} ({rates[0] / MB:.0f} before, {rates[1] / MB:.0f} after): "
            f"{rate / codec_rate:.2f} of it; {seconds:.1f} s with the start; peak {shown(peak)}"
        )
        command = (offsim, "verify", out, "--checkpoint", checkpoint, "--jobs", str(jobs))
        _, seconds = timed(*command)
        peak = watched(*command)
        print(f"{codec} verified with the checkpoint: {seconds:.1f} s, peak {shown(peak)}")
        empty(out)


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="new, for the checkpoint and what comes of it")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--codec", action="append", help="cuszp and sz3 by default")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        out = asked.folder / f"out-{asked.run}"
        timed_compress(asked.folder / "checkpoint", out, asked.run, asked.jobs)
        return
    checkpoint = asked.folder / "checkpoint"
    if not checkpoint.exists():
        start = perf_counter()
        generate(checkpoint, asked.layers, asked.experts)
        print(f"generated in {perf_counter() - start:.1f} s")
    count = asked.layers * asked.experts
    print(f"{count} experts of {EXPERT_BYTES / MB:.1f} MB, {asked.jobs} jobs, MEASURED")
    measure(asked.folder, asked.codec or ["cuszp", "sz3"], asked.jobs)


if __name__ == "__main__":
    main()
