"""What the benches measure is the loader's own graph."""

from pathlib import Path

import numpy as np
import torch
from graphs import GraphPart
from loaders import training_plan

from dali_fixres.colour import IMAGENET
from dali_fixres.index import open_data
from dali_fixres.resolution import Resolution
from pipelines import Loader
from pipelines.feed import graph_inputs

CPU = torch.device("cpu")


def test_parts_of_the_graph_do_what_the_loader_does(pictures: Path) -> None:
    """All of the graph gives the loader's pictures, also in a second run; its first part gives the files' bytes."""
    index = open_data(pictures).index
    plans = list(training_plan(index, Resolution(64), 8).epoch(0))
    inputs = [graph_inputs(plan, index, IMAGENET, decode_window=True) for plan in plans]
    whole, read = (
        GraphPart(last, in_shards=False, batch_size=8, num_threads=2, device=CPU) for last in ("normalise", "read")
    )
    with Loader(index, max_batch_size=8) as loader:
        batches = [batch.images.clone() for batch in loader.run(plans)]
    assert len(batches) == 5
    for _ in range(2):
        made = [torch.from_numpy(outputs.as_array().copy()).permute(0, 3, 1, 2) for outputs in whole.run(inputs)]
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(made, batches, strict=True))
    first = next(read.run(inputs))
    assert np.asarray(first.at(3)).tobytes() == index.path(int(plans[0].ids[3])).read_bytes()
