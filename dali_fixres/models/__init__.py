"""Networks: built by name, filled from weights files, taken apart into trunk, last norm and classifier."""

from dali_fixres.models.anatomy import Anatomy, dissect
from dali_fixres.models.blocks import last_blocks
from dali_fixres.models.build import BuiltModel, ModelSpec, build_model, outline
from dali_fixres.models.frechet import FrechetMapping, insert_mapping
from dali_fixres.models.recognise import recognise
from dali_fixres.models.weights import LoadedWeights, WeightsFile, compare, fit_or_fail, load_into, read_weights

__all__ = [
    "Anatomy",
    "BuiltModel",
    "FrechetMapping",
    "LoadedWeights",
    "ModelSpec",
    "WeightsFile",
    "build_model",
    "compare",
    "dissect",
    "fit_or_fail",
    "insert_mapping",
    "last_blocks",
    "load_into",
    "outline",
    "read_weights",
    "recognise",
]
