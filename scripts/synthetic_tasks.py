"""The tasks of the H3 paper that a language model must solve by looking back, on every kind of mixer.

    python scripts/synthetic_tasks.py --out synthetic.jsonl                        # everything
    python scripts/synthetic_tasks.py --tasks induction --models h3 --seeds 0      # one training

Induction head: a mark stands at one place among 30 random tokens and again at the end; the answer is the token that
followed it. Associative recall: 20 tokens are pairs of one of 5 keys and its value, drawn anew for each sequence; then
one of the keys comes again, and its value is the answer; values of keys that come again before the end are learned as
well. Sequences are fresh at each step and for the test, which counts the last answer alone. One JSON line a training.

Source: Fu et al. 2023, "Hungry Hungry Hippos", section 3.1.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from json_rows import emit
from torch import Tensor

from dnasm.config import ModelConfig, OptimConfig
from dnasm.models import LanguageModel, build_model
from dnasm.models.backbone import Embeddings, mark_parameters
from dnasm.ops import set_backend
from dnasm.training.optim import build_optimizer

BASE = ModelConfig(d_model=64, num_layers=2, d_inner=128, max_length=None, embedding_dropout=0.0)
H3 = replace(BASE, family="h3", state_size=16, head_dim=8)
MODELS = {
    "h3": H3,
    "hyena": replace(BASE, family="hyena", max_length=64),
    "hybrid": replace(H3, attention_layers=[1]),
    "multihybrid": replace(BASE, family="multihybrid", pattern=["mr"], attention_layers=[1], rotary_dim=16),
    "attention": replace(BASE, family="attention", rotary_dim=16),
}
TEST = 2000
GOAL = 0.99
UNKNOWN = -100  # cross-entropy leaves it out: what follows there cannot be known


def induction(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw sequences of 31 tokens, 20 in the vocabulary, the last of which is the mark; and what follows the tokens."""
    length, mark = 30, 19
    tokens = torch.randint(mark, (count, length), generator=generator)
    at = torch.randint(length - 1, (count, 1), generator=generator)
    tokens.scatter_(1, at, mark)
    targets = torch.full((count, length + 1), UNKNOWN)
    targets[:, -1:] = tokens.gather(1, at + 1)
    return torch.cat([tokens, torch.full((count, 1), mark)], 1), targets


def recall(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw sequences of 21 tokens, 5 keys and 5 values in turn, that end with a key again; and what follows them."""
    pairs, keys = 10, 5
    table = torch.randint(keys, 2 * keys, (count, keys), generator=generator)
    chosen = torch.randint(keys, (count, pairs), generator=generator)
    asked = chosen.gather(1, torch.randint(pairs, (count, 1), generator=generator))
    tokens = torch.stack([chosen, table.gather(1, chosen)], 2).flatten(1)
    every = torch.cat([chosen, asked], 1)
    seen = (every[:, :, None] == every[:, None]).tril(-1).any(-1)
    targets = torch.full((count, 2 * pairs + 1), UNKNOWN)
    targets[:, ::2] = table.gather(1, every).where(seen, UNKNOWN)
    return torch.cat([tokens, asked], 1), targets


TASKS: dict[str, tuple[Callable[[int, torch.Generator], tuple[Tensor, Tensor]], int]] = {
    "induction": (induction, 20),
    "recall": (recall, 10),
}


def build(name: str, vocabulary: int) -> LanguageModel:
    """Build a model whose tokens are the task's."""
    model = build_model(MODELS[name])
    model.backbone.embeddings = Embeddings(vocabulary, model.config.d_model)
    torch.nn.init.normal_(model.backbone.embeddings.word_embeddings.weight, std=0.02)
    mark_parameters(model)
    return model


@torch.no_grad()
def accuracy(model: LanguageModel, tokens: Tensor, targets: Tensor) -> float:
    """Share of the last answers that the model ranks first."""
    model.eval()
    found = torch.cat([model(part)[:, -1].argmax(-1) for part in torch.split(tokens, 500)])
    model.train()
    return (found == targets[:, -1]).double().mean().item()


class Trainer:
    """A model and its optimiser. On a GPU a step is one CUDA graph: such small models are all launches."""

    def __init__(self, model: LanguageModel, optim: OptimConfig, device: str) -> None:
        self.model = model
        self.optimizer = build_optimizer(model, optim)
        self.device, self.graph, self.warm = device, None, 0
        if device != "cpu":
            for group in self.optimizer.param_groups:  # read by the graph at each replay
                group.update(lr=torch.tensor(group["lr"], device=device), capturable=True)

    def step(self, tokens: Tensor, targets: Tensor, factor: float) -> None:
        """Learn from one batch at a share of the peak rate."""
        for group in self.optimizer.param_groups:
            if self.device == "cpu":
                group["lr"] = factor * group["initial_lr"]
            else:
                group["lr"].fill_(factor * group["initial_lr"])
        if self.device == "cpu":
            self._learn(tokens, targets)
            return
        if self.graph is None:
            self._warm_up(tokens, targets)
            return
        self.tokens.copy_(tokens, non_blocking=True)
        self.targets.copy_(targets, non_blocking=True)
        self.graph.replay()

    def _warm_up(self, tokens: Tensor, targets: Tensor) -> None:
        self.tokens, self.targets = tokens.to(self.device), targets.to(self.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._learn(self.tokens, self.targets)
        torch.cuda.current_stream().wait_stream(side)
        self.warm += 1
        if self.warm == 3:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self._learn(self.tokens, self.targets)

    def _learn(self, tokens: Tensor, targets: Tensor) -> None:
        torch.nn.functional.cross_entropy(self.model(tokens).flatten(0, 1), targets.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()


def train(task: str, name: str, seed: int, steps: int, batch: int, lr: float, device: str) -> dict[str, Any]:
    """Train one model on one task until a fresh test is all right, or the steps are done; the last test counts."""
    torch.manual_seed(seed)
    draw, vocabulary = TASKS[task]
    model = build(name, vocabulary).to(device).train()
    mark_parameters(model)
    trainer = Trainer(model, OptimConfig(lr=lr), device)
    generator, test = (torch.Generator().manual_seed(2 * seed + which) for which in (0, 1))
    began, step, score = time.perf_counter(), 0, 0.0
    while step < steps and score < 1:
        trainer.step(*draw(batch, generator), min(1.0, (step + 1) / 50) * (1 - 0.9 * step / steps))
        step += 1
        if step % 100 == 0 or step == steps:
            score = accuracy(model, *(t.to(device) for t in draw(TEST, test)))
    return {
        "task": task,
        "model": name,
        "seed": seed,
        "accuracy": score,
        "reached": score >= GOAL,
        "steps": step,
        "batch": batch,
        "lr": lr,
        "seconds": round(time.perf_counter() - began, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        "torch": torch.__version__,
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
    }


def _job(arguments: tuple[Any, ...]) -> dict[str, Any]:
    torch.set_num_threads(1)
    return train(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=5000, help="at most; a perfect test ends a training earlier")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--conv-backend", default="auto", help="reference needs no compiler")
    parser.add_argument("--workers", type=int, default=1, help="trainings side by side, one thread each")
    parser.add_argument("--out", type=Path, help="JSON lines file to append to")
    args = parser.parse_args()
    set_backend(args.conv_backend)
    jobs = [
        (task, name, seed, args.steps, args.batch, args.lr, args.device)
        for task in args.tasks for name in args.models for seed in args.seeds
    ]  # fmt: skip
    for row in _run(jobs, args.workers):
        emit(row, args.out)


def _run(jobs: list[tuple[Any, ...]], workers: int) -> Iterator[dict[str, Any]]:
    if workers == 1:
        yield from (train(*job) for job in jobs)
        return
    with multiprocessing.get_context("spawn").Pool(min(workers, len(jobs))) as pool:
        yield from pool.imap_unordered(_job, jobs)


if __name__ == "__main__":
    main()
