"""What a training step repeats, compiled: blocks, last norm and loss. Weights keep their names.

`dnasm pretrain` and `dnasm bench train` both call this, so that what is measured is what is run. The embedding and the
head are single products, as they are.
"""

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn

_SHAPES = 64  # that one code may be compiled for, times kinds of block; a length warm-up from 1k to 1M has eleven


def compile_parts(blocks: Iterable[nn.Module], norm: nn.Module, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compile blocks and norm in place, for each shape that they meet, and return the loss compiled.

    Blocks of one kind share their code. `torch.compiler.set_stance("force_eager")` runs all of it uncompiled.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _SHAPES)
    for block in blocks:
        block.compile(dynamic=False)
    _compile_norm(norm)
    return torch.compile(loss, dynamic=False)


def _compile_norm(norm: nn.Module) -> None:
    """Compile one of torch's own modules; `Module.compile` passes over those, whose frames it does not look into."""
    forward = norm.forward

    def run(x: Tensor) -> Tensor:
        return cast(Tensor, forward(x))

    norm.forward = torch.compile(run, dynamic=False)
