"""Models compute where their weights are: on `meta`, which takes no tensor of another device, and on a GPU."""

import pytest
import torch
from torch import Tensor

from dnasm.models import LanguageModel
from dnasm.models.backbone import cast_model


def test_nothing_is_made_on_another_device(model: LanguageModel) -> None:
    model.to("meta")
    tokens = torch.zeros(2, 100, dtype=torch.uint8, device="meta")
    assert model(tokens).device.type == "meta"
    state = model.start(2, 200)
    for _ in range(40):  # up to tiles of 32, beyond the direct ones
        model.extend(tokens[:, :1], state)
    assert model.extend(tokens, state).device.type == "meta"


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives(model: LanguageModel, tokens: Tensor) -> None:
    expected = model(tokens).detach()
    model.cuda()
    there = tokens.cuda()
    torch.testing.assert_close(model(there).detach().cpu(), expected, atol=2e-3, rtol=1e-2)
    state = model.start(3, 130)
    pieces = [model.extend(there[:, :64], state)]
    pieces += [model.extend(there[:, i : i + 1], state) for i in range(64, 130)]
    torch.testing.assert_close(torch.cat(pieces, 1).cpu(), expected, atol=2e-3, rtol=1e-2)
    cast_model(model, torch.bfloat16)
    assert (model(there).float().cpu() - expected).norm() / expected.norm() < 0.03
