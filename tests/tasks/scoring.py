"""What the tests of scoring and embedding share: small genomes, and models whose numbers are known."""

import math
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dnasm import vocabulary
from dnasm.config import ModelConfig
from dnasm.models.backbone import LanguageModel, build_model

PROBABILITIES = {"A": 0.4, "C": 0.3, "G": 0.2, "T": 0.1}


class Composition(nn.Module):
    """Every base has a fixed probability, whatever stands before it; counts its forward calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        logits = torch.full((vocabulary.NUM_ROWS,), 5.0)  # rows that are no bases must not matter
        for letter, token in zip("ACGT", vocabulary.BASES, strict=True):
            logits[token] = torch.tensor(PROBABILITIES[letter]).log()
        self.register_buffer("logits", logits)

    def forward(self, tokens: Tensor) -> Tensor:
        self.calls += 1
        return self.logits.expand(*tokens.shape, -1)


class Doublets(nn.Module):
    """A base repeats the one before with probability 0.7; each other one has 0.1."""

    def forward(self, tokens: Tensor) -> Tensor:
        logits = torch.full((*tokens.shape, vocabulary.NUM_ROWS), 0.1).log()
        return logits.scatter(-1, tokens.long()[..., None], math.log(0.7))


def small_model(family: str = "hyena", max_length: int | None = 256, **more: Any) -> LanguageModel:
    """Build a model with random weights, a few thousand of them, large enough to make bases matter.

    More settings, as `bidirectional=True` for a model of masked bases.
    """
    torch.manual_seed(1)
    config = ModelConfig(
        family=family, d_model=16, d_inner=32, num_layers=2, max_length=max_length, filter_order=8, state_size=8,
        num_heads=2, embedding_dropout=0.1, **more,
    )  # type: ignore[arg-type]  # fmt: skip
    model = build_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def random_sequence(length: int, seed: int = 0) -> str:
    """Draw bases."""
    return "".join(random.Random(seed).choices("ACGT", k=length))


def reverse_complement(letters: str) -> str:
    """Read letters on the other strand."""
    return vocabulary.decode(vocabulary.reverse_complement(vocabulary.encode(letters)))


def write_fasta(path: Path, **contigs: str) -> Path:
    """Write a FASTA file."""
    path.write_text("".join(f">{name}\n{letters}\n" for name, letters in contigs.items()))
    return path


def random_variants(contig: str, letters: str, count: int, seed: int = 0) -> list[str]:
    """Draw substitutions and short indels with the REF that the contig has, as `contig:pos:ref:alt`."""
    rng = random.Random(seed)
    found: list[str] = []
    while len(found) < count:
        start, size = rng.randrange(len(letters) - 5), rng.choice([1, 1, 1, 2, 4])
        ref = letters[start : start + size]
        alt = "".join(rng.choices("ACGT", k=rng.choice([1, 1, 1, 3, 6])))
        if alt != ref:
            found.append(f"{contig}:{start + 1}:{ref}:{alt}")
    return found


def mirror_variant(text: str, length: int) -> str:
    """Say the same of the reverse-complemented contig."""
    contig, pos, ref, alt = text.split(":")
    return f"{contig}:{length - int(pos) - len(ref) + 2}:{reverse_complement(ref)}:{reverse_complement(alt)}"
