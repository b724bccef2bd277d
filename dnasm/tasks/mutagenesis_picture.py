"""What of a `Mutagenesis` is drawn."""

from contextlib import AbstractContextManager
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure

from dnasm.report.mutation_map import HeatMap, LetterTrack, mutation_figure
from dnasm.tasks.mutagenesis_table import Mutagenesis


def picture(result: Mutagenesis) -> AbstractContextManager[Figure]:
    """Draw a result; a context manager that yields the matplotlib figure."""
    tracks = [LetterTrack("mean effect\n(nats)", result.importance)]
    if np.isfinite(result.gradient).any():
        tracks.append(LetterTrack("gradient\nx input", result.gradient_importance))
    maps = [HeatMap("change\n(nats)", result.changes)]
    if result.measured is not None:
        maps.append(HeatMap("measured", result.measured))
    end = result.start + len(result)
    title = f"{result.contig or 'sequence'}:{result.start + 1:,}-{end:,}"
    return mutation_figure(result.sequence, result.start, tracks, maps, title)


def png(result: Mutagenesis, dpi: int = 100) -> bytes:
    """Draw a result as PNG."""
    buffer = BytesIO()
    with picture(result) as figure:
        figure.savefig(buffer, format="png", facecolor="white", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
