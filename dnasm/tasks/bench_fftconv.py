"""`dnasm bench fftconv`: this op beside torch's transforms and its peers, one row a size, direction and contender.

Contenders take turns on the same inputs, this op first in each turn. The filter's transform is inside everyone's time,
and in rows of `filter: outside` outside everyone's. On a GPU inputs rotate past the L2 cache and events are read around
a call that comes while the GPU is busy, as in the middle of a model; for small sizes also (`call_`) around one that
finds it idle and so waits for the host. On a CPU the peak memory over the inputs is that of a fresh process.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dnasm.config import BenchConfig
from dnasm.ops import reference
from dnasm.tasks.bench import Row, say
from dnasm.tasks.bench_contenders import Contender, Problem, contenders
from dnasm.tasks.bench_device import ceilings, copy_bandwidth, pick, timed

CPU_LENGTHS = (256, 1000, 1024, 8192, 10007, 65536, 100_000, 1 << 20)
CPU_ELEMENTS = 1 << 23
GPU_LENGTHS = (*(256 << i for i in range(15)), 1000, 10007, 100_000)
GPU_ELEMENTS = 1 << 28
GPU_CHANNELS = 768
MOST_SMALL = 1 << 25
L2_BYTES = 128 << 20
"""Inputs rotate over more than twice the largest L2 cache, so that no call finds its own."""


def rows(config: BenchConfig) -> Iterator[Row]:
    """Time every size; each row says how long a contender took and how this op compares in the same turns."""
    device = pick(config.device)
    problems = _cpu_problems() if device == "cpu" else _gpu_problems(device)
    yield from ceilings(device)
    bandwidth = copy_bandwidth(device)
    found = []
    for problem in filter(partial(_wanted, config), problems):
        say(f"fftconv: length {problem.length}, batch {problem.batch}, gated {problem.gated}, {_direction(problem)}")
        for row in _compare(problem, contenders(problem.device.split(":")[0]), config.repeats, bandwidth):
            found.append(row)
            yield row
    if config.out is not None:
        plot(found, Path(config.out).with_suffix(".png"))


def _wanted(config: BenchConfig, problem: Problem) -> bool:
    return (
        problem.length in (config.lengths or [problem.length])
        and problem.batch in (config.batches or [problem.batch])
        and config.gated in (None, problem.gated)
    )


def _direction(problem: Problem) -> str:
    return "forward+backward" if problem.backward else "forward"


def _cpu_problems() -> Iterator[Problem]:
    for length in CPU_LENGTHS:
        channels = min(128, max(1, CPU_ELEMENTS // length))
        batch = max(1, CPU_ELEMENTS // length // channels)
        for gated in (False, True):
            for backward in (False, True):
                yield Problem(length, batch, channels, gated, backward, "cpu", torch.float32)


def _gpu_problems(device: str) -> Iterator[Problem]:
    for length in GPU_LENGTHS:
        for batch in (1, 4, 64):
            channels = min(GPU_CHANNELS, GPU_ELEMENTS // length // batch)
            for gated in (False, True) if channels else ():
                for backward in (False, True):
                    yield Problem(length, batch, channels, gated, backward, device, torch.bfloat16)


def _compare(problem: Problem, everyone: list[Contender], repeats: int, bandwidth: float) -> Iterator[Row]:
    size = sum(t.nbytes for t in problem.inputs(0).values())
    copies = 2 if problem.device == "cpu" else max(2, -(-2 * L2_BYTES // size))
    inputs = [problem.inputs(seed) for seed in range(copies)]
    for inside in (True, False) if not problem.backward else (True,):
        able = [c for c in everyone if c.takes(problem.length) and (inside or c.prepare is not None)]
        queued = _race(problem, able, inputs, repeats, inside, queued=True)
        alone = _race(problem, list(queued), inputs, repeats, inside, queued=False) if _small(problem) else {}
        for contender, own in queued.items():
            row = {**_describe(problem), "contender": contender.name, "filter": "inside" if inside else "outside"}
            row |= _ratios(own, queued.get(able[0], own)) | {"floor_seconds": problem.least_bytes / bandwidth}
            if contender in alone:
                row |= {f"call_{key}": value for key, value in _ratios(alone[contender], alone[able[0]]).items()}
            row["peak_bytes"] = _peak(problem, contender) if inside else None
            row["error"] = _error(problem, contender) if inside and not problem.backward else None
            yield row


def _small(problem: Problem) -> bool:
    """Whether the host may take as long as the GPU, so that a call that comes alone is timed as well."""
    return problem.device != "cpu" and problem.batch * problem.channels * problem.length <= MOST_SMALL


def _ratios(own: list[float], ours: list[float]) -> Row:
    ratios = sorted(theirs / mine for mine, theirs in zip(ours, own, strict=True))
    return {
        "seconds": statistics.median(own),
        "seconds_lowest": min(own),
        "seconds_highest": max(own),
        "ratio": statistics.median(ratios),
        "ratio_lowest": ratios[0],
        "ratio_highest": ratios[-1],
    }


def _describe(problem: Problem) -> Row:
    return {**asdict(problem), "dtype": str(problem.dtype).removeprefix("torch."), "threads": torch.get_num_threads()}


def _race(
    problem: Problem,
    everyone: list[Contender],
    inputs: list[dict[str, Tensor]],
    repeats: int,
    inside: bool,
    *,
    queued: bool,
) -> dict[Contender, list[float]]:
    """Seconds of each turn, the first of which warms up and is not counted; who fails drops out."""
    times: dict[Contender, list[float]] = {contender: [] for contender in everyone}
    for turn in range(repeats + 1):
        tensors = inputs[turn % len(inputs)]
        for contender in list(times):
            known = None if inside or contender.prepare is None else contender.prepare(tensors["k"], problem.length)
            try:
                took = timed(problem.device, partial(problem.run, contender, tensors, known), queued=queued)
                _raise_pending(problem.device)
            except Exception as error:  # out of memory, or whatever a peer says to a size that it does not take
                say(f"fftconv: {contender.name} drops out: {error}")
                del times[contender]
                continue
            if turn:
                times[contender].append(took)
    return times


def _raise_pending(device: str) -> None:
    """Raise what a launch before it left unsaid: who does not ask after its launches would end the next one's turn."""
    if device != "cpu":
        torch.zeros(1, device=device)


def _error(problem: Problem, contender: Contender) -> float:
    """Largest relative L2 error of a row against float64, on a few rows."""
    small = Problem(problem.length, 1, min(4, problem.channels), problem.gated, False, problem.device, problem.dtype)
    tensors = small.inputs(0)
    wide = {name: t.double() for name, t in tensors.items()}
    exact = reference.fftconv(wide["u"], wide["k"], in_gate=wide.get("in_gate"), out_gate=wide.get("out_gate"))
    off = small.run(contender, tensors)[0].double() - exact
    return (off.norm(dim=-1) / exact.norm(dim=-1)).max().item()


def _peak(problem: Problem, contender: Contender) -> int | None:
    """Most memory in use beyond the inputs during a call."""
    if problem.device != "cpu":
        tensors = problem.inputs(0)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        problem.run(contender, tensors)
        return torch.cuda.max_memory_allocated() - before
    if problem.gated or not Path("/proc/self/status").exists():
        return None  # a process each is slow; plain calls tell
    command = [sys.executable, "-m", __name__, contender.name, json.dumps(_describe(problem))]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(result.stdout) if result.returncode == 0 else None


def measure_peak(name: str, described: Row) -> int:
    """Growth of this process's high-water mark over one call, after a tiny one has loaded all code."""
    torch.set_num_threads(described.pop("threads"))
    problem = Problem(**{**described, "dtype": getattr(torch, described["dtype"])})
    contender = next(c for c in contenders("cpu") if c.name == name)
    tiny = Problem(64, 1, 1, problem.gated, problem.backward, "cpu", problem.dtype)
    tiny.run(contender, tiny.inputs(0))
    tensors = problem.inputs(0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making the inputs
    before = _high_water()
    problem.run(contender, tensors)
    return _high_water() - before


def _high_water() -> int:
    """Bytes that this process had resident at most. Not ru_maxrss, which a child takes over from its parent."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def plot(found: list[Row], path: Path) -> None:
    """Draw time per element over length, a panel for each direction, plain and gated, largest batch.

    Powers of two are joined by a line, other lengths stand beside it as hollow marks.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullLocator

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8), sharex=True, sharey="row", layout="constrained")
    ticks = sorted({r["length"] for r in found if _power_of_two(r["length"])})
    for axis, (backward, gated) in zip(axes.flat, ((b, g) for b in (False, True) for g in (False, True)), strict=True):
        chosen = [r for r in found if (r["backward"], r["gated"], r["filter"]) == (backward, gated, "inside")]
        for name in dict.fromkeys(row["contender"] for row in chosen):
            _draw(axis, name, _points(chosen, name))
        title = f"{'forward and backward' if backward else 'forward'}, {'gated' if gated else 'plain'}"
        axis.set(xscale="log", yscale="log", title=title, xlabel="length", ylabel="nanoseconds an element")
        axis.set_xticks(ticks, [_short(length) for length in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(NullLocator())
        axis.tick_params(labelbottom=True, labelleft=True)
        axis.grid(alpha=0.3)
    handles, labels = max((axis.get_legend_handles_labels() for axis in axes.flat), key=lambda found: len(found[1]))
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _points(rows: list[Row], contender: str) -> list[tuple[int, float]]:
    """Lengths with the seconds of an element, of the largest batch that anyone ran."""
    largest: dict[int, int] = {}
    for r in rows:
        largest[r["length"]] = max(r["batch"], largest.get(r["length"], 0))
    return sorted(
        (r["length"], 1e9 * r["seconds"] / (r["batch"] * r["channels"] * r["length"]))
        for r in rows
        if r["contender"] == contender and r["batch"] == largest[r["length"]]
    )


def _draw(axis: Any, contender: str, points: list[tuple[int, float]]) -> None:
    joined = [point for point in points if _power_of_two(point[0])]
    apart = [point for point in points if not _power_of_two(point[0])]
    ours = contender == "dnasm"
    style: dict[str, Any] = {"marker": "o", "zorder": 3 if ours else 2}
    [line] = axis.plot(
        *(zip(*joined, strict=True) if joined else ([], [])), label=contender, lw=2.5 if ours else 1.5, **style
    )
    axis.plot(*(zip(*apart, strict=True) if apart else ([], [])), ls="", mfc="white", color=line.get_color(), **style)


def _power_of_two(length: int) -> bool:
    return length & (length - 1) == 0


def _short(length: int) -> str:
    for unit, size in (("M", 1 << 20), ("k", 1 << 10)):
        if length >= size:
            return f"{length // size}{unit}"
    return str(length)


if __name__ == "__main__":
    print(measure_peak(sys.argv[1], json.loads(sys.argv[2])))
