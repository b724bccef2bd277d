"""`dnasm bench train`: a training step of whole models beside what a user would train instead, in turns.

A step is zeroed gradients, forward under bfloat16 autocast (on a CPU float32), cross-entropy, backward and AdamW. On a
GPU blocks, final norm and loss of ours and of the Transformer are compiled, and small steps of both are CUDA graphs, as
in `dnasm pretrain`; the original code runs as its recipe runs it. Who does not fit into memory recomputes activations
block by block, and its row says so.
"""

import gc
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

from dnasm.config import BenchConfig, ModelConfig
from dnasm.memory import ROWS
from dnasm.models import build_model
from dnasm.models.backbone import LanguageModel
from dnasm.models.compiled import compile_parts
from dnasm.models.graphed import WORTH_TOKENS, GraphedLoss
from dnasm.presets import preset
from dnasm.tasks.bench import Row, say
from dnasm.tasks.bench_device import ceilings, pick, timed
from dnasm.tasks.bench_transformer import Transformer

MOST_ATTENTION = 1e15
"""Layers * channels * length^2 above which a Transformer's step takes the better part of a minute and is not timed."""
MOST_SECONDS = 5.0
"""Turns of a contender end after about as long, but for the first two."""


@dataclass(frozen=True)
class Case:
    """A model and what a step of it reads."""

    preset: str
    length: int
    batch: int

    @property
    def config(self) -> ModelConfig:
        """The preset for this length, without dropout."""
        config = preset(self.preset)
        longest = None if config.max_length is None else max(config.max_length, self.length)
        return replace(config, max_length=longest, embedding_dropout=0.0)

    @property
    def work(self) -> int:
        """Tokens times channels times layers."""
        return self.batch * self.length * self.config.d_model * self.config.num_layers


GPU_CASES = (
    Case("hyenadna-tiny-1k", 1024, 256),
    Case("hyenadna-tiny-1k-d256", 1024, 256),
    Case("hyenadna-small-32k", 4096, 64),
    Case("hyenadna-small-32k", 32_768, 8),
    Case("hyenadna-medium-160k", 160_000, 2),
    Case("hyenadna-large-1m", 1_000_000, 1),
    Case("h3-125m", 8192, 4),
)
CPU_CASES = (
    Case("tiny", 1024, 8),
    Case("small", 8192, 1),
)


class Original(nn.Module):
    """HyenaDNA's own code, with its head tied to the embedding as in pretraining.

    The module that holds it is the user's: `standalone_hyenadna.py` of the HyenaDNA repository, on the path.
    """

    def __init__(self, config: ModelConfig, length: int) -> None:
        super().__init__()
        layer = {"l_max": length, "emb_dim": 5, "filter_order": 64, "short_filter_order": 3, "modulate": True, "w": 10}
        self.model = import_module(ORIGINAL).HyenaDNAModel(
            d_model=config.d_model,
            n_layer=config.num_layers,
            d_inner=config.d_inner,
            vocab_size=12,
            layer=layer,
            embed_dropout=0.0,
            residual_in_fp32=True,
            pad_vocab_size_multiple=8,
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the token after each."""
        return linear(self.model(tokens), self.model.backbone.embeddings.word_embeddings.weight)


ORIGINAL = "standalone_hyenadna"


@dataclass(frozen=True)
class Contender:
    """A way to make a model of a case; `compiled` says whether its parts are, on a GPU."""

    name: str
    build: Callable[[Case], nn.Module]
    compiled: bool
    absent: Callable[[Case], str | None] = lambda case: None
    """Why it cannot be timed, if so."""


def _ours(case: Case) -> nn.Module:
    return build_model(case.config)


def _original(case: Case) -> nn.Module:
    return Original(case.config, case.length)


def _transformer(case: Case) -> nn.Module:
    c = case.config
    return Transformer(ROWS[c.vocabulary], c.d_model, c.d_inner, c.num_layers, c.num_heads, case.length)


def _no_original(case: Case) -> str | None:
    if case.config.family != "hyena":
        return "the original code is of HyenaDNA"
    return None if find_spec(ORIGINAL) else f"no module {ORIGINAL} can be imported"


def _too_long(case: Case) -> str | None:
    c = case.config
    work = c.num_layers * c.d_model * case.length**2
    return f"attention over {case.length:,} tokens takes about a minute a step" if work > MOST_ATTENTION else None


CONTENDERS = (
    Contender("dnasm", _ours, compiled=True),
    Contender("HyenaDNA's code", _original, compiled=False, absent=_no_original),
    Contender("Transformer", _transformer, compiled=True, absent=_too_long),
)


def rows(config: BenchConfig) -> Iterator[Row]:
    """Yield what the GPU can do, then for each case a row a contender."""
    device = pick(config.device)
    yield from ceilings(device)
    for case in GPU_CASES if device.startswith("cuda") else CPU_CASES:
        if not config.lengths or case.length in config.lengths:
            yield from _compare(case, device, config.repeats)


def _compare(case: Case, device: str, repeats: int) -> Iterator[Row]:
    described = {"model": case.preset, "length": case.length, "batch": case.batch}
    ours: list[float] | None = None
    for contender in CONTENDERS:
        say(f"train: {case.preset}, {case.length:,} tokens, {contender.name}")
        reason = contender.absent(case)
        measured: Row = {"skipped": reason} if reason else _measure(case, contender, device, repeats)
        if "turns" in measured:
            turns = measured.pop("turns")
            ours = ours or turns
            measured |= {
                "seconds": statistics.median(turns),
                "seconds_lowest": min(turns),
                "seconds_highest": max(turns),
                "tokens_per_second": case.batch * case.length / statistics.median(turns),
                "ratio": statistics.median(turns) / statistics.median(ours),
                "ratio_lowest": min(turns) / max(ours),
                "ratio_highest": max(turns) / min(ours),
            }
        yield {**described, "contender": contender.name, **measured}


def _measure(case: Case, contender: Contender, device: str, repeats: int) -> Row:
    """Time a contender, with activations kept, or if memory is too small for them, recomputed."""
    compiled = contender.compiled and device.startswith("cuda")
    for recompute in (False, True):
        try:
            return Trainer(case, contender, device, compiled=compiled, recompute=recompute).measure(repeats)
        except torch.OutOfMemoryError:
            say(f"train: {contender.name} runs out of memory{' again' if recompute else ', recomputes activations'}")
        finally:
            gc.collect()
            if device.startswith("cuda"):
                torch.cuda.empty_cache()
                torch.compiler.reset()
    return {"skipped": "out of memory"}


class Trainer:
    """A model and its optimiser."""

    def __init__(self, case: Case, contender: Contender, device: str, *, compiled: bool, recompute: bool) -> None:
        torch.manual_seed(0)
        with torch.device(device):
            self.model = contender.build(case).train()
        self.case, self.device = case, device
        graphed = compiled and not recompute and case.work <= WORTH_TOKENS
        self.setting = {"compiled": compiled, "graphed": graphed, "recomputed": recompute}
        blocks = _blocks(self.model)
        self.loss = compile_parts(blocks, _final_norm(self.model), _loss) if compiled else _loss
        self.step_loss: Callable[[Tensor], Tensor] = self._step_loss
        if graphed:
            self.step_loss = GraphedLoss(self._step_loss, self.model.parameters())
        if recompute:
            for i, block in enumerate(blocks):
                blocks[i] = Recomputed(block)
        fused = device.startswith("cuda")
        self.last = torch.tensor([case.length - 1], device=device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=6e-4, fused=fused)

    def step(self, tokens: Tensor) -> None:
        """Learn from one batch."""
        self.optimizer.zero_grad(set_to_none=True)
        self.step_loss(tokens).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def _step_loss(self, tokens: Tensor) -> Tensor:
        with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.device.startswith("cuda")):
            logits = self.model(tokens)
        targets = tokens.roll(-1, 1).index_fill_(1, self.last, -100)  # after the last token nothing is known
        return self.loss(logits, targets)

    def measure(self, repeats: int) -> Row:
        """Warm up, then time; memory is that of the first timed turn."""
        draw = torch.Generator(self.device).manual_seed(0)
        shape = (self.case.batch, self.case.length)
        batches = [torch.randint(7, 11, shape, device=self.device, generator=draw) for _ in range(2)]
        first = [timed(self.device, partial(self.step, tokens)) for tokens in batches]
        peak = self._peak(batches[0])
        turns = min(repeats, max(2, round(MOST_SECONDS / first[1])))
        took = [timed(self.device, partial(self.step, batches[i % 2])) for i in range(turns)]
        return {
            **self.setting,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "first_step_seconds": first[0],
            "peak_bytes": peak,
            "turns": took,
        }

    def _peak(self, tokens: Tensor) -> int | None:
        """Most memory in use during a step, weights and optimiser included."""
        if not self.device.startswith("cuda"):
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self.step(tokens)
        return torch.cuda.max_memory_allocated()


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


class Recomputed(nn.Module):
    """A block that keeps its inputs alone, and runs again for its gradient."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *inputs: Tensor | None) -> Any:
        """Run the block."""
        return checkpoint(self.block, *inputs, use_reentrant=False)


def _final_norm(model: nn.Module) -> nn.Module:
    """What stands between the last layer and the head."""
    return cast(nn.Module, model.backbone.ln_f if isinstance(model, LanguageModel) else model.norm)


def _blocks(model: nn.Module) -> nn.ModuleList:
    """The layers that a model is a stack of."""
    if isinstance(model, Original):
        model = model.model.backbone
    if isinstance(model, LanguageModel):
        model = model.backbone
    return cast(nn.ModuleList, model.layers)
