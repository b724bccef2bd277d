"""Prompt -> sequences: the function, and the command that calls it."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dnasm import vocabulary
from dnasm.config import GenerateConfig
from dnasm.errors import ConfigError, InputError
from dnasm.genome import Genome
from dnasm.models.backbone import LanguageModel
from dnasm.models.checkpoint import load
from dnasm.models.likelihood import require_dna
from dnasm.models.sampling import Sample, Sampling, drawable, sample
from dnasm.ops import set_backend
from dnasm.tasks.embed_regions import read_regions
from dnasm.tasks.embeddings import model_hash
from dnasm.tasks.forward_batches import BatchSize, check_length, evaluating, memory_told, require_model
from dnasm.tasks.new_file import STANDARD_OUTPUT, check_new_file, new_file, refuse_same_file
from dnasm.tasks.progress import Meter
from dnasm.tasks.run_record import now, write_run_json

Ids = npt.NDArray[np.int64]
Prompt = str | Sequence[int] | npt.NDArray[np.integer] | Tensor

_AUTO_BATCH = 32
_LINE = 80  # bases in a line of FASTA
_SUFFIXES = (".fa", ".fasta", ".fna", STANDARD_OUTPUT)


def generate(
    model: LanguageModel,
    prompt: Prompt,
    n: int = 1,
    *,
    length: int = 100,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    stop: Sequence[Prompt] = (),
    seed: int = 0,
    include_prompt: bool = False,
    batch_size: BatchSize = "auto",
) -> list[str] | list[Ids]:
    """Draw sequences that follow a prompt.

    A model of DNA draws A, C, G and T alone and returns letters. A model of text tokens takes and returns ids. On a GPU
    a token, from the draw to the next logits, is the replay of one CUDA graph (`dnasm.models.replay`).

    Args:
        model: As `dnasm.load` returns it.
        prompt: Letters, or token ids; at least one.
        n: Sequences.
        length: Tokens in each, at most; prompt and sequence together must fit the model's `max_length`.
        temperature: Below 1 likely bases become likelier; 0 takes the likeliest every time.
        top_k: Draw among so many of the likeliest alone.
        top_p: Draw among the likeliest that together have this probability alone.
        stop: A sequence ends with the first of these that it completes.
        seed: Sequence i is a function of seed and i, not of `n` or the batch size, but for rounding in the model.
        include_prompt: Return the prompt in front of each.
        batch_size: Sequences that are drawn side by side.

    Raises:
        ConfigError: If a setting is out of range.
        InputError: If the prompt is empty, has a letter or id that is none, or is too long.
    """
    require_model(model)
    if isinstance(stop, str):
        raise ConfigError(f"stop is {stop!r}, one string; it must be a list of sequences: put it in brackets")
    how = Sampling(
        length, temperature, top_k, top_p, tuple(tuple(_ids(model, word, "stop").tolist()) for word in stop), seed
    )
    given = _ids(model, prompt, "prompt")
    drawn = [found.tokens for found in _samples(model, given, n, how, batch_size)]
    whole = [np.concatenate([given, tokens]) for tokens in drawn] if include_prompt else drawn
    return [vocabulary.decode(tokens) for tokens in whole] if model.config.vocabulary == "dna" else whole


def _ids(model: LanguageModel, words: Prompt, name: str) -> Ids:
    if isinstance(words, str):
        require_dna(model.config)
        try:
            return vocabulary.encode(words).astype(np.int64)
        except ValueError as error:
            raise InputError(f"{name}: {error}") from None
    ids = np.asarray(words.cpu() if isinstance(words, Tensor) else words).astype(np.int64)
    limit = vocabulary.NUM_TOKENS if model.config.vocabulary == "dna" else drawable(model.config).stop
    if ids.ndim != 1 or (ids.size and not 0 <= ids.min() <= ids.max() < limit):
        raise InputError(f"{name}: expected a list of token ids from 0 to {limit - 1}")
    return ids


def _samples(
    model: LanguageModel,
    prompt: Ids,
    n: int,
    how: Sampling,
    batch_size: BatchSize,
    first: int = 0,
    told: Callable[[int], None] | None = None,
    calls: int = 1,
) -> Iterator[Sample]:
    size = _AUTO_BATCH if batch_size == "auto" else batch_size
    if n < 1 or size < 1:
        raise ConfigError(f"n is {n}, batch_size {batch_size}; both must be at least 1")
    how.check()
    check_length("the prompt", len(prompt), None)
    longest = model.config.max_length
    if longest is not None and len(prompt) + how.length - 1 > longest:  # the last token is drawn, not read
        raise ConfigError(
            f"a prompt of {len(prompt)} and {how.length} more tokens do not fit this model, which reads at most "
            f"{longest}: shorten the prompt or the length"
        )
    tokens = torch.from_numpy(prompt).to(model.backbone.ln_f.weight.device)
    together, advice = min(n, size), "draw fewer side by side (--batch-size), or take --dtype bfloat16 or --device cpu"
    with evaluating(model), memory_told(model, len(prompt) + how.length, together, advice):
        yield from sample(model, tokens, n, how, batch_size=size, first=first, told=told, calls=calls)


def run(config: GenerateConfig) -> None:
    """Generate sequences into a FASTA file.

    Raises:
        ConfigError: If a setting is out of range, or the model is none of DNA.
        InputError: If the prompt cannot be used.
        OutputError: If the output exists or cannot be written.
    """
    started = now()
    check_new_file(config.out, _SUFFIXES, force=config.force)
    set_backend(config.conv_backend)
    model = load(config.model, config.device, config.dtype)
    require_dna(model.config)
    prompts, inputs = _prompts(model, config)
    refuse_same_file(config.out, *inputs)
    stop = tuple(tuple(_ids(model, word, "stop").tolist()) for word in config.stop)
    how = Sampling(config.length, config.temperature, config.top_k, config.top_p, stop, config.seed)
    how.check()
    if config.dry_run:
        print(
            f"{len(prompts):,} prompts, {config.n:,} sequences each of at most {config.length:,} bases -> {config.out}"
        )
        return
    total = len(prompts) * config.n
    with Meter("generate", "bases", total * how.length, quiet=config.quiet) as meter:
        if config.out == STANDARD_OUTPUT:
            sys.stdout.writelines(_records(model, prompts, how, config, meter))
            return
        with new_file(config.out) as draft, draft.open("w", encoding="ascii", errors="replace") as file:
            file.writelines(_records(model, prompts, how, config, meter))
    write_run_json(
        Path(f"{config.out}.run.json"),
        config,
        inputs=[*inputs, Path(config.model) / "model.safetensors"],
        counts={"prompts": len(prompts), "sequences": total},
        started=started,
    )


def _prompts(model: LanguageModel, config: GenerateConfig) -> tuple[list[tuple[str, Ids]], list[str]]:
    """Name and read the prompts; the second value lists the files that were read."""
    if config.genome is None and not {".", "/"} & set(config.prompt):  # letters, no path
        return [("generated", _ids(model, config.prompt, "prompt"))], []
    genome = None if config.genome is None else Genome(config.genome, quiet=config.quiet)
    regions = read_regions(config.prompt, genome)
    files = [config.prompt, *([] if config.genome is None else [config.genome])]
    return [("_".join(region.name.split()), region.read().astype(np.int64)) for region in regions], files


def _records(
    model: LanguageModel, prompts: Sequence[tuple[str, Ids]], how: Sampling, config: GenerateConfig, meter: Meter
) -> Iterator[str]:
    settings = _settings(model, config)
    for number, (name, prompt) in enumerate(prompts):
        front = vocabulary.decode(prompt) if config.include_prompt else ""
        first = number * config.n
        drawn = _samples(model, prompt, config.n, how, config.batch_size, first, meter.advance, len(prompts))
        for i, found in enumerate(drawn, 1):
            ended = "stop" if found.stopped else "length"
            counts = f"prompt={len(prompt)} generated={len(found.tokens)} end={ended}"
            text = front + vocabulary.decode(found.tokens)
            lines = "".join(f"{text[at : at + _LINE]}\n" for at in range(0, len(text), _LINE))
            yield f">{name}_{i} {counts} log_likelihood={found.log_likelihood:.6g} {settings}\n{lines}"


def _settings(model: LanguageModel, config: GenerateConfig) -> str:
    """Say in a header what makes the sequence again."""
    stop = ",".join(config.stop) or "none"
    return (
        f"seed={config.seed} temperature={config.temperature:g} top_k={config.top_k or 'all'} top_p={config.top_p:g} "
        f"length={config.length} stop={stop} model={model_hash(model)[:12]}"
    )
