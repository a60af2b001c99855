"""Networks: built by name, loaded from weights files, and their parts: head, last norm, last blocks."""

from dali_fixres.models.blocks import last_blocks
from dali_fixres.models.build import Model, ModelSpec, build_model, build_on_meta
from dali_fixres.models.data_config import DataConfig
from dali_fixres.models.frechet_mapping import insert_mapping
from dali_fixres.models.head import Head, find_head
from dali_fixres.models.recognise import recognise
from dali_fixres.models.weights import WeightsFile, compare, fit_or_fail, load_into, read_weights

__all__ = [
    "DataConfig",
    "Head",
    "Model",
    "ModelSpec",
    "WeightsFile",
    "build_model",
    "build_on_meta",
    "compare",
    "find_head",
    "fit_or_fail",
    "insert_mapping",
    "last_blocks",
    "load_into",
    "read_weights",
    "recognise",
]
