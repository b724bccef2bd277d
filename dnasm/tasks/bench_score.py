"""`dnasm bench score`: variant scoring beside the loop that a user would write, in one process, taking turns.

The plain loop reads two windows for each variant and strand, the same windows as ours, in batches of the size at which
it is fastest. It is timed as it stands, and with every distinct reference window read only once.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from dnasm.config import BenchConfig
from dnasm.errors import InputError
from dnasm.genome import Genome
from dnasm.models.backbone import LanguageModel, build_model
from dnasm.models.checkpoint import load
from dnasm.models.likelihood import log_likelihood
from dnasm.presets import preset
from dnasm.resources import locate
from dnasm.tasks.bench import Row, race, say, seconds
from dnasm.tasks.score_table import ScoreTable
from dnasm.tasks.variant_checks import Allele
from dnasm.tasks.variant_input import read_alleles
from dnasm.tasks.variant_scorer import VariantScorer
from dnasm.vocabulary import Tokens

_GRID = 64
_SLICE = 240  # variants in a turn, neighbours as in the file
_SIZES = (1, 2, 4, 8, 16, 32)
_REGION = ("human_chr20_sample", 300_000, 301_300)  # as many bases as the exons of BRCA1 that were saturated


def rows(config: BenchConfig) -> Iterator[Row]:
    """Time both loops at each window length.

    Raises:
        InputError: If fewer variants can be scored than one turn takes.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    genome = Genome(config.genome or str(locate("dnasm:data/human_chr20_sample.fa.gz")), quiet=True)
    alleles = list(read_alleles(config.variants)) if config.variants else _saturate(genome, *_REGION)
    for window in config.lengths or [1024]:
        model = load(config.model, config.device) if config.model else _untrained(window)
        scorer = VariantScorer(model, genome, window=window, grid=_GRID, check_ref="skip")
        yield from _rows_of(model, scorer, [allele for allele in alleles if scorer.cut(allele)], config.repeats)


def _rows_of(model: torch.nn.Module, scorer: VariantScorer, alleles: Sequence[Allele], repeats: int) -> Iterator[Row]:
    if len(alleles) < _SLICE:
        raise InputError(f"{len(alleles)} variants can be scored, a turn takes {_SLICE}; give more with --variants")
    size = _best_size(model, scorer, alleles)
    starts = np.linspace(0, len(alleles) - _SLICE, repeats + 1).astype(int)
    turns = [alleles[start : start + _SLICE] for start in starts]
    differences = [_ours(scorer, turn) - _plain(model, scorer, turn, size, reuse=True) for turn in turns[:2]]
    for reuse in (True, False):
        result = race(
            lambda i: _ours(scorer, turns[i]),
            partial(lambda i, reuse: _plain(model, scorer, turns[i], size, reuse=reuse), reuse=reuse),
            repeats,
        )
        yield {
            "window": scorer.window,
            "grid": _GRID,
            "variants": len(alleles),
            "variants_a_turn": _SLICE,
            "threads": torch.get_num_threads(),
            "device": str(scorer.runner.device),
            "theirs": "two windows a variant" + (", each reference window once" if reuse else ""),
            "theirs_batch_size": size,
            "largest_difference": max(float(np.abs(difference).max()) for difference in differences),
            **result.summary(),
        }


def _ours(scorer: VariantScorer, alleles: Sequence[Allele]) -> npt.NDArray[np.float64]:
    return np.asarray(ScoreTable.concatenate(scorer.score(alleles)).llr)


def _plain(
    model: torch.nn.Module, scorer: VariantScorer, alleles: Sequence[Allele], size: int, *, reuse: bool
) -> npt.NDArray[np.float64]:
    """Score as a loop would: cut both windows, run the model over all of each, subtract."""
    pairs = [pair for allele in alleles for pair in scorer.cut(allele).values()]
    alternates = _read(model, [pair.alternate for pair in pairs], size)
    references = [pair.reference for pair in pairs]
    if reuse:
        distinct = list({window.tobytes(): window for window in references}.values())
        found = dict(zip((window.tobytes() for window in distinct), _read(model, distinct, size), strict=True))
        expected = np.array([found[window.tobytes()] for window in references])
    else:
        expected = _read(model, references, size)
    return (alternates - expected).reshape(len(alleles), -1).mean(1)


@torch.inference_mode()
def _read(model: torch.nn.Module, windows: Sequence[Tokens], size: int) -> npt.NDArray[np.float64]:
    device, stream, values = next(model.parameters()).device, iter(windows), []
    while batch := list(islice(stream, size)):
        tokens = torch.from_numpy(np.stack(batch)).to(device)
        values.append(log_likelihood(model(tokens), tokens).cpu().numpy())
    return np.concatenate(values)


def _best_size(model: torch.nn.Module, scorer: VariantScorer, alleles: Sequence[Allele]) -> int:
    """Find the batch size at which the plain loop is fastest."""
    windows = [pair.alternate for allele in alleles[: max(_SIZES)] for pair in scorer.cut(allele).values()]
    taken = {}
    for size in _SIZES:
        taken[size] = min(seconds(partial(_read, model, windows[: max(_SIZES)], size)) for _ in range(2))
        say(f"plain loop, batches of {size}: {taken[size] / max(_SIZES) * 1e3:.1f} ms a window")
    return min(taken, key=taken.__getitem__)


def _untrained(window: int) -> LanguageModel:
    """Return the demo's architecture with fresh weights, which take as long as trained ones."""
    torch.manual_seed(0)
    config = preset("tiny")
    config.max_length, config.d_inner, config.filter_order, config.filter_embedding = window, 256, 32, 129
    return build_model(config).eval()


def _saturate(genome: Genome, contig: str, start: int, end: int) -> list[Allele]:
    """List every single substitution of a region."""
    letters = genome[contig, start:end].upper()
    changes = [(start + i + 1, ref, alt) for i, ref in enumerate(letters) for alt in "ACGT" if alt != ref]
    return [Allele(contig, pos, ref, alt) for pos, ref, alt in changes]
