"""Likelihood and mean embedding of a sequence of 10 million bases, and the memory they take; one JSON line a model.

python scripts/long_input.py --models h3 --out long.jsonl
"""

import argparse
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from json_rows import emit

import dnasm
from dnasm.models import build_model
from dnasm.ops import set_backend
from dnasm.presets import preset

MODELS = {
    "h3": preset("h3-tiny"),
    "modal": replace(preset("multihybrid-tiny"), pattern=["li"], attention_layers=[]),
    "short": replace(preset("multihybrid-tiny"), pattern=["se", "mr"], attention_layers=[]),
    "cnn": preset("cnn-tiny"),
}


def measure(name: str, length: int, channels: int, device: str) -> dict:
    """Read a random sequence of a length after a short one; memory is what the long one adds at its peak."""
    torch.manual_seed(0)
    config = replace(MODELS[name], max_length=None, d_model=channels, d_inner=2 * channels)
    model = build_model(config).to(device).eval()
    tokens = np.random.default_rng(0).integers(7, 11, length, dtype=np.uint8)

    def peak() -> int:
        on_gpu = torch.cuda.max_memory_allocated() if device != "cpu" else 0
        return on_gpu or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    dnasm.log_likelihood(model, [tokens[: 1 << 17]])
    before, began = peak(), time.perf_counter()
    likelihood = float(dnasm.log_likelihood(model, [tokens])[0])
    middle = time.perf_counter()
    vector = np.asarray(dnasm.embed(model, [tokens]))[0]
    return {
        "model": name,
        "length": length,
        "channels": channels,
        "nats_per_base": likelihood / length,
        "embedding_norm": float(np.linalg.norm(vector)),
        "likelihood_seconds": middle - began,
        "embed_seconds": time.perf_counter() - middle,
        "peak_bytes_with_131072": before,
        "peak_bytes": peak(),
        "one_shot_bytes": model.config.memory(length, 1, training=False),
        "parameters": model.config.parameters(),
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--length", type=int, default=10_000_000)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--conv-backend", default="auto", help="reference needs no compiler")
    parser.add_argument("--out", type=Path, help="JSON lines file to append to")
    args = parser.parse_args()
    set_backend(args.conv_backend)
    if len(args.models) > 1:  # each in a fresh process, for its peak
        rest = ["--device", args.device, "--length", str(args.length), "--conv-backend", args.conv_backend]
        rest += ["--channels", str(args.channels)]
        rest += ["--out", str(args.out)] if args.out else []
        for name in args.models:
            subprocess.run([sys.executable, __file__, "--models", name, *rest], check=True)
        return
    emit(measure(args.models[0], args.length, args.channels, args.device), args.out)


if __name__ == "__main__":
    main()
