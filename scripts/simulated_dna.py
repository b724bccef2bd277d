"""Simulated DNA whose entropy rate is known, and whose next base depends on bases 50 to 200 places back.

    python scripts/simulated_dna.py --out simulated.jsonl

Let m be the likeliest next base. After A or C it is a fixed function of the last two bases; after G or T it is a copy
of the base 50, 97, 149 or 200 places back: which one, the last two bases say. The next base is m, m + 1, m + 2 or m + 3
(in the cycle A, C, G, T) with probabilities Q, whatever came before. So the entropy rate is that of Q, exactly; a
Markov model of order k < 50 can know m half of the time; and whoever finds the four places knows it always.

The script fits Markov models and trains small models on it, and prints one JSON line each: bits a base on fresh
sequences, beside the entropy rate.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from json_rows import emit
from synthetic_tasks import UNKNOWN, Trainer

from dnasm.baselines.markov import MarkovModel, score_orders
from dnasm.config import ModelConfig, OptimConfig
from dnasm.models import build_model
from dnasm.models.likelihood import base_log_probs
from dnasm.ops import set_backend
from dnasm.vocabulary import A

Q = np.array([0.7, 0.1, 0.1, 0.1])
GAPS = np.array([50, 97, 149, 200])
ENTROPY_RATE = float(-(Q * np.log2(Q)).sum())
"""Bits a base."""
START = int(GAPS[-1])
"""Bases that are drawn evenly, since they have no past."""

BASE = ModelConfig(d_model=64, num_layers=2, d_inner=128, max_length=512, embedding_dropout=0.0)
MODELS = {
    "hyena": replace(BASE, filter_embedding=33),
    "h3": replace(BASE, family="h3"),
    "multihybrid": replace(BASE, family="multihybrid", pattern=["mr"], medium_taps=256, filter_group=4),
    "attention": replace(BASE, family="attention", rotary_dim=16),
}


def likeliest(last: npt.NDArray[Any], before: npt.NDArray[Any], far: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Say which base comes most often, A to T being 0 to 3.

    Args:
        last: The last base.
        before: The one before it.
        far: The bases at the four gaps, (4, ...).
    """
    copied = np.take_along_axis(far, (2 * (last - 2) + before // 2).clip(0)[None], 0)[0]
    return np.where(last < 2, (2 * last + before + 1) % 4, copied)


def simulate(rows: int, length: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw tokens (rows, length)."""
    bases = rng.integers(4, size=(length, rows))
    added = rng.choice(4, size=(length, rows), p=Q)
    for t in range(START, length):
        bases[t] = (likeliest(bases[t - 1], bases[t - 2], bases[t - GAPS]) + added[t]) % 4
    return (bases.T + A).astype(np.uint8)


def markov(rng: np.random.Generator, bases: int = 1 << 22, order: int = 8) -> dict[str, Any]:
    """Fit Markov models up to an order and score them on fresh sequences."""
    model = MarkovModel.fit(simulate(64, bases // 64, rng), order)
    scores = score_orders(model, [(row, START) for row in simulate(64, 1 << 13, rng)])
    best, bits = scores.best
    return {"model": f"Markov, order {best}", "bits": bits, "orders": scores.bits_per_base, "bases": bases}


def batches(rng: np.random.Generator, rows: int, length: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield tokens and what follows them; where no far past is known, nothing is to be learned."""
    while True:
        for tokens in np.split(simulate(64 * rows, length + 1, rng), 64):
            whole = torch.from_numpy(tokens).long()
            targets = whole[:, 1:].clone()
            targets[:, : START - 1] = UNKNOWN
            yield whole[:, :-1].contiguous(), targets


@torch.no_grad()
def bits(model: torch.nn.Module, tokens: torch.Tensor) -> float:
    """Mean bits a base after the start, over sequences."""
    model.eval()
    total = 0.0
    for part in torch.split(tokens, 32):
        log_probs = base_log_probs(model(part[:, :-1]))[:, START - 1 :]
        total -= log_probs.gather(-1, part[:, START:, None].long() - A).double().sum().item()
    model.train()
    return total / math.log(2) / tokens[:, START:].numel()


def train(name: str, seed: int, steps: int, rows: int, lr: float, device: str) -> dict[str, Any]:
    """Train a model on fresh sequences, and test it on others."""
    torch.manual_seed(seed)
    length, rng = BASE.max_length or 0, np.random.default_rng(seed)
    model = build_model(MODELS[name]).to(device).train()
    trainer = Trainer(model, OptimConfig(lr=lr), device)
    test = torch.from_numpy(simulate(256, length + 1, np.random.default_rng(1 << 20))).to(device)
    began, curve = time.perf_counter(), {}
    for step, (tokens, targets) in zip(range(steps), batches(rng, rows, length), strict=False):
        cosine = (1 + math.cos(math.pi * step / steps)) / 2
        trainer.step(tokens, targets, min(1.0, (step + 1) / 100) * (0.01 + 0.99 * cosine))
        if (step + 1) % max(1, steps // 10) == 0:
            curve[step + 1] = bits(model, test)
            print(f"{name}: {step + 1} steps, {curve[step + 1]:.4f} bits", file=sys.stderr, flush=True)
    return {
        "model": name,
        "seed": seed,
        "bits": bits(model, test),
        "curve": curve,
        "steps": steps,
        "rows": rows,
        "lr": lr,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(time.perf_counter() - began, 1),
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--no-markov", action="store_true")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--rows", type=int, default=32, help="sequences of a step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--conv-backend", default="auto", help="reference needs no compiler")
    parser.add_argument("--out", type=Path, help="JSON lines file to append to")
    args = parser.parse_args()
    set_backend(args.conv_backend)
    found = [] if args.no_markov else [lambda: markov(np.random.default_rng(0))]
    for name in args.models:
        for seed in args.seeds:
            found.append(lambda n=name, s=seed: train(n, s, args.steps, args.rows, args.lr, args.device))
    for work in found:
        row = work()
        excess = row["bits"] / ENTROPY_RATE - 1
        emit({**row, "entropy_rate": ENTROPY_RATE, "above": excess, "torch": torch.__version__}, args.out)


if __name__ == "__main__":
    main()
