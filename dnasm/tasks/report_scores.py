"""The part of a report on a score table: distribution, agreement of the strands, the variants at both ends."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from dnasm.errors import InputError
from dnasm.genome import Genome, Interval
from dnasm.report.page import Context, FigureBlock, ScoreBlock, VariantRow
from dnasm.report.plots import plot_score_distribution, plot_strands
from dnasm.tasks.contig_names import ContigNames
from dnasm.tasks.report_inputs import Score, read_json
from dnasm.tasks.report_logos import draw_logo_of, expected_logos
from dnasm.tasks.score_evaluation import DISTANCES

_SHOWN = 8
_FLANK = 16
_LONGEST = 8  # letters of an allele that are shown
_TRANSITIONS = frozenset(("AG", "GA", "CT", "TC"))
_TITLES = {
    "llr": ("Log-likelihood ratio", "nats", "Log-likelihood of the window with ALT less that with REF."),
    "llr_mean": ("Mean log-likelihood ratio", "nats a base", "The log-likelihood ratio, divided by the bases scored."),
    "masked_llr": ("Log-likelihood ratio, masked", "nats", "log p(ALT) less log p(REF) where the base is masked."),
    "pseudo_likelihood": (
        "Pseudo-likelihood ratio",
        "nats",
        "Sum over the window of log p(base given all others), with ALT less with REF.",
    ),
    "next_base_divergence": (
        "Divergence of the next base",
        "nats",
        "Jensen-Shannon divergence of what is expected of the bases behind the variant, with ALT and with REF.",
    ),
    "embedding_distance": ("Distance of embeddings", "", "Euclidean distance of the windows' mean hidden states."),
}  # of each method: title, unit, definition


def score_block(
    method: str, scores: Sequence[Score], source: str, genome: Genome | None, model: nn.Module | None = None
) -> ScoreBlock:
    """Choose what the page shows of a score table by one method; a distance has no lowest end."""
    known = [score for score in scores if np.isfinite(score.value)]
    ordered = sorted(known, key=lambda score: score.value)
    shown = min(_SHOWN, len(ordered) // 2)
    names = None if genome is None else ContigNames(genome, "report")
    distance = method in DISTANCES

    ends = ([] if distance else ordered[:shown], ordered[::-1][:shown])
    low, high = ([_row(score, genome, names) for score in end] for end in ends)
    top = 0.0
    if genome is not None and names is not None and model is not None:
        rows, top = _with_logos([*low, *high], genome, names, model)
        low, high = rows[: len(low)], rows[len(low) :]
    return ScoreBlock(
        method=method,
        title=_TITLES[method][0],
        signed=not distance,
        source=source,
        counts=dict(Counter(score.status for score in scores).most_common()),
        figures=_figures(method, known),
        lowest=low,
        highest=high,
        logo_top=top,
    )


def _figures(method: str, known: Sequence[Score]) -> list[FigureBlock]:
    if not known:
        return []
    title, unit, meaning = _TITLES[method]
    groups: dict[str, list[float]] = {}
    for score in known:
        groups.setdefault(kind_of(score), []).append(score.value)
    ordered = dict(sorted(groups.items(), key=lambda item: -len(item[1])))
    blocks = [
        FigureBlock(
            "Distribution of scores",
            plot_score_distribution(
                {name: np.array(values) for name, values in ordered.items()},
                f"{title.lower()} ({unit})" if unit else title.lower(),
                f"scores-{method}",
            ),
            f"{meaning} The few scores beyond the axis are drawn at its ends.",
        )
    ]
    both = np.array([(score.forward, score.reverse) for score in known]).reshape(-1, 2)
    both = both[np.isfinite(both).all(1)]
    if len(both) > 1:
        agreement = float(np.corrcoef(both.T)[0, 1]) if both.std(0).min() > 0 else float("nan")
        blocks.append(
            FigureBlock(
                "Both strands",
                plot_strands(both[:, 0], both[:, 1], unit, f"strands-{method}"),
                f"Each strand is read in its own direction; correlation {agreement:.2f}. The stronger the colour, the "
                "more alleles.",
            )
        )
    return blocks


def kind_of(score: Score) -> str:
    """Name the group of a variant.

    >>> kind_of(Score("c", 1, "A", "G", 0.0, 0.0, 0.0, "ok"))
    'transitions'
    """
    if len(score.ref) != 1 or len(score.alt) != 1:
        return "longer changes"
    return "transitions" if (score.ref + score.alt).upper() in _TRANSITIONS else "transversions"


def _row(score: Score, genome: Genome | None, names: ContigNames | None) -> VariantRow:
    return VariantRow(
        contig=score.chrom,
        pos=score.pos,
        ref_length=len(score.ref),
        change=f"{_short(score.ref)} → {_short(score.alt)}",
        value=score.value,
        forward=score.forward,
        reverse=score.reverse,
        context=None if genome is None or names is None else _context(score, genome, names),
    )


def _with_logos(
    rows: Sequence[VariantRow], genome: Genome, names: ContigNames, model: nn.Module
) -> tuple[list[VariantRow], float]:
    """Draw what the model expects where a variant's window is known; all on one scale, which comes back in bits."""
    places = {
        i: Interval(contig, row.pos - 1, row.pos - 1 + row.ref_length)
        for i, row in enumerate(rows)
        if row.context is not None and (contig := names.find(row.contig)) is not None
    }
    logos = expected_logos(model, genome, list(places.values()))
    top = max((float(heights.sum(1).max()) for heights in logos), default=0.0)
    drawn = {
        i: draw_logo_of(place, heights, top, context.ref, context.alt)
        for (i, place), heights in zip(places.items(), logos, strict=True)
        if top > 0 and (context := rows[i].context) is not None
    }
    return [replace(row, logo=drawn.get(i, "")) for i, row in enumerate(rows)], top if drawn else 0.0


def _short(letters: str) -> str:
    return letters if len(letters) <= _LONGEST else f"{letters[:_LONGEST]}…({len(letters):,})"


def _context(score: Score, genome: Genome, names: ContigNames) -> Context | None:
    contig = names.find(score.chrom)
    if contig is None:
        return None
    start, end, length = score.pos - 1, score.pos - 1 + len(score.ref), genome.contigs[contig]
    if not 0 <= start < end <= length or genome[contig, start:end].upper() != score.ref.upper():
        return None
    before, after = max(0, start - _FLANK), min(length, end + _FLANK)
    return Context(
        genome[contig, before:start].upper(), _short(score.ref), _short(score.alt), genome[contig, end:after].upper()
    )


def find_genome(scores: str, genome: str | None) -> tuple[Genome | None, str]:
    """Open the genome that a score table speaks of: as given, or as the record beside the table says.

    Returns:
        The genome, or None and why there is none.
    """
    if genome is not None:
        return Genome(genome), ""
    record = Path(f"{scores}.run.json")
    if not record.is_file():
        return None, f"{scores} has no record beside it ({record.name}): give --genome to see variants in their window"
    held = read_json(record)
    named = held.get("config", {}).get("genome") if isinstance(held.get("config"), dict) else None
    path = Path(os.path.join(str(held.get("folder", ".")), str(named)))
    if not path.is_file():
        return None, f"the genome of {scores} is no longer at {path}: give --genome to see variants in their window"
    try:
        return Genome(path), ""
    except InputError as error:
        return None, str(error)
