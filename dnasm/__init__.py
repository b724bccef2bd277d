"""dnasm: long-context DNA foundation models, one base per token.

The names below are imported when first used, so that `import dnasm` costs no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Genome": "dnasm.genome",
    "Interval": "dnasm.genome",
    "Variant": "dnasm.genome",
    "load": "dnasm.models.checkpoint",
    "embed": "dnasm.tasks.embed",
    "generate": "dnasm.tasks.generate",
    "layers": "dnasm.tasks.embed_layers",
    "likelihood": "dnasm.tasks.likelihood_tracks",
    "log_likelihood": "dnasm.tasks.likelihood",
    "mutagenesis": "dnasm.tasks.mutagenesis",
    "score_variants": "dnasm.tasks.score",
    "ops": "dnasm.ops",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dnasm' has no attribute {name!r}; it offers {', '.join(sorted(_PUBLIC))}")
    module = import_module(_PUBLIC[name])
    return module if name == "ops" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
