"""The page: what it shows, as plain values, and the template that lays them out. No value is trusted as HTML."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


@dataclass(frozen=True)
class Fact:
    """A headline number."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class FigureBlock:
    """An inline SVG with what it shows."""

    title: str
    svg: str
    caption: str


@dataclass(frozen=True)
class MarkovRow:
    """One model in the comparison; bars show bits per base."""

    label: str
    cells: Sequence[float | None]
    """One strand, both strands; a single value for the trained model."""
    counted: str = ""
    ours: bool = False


@dataclass(frozen=True)
class MarkovTable:
    """The comparison on one genome's targets."""

    genome: str
    targets: int
    rows: Sequence[MarkovRow]

    def width(self, bits: float) -> float:
        """Length of a bar in percent: the differences matter, so it does not begin at 0."""
        known = [cell for row in self.rows for cell in row.cells if cell is not None]
        low, high = min(known), max(known)
        return 12 + 88 * (bits - low) / max(high - low, 1e-9)


@dataclass(frozen=True)
class Context:
    """A variant in its window: the letters around it."""

    before: str
    ref: str
    alt: str
    after: str


@dataclass(frozen=True)
class VariantRow:
    """One of the variants shown by themselves."""

    contig: str
    pos: int
    ref_length: int
    change: str
    value: float
    forward: float
    reverse: float
    context: Context | None
    logo: str = ""
    """Inline SVG of what the model expects there."""


@dataclass(frozen=True)
class ScoreBlock:
    """The part of the page on a score table, by one method."""

    method: str
    title: str
    signed: bool
    """Whether a score says more or less likely; a distance only says how far."""
    source: str
    counts: Mapping[str, int]
    figures: Sequence[FigureBlock]
    lowest: Sequence[VariantRow]
    highest: Sequence[VariantRow]
    logo_top: float = 0.0
    """Bits that the logos' upper edge stands for; 0: there are none."""


@dataclass(frozen=True)
class PredictorRow:
    """One predictor of labels: value, low and high end of each measure."""

    name: str
    auroc: tuple[float, float, float]
    precision: tuple[float, float, float]
    ours: bool = False


@dataclass(frozen=True)
class LabelBlock:
    """The part of the page on labelled variants."""

    source: str
    direction: str
    """Which scores of the model speak for a positive."""
    positives: int
    negatives: int
    rows: Sequence[PredictorRow]
    figures: Sequence[FigureBlock]


@dataclass(frozen=True)
class Page:
    """All that a report shows."""

    title: str
    subtitle: str
    facts: Sequence[Fact]
    warnings: Sequence[str]
    figures: Sequence[FigureBlock]
    tables: Sequence[MarkovTable]
    scores: Sequence[ScoreBlock]
    """One for each method."""
    settings: Mapping[str, Mapping[str, str]]
    versions: Mapping[str, str]
    provenance: Mapping[str, str] = field(default_factory=dict)
    labels: LabelBlock | None = None
    tracks: Sequence[FigureBlock] = ()
    letters: str = ""
    """Definitions that the logos use."""


def render(page: Page) -> str:
    """Lay out one self-contained HTML document: no script, no network, every text escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = Markup  # our own SVG, which holds no text of a user
    environment.filters["number"] = _number
    return environment.get_template("page.html.jinja").render(page=page)


def _number(value: float, *, signed: bool) -> str:
    """Write a score to four digits, with its sign where it has one, as typesetters do; a dash where there is none.

    >>> _number(-0.00012345, signed=True), _number(12.5, signed=False)
    ('\u22120.0001234', '12.500')
    """
    if math.isnan(value):
        return "\N{EN DASH}"
    digits = 3 if value == 0 or abs(value) >= 0.1 else min(12, 3 - math.floor(math.log10(abs(value))))
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")
