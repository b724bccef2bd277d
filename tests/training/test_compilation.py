"""Training compiled: which steps, and by the same parts as the bench; sums and names stay as they are."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dnasm.config import DataConfig, ModelConfig, TrainerConfig
from dnasm.errors import ConfigError
from dnasm.models.compiled import compile_parts
from dnasm.training.compilation import Compilation

DATA = DataConfig(window=32, batch_size=4)
MODEL = ModelConfig(d_model=8, num_layers=2)


def test_the_final_norm_is_compiled_though_it_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiler(function, backend=backend, **options))
    norm, x = nn.LayerNorm(8), torch.randn(3, 8)
    expected = norm(x)
    loss = compile_parts([], norm, torch.sum)
    torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(loss(x), x.sum())
    assert len(graphs) == 2


def test_a_compiled_run_is_the_plain_one_and_compiles_each_length_once() -> None:
    """In a process of its own, where nothing checks shapes: the compiler does not read through that."""
    script = Path(__file__).with_name("compiled_runs.py")
    outcome = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    assert outcome.stdout.split() == ["alike"]


def test_the_device_and_the_length_of_a_run_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: True)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")

    def lengths(device: torch.device, **settings: Any) -> set[int]:
        return set(Compilation.of(TrainerConfig(**settings), DATA, MODEL, device).lengths)

    assert lengths(gpu) == {32}
    assert lengths(cpu) == lengths(gpu, max_steps=100) == lengths(gpu, max_minutes=1.0) == set()
    assert lengths(gpu, compile=False) == set()
    assert lengths(cpu, compile=True, max_steps=1) == {32}
    assert lengths(gpu, max_steps=20_000, length_warmup=8) == {8, 16, 32}
    assert lengths(gpu, max_steps=10_000, length_warmup=8) == {32}, "a thousand steps of 8 and of 16"
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: False)
    assert lengths(gpu) == set()


def test_small_steps_of_one_gpu_that_keep_activations_are_one_graph() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")

    def graphed(device: torch.device, model: ModelConfig = MODEL, **settings: Any) -> bool:
        return Compilation.of(TrainerConfig(**settings), DATA, model, device).graphed

    assert graphed(gpu)
    assert not graphed(cpu)
    assert not graphed(gpu, devices=2)
    assert not graphed(gpu, checkpoint_activations=True)
    assert not graphed(gpu, cuda_graph=False)
    deep = ModelConfig(d_model=8, num_layers=(1 << 27) // (8 * DATA.window * DATA.batch_size) + 1)
    assert not graphed(gpu, deep)
    assert graphed(gpu, deep, cuda_graph=True)
    for device, settings in ((cpu, {}), (gpu, {"checkpoint_activations": True}), (gpu, {"devices": 2})):
        with pytest.raises(ConfigError, match="wants one GPU and activations kept"):
            graphed(device, cuda_graph=True, **settings)
    how = Compilation.of(TrainerConfig(compile=False), DATA, MODEL, gpu)
    assert str(how) == "not compiled, one CUDA graph"
    assert how.records(32 * 4)
    assert not how.records(32 * 3), "a short batch"
