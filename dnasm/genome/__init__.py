"""Files and coordinates: genomes, intervals, variants. numpy only, no torch."""

from dnasm.genome.bed import BedRecord, read_bed
from dnasm.genome.genome import Genome
from dnasm.genome.gff import GffRecord, read_gff
from dnasm.genome.interval import Interval
from dnasm.genome.reader import TokenStore
from dnasm.genome.variant import Variant
from dnasm.genome.vcf import VcfReader, VcfRecord, read_vcf
from dnasm.genome.vcf_writer import InfoField, VcfWriter

__all__ = [
    "BedRecord",
    "Genome",
    "GffRecord",
    "InfoField",
    "Interval",
    "TokenStore",
    "Variant",
    "VcfReader",
    "VcfRecord",
    "VcfWriter",
    "read_bed",
    "read_gff",
    "read_vcf",
]
