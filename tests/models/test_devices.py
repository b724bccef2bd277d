"""Models compute where their weights are: on `meta`, which takes no tensor of another device, and on a GPU."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dnasm.config import ModelConfig
from dnasm.models import LanguageModel
from dnasm.models.backbone import cast_model
from dnasm.models.replay import Replay
from dnasm.models.sampling import Sampling, sample

Maker = Callable[[ModelConfig], LanguageModel]


def test_nothing_is_made_on_another_device(model: LanguageModel) -> None:
    model.to("meta")
    tokens = torch.zeros(2, 100, dtype=torch.uint8, device="meta")
    assert model(tokens).device.type == "meta"
    state = model.start(2, 200)
    for _ in range(40):  # up to tiles of 32, beyond the direct ones
        model.extend(tokens[:, :1], state)
    assert model.extend(tokens, state).device.type == "meta"


@pytest.mark.gpu
def test_a_gpu_finds_the_gradients_that_the_cpu_finds(model: LanguageModel, tokens: Tensor) -> None:
    gradients = []
    for device in ("cpu", "cuda"):
        model.to(device).zero_grad()
        model(tokens.to(device)).square().mean().backward()  # type: ignore[no-untyped-call]
        gradients.append({name: p.grad.cpu().clone() for name, p in model.named_parameters() if p.grad is not None})
    for name, expected in gradients[0].items():
        found = gradients[1][name]
        assert (found - expected).norm() <= 1e-2 * expected.norm() + 1e-5, name


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


@pytest.mark.gpu
@torch.no_grad()
def test_graphs_draw_what_steps_draw(model: LanguageModel, tokens: Tensor) -> None:
    """The same tokens, to the last bit of the random numbers; log-likelihoods up to rounding."""
    model.cuda()
    prompt = tokens[0, :20].cuda()
    for how in (Sampling(length=200, seed=5), Sampling(length=60, top_k=3, top_p=0.9, stop=((8, 9, 10),), seed=2)):
        plain, graphs = (list(sample(model, prompt, 5, how, batch_size=3, graphs=flag)) for flag in (False, True))
        assert [found.tokens.tolist() for found in graphs] == [found.tokens.tolist() for found in plain]
        for one, other in zip(graphs, plain, strict=True):
            assert one.log_likelihood == pytest.approx(other.log_likelihood, rel=1e-4)
            assert one.stopped == other.stopped


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["hyena", "h3", "rotary", "multihybrid", "modal", "cnn", "hybrid"])
@torch.no_grad()
def test_replayed_graphs_give_what_forward_gives(configs: dict[str, ModelConfig], make_model: Maker, name: str) -> None:
    length = 700
    model = make_model(configs[name] if name != "hyena" else replace(configs[name], max_length=length)).cuda()
    tokens = torch.randint(7, 11, (2, length), generator=torch.Generator().manual_seed(0)).cuda()
    state = model.start(2, length)
    model.extend(tokens[:, :100], state)
    token, logits = tokens[:, :1].clone(), torch.empty(2, 1, 16, device="cuda")

    def body() -> None:
        logits.copy_(model.extend(token, state))

    replay, pieces = Replay(state, body, graphs=True), []
    for i in range(100, length):
        token.copy_(tokens[:, i : i + 1])
        replay.step()
        pieces.append(logits.clone())
    torch.testing.assert_close(torch.cat(pieces, 1), model(tokens)[:, 100:], atol=2e-3, rtol=1e-2)
    assert replay.num_graphs >= 1
