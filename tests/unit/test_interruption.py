import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dali_fixres.errors import DataError, Interrupted
from dali_fixres.evaluation.evaluate import total
from dali_fixres.runtime.distributed import World, process_group
from dali_fixres.runtime.signals import Agreement, StopSignals, obeying_signals
from pipelines.dataset.table import make_dataset
from pipelines.plan import EvalPlan
from pipelines.resolution import Resolution

# One process


def test_world_of_one_process() -> None:
    """Without torchrun there is one rank, which writes, and collectives return its own values."""
    world = World()
    assert (world.rank, world.size, world.local_rank, world.is_main) == (0, 1, 0, True)
    assert world.sum(torch.tensor([1, 2])).tolist() == [1, 2]
    assert world.gather({"a": 1}) == [{"a": 1}]
    assert world.start_max(torch.tensor([3, 0])).wait().tolist() == [3, 0]
    network = nn.Linear(2, 2)
    assert world.wrap(network, torch.device("cpu")) is network
    with world.local_main_first():
        world.broadcast_buffers(network)


def test_a_sum_is_no_view() -> None:
    """Changing the sum does not change what was summed."""
    counts = torch.tensor([1, 2])
    World().sum(counts).add_(5)
    assert counts.tolist() == [1, 2]


def test_nothing_is_joined_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single process joins nothing, and its errors are its own."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group(torch.device("cpu")) as world:
        assert world == World()
    with pytest.raises(DataError, match=r"^no data$"), process_group(torch.device("cpu")):
        raise DataError("no data")


def test_other_processes_do_not_write() -> None:
    """Only rank 0 is the main process, on whichever node."""
    assert [World(rank, 3).is_main for rank in range(3)] == [True, False, False]


# Signals


def test_one_process_acts_at_once() -> None:
    """A single process acts on a request in the same step, and only in that step."""
    stop_signals = StopSignals(World())
    assert stop_signals.poll() == Agreement(stop=0, save=False)
    assert stop_signals.poll(save=True) == Agreement(stop=0, save=True)
    assert stop_signals.poll() == Agreement(stop=0, save=False)
    stop_signals.received = signal.SIGTERM
    assert stop_signals.poll() == Agreement(stop=15, save=False)
    assert stop_signals.poll(save=True) == Agreement(stop=15, save=True)


def test_an_agreement_to_stop_raises_the_signals_name() -> None:
    """A run that is to stop is interrupted with the signal's name; another continues."""
    Agreement(stop=0, save=True).raise_if_stopped()
    with pytest.raises(Interrupted, match=r"^SIGUSR1$"):
        Agreement(stop=10, save=False).raise_if_stopped()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signals_are_noted(number: signal.Signals) -> None:
    """A signal asks to stop at the next point where all agree, and does not end the process."""
    before = signal.getsignal(number)
    with obeying_signals(World()) as stop_signals:
        assert stop_signals.poll().stop == 0
        signal.raise_signal(number)
        assert stop_signals.poll().signal_name == number.name
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_the_process() -> None:
    """The first Ctrl-C asks to stop, the second does not wait; afterwards Ctrl-C is as it was."""
    before = signal.getsignal(signal.SIGINT)
    with obeying_signals(World()) as stop_signals:
        signal.raise_signal(signal.SIGINT)
        assert stop_signals.poll().signal_name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_of_several_processes_is_only_noted() -> None:
    """Under torchrun, which passes Ctrl-C on itself, two of them are no more than one."""
    with obeying_signals(World(rank=1, size=2)) as stop_signals:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop_signals.received == signal.SIGINT


def test_a_stage_obeys_the_signals_of_the_command() -> None:
    """A signal received before a stage begins stops it, and signals are noted after the stage as well."""
    with obeying_signals(World()) as whole:
        signal.raise_signal(signal.SIGTERM)
        with obeying_signals(World(), whole) as part:
            assert part.poll().signal_name == "SIGTERM"
        signal.raise_signal(signal.SIGUSR1)
        assert whole.poll().signal_name == "SIGUSR1"


# The sum of an evaluation


def _plan(unreadable: frozenset[int] = frozenset()) -> EvalPlan:
    """Plan an evaluation of rows 2 to 6."""
    numbers = np.arange(7)
    columns = dict.fromkeys(("labels", "heights", "widths", "num_bytes"), numbers)
    dataset = make_dataset(Path("/data"), ("a",), [b"%d" % number for number in numbers], columns, numbers >= 2)
    return EvalPlan(dataset, 2, unreadable=unreadable)


def test_total_literals() -> None:
    """Counts become an accuracy at the resolution tested, with the time it took."""
    accuracy = total(torch.tensor([1, 3, 5]), _plan(), Resolution(96), World(), time.perf_counter() - 2)
    assert (accuracy.num_top1, accuracy.num_top5, accuracy.num_images, accuracy.num_unreadable) == (1, 3, 5, 0)
    assert accuracy.resolution == Resolution(96)
    assert 2 <= accuracy.seconds < 60
    assert accuracy.top1 == pytest.approx(20)


def test_total_leaves_unreadable_images_out() -> None:
    """Unreadable test images are counted apart, and those of training not at all."""
    plan = _plan(frozenset({0, 3, 6}))
    accuracy = total(torch.tensor([1, 2, 3]), plan, Resolution(96), World(), time.perf_counter())
    assert (accuracy.num_images, accuracy.num_unreadable) == (3, 2)
    assert accuracy.top5 == pytest.approx(66.666667)


@pytest.mark.parametrize("num_images", [4, 6])
def test_total_of_too_many_or_too_few(num_images: int) -> None:
    """An image that is missing, or counted twice, is a defect of the program and no result."""
    with pytest.raises(RuntimeError, match=rf"^tested {num_images} images and 0 unreadable ones of 5$"):
        total(torch.tensor([1, 2, num_images]), _plan(), Resolution(96), World(), 0.0)


def test_total_of_nothing() -> None:
    """Where no test image can be read there is no accuracy."""
    plan = _plan(frozenset(range(7)))
    with pytest.raises(DataError, match=r"^none of the 5 test images of /data can be read$"):
        total(torch.tensor([0, 0, 0]), plan, Resolution(96), World(), 0.0)
