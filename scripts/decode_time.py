"""Time of a token from position 1,024 to 65,536, for each kind of mixer; one JSON line a stretch, and the plot.

    python scripts/decode_time.py --out decode.jsonl                    # --device cuda: steps replay CUDA graphs
    python scripts/decode_time.py --plot decode.png --rows decode.jsonl

A model reads 1,024 tokens, then decodes one after the other, the likeliest each time. A stretch runs from one power of
two to the next, and counts the mean of its steps: of all with Hyena, whose tiles differ, and on a GPU; on a CPU of the
last 64 with the others, whose state is put there without reading, since its numbers do not change the work. Seconds are
the process's own on a CPU, which other processes do not lengthen, and the clock's on a GPU.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from json_rows import emit

from dnasm.config import ModelConfig
from dnasm.models import LanguageModel, build_model
from dnasm.models.replay import Replay
from dnasm.ops import set_backend
from dnasm.tasks.run_record import git_state

BASE = ModelConfig(d_model=128, num_layers=2, d_inner=512, max_length=None, num_heads=4)
MODELS = {
    "H3": replace(BASE, family="h3"),
    "modal (multihybrid, li)": replace(BASE, family="multihybrid", d_inner=256, pattern=["li"]),
    "Hyena": replace(BASE, family="hyena", max_length=1 << 16),
    "Transformer": replace(BASE, family="attention", rotary_dim=32),
}
FIRST = 1 << 10


@torch.inference_mode()
def stretches(model: LanguageModel, last: int, device: str, few: int | None) -> Iterator[dict[str, Any]]:
    """Decode up to position `last`; yield the mean seconds of a token in each stretch, of its last `few` or of all."""
    state = model.start(1, last)
    prompt = torch.randint(7, 11, (1, FIRST), device=device)
    token = model.extend(prompt, state)[:, -1:].argmax(-1)

    def body() -> None:
        token.copy_(model.extend(token, state).argmax(-1))

    replay = Replay(state, body, graphs=True) if device != "cpu" else None
    clock = time.process_time if device == "cpu" else time.perf_counter
    for begin in (1 << i for i in range(FIRST.bit_length() - 1, last.bit_length() - 1)):
        steps = few or begin
        if few:
            state.position = 2 * begin - few
            for layer in state.layers:
                layer.position = state.position
        began = clock()
        for _ in range(steps):
            if replay is None:
                body()
            else:
                replay.step()
        token.item()  # waits for the device
        yield {"from": begin, "to": 2 * begin, "steps": steps, "seconds_per_token": (clock() - began) / steps}


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for name in MODELS:
        points = [row for row in rows if row["model"] == name]
        places, times = [row["to"] for row in points], [1e3 * row["seconds_per_token"] for row in points]
        axes.plot(places, times, marker="o", label=name, markersize=4)
    axes.set(xscale="log", yscale="log", xlabel="position", ylabel="ms a token")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda position, _: f"{position:,.0f}"))
    axes.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=1)
    axes.grid(color="#e5e8ec", linewidth=0.6)
    axes.set_title(f"{rows[0]['device']}, batch 1, 2 layers of 128 channels", fontsize=9)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--last", type=int, default=1 << 16, help="a power of two")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--conv-backend", default="auto", help="of the 1,024 tokens that are read")
    parser.add_argument("--out", type=Path, help="JSON lines file to append to")
    parser.add_argument("--plot", type=Path, help="draw the rows of --rows instead")
    parser.add_argument("--rows", type=Path)
    args = parser.parse_args()
    if args.plot is not None:
        plot([json.loads(line) for line in args.rows.read_text().splitlines()], args.plot)
        return
    set_backend(args.conv_backend)
    setting = {
        "device": "CPU, one thread" if args.device == "cpu" else torch.cuda.get_device_name(args.device),
        "torch": torch.__version__,
        "git": git_state(),
    }
    if args.device == "cpu":
        torch.set_num_threads(1)
    for name in args.models:
        torch.manual_seed(0)
        model = build_model(MODELS[name]).to(args.device).eval()
        few = 64 if args.device == "cpu" and name != "Hyena" else None
        for row in stretches(model, args.last, args.device, few):
            emit({"model": name, **row, **setting}, args.out)


if __name__ == "__main__":
    main()
