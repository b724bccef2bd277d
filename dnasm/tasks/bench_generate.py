"""`dnasm bench generate`: decoding from a state beside Transformers that decode from caches; and its cost far along.

Greedy, random weights and prompts, every prompt another; the prompt's time is inside. As H3's authors measured it: 1.3
billion parameters, two attention layers, 64 prompts, 128 tokens.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from dnasm.config import BenchConfig, ModelConfig
from dnasm.memory import ROWS
from dnasm.models import LanguageModel, build_model
from dnasm.models.backbone import cast_model
from dnasm.models.replay import Replay
from dnasm.models.state import DecodingState
from dnasm.presets import preset
from dnasm.tasks.bench import Row, say
from dnasm.tasks.bench_device import ceilings, pick, timed
from dnasm.tasks.bench_transformer import EagerDecoder, GraphDecoder, Transformer


@dataclass(frozen=True)
class Case:
    """A model, and what it is asked for."""

    preset: str
    batch: int
    prompts: tuple[int, ...]
    count: int
    far: str
    """Preset whose H3 layers alone are timed far along a sequence."""
    positions: tuple[int, ...]
    dtype: torch.dtype


GPU_CASE = Case("h3-1.3b", 64, (512, 1024, 1536), 128, "h3-125m", (1 << 10, 1 << 14, 1 << 17, 1 << 20), torch.bfloat16)
CPU_CASE = Case("h3-small", 4, (128, 256), 32, "h3-tiny", (1 << 10, 1 << 14), torch.float32)
CHUNK = 1 << 14
"""Tokens read at once on the way to a far position."""
STEPS = 32
MOST_SECONDS = 2.0
"""Who takes longer has one turn alone."""
M = TypeVar("M", bound=nn.Module)


class StateDecoder:
    """Greedy decoding of this package's models; steps are recorded once for all prompts of a length."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.graphs = model.backbone.ln_f.weight.device.type == "cuda"
        self.token: Tensor | None = None
        self.replay: Replay | None = None

    @torch.inference_mode()
    def generate(self, prompts: Tensor, count: int, capacity: int) -> Tensor:
        """Return `count` tokens for each prompt; `capacity` is that of the state, in all calls the same."""
        state = self.model.start(len(prompts), capacity, again=True)
        first = self._likeliest(prompts, state)
        if self.token is None or self.replay is None:
            self.token = torch.empty_like(first)
            self.replay = Replay(state, partial(self._follow, self.token, state), graphs=self.graphs)
        else:
            self.replay.restart(state)
        found = [self.token.copy_(first).clone()]
        for _ in range(count - 1):
            self.replay.step()
            found.append(self.token.clone())
        return torch.cat(found, 1)

    def _likeliest(self, tokens: Tensor, state: DecodingState) -> Tensor:
        return self.model.extend(tokens, state, only_last=True).argmax(-1)

    @torch.inference_mode()
    def step_seconds(self, positions: tuple[int, ...], device: str) -> Iterator[tuple[int, list[float]]]:
        """Yield what single steps of one sequence take from each position on."""
        state = self.model.start(1, positions[-1] + STEPS)
        draw = torch.Generator(device).manual_seed(0)
        token = torch.zeros(1, 1, dtype=torch.int64, device=device)
        for position in positions:
            while state.position < position:
                shape = (1, min(CHUNK, position - state.position))
                token = self._likeliest(torch.randint(7, 11, shape, device=device, generator=draw), state)
            branch = state.snapshot()
            replay = Replay(branch, partial(self._follow, token, branch), graphs=self.graphs)
            took = [timed(device, replay.step) for _ in range(STEPS)]
            yield position, took[3:]  # the first ones warm up and record

    def _follow(self, token: Tensor, state: DecodingState) -> None:
        token.copy_(self._likeliest(token, state))


Decoder = StateDecoder | EagerDecoder | GraphDecoder


def rows(config: BenchConfig) -> Iterator[Row]:
    """Yield what the GPU can do, a row for each prompt length and decoder, and a row for each far position."""
    device = pick(config.device)
    case = GPU_CASE if device.startswith("cuda") else CPU_CASE
    yield from ceilings(device)
    yield from _prompts(case, device, config)
    yield from _far(case, device)


def _prompts(case: Case, device: str, config: BenchConfig) -> Iterator[Row]:
    model = _build(build_model, preset(case.preset), device)
    cast_model(model, case.dtype)
    other = _build(_transformer, preset(case.preset), device).to(case.dtype)
    for length in case.prompts:
        if config.lengths and length not in config.lengths:
            continue
        prompts = torch.randint(ROWS[preset(case.preset).vocabulary], (case.batch, length), device=device)
        decoders: dict[str, Callable[[], Decoder]] = {
            "dnasm": partial(StateDecoder, model),
            "Transformer, eager": partial(EagerDecoder, other),
            "Transformer, static cache and CUDA graph": partial(GraphDecoder, other, case.batch, length + case.count),
        }
        ours: list[float] = []
        for name, make in decoders.items():
            say(f"generate: prompts of {length}, {name}")
            row = _time(make(), prompts, case.count, device, config.repeats)
            ours = ours or row["turns"]
            turns = row.pop("turns")
            yield {
                "model": case.preset,
                "batch": case.batch,
                "prompt": length,
                "tokens": case.count,
                "contender": name,
                **row,
                "ratio": statistics.median(turns) / statistics.median(ours),
                "ratio_lowest": min(turns) / max(ours),
                "ratio_highest": max(turns) / min(ours),
            }


def _build(build: Callable[[ModelConfig], M], config: ModelConfig, device: str) -> M:
    """Build on the device, for reading."""
    torch.manual_seed(0)
    with torch.device(device):
        model = build(config)
    return model.eval().requires_grad_(False)


def _transformer(c: ModelConfig) -> Transformer:
    return Transformer(ROWS[c.vocabulary], c.d_model, c.d_inner, c.num_layers, c.num_heads, 4096)


def _time(decoder: Decoder, prompts: Tensor, count: int, device: str, repeats: int) -> Row:
    cuda = device.startswith("cuda")
    generate = partial(decoder.generate, prompts, capacity=prompts.shape[1] + count)
    generate(min(count, 4))
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    turns = [timed(device, partial(generate, count))]
    turns += [timed(device, partial(generate, count)) for _ in range(repeats - 1 if turns[0] < MOST_SECONDS else 0)]
    alone = statistics.median([timed(device, partial(generate, 1)) for _ in range(2)])
    whole = statistics.median(turns)
    return {
        "turns": turns,
        "seconds": whole,
        "tokens_per_second": len(prompts) * count / whole,
        "prompt_seconds": alone,
        "token_seconds": (whole - alone) / (count - 1),
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
    }


def _far(case: Case, device: str) -> Iterator[Row]:
    say("generate: the cost of a token far along")
    config = replace(preset(case.far), attention_layers=[])
    model = _build(build_model, config, device)
    cast_model(model, case.dtype)
    for position, took in StateDecoder(model).step_seconds(case.positions, device):
        yield {
            "model": f"{case.far} without attention",
            "batch": 1,
            "position": position,
            "contender": "dnasm",
            "token_seconds": statistics.median(took),
            "token_seconds_lowest": min(took),
            "token_seconds_highest": max(took),
        }
