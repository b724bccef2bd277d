"""Small models of every mixer, with weights far from their initial values, so that no term can hide."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from dnasm.config import ModelConfig
from dnasm.models import LanguageModel, build_model

collect_ignore = ["open_models.py", "peak_memory.py"]  # scripts that tests run as processes of their own

SMALL = ModelConfig(d_model=32, num_layers=2, d_inner=64, max_length=300, num_heads=4, embedding_dropout=0.0)
CONFIGS = {
    "hyena": SMALL,
    "h3": replace(SMALL, family="h3", max_length=None, state_size=16),
    "h3-heads": replace(SMALL, family="h3", max_length=None, state_size=16, head_dim=4, discretization="zoh"),
    "attention": replace(SMALL, family="attention", max_length=None),
    "rotary": replace(SMALL, family="attention", max_length=None, rotary_dim=4),
    "multihybrid": replace(SMALL, family="multihybrid", max_length=None, pattern=["se", "mr"], filter_group=4),
    "modal": replace(
        SMALL, family="multihybrid", max_length=None, pattern=["li"], attention_layers=[1], rotary_dim=8, modes=6
    ),
    "cnn": replace(SMALL, family="cnn", max_length=None, cnn_taps=17),
    "hybrid": replace(SMALL, family="h3", max_length=None, attention_layers=[1], tie_embeddings=False),
}


def shaken(config: ModelConfig) -> LanguageModel:
    """A model in eval mode whose every weight is moved by noise."""
    torch.manual_seed(1)
    model = build_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return CONFIGS[request.param]


@pytest.fixture
def model(config: ModelConfig) -> LanguageModel:
    return shaken(config)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(7, 11, (3, 130), generator=torch.Generator().manual_seed(2)).to(torch.uint8)


@pytest.fixture
def make_model() -> Callable[[ModelConfig], LanguageModel]:
    return shaken


@pytest.fixture
def configs() -> dict[str, ModelConfig]:
    return CONFIGS
