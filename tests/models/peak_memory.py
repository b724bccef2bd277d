"""Measure the peak memory of training steps and forward calls: a script, each case in a process of its own.

Cases come on standard input, one JSON object a line; the bytes that each added go to standard output.
"""

import ctypes
import json
import os
import resource
import sys

import torch

from dnasm.config import ModelConfig, OptimConfig
from dnasm.models import build_model
from dnasm.training.loss import next_base_loss
from dnasm.training.optim import build_optimizer

_MMAP_THRESHOLD = -3  # of mallopt: larger blocks go back to the system when they are freed


def _work(config: ModelConfig, length: int, batch: int, training: bool, checkpoint_activations: bool) -> None:
    model = build_model(config)
    tokens = torch.randint(7, 11, (batch, length), dtype=torch.uint8)
    if not training:
        with torch.no_grad():
            model.eval()(tokens)
        return
    model.backbone.checkpoint_activations = checkpoint_activations
    optimizer = build_optimizer(model, OptimConfig())
    for part in (tokens[:1, :64], tokens):  # AdamW's moments are there from the second step on
        next_base_loss(model(part), part, torch.ones_like(part)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def _measure(case: dict) -> int:
    """Fork, so that the libraries are loaded but the peak counts from here."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        with open("/proc/self/statm") as file:
            before = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        _work(ModelConfig(**case.pop("config")), **case)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        os.write(writer, str(peak - before).encode())
        os._exit(0)
    os.close(writer)
    return int(os.read(reader, 100))


if __name__ == "__main__":
    torch.set_num_threads(1)
    ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 20)
    cases = [json.loads(line) for line in sys.stdin]
    for config in {str(case["config"]): case["config"] for case in cases}.values():  # loads each kernel's code once
        _work(ModelConfig(**config), 200, 2, True, False)
    print(json.dumps([_measure(case) for case in cases]))
