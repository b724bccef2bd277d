"""Settings of training: what is read, how weights change, how long. Part of `dnasm.config`, which names them all."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(kw_only=True)
class GenomeConfig:
    """One genome to learn from, and which parts of it are held out."""

    path: str
    """FASTA (plain, gzip or bgzip) or GenBank file."""
    weight: float | None = None
    """Share of the windows relative to the other genomes; null: by the number of bases. All or none have one."""
    include: str | None = None
    """BED of the regions to train on; null: everything."""
    exclude: str | None = None
    """BED of regions never to train on."""
    validation: list[str] = field(default_factory=list)
    """Contigs held out to choose the checkpoint."""
    validation_bed: str | None = None
    """BED of regions held out to choose the checkpoint."""
    test: list[str] = field(default_factory=list)
    """Contigs held out to the end."""
    test_bed: str | None = None
    """BED of regions held out to the end."""


@dataclass(kw_only=True)
class DataConfig:
    """Which windows of which genomes a model reads."""

    genomes: list[GenomeConfig] = field(default_factory=list)
    """The genomes; at least one."""
    window: int = 1024
    """Bases in a window."""
    windows_per_epoch: int = 16384
    """Windows drawn in an epoch; sample i of epoch e is a pure function of (seed, e, i)."""
    batch_size: int = 32
    """Windows in a step on one device."""
    max_n_fraction: float = 0.5
    """A window with a larger share of N is drawn again."""
    short_regions: Literal["skip", "pad"] = "skip"
    """What becomes of contigs and regions shorter than the window: left out with a warning, or padded to its length."""
    reverse_complement: float = 0.5
    """Probability that a window is read from the other strand."""
    soft_mask: Literal["score", "ignore", "down-weight"] = "score"
    """What lower-case (repeat-masked) bases count in the loss."""
    soft_mask_weight: float = 0.1
    """Their weight under `down-weight`."""
    validation_windows: int = 512
    """At most this many windows are read for a validation, spread evenly over the held-out regions."""
    num_workers: int = 0
    """Processes that read windows; the windows do not depend on it."""


@dataclass(kw_only=True)
class OptimConfig:
    """AdamW with a cosine schedule."""

    lr: float = 6e-4
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates."""
    weight_decay: float = 0.1
    """Not applied to biases, norms, embeddings, filters and SSM parameters."""
    warmup_steps: int | None = None
    """Steps of linear warm-up; null: 1 % of the steps."""
    min_lr_ratio: float = 0.1
    """The schedule ends at this share of the peak."""
    clip_norm: float = 1.0
    """Largest gradient norm."""


@dataclass(kw_only=True)
class TrainerConfig:
    """How long, on what, and what is kept."""

    max_steps: int = 10_000
    """Optimizer steps; the schedule ends there."""
    max_minutes: float | None = None
    """Wall-clock limit; the schedule then follows the time, so that it still ends at its minimum."""
    accumulate: int = 1
    """Batches in an optimizer step."""
    validate_every: int = 500
    """Steps between validations."""
    checkpoint_every: int = 500
    """Steps between saves of `checkpoints/last.ckpt`."""
    patience: int | None = 5
    """Stop when this many validations in a row were no better; null: never."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 autocast on a GPU, float32 on a CPU."""
    devices: int = 1
    """GPUs on this node, of which more than one was never tried; the CPU takes one."""
    markov_orders: int = 8
    """Markov baselines of order 0 to this are fitted on the training regions and printed beside the model; -1: none."""
    require_below_markov: bool = False
    """End with an error if the best checkpoint is not below every Markov baseline, both strands, in bits per base."""
    length_warmup: int | None = None
    """Length that windows are cut into at first; it doubles by stages up to data.window. Null: whole windows always."""
    length_warmup_share: float = 0.2
    """Share of training that these stages take, each as long as the others."""
    checkpoint_activations: bool = False
    """Keep only the input of each block and compute the rest again: about a third more time, far less memory."""
    compile: bool | Literal["auto"] = "auto"
    """Compile blocks, last norm and loss, which takes tens of seconds; `auto`: on a GPU, where a run is long enough."""
    cuda_graph: bool | Literal["auto"] = "auto"
    """Launch forward and backward as one CUDA graph; `auto`: on one GPU, where steps are small, activations kept."""
    deterministic: bool = False
    """Refuse operations that give other sums from run to run on a GPU; a CPU run always repeats itself."""
