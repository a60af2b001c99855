"""Settings of every command: each field is a flag, a key of --config files, and a line of help.

Precedence is defaults < the demo's recipe or the resumed run < ``--config`` < flags. The resolved values are written
into the run folder, in the form that ``--config`` reads.
"""

from dali_fixres.config.data import IndexConfig, PrepareConfig, PreviewConfig, VerifyConfig
from dali_fixres.config.export import ExportConfig
from dali_fixres.config.finetuning import (
    CachedFeaturesSettings,
    FinetuneConfig,
    FrechetSettings,
    SgdSettings,
    TrainableParts,
)
from dali_fixres.config.fixres import FixresConfig
from dali_fixres.config.images import Channels, CropMode, DataValues
from dali_fixres.config.network import (
    AnalyzeConfig,
    AutoPrecision,
    Device,
    EvaluateConfig,
    NetworkConfig,
    Precision,
)
from dali_fixres.config.recipes import config_file, recipe_command, recipe_header, recipes
from dali_fixres.config.toml import read_toml, to_toml
from dali_fixres.config.training import OptimizerSettings, RunConfig, TrainConfig

__all__ = [
    "AnalyzeConfig",
    "AutoPrecision",
    "CachedFeaturesSettings",
    "Channels",
    "CropMode",
    "DataValues",
    "Device",
    "EvaluateConfig",
    "ExportConfig",
    "FinetuneConfig",
    "FixresConfig",
    "FrechetSettings",
    "IndexConfig",
    "NetworkConfig",
    "OptimizerSettings",
    "Precision",
    "PrepareConfig",
    "PreviewConfig",
    "RunConfig",
    "SgdSettings",
    "TrainConfig",
    "TrainableParts",
    "VerifyConfig",
    "config_file",
    "read_toml",
    "recipe_command",
    "recipe_header",
    "recipes",
    "to_toml",
]
