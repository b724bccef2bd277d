"""Places on a genome."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """Bases `start` to `end` of one contig: 0-based, end excluded, forward strand.

    >>> Interval("chr17", 43_044_294, 43_125_483).length
    81189
    """

    contig: str
    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"interval {self.contig}:{self.start}-{self.end} runs backwards or below 0")

    @property
    def length(self) -> int:
        """Number of bases."""
        return self.end - self.start

    def overlaps(self, other: "Interval") -> bool:
        """Whether both share at least one base.

        >>> Interval("chrI", 0, 10).overlaps(Interval("chrI", 10, 20))
        False
        """
        return self.contig == other.contig and max(self.start, other.start) < min(self.end, other.end)
