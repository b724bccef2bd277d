"""The plain Hyena is the same function, and the rows say who is faster."""

import sys
from typing import cast

import pytest
import torch

from dnasm.config import BenchConfig
from dnasm.models.backbone import Block
from dnasm.models.mixers import Hyena
from dnasm.tasks import bench_models
from dnasm.tasks.bench_models import Case, Plain, plain_model

CASE = Case("hyenadna-tiny-1k", 50, 2)


def test_the_contender_is_the_same_function() -> None:
    model = CASE.build().eval()
    other = plain_model(model)
    tokens = torch.randint(7, 11, (2, 50))
    torch.testing.assert_close(other(tokens), model(tokens), atol=1e-5, rtol=1e-4)
    mixer = cast(Hyena, cast(Block, model.backbone.layers[0]).mixer)
    x = torch.randn(2, 50, 128)
    grads = [torch.autograd.grad(m(x).square().sum(), list(mixer.parameters())) for m in (mixer, Plain(mixer))]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4 * theirs.abs().max().item(), rtol=1e-4)
    assert not any(isinstance(module, Hyena) for module in other.modules())


def test_rows_hold_both_parts_and_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_models, "CASES", (CASE, Case("hyenadna-tiny-1k", 60, 1)))
    rows = list(bench_models.rows(BenchConfig(what="models", repeats=1, lengths=[50], threads=1)))
    kinds = [(row["part"], row["mode"]) for row in rows]
    assert kinds == [(p, m) for p in ("mixer", "model") for m in ("inference", "training")]
    for row in rows:
        assert (row["length"], row["batch"], row["threads"], row["repeats"]) == (50, 2, 1, 1)
        assert row["ratio"] > 0
        if sys.platform == "linux":
            assert 0 <= row["ours_peak_bytes"] < 1e9
