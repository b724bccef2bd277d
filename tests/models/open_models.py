"""A script: other people's tools on plain `forward`. In a process of its own, where no types are checked at run time.

The first argument names the tool, the others the families (none: all); the families that pass go to standard output.
"""

import copy
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from conftest import CONFIGS, shaken
from torch import Tensor
from torch.distributed.tensor import DTensor

from dnasm.models import LanguageModel

FAMILIES = ("hyena", "h3", "rotary", "multihybrid", "modal", "cnn")


def export(model: LanguageModel, tokens: Tensor) -> None:
    program = torch.export.export(model, (tokens,))
    torch.testing.assert_close(program.module()(tokens), model(tokens), atol=1e-5, rtol=1e-4)


def compile_(model: LanguageModel, tokens: Tensor) -> None:
    """One graph, no breaks; `aot_eager` is what the compiler makes of it, before it writes C++."""
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    loss, expected = compiled(tokens).square().mean(), model(tokens).square().mean()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-4)
    parameters = list(model.parameters())
    got, wanted = (torch.autograd.grad(value, parameters) for value in (loss, expected))
    for one, other in zip(got, wanted, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-7


@torch.no_grad()
def inductor(model: LanguageModel, tokens: Tensor) -> None:
    """What the compiler writes in C++."""
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(tokens), model(tokens), atol=1e-5, rtol=1e-4)


def fsdp(model: LanguageModel, tokens: Tensor) -> None:
    """Two processes hold half of each parameter and read half of the batch; the loss goes as on one."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    rank, sharded = torch.distributed.get_rank(), copy.deepcopy(model)
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    for block in sharded.backbone.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    held = sum(cast(DTensor, parameter).to_local().numel() for parameter in sharded.parameters())
    assert held < 0.6 * sum(parameter.numel() for parameter in model.parameters())
    losses = []
    for trained, part in ((model, tokens), (sharded, tokens[rank::2])):
        optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-3)
        for _ in range(3):
            loss = trained(part).logsumexp(-1).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        losses.append(trained(tokens).logsumexp(-1).mean().item())
    assert abs(losses[0] - losses[1]) < 1e-4 * abs(losses[0]), losses


def run(words: list[str], rank: int, store: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tool = {"export": export, "compile": compile_, "inductor": inductor, "fsdp": fsdp}[words[0]]
    if tool is fsdp:
        torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for name in words[1:] or FAMILIES:
        config = replace(CONFIGS[name], num_layers=1) if tool is inductor else CONFIGS[name]
        tool(shaken(config), torch.randint(7, 11, (2, 80)))
        if rank == 0:
            print(name, flush=True)
    if tool is fsdp:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    path = str(Path(tempfile.mkdtemp()) / "store")
    other = torch.multiprocessing.get_context("fork").Process(target=run, args=(sys.argv[1:], 1, path), daemon=True)
    if sys.argv[1] == "fsdp":
        other.start()
    run(sys.argv[1:], 0, path)
    if sys.argv[1] == "fsdp":
        other.join()
        sys.exit(other.exitcode)
