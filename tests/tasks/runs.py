"""Small genomes and a configuration that trains on them in seconds."""

from pathlib import Path

import numpy as np

WINDOW = 64


def write_fasta(path: Path, contigs: dict[str, str]) -> Path:
    path.write_text("".join(f">{name}\n{letters}\n" for name, letters in contigs.items()))
    return path


def patchy_letters(length: int, seed: int, patch: int = 1000) -> str:
    """Patches rich in A and T or in C and G: whoever sees 60 bases knows which, whoever sees 8 guesses."""
    rng = np.random.default_rng(seed)
    rich = np.repeat(rng.integers(0, 2, -(-length // patch)), patch)[:length]
    in_rich = rng.random(length) < 0.7
    second = rng.integers(0, 2, length)
    return "".join(np.array([["A", "T"], ["C", "G"]])[np.where(in_rich, rich, 1 - rich), second])


def shuffled(letters: str, seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).permutation(list(letters)))


def write_config(path: Path, fasta: Path, **trainer: object) -> Path:
    lines = "".join(f"  {name}: {str(value).lower()}\n" for name, value in trainer.items())
    path.write_text(
        f"""\
data:
  genomes: [{{path: "{fasta}", validation: [held]}}]
  window: {WINDOW}
  batch_size: 16
  validation_windows: 400
model: {{d_model: 32, num_layers: 2, d_inner: 64, max_length: {WINDOW}, embedding_dropout: 0.0}}
optim: {{lr: 1.0e-2, warmup_steps: 10, betas: [0.9, 0.98]}}
trainer:
{lines}"""
    )
    return path
