"""What data/README.md says of the shipped files is so."""

import hashlib
import re
import tomllib
from pathlib import Path

from dnasm.genome import read_bed, read_gff, read_vcf
from tests.genome.naive import read_fasta

ROW = re.compile(r"^\| `([\w.]+)` \|.*\| ([\d,]+) \| `([0-9a-f]{64})` \|$", re.MULTILINE)
CONTIG = re.compile(r"^\| (\w+) \| ([\d,]+) \| `([0-9a-f]{32})` \|$", re.MULTILINE)


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_every_file_is_listed_with_its_checksum(root: Path) -> None:
    listed = ROW.findall((root / "data/README.md").read_text())
    found = {path.name for path in (root / "data").iterdir() if path.suffix not in (".dnasm", ".fai", ".gzi")}
    assert {name for name, _, _ in listed} == found - {"README.md"}
    for name, size, checksum in listed:
        data = (root / "data" / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (number(size), checksum), name
    assert sum(number(size) for _, size, _ in listed) < 4_000_000


def test_the_wheel_takes_every_file_and_no_store(root: Path) -> None:
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    taken = {source: place for source, place in wheel["force-include"].items() if source.startswith("data")}
    listed = [name for name, _, _ in ROW.findall((root / "data/README.md").read_text())]
    assert taken == {f"data/{name}": f"dnasm/data/{name}" for name in ["README.md", *listed]}


def test_every_sequence_has_its_length_and_checksum(root: Path) -> None:
    listed = CONTIG.findall((root / "data/README.md").read_text())
    sequences = read_fasta(root / "data/yeast_r64.fa.gz") | read_fasta(root / "data/human_chr20_sample.fa.gz")
    assert [name for name, _, _ in listed] == list(sequences)
    for name, length, checksum in listed:
        sequence = sequences[name]
        assert set(sequence) == set("ACGT")
        assert (len(sequence), hashlib.md5(sequence.encode()).hexdigest()) == (number(length), checksum), name


def test_every_ref_is_what_the_human_sample_holds(root: Path) -> None:
    ((name, sequence),) = read_fasta(root / "data/human_chr20_sample.fa.gz").items()
    with read_vcf(root / "data/human_chr20_sample.vcf.gz") as reader:
        assert reader.contigs == {name: len(sequence)}
        records = list(reader)
    assert len(records) == 4109
    for record in records:
        assert record.contig == name
        assert sequence[record.pos - 1 : record.pos - 1 + len(record.ref)] == record.ref, record.text


def test_regions_lie_in_their_genomes(root: Path) -> None:
    ((name, sequence),) = read_fasta(root / "data/human_chr20_sample.fa.gz").items()
    (held_out,) = read_bed(root / "data/human_chr20_sample.validation.bed")
    assert held_out.interval.contig == name
    assert (held_out.interval.start, held_out.interval.end) == (len(sequence) - 100_000, len(sequence))
    genes = {
        (gene.interval, gene.strand, gene.attributes.get("gene", gene.attributes["locus_tag"]))
        for gene in read_gff(root / "data/yeast_r64.gff3.gz", types={"gene"})
        if gene.interval.contig == "chrVIII" and gene.interval.length <= 1000
    }
    regions = read_bed(root / "data/yeast_chrVIII_genes.bed")
    assert len(regions) == 138
    assert {(region.interval, region.strand, region.name) for region in regions} == genes
