"""Networks: built by name, filled from weights files, taken apart into trunk, last norm and classifier."""

from dali_fixres.models.anatomy import Anatomy, dissect
from dali_fixres.models.blocks import last_blocks
from dali_fixres.models.build import BuiltModel, ModelSpec, build_model
from dali_fixres.models.frechet import FrechetMapping, insert_mapping
from dali_fixres.models.weights import LoadedWeights, load_into, read_state_dict

__all__ = [
    "Anatomy",
    "BuiltModel",
    "FrechetMapping",
    "LoadedWeights",
    "ModelSpec",
    "build_model",
    "dissect",
    "insert_mapping",
    "last_blocks",
    "load_into",
    "read_state_dict",
]
