"""Score one input to one output: shard by shard, by one process or several, and from where a stopped run left off."""

import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dnasm
from dnasm.config import ScoreConfig
from dnasm.errors import InputError
from dnasm.genome import Genome
from dnasm.genome.vcf import VcfReader, read_vcf
from dnasm.tasks.progress import Meter, counted
from dnasm.tasks.run_record import describe_file
from dnasm.tasks.score_output import AnnotatedVcf, ScoreSink, open_sink
from dnasm.tasks.score_parts import Parts, Rank, split
from dnasm.tasks.score_table import ScoreTable
from dnasm.tasks.variant_filter import Keep, read_kept
from dnasm.tasks.variant_input import alleles_of_vcf, is_vcf
from dnasm.tasks.variant_scorer import VariantScorer

Result = tuple[Counter[str], ScoreTable | None]
_UNUSED = ("out", "force", "quiet", "dry_run", "resume", "batch_size", "labels", "positive", "gff", "device", "strict")
"""Settings on which no score depends."""


class ScoreJob:
    """What is to be scored, with what, and where it goes."""

    def __init__(self, scorer: VariantScorer, config: ScoreConfig, keep: Keep, suffix: str, total: int | None) -> None:
        self._scorer, self._config, self._keep, self._suffix, self._total = scorer, config, keep, suffix, total
        self._rank = Rank.from_environment()

    def run(self) -> Result | None:
        """Do it, or this rank's share.

        Returns:
            Rows of each status, and all rows if labels wait for them; None if another rank joins the parts.

        Raises:
            InputError: If no contig of the input is known.
        """
        to_file = self._suffix != "-" and Path(self._config.variants).is_file()
        if not to_file or self._total is None or (self._total <= self._config.shard_size and self._rank.count == 1):
            return self._join(None)
        shards = -(-self._total // self._config.shard_size)
        parts = Parts(self._config.out, self._what())
        if self._config.resume == "never" and self._rank.number == 0:
            parts.clear()
        with parts.telling(self._rank):
            self._finish_shards(parts, shards)
            if self._rank.number:
                return None
            parts.wait(shards)
            result = self._join(parts)
        parts.clear(others=True)
        return result

    def _what(self) -> dict[str, Any]:
        """All that the scores depend on."""
        config = self._config
        files = [config.genome, config.variants, str(Path(config.model) / "model.safetensors")]
        settings = {key: value for key, value in asdict(config).items() if key not in _UNUSED}
        return {
            "dnasm": dnasm.__version__,
            "settings": settings | {"window": self._scorer.window},
            "files": [describe_file(Path(name)) for name in files],
            "regions": describe_file(Path(config.regions)) if config.regions is not None else None,
        }

    def _finish_shards(self, parts: Parts, shards: int) -> None:
        found = sum(parts.done(shard) for shard in range(shards))
        if found:
            self._say(f"{found:,} of {shards:,} shards are there already, from a run that stopped or from other ranks")
        mine = [shard for shard in range(shards) if self._rank.owns(shard, shards) and not parts.done(shard)]
        alleles = split(read_kept(self._config.variants, self._keep), self._config.shard_size)
        total = min(self._total or 0, len(mine) * self._config.shard_size)
        with Meter("score", "alleles", total, quiet=self._config.quiet) as meter:
            for shard, listed in enumerate(alleles):
                if shard in mine:
                    tables = []
                    for table in self._scorer.score(listed):
                        tables.append(table)
                        meter.advance(len(table))
                    parts.save(shard, ScoreTable.concatenate(tables))

    def _join(self, parts: Parts | None) -> Result:
        """Write the output, from finished shards or as scores come."""
        config, counts = self._config, Counter[str]()
        kept: list[ScoreTable] = []
        with ExitStack() as stack:
            reader = stack.enter_context(read_vcf(config.variants)) if is_vcf(config.variants) else None
            if reader is not None:
                _compare_contigs(reader, self._scorer.genome)
            sink = stack.enter_context(
                open_sink(
                    config.out,
                    self._suffix,
                    genome=self._scorer.genome,
                    reader=reader,
                    command=self._command(),
                    method=config.method,
                    force=config.force,
                )
            )
            for table in self._tables(parts, sink, reader, stack):
                sink.write(table)
                counts.update(table.counts())
                if config.labels is not None:
                    kept.append(table)
            require_known_contigs(counts, self._scorer.genome)
        return counts, ScoreTable.concatenate(kept) if config.labels is not None else None

    def _tables(self, parts: Parts | None, sink: ScoreSink, reader: VcfReader | None, stack: ExitStack) -> Any:
        if reader is not None and isinstance(sink, AnnotatedVcf):
            alleles = sink.alleles(reader, self._keep)
        elif reader is not None:
            alleles = (a for a in alleles_of_vcf(reader) if self._keep(a.contig, a.pos, a.ref))
        else:
            alleles = read_kept(self._config.variants, self._keep)
        if parts is None:
            meter = stack.enter_context(Meter("score", "alleles", self._total, quiet=self._config.quiet))
            for table in self._scorer.score(alleles):
                meter.advance(len(table))
                yield table
            return
        for shard, _ in enumerate(split(alleles, self._config.shard_size)):
            yield parts.load(shard, self._config.method)

    def _command(self) -> str:
        config = self._config
        return (
            f"dnasm score --model {config.model} --window {self._scorer.window} --grid {config.grid} "
            f"--strands {config.strands} --method {config.method}{' --left-align true' if config.left_align else ''}"
        )

    def _say(self, text: str) -> None:
        if not self._config.quiet:
            print(f"dnasm score: {text}", file=sys.stderr)


def require_known_contigs(counts: dict[str, int], genome: Genome) -> None:
    """Refuse an input of which the genome has not a single contig.

    Raises:
        InputError: Names the genome and its first contigs.
    """
    if set(counts) == {"unknown_contig"}:
        names = ", ".join(name for name, _ in zip(genome.contigs, range(5), strict=False))
        raise InputError(
            f"{genome.path}: has none of the contigs of the input ({counted(counts['unknown_contig'], 'allele')}); "
            f"its own are {names}{', ...' if len(genome.contigs) > 5 else ''}. Is this the right genome?"
        )


def _compare_contigs(reader: VcfReader, genome: Genome) -> None:
    """Warn of a contig whose length in the VCF's header is not the genome's: it is likely another build."""
    for name, length in reader.contigs.items():
        ours = genome.contigs.get(name)
        if None not in (length, ours) and length != ours:
            print(
                f"dnasm score: warning: {reader.name} says that {name} has {length:,} bases, "
                f"{genome.path} has {ours:,}; is it the same genome build?",
                file=sys.stderr,
            )
            return
