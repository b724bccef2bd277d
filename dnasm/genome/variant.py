"""One change to one place, as a VCF states it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Variant:
    """`ref` at the 1-based position `pos` of `contig` becomes `alt`.

    The letters are kept as given; whether they can be scored is for the scorer to say.
    """

    contig: str
    pos: int
    ref: str
    alt: str

    def __post_init__(self) -> None:
        if self.pos < 1:
            raise ValueError(f"variant {self}: positions are 1-based, {self.pos} is none")
        if not (self.contig and self.ref and self.alt):
            raise ValueError(f"variant {self}: contig, REF and ALT must not be empty")

    def __str__(self) -> str:
        return f"{self.contig}:{self.pos}:{self.ref}:{self.alt}"

    @property
    def start(self) -> int:
        """First base of `ref`, 0-based."""
        return self.pos - 1

    @property
    def end(self) -> int:
        """End of `ref`, 0-based and excluded."""
        return self.start + len(self.ref)

    @classmethod
    def parse(cls, text: str) -> "Variant":
        """Read `contig:pos:ref:alt`; the contig's name may hold colons, the position thousands separators.

        Raises:
            ValueError: If the text has another form.

        >>> Variant.parse("chr17:43,045,705:T:C")
        Variant(contig='chr17', pos=43045705, ref='T', alt='C')
        """
        parts = text.strip().rsplit(":", 3)
        digits = parts[1].replace(",", "") if len(parts) == 4 else ""
        if not (digits.isascii() and digits.isdigit()):
            raise ValueError(f"{text!r} is no variant; write contig:pos:ref:alt, as chr17:43045705:T:C")
        return cls(parts[0], int(digits), parts[2], parts[3])
