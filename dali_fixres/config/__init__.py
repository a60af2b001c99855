"""What the user can say, command by command: each field is a flag, a key of --config files, and a line of help.

Precedence is defaults < demo's recipe or resumed run < ``--config`` < flags. The resolved values are written
into the run folder, in the form that ``--config`` reads.
"""

from dali_fixres.config.data import IndexConfig, PrepareConfig, PreviewConfig, VerifyConfig
from dali_fixres.config.export import ExportConfig
from dali_fixres.config.fixres import BEST_OF_SWEEP, FixresConfig
from dali_fixres.config.network import AnalyzeConfig, Config, Copies, Device, EvaluateConfig, NetworkConfig
from dali_fixres.config.recipes import config_file, recipe_command, recipe_header, recipes
from dali_fixres.config.stages import FinetuneConfig, Policy, StageConfig, TrainConfig
from dali_fixres.config.toml import read_toml, to_toml

__all__ = [
    "BEST_OF_SWEEP",
    "AnalyzeConfig",
    "Config",
    "Copies",
    "Device",
    "EvaluateConfig",
    "ExportConfig",
    "FinetuneConfig",
    "FixresConfig",
    "IndexConfig",
    "NetworkConfig",
    "Policy",
    "PrepareConfig",
    "PreviewConfig",
    "StageConfig",
    "TrainConfig",
    "VerifyConfig",
    "config_file",
    "read_toml",
    "recipe_command",
    "recipe_header",
    "recipes",
    "to_toml",
]
