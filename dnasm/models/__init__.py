"""Models of DNA: plain `nn.Module`s over tokens. They know no files but checkpoints, no genomes and no trainer."""

from dnasm.models.backbone import LanguageModel, build_model
from dnasm.models.checkpoint import load, save_model

__all__ = ["LanguageModel", "build_model", "load", "save_model"]
