"""Every setting of every verb, once: the command line, the YAML schema and the help text are read off this file.

It imports neither torch nor Lightning, so that `dnasm VERB --help` answers at once. A field's docstring is its help.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from dnasm import memory
from dnasm.config_training import DataConfig as DataConfig
from dnasm.config_training import GenomeConfig as GenomeConfig
from dnasm.config_training import OptimConfig as OptimConfig
from dnasm.config_training import TrainerConfig as TrainerConfig

Device = str
"""`auto`, `cpu`, `cuda` or `cuda:N`."""

Backend = Literal["auto", "cuda", "cpu", "reference"]


@dataclass(kw_only=True)
class ModelConfig:
    """The architecture. `dnasm.presets.preset(name)` gives the named ones, from tiny to the published sizes."""

    family: Literal["hyena", "h3", "attention", "multihybrid", "cnn"] = "hyena"
    """Mixer of every layer that is not in `attention_layers`."""
    d_model: int = 128
    """Channels."""
    num_layers: int = 2
    """Blocks of a mixer and an MLP."""
    d_inner: int = 512
    """Hidden channels of the MLP."""
    max_length: int | None = 1024
    """Longest input, in tokens; a longer one is an error. Hyena's filters are defined on it; null (H3): no limit."""
    bidirectional: bool = False
    """Whether each position sees both sides; such a model learns from masked bases, and cannot generate."""
    equivariant: bool = False
    """Read both strands with one set of weights, so that the reverse complement gives the same, turned round; learns
    by masking too."""
    attention_layers: list[int] = field(default_factory=list)
    """Layers (0-based) whose mixer is attention."""
    num_heads: int = 4
    """Attention heads."""
    rotary_dim: int = 0
    """Channels of each head that rotary embeddings turn; 0: none."""
    short_filter: int = 3
    """Taps of Hyena's short depthwise convolution."""
    filter_order: int = 64
    """Width of the MLP that makes Hyena's long filters."""
    filter_embedding: int = 5
    """Positional features that feed it (odd)."""
    filter_layers: int = 2
    """Its inner layers."""
    activation_frequency: float = 10.0
    """Initial frequency of its sine activations."""
    modulation_shift: float = 0.05
    """Constant added to the decay window of Hyena's filters."""
    state_size: int = 64
    """H3: states of each SSM."""
    head_dim: int = 1
    """H3: channels of a head of the outer product of keys and values."""
    discretization: Literal["bilinear", "zoh"] = "bilinear"
    """H3: how the diagonal SSM is made discrete."""
    pattern: list[Literal["se", "mr", "li"]] = field(default_factory=lambda: ["se", "mr", "li"])
    """multihybrid: filters of the layers that are not attention, in turn: short, medium, long."""
    short_taps: int = 7
    """multihybrid: taps of a short filter."""
    medium_taps: int = 128
    """multihybrid: taps of a medium filter."""
    filter_group: int = 16
    """multihybrid: channels that share a short or medium filter."""
    modes: int = 16
    """multihybrid: exponentials of a long filter."""
    cnn_taps: int = 9
    """cnn: taps of a convolution; they stand 1, 4, 16, 64, 256 bases apart from layer to layer."""
    embedding_dropout: float = 0.1
    """Dropout after the embedding."""
    residual_dropout: float = 0.0
    """Dropout before each residual sum."""
    tie_embeddings: bool = True
    """Whether the head's matrix is the embedding's."""
    vocabulary: Literal["dna", "gpt2"] = "dna"
    """Token table: dnasm's bases, or GPT-2's 50,257 text tokens of the published H3 models."""
    suffix_separator: bool = False
    """Whether the model was trained with [SEP] after the sequence, as HyenaDNA's were."""
    layer_norm_epsilon: float = 1e-5
    """Added to the variance."""

    @property
    def causal(self) -> bool:
        """Whether `logits[:, i]` predict token i + 1 from those before it; else they are of token i, where masked."""
        return not (self.bidirectional or self.equivariant)

    def parameters(self) -> int:
        """Count the parameters, without building the model."""
        return memory.parameters(self)

    def memory(self, length: int, batch: int, *, training: bool = True, checkpoint_activations: bool = False) -> int:
        """Predict peak memory in bytes, in float32, on top of the few hundred MB of the loaded libraries.

        Memory that an allocator keeps for reuse comes on top: on a CPU where tensors are below 32 MB.

        Args:
            length: Tokens of a sequence.
            batch: Sequences at once.
            training: Steps with AdamW, or else forward calls without gradients.
            checkpoint_activations: Whether training keeps no more of a block than its input.
        """
        if training:
            return memory.training_bytes(self, length, batch, checkpoint_activations)
        return memory.inference_bytes(self, length, batch)


@dataclass(kw_only=True)
class CommonConfig:
    """What every verb that computes takes."""

    device: Device = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    conv_backend: Backend = "auto"
    """Which fftconv runs; a named one never falls back."""
    seed: int = 0
    """Seed of everything random."""
    force: bool = False
    """Replace an output that exists."""
    quiet: bool = False
    """Print warnings and errors only."""
    dry_run: bool = False
    """Check every input, print the plan, compute nothing."""


@dataclass(kw_only=True)
class PrepareConfig:
    """FASTA or GenBank -> token store beside it, and a report of what was found."""

    genome: str
    """FASTA (plain, gzip, bgzip) or GenBank file."""
    force: bool = False
    """Build the store again even if it is up to date."""
    strict: bool = False
    """Turn warnings about the file into errors."""
    rna: bool = False
    """Read U as T; else it is read as N and counted."""
    quiet: bool = False
    """Print warnings and errors only."""


@dataclass(kw_only=True)
class PretrainConfig(CommonConfig):
    """Genomes -> run directory with checkpoints, metrics and the exported best model."""

    out: str
    """Run directory to make."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


@dataclass(kw_only=True)
class ExportConfig:
    """Run directory or Lightning checkpoint -> model directory."""

    run: str
    """Run directory, or one of its checkpoints."""
    out: str
    """Model directory to make."""
    checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint of a run directory."""
    format: Literal["dnasm", "hyenadna"] = "dnasm"
    """`hyenadna`: `weights.ckpt` and `config.json` as the original code reads them; RUN may be a model directory."""
    force: bool = False
    """Replace an output that exists."""
    quiet: bool = False
    """Print warnings and errors only."""


@dataclass(kw_only=True)
class ImportConfig:
    """HyenaDNA or H3 checkpoint -> model directory, strictly: every tensor that is missing or unexpected is named."""

    kind: Literal["hyenadna", "h3"]
    """Whose checkpoint it is."""
    path: str
    """Checkpoint (.ckpt, .pt, .bin, .safetensors), or the folder of one with its config.json."""
    out: str
    """Model directory to make."""
    modulation_shift: float | None = None
    """hyenadna: constant of the filters' decay window; null: what config.json says, else 0.05 as in all published
    models' own code. 0.0 for a model trained with the HyenaDNA training code."""
    num_heads: int | None = None
    """h3: heads of the attention layers; null: what config.json or the published model of that shape has."""
    rotary_dim: int | None = None
    """h3: rotary channels of the attention layers; null: likewise."""
    discretization: Literal["bilinear", "zoh"] | None = None
    """h3: how the diagonal SSM is made discrete; null: what config.json says, else bilinear."""
    trust_pickle: bool = False
    """Unpickle a file that holds more than tensors. This can run any code that its author put there."""
    force: bool = False
    """Replace an output that exists."""
    quiet: bool = False
    """Print warnings and errors only."""


@dataclass(kw_only=True)
class ScoreConfig(CommonConfig):
    """Variants -> log-likelihood ratios, one row per ALT, in input order."""

    model: str
    """Model directory."""
    genome: str
    """FASTA that the variants' coordinates speak of."""
    variants: str
    """VCF(.gz), BCF; TSV, CSV, Parquet with chrom pos ref alt; `contig:pos:ref:alt`; - for a VCF on standard input."""
    out: str
    """OUT.vcf, OUT.vcf.gz, OUT.tsv or OUT.parquet, or - for TSV on standard output."""
    regions: str | None = None
    """Only records whose REF overlaps these: BED, contig, or contig:first-last (counted from 1, both ends in)."""
    labels: str | None = None
    """Column of the table or key of the VCF's INFO: judge the scores, and simple predictors beside them, by it."""
    positive: list[str] = field(default_factory=lambda: ["1"])
    """Labels that a low score should find; every other one is a negative, empty ones are left out."""
    gff: str | None = None
    """Genes, as GFF3 or GTF: with labels, the consequence is a further simple predictor."""
    resume: Literal["auto", "never"] = "auto"
    """Go on from the shards that a stopped run of the same command left beside OUT."""
    shard_size: int = 2048
    """Alleles in a shard: what is lost at most when a run is stopped."""
    window: int | None = None
    """Bases in a window; null: the trained length, at most 8192."""
    grid: int = 1
    """Windows begin at multiples of it; 1: each variant stands at its window's middle, 64: neighbours share windows."""
    strands: Literal["forward", "reverse", "mean"] = "mean"
    """Which strand's ratio fills the column llr; with mean both are computed."""
    method: Literal[
        "llr", "llr_mean", "masked_llr", "pseudo_likelihood", "next_base_divergence", "embedding_distance"
    ] = "llr"
    """How the two windows are compared; the columns are named after it."""
    layer: int = -1
    """embedding_distance: block after which hidden states are read, from 0; -1: after the final norm."""
    left_align: bool = False
    """Move insertions and deletions as far towards a contig's first base as their bases allow before they are scored:
    each spelling of one change then has one score. Rows stay as they came."""
    check_ref: Literal["error", "warn", "skip"] = "error"
    """A REF that is not what the genome holds: stop at the first, name it on standard error, or only count it."""
    batch_size: int | Literal["auto"] = "auto"
    """Windows in a forward call; scores do not depend on it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the forward call; likelihoods are summed in float64. bfloat16 is tried beside float32 first."""
    strict: bool = False
    """Refuse a precision that changes the order of scores."""


@dataclass(kw_only=True)
class EmbedConfig(CommonConfig):
    """Regions or sequences -> one vector each."""

    model: str
    """Model directory."""
    regions: str
    """FASTA, or with `--genome` a BED, a contig, or contig:first-last (counted from 1, both ends in)."""
    out: str
    """OUT.npz, OUT.parquet, OUT.h5ad or OUT.zarr."""
    genome: str | None = None
    """FASTA that the regions speak of."""
    layer: int | list[int | str] | str = -1
    """Layer by number or name, or a list, as [0, layers.1, ln_f]: 0 is after the first block, -1 after the norm."""
    pool: Literal["mean", "max", "last", "centre", "none"] = "mean"
    """How the positions of a sequence become one vector; N is left out. none: every position, to .zarr."""
    strands: Literal["forward", "mean", "concat"] = "forward"
    """`mean` averages the vectors of both strands, `concat` puts them side by side."""
    window: int | None = None
    """Cut every sequence into windows of so many bases; null: take it whole."""
    stride: int | None = None
    """Bases from one window's start to the next; null: the window."""
    batch_size: int | Literal["auto"] = "auto"
    """Sequences in a forward call; vectors do not depend on it."""
    num_workers: int = 1
    """Threads that read the next sequences while the model works; 0: none. Vectors do not depend on it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the forward call."""


@dataclass(kw_only=True)
class LikelihoodConfig(CommonConfig):
    """Genome -> log-likelihood of every base under the bases before it, as a track for a genome browser."""

    model: str
    """Model directory."""
    genome: str
    """FASTA to read."""
    out: str
    """OUT.bw (bigWig) or OUT.bedgraph, or - for bedGraph on standard output: log-likelihood in nats."""
    entropy: str | None = None
    """A second track: entropy of what the model expects at each base, in nats."""
    regions: str | None = None
    """BED, contig, or contig:first-last (counted from 1, both ends in); null: all contigs."""
    window: int | None = None
    """Bases in a window; null: the trained length, at most 8192."""
    context: int | None = None
    """Each base is scored once, with so many bases before it or more; null: half the window."""
    strands: Literal["forward", "reverse", "mean"] = "mean"
    """`forward` reads what lies before a base, `reverse` what lies after it, `mean` averages both."""
    batch_size: int | Literal["auto"] = "auto"
    """Windows in a forward call; values do not depend on it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the forward call; bfloat16 is tried beside float32 first."""
    strict: bool = False
    """Refuse a precision that changes the order of values."""


@dataclass(kw_only=True)
class MutagenesisConfig(CommonConfig):
    """Region -> log-likelihood ratio of every substitution and single-base deletion: table, heat map and logo."""

    model: str
    """Model directory."""
    genome: str
    """FASTA that the region lies on."""
    region: str
    """contig:first-last (counted from 1, both ends in), or a whole short contig."""
    out: str
    """OUT.tsv or OUT.parquet, or - for TSV on standard output."""
    picture: str | None = None
    """Heat map and logo: NAME.svg, NAME.png, or NAME for both."""
    window: int | None = None
    """Bases in a window, the region in its middle; null: the trained length, at most 8192."""
    strands: Literal["forward", "reverse", "mean"] = "mean"
    """Which strand's ratio fills the column llr; with mean both are computed."""
    deletions: bool = True
    """Also leave out each base."""
    gradient: bool = True
    """Also compute gradient x input."""
    measured: str | None = None
    """Table of measured effects (Ref, Alt, Coefficient and a position) to draw beside and to correlate with."""
    element: str | None = None
    """Which element of that table; null: the only one in the region."""
    min_barcodes: int = 10
    """Leave out its rows that rest on fewer barcodes."""
    batch_size: int | Literal["auto"] = "auto"
    """Sequences in a forward call; scores do not depend on it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the forward call; bfloat16 is tried beside float32 first."""
    strict: bool = False
    """Refuse a precision that changes the order of scores."""


@dataclass(kw_only=True)
class GenerateConfig(CommonConfig):
    """Prompt -> sequences that follow it, as FASTA, with the settings in each header."""

    model: str
    """Model directory."""
    prompt: str
    """Letters, or a FASTA or BED (with `--genome`) of prompts."""
    out: str
    """OUT.fa, OUT.fasta or OUT.fna, or - for standard output."""
    genome: str | None = None
    """FASTA that a BED of prompts speaks of."""
    n: int = 1
    """Sequences for each prompt."""
    length: int = 100
    """Bases in a sequence, at most; with the prompt they must fit the model's longest input."""
    temperature: float = 1.0
    """Below 1 likely bases become likelier; 0 takes the likeliest every time."""
    top_k: int | None = None
    """Draw among so many of the likeliest bases alone; null: all four."""
    top_p: float = 1.0
    """Draw among the likeliest bases that together have this probability alone."""
    stop: list[str] = field(default_factory=list)
    """A sequence ends with the first of these that it completes, as [TAA, TAG, TGA]."""
    include_prompt: bool = False
    """Write the prompt in front of each sequence."""
    batch_size: int | Literal["auto"] = "auto"
    """Sequences that are drawn side by side."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the model."""


@dataclass(kw_only=True)
class ReportConfig:
    """Run directory, score table or tracks -> one self-contained HTML page."""

    out: str
    """HTML file to make."""
    run: str | None = None
    """Run directory."""
    scores: str | None = None
    """Score table (.tsv, .vcf, .vcf.gz or .parquet) to show beside the run."""
    genome: str | None = None
    """FASTA that the scores speak of; null: the one that the record beside the score table names."""
    logos: bool = True
    """Draw what the model expects around the shown variants, if the record beside the score table names it."""
    labels: str | None = None
    """Table with chrom, pos, ref, alt and a label, to judge the scores by."""
    label_column: str = "label"
    """Its column of labels; empty cells are left out."""
    positive: list[str] = field(default_factory=lambda: ["1"])
    """Labels that a low score should find; every other one is a negative."""
    tracks: list[str] = field(default_factory=list)
    """bedGraph or bigWig files of dnasm likelihood to draw."""
    force: bool = False
    """Replace an output that exists."""
    quiet: bool = False
    """Print warnings and errors only."""


@dataclass(kw_only=True)
class DoctorConfig:
    """What this installation can do here, and what to do about the rest."""

    build: bool = False
    """Build the CUDA extension ahead of time."""
    architectures: list[str] = field(default_factory=list)
    """GPU architectures to build for, as sm_90; empty: the GPU that is present."""
    json: bool = False
    """Print one JSON object instead of a table."""


@dataclass(kw_only=True)
class BenchConfig:
    """Ours beside what a user would use instead, one JSON line a row."""

    what: Literal["fftconv", "loader", "start", "train", "generate", "models", "score"] = "loader"
    """What to time."""
    out: str | None = None
    """JSON lines file to append to; null: standard output only."""
    genome: str | None = None
    """loader, score: FASTA to read; null: a genome that ships with dnasm."""
    model: str | None = None
    """score: model directory; null: the demo's architecture, untrained."""
    variants: str | None = None
    """score: variants of that genome; null: all substitutions of 1,300 bases."""
    device: Device = "auto"
    """fftconv, train, generate, score: where to run."""
    lengths: list[int] = field(default_factory=list)
    """fftconv, train, generate, models: only these of the lengths; empty: all. score: windows; empty: 1024."""
    batches: list[int] = field(default_factory=list)
    """fftconv: only these of the batch sizes; empty: all."""
    gated: bool | None = None
    """fftconv: only calls with gates, or only those without; null: both."""
    repeats: int = 7
    """Alternating runs; medians are printed."""
    threads: int | None = None
    """models, score: threads of a CPU; null: as many as torch takes."""


FLOAT_WITHOUT_POINT = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
"""`6e-4` is a number in our YAML; plain PyYAML wants `6.0e-4` and else makes a string of it."""


def to_yaml(config: Any) -> str:
    """Write every setting of a config dataclass as YAML that `--config` reads back to the same values."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes a string that our reader would take for a number."""

    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT_WITHOUT_POINT, list("-+0123456789"))
    tree = json.loads(json.dumps(asdict(config)))  # tuples become lists, which YAML can say
    return yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True)
