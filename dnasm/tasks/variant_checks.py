"""Decide for each ALT whether it can be scored, and stop when the variants are not of this genome."""

import sys
from dataclasses import dataclass
from typing import Literal

from dnasm import vocabulary
from dnasm.errors import ReferenceMismatch
from dnasm.genome import Genome
from dnasm.tasks.contig_names import ContigNames
from dnasm.tasks.score_table import MISSING

CheckRef = Literal["error", "warn", "skip"]

FIRST_REFS = 1000
MAX_MISMATCH_SHARE = 0.1
"""More than this share of the first `FIRST_REFS` REFs that disagree with the genome ends the command."""

_WARNINGS_SHOWN = 20
_SHOWN_BASES = 20
_BASES = frozenset("ACGT")


@dataclass(frozen=True, slots=True)
class Allele:
    """One row to score, as its input states it and unchecked."""

    contig: str
    pos: int
    ref: str
    alt: str
    """`.` where the record has no ALT."""
    where: str = ""
    """File and line, for messages."""

    def __str__(self) -> str:
        place = f"{self.contig}:{self.pos}:{_shown(self.ref)}:{_shown(self.alt)}"
        return f"{self.where}: {place}" if self.where else place


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an allele."""

    status: str
    reason: str = ""
    ref_match: bool = False
    contig: str = ""
    """The genome's name of the contig."""


class VariantChecker:
    """Checks alleles against one genome, in input order, and remembers what was seen."""

    def __init__(self, genome: Genome, check_ref: CheckRef, *, quiet: bool = False) -> None:
        self.genome = genome
        self.refs = self.mismatches = 0
        self._check_ref = check_ref
        self._names = ContigNames(genome, "score", quiet=quiet)
        self._last_record: tuple[object, ...] = ()

    def check(self, allele: Allele) -> Verdict:
        """Judge one allele.

        Raises:
            ReferenceMismatch: If its REF disagrees with the genome and `check_ref` is `error`, or more than a tenth
                of the first 1,000 REFs disagree.
            InputError: If two names of the input mean the same contig of the genome.
        """
        contig = self._names.find(allele.contig)
        if contig is None:
            return Verdict("unknown_contig", f"the genome has no contig {allele.contig}")
        length = self.genome.contigs[contig]
        start, end = allele.pos - 1, allele.pos - 1 + len(allele.ref)
        if allele.pos < 1 or end > length:
            return Verdict("out_of_range", f"REF spans {allele.pos}-{end}, the contig has bases 1-{length}")
        ref = allele.ref.upper()
        if not ref or not _BASES.issuperset(ref):
            return Verdict("unsupported", f"REF {_shown(allele.ref) or 'is empty:'} is not made of A, C, G, T")
        found = vocabulary.decode(self.genome.tokens(contig, start, end))
        if not self._compare(allele, ref, found):
            return Verdict("ref_mismatch", f"the genome has {_shown(found)} there")
        reason = unsupported(ref, allele.alt)
        return Verdict("unsupported" if reason else "ok", reason, True, contig)

    def _compare(self, allele: Allele, ref: str, found: str) -> bool:
        match = ref == found
        record = (allele.contig, allele.pos, allele.ref, allele.where)
        if record == self._last_record:  # another ALT of a record that was counted already
            return match
        self._last_record = record
        self.refs += 1
        self.mismatches += not match
        if not match:
            self._complain(allele, found)
        return match

    def _complain(self, allele: Allele, found: str) -> None:
        says = f"{allele}: REF is {_shown(allele.ref)}, the genome has {_shown(found)}"
        if self._check_ref == "error":
            raise ReferenceMismatch(
                f"{says}. Is the input from another genome build? "
                "With --check-ref warn or skip such records are kept without a score"
            )
        if self.refs <= FIRST_REFS and self.mismatches > MAX_MISMATCH_SHARE * FIRST_REFS:
            raise ReferenceMismatch(
                f"{says}: {self.mismatches:,} of the first {self.refs:,} REFs disagree with {self.genome.path}. "
                "The input is from another genome build; give the FASTA that it was made with"
            )
        if self._check_ref == "warn" and self.mismatches <= _WARNINGS_SHOWN:
            more = "; further ones are only counted" if self.mismatches == _WARNINGS_SHOWN else ""
            print(f"dnasm score: warning: {says}{more}", file=sys.stderr)


def unsupported(ref: str, alt: str) -> str:
    """Say why an ALT is no plain change of bases; empty if it is one.

    Args:
        ref: Upper-case bases.
        alt: ALT as the input writes it.
    """
    upper = alt.upper()
    if alt in ("", MISSING):
        return "the record has no ALT"
    if alt == "*":
        return "* stands for a deletion that another record describes"
    if alt.startswith("<"):
        return f"symbolic ALT {_shown(alt)}"
    if any(letter in alt for letter in "[]") or alt.startswith(".") or alt.endswith("."):
        return f"breakend {_shown(alt)}"
    if not _BASES.issuperset(upper):
        return f"ALT {_shown(alt)} is not made of A, C, G, T"
    return "REF and ALT are the same" if upper == ref else ""


def _shown(letters: str) -> str:
    """Cut a long allele for a message."""
    if len(letters) <= _SHOWN_BASES:
        return letters
    return f"{letters[:_SHOWN_BASES]}... ({len(letters):,} bases)"
