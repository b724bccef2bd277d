"""`dnasm bench train` and `dnasm bench generate` on a CPU, at sizes that take no time; what they time is right."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dnasm.config import BenchConfig
from dnasm.models import build_model
from dnasm.presets import preset
from dnasm.tasks import bench_generate, bench_train
from dnasm.tasks.bench_generate import StateDecoder
from dnasm.tasks.bench_train import Case, Recomputed, Trainer
from dnasm.tasks.bench_transformer import EagerDecoder, GraphDecoder, Transformer

CASE = Case("tiny", 48, 2)


class Peer(nn.Module):
    """Looks like HyenaDNA's model from outside."""

    def __init__(self, d_model: int, vocab_size: int, **_: Any) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.embeddings = nn.Module()
        self.backbone.embeddings.word_embeddings = nn.Embedding(vocab_size + 4, d_model)
        self.backbone.layers = nn.ModuleList([nn.Linear(d_model, d_model)])

    def forward(self, tokens: Tensor) -> Tensor:
        parts = (self.backbone.get_submodule(name) for name in ("embeddings.word_embeddings", "layers.0"))
        embed, layer = parts
        return layer(embed(tokens))


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(bench_train.ORIGINAL)
    module.HyenaDNAModel = Peer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, bench_train.ORIGINAL, module)
    monkeypatch.setattr(bench_train, "find_spec", lambda name: object())


def test_a_training_step_is_timed_for_everyone(peer: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_train, "CPU_CASES", (CASE,))
    rows = list(bench_train.rows(BenchConfig(what="train", device="cpu", repeats=2)))
    assert [row["contender"] for row in rows] == ["dnasm", "HyenaDNA's code", "Transformer"]
    assert rows[0]["ratio"] == 1
    for row in rows:
        assert row["tokens_per_second"] == pytest.approx(96 / row["seconds"])
        assert row["ratio_lowest"] <= row["ratio"] <= row["ratio_highest"]
    assert not list(bench_train.rows(BenchConfig(what="train", device="cpu", lengths=[7])))


def test_who_is_not_here_or_takes_a_minute_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_train, "find_spec", lambda name: None)
    monkeypatch.setattr(bench_train, "MOST_ATTENTION", 1)
    monkeypatch.setattr(bench_train, "CPU_CASES", (CASE,))
    _, original, transformer = bench_train.rows(BenchConfig(what="train", device="cpu", repeats=1))
    assert "no module standalone_hyenadna" in original["skipped"]
    assert "a minute" in transformer["skipped"]


def test_who_runs_out_of_memory_recomputes(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.step

    def scarce(self: Trainer, tokens: Tensor) -> None:
        if not self.setting["recomputed"]:
            raise torch.OutOfMemoryError
        assert isinstance(self.model.layers, nn.ModuleList)
        assert all(isinstance(block, Recomputed) for block in self.model.layers)
        step(self, tokens)

    monkeypatch.setattr(Trainer, "step", scarce)
    row = bench_train._measure(CASE, bench_train.CONTENDERS[-1], "cpu", 1)
    assert row["recomputed"]
    monkeypatch.setattr(Trainer, "step", lambda self, tokens: (_ for _ in ()).throw(torch.OutOfMemoryError))
    assert bench_train._measure(CASE, bench_train.CONTENDERS[-1], "cpu", 1) == {"skipped": "out of memory"}


def test_a_step_learns_the_next_token_of_everyone(peer: None) -> None:
    torch.manual_seed(0)
    tokens = torch.tensor([[7, 8, 9, 10] * 12] * 2)
    for contender in bench_train.CONTENDERS:
        trainer = Trainer(CASE, contender, "cpu", compiled=False, recompute=False)
        for _ in range(30):
            trainer.step(tokens)
        assert (trainer.model(tokens)[:, 8:-1].argmax(-1) == tokens[:, 9:]).all(), contender.name


@torch.inference_mode()
def test_every_decoder_continues_as_its_forward_does() -> None:
    torch.manual_seed(0)
    model = build_model(preset("h3-tiny")).eval()
    transformer = Transformer(16, 32, 64, 2, 4, 64).eval()
    with torch.no_grad():
        for weights in (*model.parameters(), *transformer.parameters()):
            weights.add_(0.1 * torch.randn_like(weights))  # fresh ones make all tokens alike
    prompts = torch.randint(16, (3, 9))
    for net, decoder in (
        (model, StateDecoder(model)),
        (transformer, EagerDecoder(transformer)),
        (transformer, GraphDecoder(transformer, 3, 20)),
    ):
        found = decoder.generate(prompts, 6, 15)
        whole = torch.cat([prompts, found], 1)
        assert found.shape == (3, 6)
        assert torch.equal(net(whole)[:, 8:-1].argmax(-1), found), type(decoder).__name__
        assert torch.equal(decoder.generate(prompts, 6, 15), found), "the second time"
    assert found.min() < found.max()


def test_generation_is_timed_for_everyone_and_far_along(monkeypatch: pytest.MonkeyPatch) -> None:
    case = bench_generate.Case("h3-tiny", 2, (24,), 5, "h3-tiny", (16, 48), torch.float32)
    monkeypatch.setattr(bench_generate, "CPU_CASE", case)
    monkeypatch.setattr(bench_generate, "CHUNK", 32)
    rows = list(bench_generate.rows(BenchConfig(what="generate", device="cpu", repeats=1)))
    prompts, far = [r for r in rows if "prompt" in r], [r for r in rows if "position" in r]
    assert [r["contender"].split(",")[0] for r in prompts] == ["dnasm", "Transformer", "Transformer"]
    assert all(r["tokens_per_second"] == pytest.approx(10 / r["seconds"]) for r in prompts)
    assert [r["position"] for r in far] == [16, 48]
    assert all(r["token_seconds"] > 0 for r in far)
