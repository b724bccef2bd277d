"""Simulated DNA whose entropy rate is known, and whose next base depends on bases 50 to 200 places back.

    python scripts/simulated_dna.py --out simulated.jsonl

Let m be the likeliest next base. After A or C it is a fixed function of the last two bases; after G or T it is a copy
of the base 50, 97, 149 or 200 places back: which one, the last two bases say. The next base is m, m + 1, m + 2 or m + 3
(in the cycle A, C, G, T) with probabilities Q, whatever came before. So the entropy rate is that of Q, exactly; a
Markov model of order k < 50 can know m half of the time; and whoever finds the four places knows it always.

The script fits Markov models and trains small models on it, and prints one JSON line each: bits a base on fresh
sequences, beside the entropy rate and beside what who knows the rule needs for the same sequences. A sample of them is
off the rate by chance; the difference to the rule hardly is, which is why `above_rule` has the smaller error.
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
def bits(model: torch.nn.Module, tokens: torch.Tensor) -> npt.NDArray[np.float64]:
    """Mean bits a base after the start, of each sequence."""
    model.eval()
    found = []
    for part in torch.split(tokens, 32):
        log_probs = base_log_probs(model(part[:, :-1]))[:, START - 1 :]
        found.append(-log_probs.gather(-1, part[:, START:, None].long() - A)[..., 0].double().mean(1) / math.log(2))
    model.train()
    return torch.cat(found).cpu().numpy()


def rule_bits(tokens: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The same of who knows the rule: what chance alone makes of the entropy rate."""
    bases = tokens.astype(int) - A
    length = bases.shape[1]
    far = np.stack([bases[:, START - gap : length - gap] for gap in GAPS])
    best = likeliest(bases[:, START - 1 : -1], bases[:, START - 2 : -2], far)
    return -np.log2(Q[(bases[:, START:] - best) % 4]).mean(1)


def mean_and_error(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Mean over sequences and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def compare(model: torch.nn.Module, count: int, device: str) -> dict[str, Any]:
    """Test a model on fresh sequences, beside who knows the rule."""
    tokens = simulate(count, (BASE.max_length or 0) + 1, np.random.default_rng(1 << 21))
    own, rule = bits(model, torch.from_numpy(tokens).to(device)), rule_bits(tokens)
    (mean, error), (excess, excess_error) = mean_and_error(own), mean_and_error((own - rule) / ENTROPY_RATE)
    return {
        "bits": mean,
        "bits_error": error,
        "rule_bits": float(rule.mean()),
        "above_rule": excess,
        "above_rule_error": excess_error,
        "tested_bases": tokens[:, START:].size,
    }


def train(
    name: str, seed: int, steps: int, rows: int, lr: float, device: str, seconds: float = math.inf, tested: int = 1024
) -> dict[str, Any]:
    """Train a model on fresh sequences, and test it on others; where the time is short, the schedule follows it."""
    torch.manual_seed(seed)
    length, rng = BASE.max_length or 0, np.random.default_rng(seed)
    model = build_model(MODELS[name]).to(device).train()
    trainer = Trainer(model, OptimConfig(lr=lr), device)
    few = torch.from_numpy(simulate(256, length + 1, np.random.default_rng(1 << 20))).to(device)
    began, curve, step, looks = time.perf_counter(), {}, 0, 0
    drawn = batches(rng, rows, length)
    while (done := max(step / steps, (time.perf_counter() - began) / seconds)) < 1:
        cosine = (1 + math.cos(math.pi * done)) / 2
        trainer.step(*next(drawn), min(1.0, (step + 1) / 100) * (0.01 + 0.99 * cosine))
        step += 1
        if device != "cpu" and step % 50 == 0:
            torch.cuda.synchronize()  # the clock is the device's, not that of who fills its queue
        if 10 * done >= looks + 1:
            looks += 1
            curve[step] = float(bits(model, few).mean())
            print(f"{name}: {step} steps, {curve[step]:.4f} bits", file=sys.stderr, flush=True)
    return {
        "model": name,
        "seed": seed,
        **compare(model, tested, device),
        "curve": curve,
        "steps": step,
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
    parser.add_argument("--seconds", type=float, default=math.inf, help="at most, for a training's steps")
    parser.add_argument("--rows", type=int, default=32, help="sequences of a step")
    parser.add_argument("--tested", type=int, default=1024, help="sequences of the last test")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--conv-backend", default="auto", help="reference needs no compiler")
    parser.add_argument("--out", type=Path, help="JSON lines file to append to")
    args = parser.parse_args()
    set_backend(args.conv_backend)
    found = [] if args.no_markov else [lambda: markov(np.random.default_rng(0))]
    for name in args.models:
        for seed in args.seeds:
            settings = (args.steps, args.rows, args.lr, args.device, args.seconds, args.tested)
            found.append(lambda n=name, s=seed, rest=settings: train(n, s, *rest))
    for work in found:
        row = work()
        excess = row["bits"] / ENTROPY_RATE - 1
        emit({**row, "entropy_rate": ENTROPY_RATE, "above": excess, "torch": torch.__version__}, args.out)


if __name__ == "__main__":
    main()
