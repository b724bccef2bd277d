"""Files and coordinates: genomes, intervals, variants. numpy only, no torch."""

from dnasm.genome.bed import BedRecord, read_bed
from dnasm.genome.genome import Genome
from dnasm.genome.interval import Interval
from dnasm.genome.reader import TokenStore
from dnasm.genome.variant import Variant

__all__ = ["BedRecord", "Genome", "Interval", "TokenStore", "Variant", "read_bed"]
