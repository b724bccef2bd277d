"""Tables and plots of docs/benchmarks/gpu.md, from the JSON lines that `dnasm bench` wrote.

`python scripts/bench_page.py runs/bench/*.jsonl --page docs/benchmarks/gpu.md --plot docs/benchmarks/h200-fftconv.png`
rewrites what stands between `<!-- NAME -->` and `<!-- end -->` in the page; without `--page` it prints.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dnasm.tasks.bench_fftconv import plot

Row = dict[str, Any]
FLASH, NVIDIA, RFFT, FFT = "flashfftconv", "subquadratic_ops_torch", "torch rfft", "torch fft"
FUSED = (FLASH, NVIDIA)
PEERS = {RFFT: "rfft", FFT: "fft", FLASH: "FlashFFTConv", NVIDIA: "subquadratic-ops"}
EAGER, GRAPH = "Transformer, eager", "Transformer, static cache and CUDA graph"
ORIGINAL, TRANSFORMER = "HyenaDNA's code", "Transformer"


def table(head: str, lines: Iterable[Iterable[str]]) -> str:
    """Markdown; `head` gives the columns, divided by bars."""
    columns = head.split("|")
    rows = [f"| {' | '.join(cell.strip() for cell in line)} |" for line in (columns, *lines)]
    return "\n".join([rows[0], "|---" * len(columns) + "|", *rows[1:]])


def times(row: Row | None, key: str = "ratio", *, spread: bool = False) -> str:
    """How many times as long someone took, with the lowest and highest turn."""
    if row is None or key not in row:
        return ""
    return f"{row[key]:.1f}" + (f" ({row[f'{key}_lowest']:.1f} to {row[f'{key}_highest']:.1f})" if spread else "")


def mib(row: Row | None) -> str:
    """Peak memory."""
    return "" if row is None or row.get("peak_bytes") is None else f"{row['peak_bytes'] / 2**20:,.0f}"


def gib(row: Row | None) -> str:
    """Peak memory of whole models, and whether activations were computed again to stay within it."""
    if row is None or row.get("peak_bytes") is None:
        return ""
    return f"{row['peak_bytes'] / 2**30:.1f}" + (" (recomputed)" if row.get("recomputed") else "")


def by_contender(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], dict[str, Row]]:
    """Rows of one problem together."""
    found: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), {})[row["contender"]] = row
    return found


def convolutions(rows: list[Row]) -> str:
    """Time, forward and forward with backward, beside everyone."""
    forward, both = (
        by_contender((r for r in rows if r["backward"] == back), "length", "channels") for back in (False, True)
    )
    peers = " | ".join(PEERS.values())
    lines = []
    for (length, channels), there in sorted(forward.items()):
        back = both.get((length, channels), {})
        ours = there["dnasm"]
        lines.append(
            [f"{length:,}", f"{channels}", f"{1e3 * ours['seconds']:.3g}"]
            + [f"{ours['seconds'] / ours['floor_seconds']:.1f}"]
            + [times(there.get(name), spread=name in FUSED) for name in PEERS]
            + [f"{1e3 * back['dnasm']['seconds']:.3g}" if back else ""]
            + [times(back.get(name), spread=name in FUSED) for name in PEERS]
        )
    return table(
        f"length | channels | forward, ms | over the floor | {peers} | forward + backward, ms | {peers}", lines
    )


def memory_and_error(rows: list[Row]) -> str:
    """Peak memory, forward with backward, and error against float64."""
    there = by_contender(rows, "length", "backward")
    names = ["dnasm", *(name for name in PEERS if name != FFT)]
    lines = []
    for length in sorted({length for length, _ in there}):
        forward, back = there.get((length, False), {}), there.get((length, True), {})
        errors = (forward.get(name, {}).get("error") for name in names)
        lines.append(
            [f"{length:,}", *(mib(back.get(name)) for name in names)]
            + ["" if error is None else f"{error:.1e}" for error in errors]
        )
    who = " | ".join(["ours", *(PEERS[name] for name in names[1:])])
    return table(f"length | peak MiB: {who} | error: {who}", lines)


def small_calls(rows: list[Row]) -> str:
    """Batch 1: a call that finds the GPU idle, and one whose filter was transformed before."""
    chosen = [r for r in rows if r["batch"] == 1 and r["gated"] and not r["backward"]]
    inside, outside = (
        by_contender((r for r in chosen if r["filter"] == where), "length") for where in ("inside", "outside")
    )
    lines = []
    for key, there in sorted(inside.items()):
        ours, ahead = there["dnasm"], outside.get(key)
        if ahead is None:  # the run ended between the two
            continue
        lines.append(
            [f"{key[0]:,}", *(f"{1e3 * ours[k]:.3g}" if k in ours else "" for k in ("seconds", "call_seconds"))]
            + [times(there.get(name), "call_ratio") for name in (RFFT, *FUSED)]
            + [f"{1e3 * ahead['dnasm']['seconds']:.3g}"]
            + [times(ahead.get(RFFT))]
        )
    head = (
        "length | queued, ms | alone, ms | rfft alone | FlashFFTConv alone | subquadratic-ops alone | "
        "filter ahead, ms | rfft, filter ahead"
    )
    return table(head, lines)


def training(rows: list[Row]) -> str:
    """A step of each model."""
    lines = []
    for (model, length, batch), there in by_contender(rows, "model", "length", "batch").items():
        ours, original, other = there["dnasm"], there.get(ORIGINAL), there.get(TRANSFORMER)
        lines.append(
            [model, f"{length:,}", f"{batch}", f"{ours['tokens_per_second'] / 1e6:.2f}", f"{1e3 * ours['seconds']:.1f}"]
            + [times(row, spread=True) for row in (original, other)]
            + [gib(row) for row in (ours, original, other)]
        )
    head = (
        "model | length | batch | Mtokens/s | step, ms | HyenaDNA's code | Transformer | peak GiB: ours | HyenaDNA's | "
        "Transformer's"
    )
    return table(head, lines)


def generation(rows: list[Row]) -> str:
    """Prompts and what follows them."""
    lines = []
    for (_, prompt, _), there in by_contender((r for r in rows if "prompt" in r), "model", "prompt", "tokens").items():
        ours, eager, graph = (there.get(name) for name in ("dnasm", EAGER, GRAPH))
        lines.append(
            [f"{prompt:,}", *(f"{r['tokens_per_second']:,.0f}" if r else "" for r in (ours, eager, graph))]
            + [times(eager), times(graph)]
            + [f"{1e3 * r['token_seconds']:.2f}" if r else "" for r in (ours, eager, graph)]
            + [f"{r['prompt_seconds']:.2f}" if r else "" for r in (ours, graph)]
            + [gib(ours), gib(graph)]
        )
    head = (
        "prompt | tokens/s: H3 | eager | graph | times eager | times graph | ms a step: H3 | eager | graph | "
        "prompt, s: H3 | Transformer | peak GiB: H3 | graph"
    )
    return table(head, lines)


def far(rows: list[Row]) -> str:
    """A token's cost at far positions."""
    lines = (
        [f"{r['position']:,}", *(f"{1e3 * r[k]:.3f}" for k in ("token_seconds", "token_seconds_lowest"))]
        for r in rows
        if "position" in r
    )
    return table("position | ms a token | fastest", lines)


def ceilings(rows: list[Row]) -> str:
    """What the GPU reached that day, lowest and highest of each bench's runs."""
    lines = []
    for bench in dict.fromkeys(r["bench"] for r in rows):
        there = [r for r in rows if r["bench"] == bench]
        copies = sorted(r["copy_bytes_per_second"] / 1e12 for r in there)
        products = sorted(r["matrix_product_flops"] / 1e12 for r in there)
        lines.append([bench, f"{copies[0]:.2f} to {copies[-1]:.2f}", f"{products[0]:.0f} to {products[-1]:.0f}"])
    return table("bench | copy, TB/s read and written | 8192^3 bfloat16 product, TFLOP/s", lines)


def sections(rows: list[Row]) -> Iterator[tuple[str, str]]:
    """Yield the page's parts by name, of what was measured."""
    measured = [r for r in rows if r.get("case") != "ceilings"]
    conv, train, generate = ([r for r in measured if r["bench"] == name] for name in ("fftconv", "train", "generate"))
    yield "ceilings", ceilings([r for r in rows if r.get("case") == "ceilings"])
    for batch, gated in sorted({(r["batch"], r["gated"]) for r in conv}, reverse=True):
        chosen = [r for r in conv if (r["batch"], r["gated"], r["filter"]) == (batch, gated, "inside")]
        kind = f"{batch} {'gated' if gated else 'plain'}"
        yield f"fftconv {kind}", convolutions(chosen)
        yield f"memory {kind}", memory_and_error(chosen)
    parts: list[tuple[str, list[Row], Callable[[list[Row]], str]]] = [
        ("small calls", conv, small_calls),
        ("train", train, training),
        ("generate", generate, generation),
        ("far", generate, far),
    ]
    yield from ((name, make(found)) for name, found, make in parts if found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--plot", type=Path, help="PNG to draw the convolutions into")
    args = parser.parse_args()
    rows = [json.loads(line) for path in args.files for line in path.read_text().splitlines()]
    text = args.page.read_text() if args.page else ""
    for name, made in sections(rows):
        if not args.page:
            print(f"## {name}\n\n{made}\n")
            continue
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.S)
        text, count = pattern.subn(lambda found, made=made: f"{found[1]}{made}\n{found[2]}", text)
        if not count:
            parser.error(f"{args.page} has no place for it: <!-- {name} --> ... <!-- end -->")
    if args.page:
        args.page.write_text(text)
    if args.plot:
        drawn = [r for r in rows if r["bench"] == "fftconv" and "filter" in r]
        largest = max(r["batch"] for r in drawn)
        plot([r for r in drawn if r["batch"] == largest], args.plot)


if __name__ == "__main__":
    main()
