"""The part of a report on a score table: distribution, agreement of the strands, the variants at both ends."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dnasm.errors import InputError
from dnasm.genome import Genome
from dnasm.report.page import Context, FigureBlock, ScoreBlock, VariantRow
from dnasm.report.plots import plot_score_distribution, plot_strands
from dnasm.tasks.contig_names import ContigNames
from dnasm.tasks.report_inputs import Score, read_json

_SHOWN = 8
_FLANK = 16
_LONGEST = 12  # letters of an allele that are shown
_TRANSITIONS = frozenset(("AG", "GA", "CT", "TC"))


def score_block(scores: Sequence[Score], source: str, genome: Genome | None) -> ScoreBlock:
    """Choose what the page shows of a score table."""
    known = [score for score in scores if np.isfinite(score.llr)]
    ordered = sorted(known, key=lambda score: score.llr)
    shown = min(_SHOWN, len(ordered) // 2)
    names = None if genome is None else ContigNames(genome, "report")

    def rows(chosen: Sequence[Score]) -> list[VariantRow]:
        return [_row(score, genome, names) for score in chosen]

    return ScoreBlock(
        source=source,
        counts=dict(Counter(score.status for score in scores).most_common()),
        figures=_figures(known),
        lowest=rows(ordered[:shown]),
        highest=rows(ordered[::-1][:shown]),
    )


def _figures(known: Sequence[Score]) -> list[FigureBlock]:
    if not known:
        return []
    groups: dict[str, list[float]] = {}
    for score in known:
        groups.setdefault(kind_of(score), []).append(score.llr)
    ordered = dict(sorted(groups.items(), key=lambda item: -len(item[1])))
    blocks = [
        FigureBlock(
            "Distribution of scores",
            plot_score_distribution({name: np.array(values) for name, values in ordered.items()}),
            "Log-likelihood of ALT less that of REF. The few scores beyond the axis are drawn at its ends.",
        )
    ]
    both = np.array([(score.forward, score.reverse) for score in known]).reshape(-1, 2)
    both = both[np.isfinite(both).all(1)]
    if len(both) > 1:
        agreement = float(np.corrcoef(both.T)[0, 1]) if both.std(0).min() > 0 else float("nan")
        blocks.append(
            FigureBlock(
                "Both strands",
                plot_strands(both[:, 0], both[:, 1]),
                f"Each strand sees the bases before the variant in its own direction; correlation {agreement:.2f}.",
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
        change=f"{_short(score.ref)} → {_short(score.alt)}",
        llr=score.llr,
        forward=score.forward,
        reverse=score.reverse,
        context=None if genome is None or names is None else _context(score, genome, names),
    )


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
