"""Published checkpoints of other projects, in and out, by their own names; strict in both directions."""

from dnasm.models.importers.h3 import import_h3
from dnasm.models.importers.hyenadna import export_hyenadna, import_hyenadna

__all__ = ["export_hyenadna", "import_h3", "import_hyenadna"]
