"""The 1000 Genomes file of chromosome 20, with 300 people's genotypes: annotated, nothing else of it changes."""

import gzip
import itertools
import subprocess
import sys
from pathlib import Path

import pysam
import pytest

from dnasm.config import ModelConfig
from dnasm.models.backbone import build_model
from dnasm.models.checkpoint import save_model

RECORDS = 16_660
ADDED = {"DNASM_LLR", "DNASM_LLR_FORWARD", "DNASM_LLR_REVERSE", "DNASM_STATUS"}


@pytest.mark.parametrize("records", [500, pytest.param(RECORDS, marks=pytest.mark.slow)])
def test_every_original_field_survives_the_round_trip(shared: Path, tmp_path: Path, records: int) -> None:
    with gzip.open(shared / "data/kg_chr20/kg_chr20_b37_phased.vcf.gz", "rt") as source:
        header = list(itertools.takewhile(lambda line: not line.startswith("#CHROM"), source))
    with gzip.open(shared / "data/kg_chr20/kg_chr20_b37_phased.vcf.gz", "rt") as source:
        (tmp_path / "in.vcf").write_text("".join(itertools.islice(source, len(header) + 1 + records)))
    config = ModelConfig(d_model=8, d_inner=8, num_layers=1, max_length=32, filter_order=4, embedding_dropout=0.0)
    model = save_model(build_model(config), tmp_path / "model", {})
    genome = tmp_path / "chr20.fa"  # the part that the records lie in, in its place
    with gzip.open(shared / "data/human_hg19/chr20.fa.gz", "rt") as source:
        source.readline()
        letters = ""
        while len(letters) < 1_200_000 or (records == RECORDS and len(letters) < 63_025_520):
            letters += source.read(1 << 26 if records == RECORDS else 1 << 20).replace("\n", "")
    genome.write_text(f">chr20\n{letters}\n")
    command = f"score --model {model} --genome {genome} --variants in.vcf --out out.vcf.gz --batch-size 256 --quiet"
    subprocess.run([sys.executable, "-m", "dnasm", *command.split()], cwd=tmp_path, check=True)
    count, unsupported = 0, 0
    with (
        pysam.VariantFile(str(tmp_path / "in.vcf")) as before,
        pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as after,
    ):
        assert list(before.header.samples) == list(after.header.samples)
        for old, new in itertools.zip_longest(before, after):
            assert (new.chrom, new.pos, new.id, new.alleles, new.qual) == (
                old.chrom, old.pos, old.id, old.alleles, old.qual
            )  # fmt: skip
            assert list(new.filter) == list(old.filter)
            assert {key for key in new.info if key not in old.info} == ADDED
            assert all(new.info[key] == value for key, value in old.info.items())
            assert [sample.items() for sample in new.samples.values()] == [s.items() for s in old.samples.values()]
            assert str(new).split("\t")[8:] == str(old).split("\t")[8:]
            count += 1
            unsupported += set(new.info["DNASM_STATUS"]) != {"ok"}
    assert count == records
    assert unsupported == (19 if records == RECORDS else 0)  # symbolic alleles
