"""Simple predictors of variants, against what can be counted by hand."""

import math

import pytest

from dnasm import vocabulary
from dnasm.baselines.consequences import CONSEQUENCES, Consequences
from dnasm.baselines.markov import MarkovModel
from dnasm.baselines.variants import Site, cpg_change, gc_change, kmer_log_ratio, transversion
from dnasm.genome.gff import GffRecord
from dnasm.genome.interval import Interval


@pytest.mark.parametrize(
    ("site", "gc", "cpg", "kind"),
    [
        (Site("AAC", "T", "G", "AAA"), 1, 1, 1),  # makes a CG with the C before it
        (Site("AAC", "G", "A", "TTT"), -1, -1, 0),
        (Site("AAA", "T", "C", "GGG"), 1, 1, 0),
        (Site("A", "A", "ACGC", "G"), 3, 2, math.nan),
        (Site("", "G", "C", ""), 0, 0, 1),
    ],
)
def test_what_can_be_counted(site: Site, gc: float, cpg: float, kind: float) -> None:
    assert (gc_change(site), cpg_change(site)) == (gc, cpg)
    assert transversion(site) == kind or (math.isnan(kind) and math.isnan(transversion(site)))


def test_the_kmer_ratio_is_that_of_the_whole_sequences() -> None:
    model = MarkovModel.fit([vocabulary.encode("ACGGTCATTGACGTTACGCA" * 20)], 3)
    site = Site("TTACGGA", "C", "GT", "ATTGCCA")
    whole = [model.log_likelihood(vocabulary.encode(site.before + x + site.after)) for x in (site.alt, site.ref)]
    assert kmer_log_ratio(model)(site) == pytest.approx(whole[0] - whole[1], abs=1e-9)
    assert kmer_log_ratio(model)(Site("", "C", "G", "A")) == pytest.approx(
        model.log_likelihood(vocabulary.encode("GA")) - model.log_likelihood(vocabulary.encode("CA"))
    )


#           0         1         2         3         4         5
#           012345678901234567890123456789012345678901234567890123456
LETTERS = "TTATGAAACGGTAAGTCCCCCCCCCCCCCCCCCCAGGGATATTAGCCTTTTTTTTT"
#          CDS 2-11: ATG AAA CGG, intron 11-36, CDS 36-45: GGA TAT TAG


def _record(kind: str, start: int, end: int, strand: str = "+", phase: int | None = None) -> GffRecord:
    return GffRecord(Interval("c", start, end), kind, "test", None, strand, phase, {"Parent": "t1"}, 1)


FORWARD = [_record("CDS", 2, 11, phase=0), _record("CDS", 36, 45, phase=0), _record("exon", 0, 11),
           _record("exon", 36, 50), _record("mRNA", 0, 50)]  # fmt: skip
CASES = [
    (2, "A", "C", "start lost"),
    (5, "A", "T", "stop gained"),  # AAA -> TAA
    (7, "A", "G", "synonymous"),  # AAA -> AAG
    (6, "A", "T", "missense"),
    (43, "A", "C", "stop lost"),  # TAG -> TCG
    (5, "AA", "A", "frameshift"),
    (5, "AAAC", "A", "in-frame change"),
    (11, "T", "C", "splice site"),
    (12, "A", "C", "splice site"),
    (35, "G", "C", "splice site"),
    (16, "C", "A", "splice region"),
    (22, "C", "A", "intron"),
    (0, "T", "C", "exon, not coding"),
    (48, "T", "C", "exon, not coding"),
    (52, "T", "C", "intergenic"),
]


def _read(letters: str) -> Consequences:
    return Consequences(FORWARD, lambda _, start, end: letters[start:end])


@pytest.mark.parametrize(("start", "ref", "alt", "expected"), CASES)
def test_consequences_on_both_strands(start: int, ref: str, alt: str, expected: str) -> None:
    assert LETTERS[start : start + len(ref)] == ref
    assert _read(LETTERS).worst("c", start, ref, alt) == expected
    size = len(LETTERS)
    turned = [_record(r.type, size - r.interval.end, size - r.interval.start, "-", r.phase) for r in FORWARD]
    other = vocabulary.decode(vocabulary.reverse_complement(vocabulary.encode(LETTERS)))
    flip = [vocabulary.decode(vocabulary.reverse_complement(vocabulary.encode(x))) for x in (ref, alt)]
    mirrored = Consequences(turned, lambda _, first, last: other[first:last])
    assert mirrored.worst("c", size - start - len(ref), *flip) == expected


def test_the_gravest_of_several_counts_and_all_have_a_rank() -> None:
    assert len(set(CONSEQUENCES)) == len(CONSEQUENCES)
    assert {expected for *_, expected in CASES} == set(CONSEQUENCES)
    assert _read(LETTERS).worst("nowhere", 5, "A", "T") == "intergenic"
