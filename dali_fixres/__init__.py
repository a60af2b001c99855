"""Train image classifiers at a low resolution and fix them for a higher one, on one NVIDIA DALI graph.

The data flow, and the folders in its order: `index` (which images exist) → `plan` (which crop box of which
image at which resolution) → the top-level package `pipelines` (DALI executes any plan) → `training` and
`evaluation` (thin PyTorch loops) → `report`. `commands` puts them together for the command line.
"""

__version__ = "0.1.0"
