"""What a timed segment has found: both figures, and the CPU time of all processes."""

import subprocess
import sys

from bench.segment import Segment, core_seconds_of_all

BURNING = """
import subprocess, sys, time
left = int(sys.argv[1])
children = [subprocess.Popen([sys.executable, "-Sc", sys.argv[2], str(left - 1), sys.argv[2]])] if left else []
while time.process_time() < 0.15:
    pass
print("burned", flush=True)
sys.stdin.read()
[child.wait() for child in children]
"""
"""Takes 0.15 s of CPU time, and as much in a child for each number left; ends with its standard input."""


def test_both_figures_are_of_an_image() -> None:
    """100 images in 2 s, for which both cores were busy for 1.5 s."""
    assert Segment.of(100, 2.0, 3.0) == (50.0, 30.0)
    assert str(Segment(50.2, 30.0)) == "50 images/s, 30.00 core ms per image"


def test_core_time_is_that_of_all_processes() -> None:
    """Of a living child and its child, and as much when they have ended."""
    before = core_seconds_of_all()
    command = [sys.executable, "-Sc", BURNING, "1", BURNING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in range(2)] == ["burned\n"] * 2
        living = core_seconds_of_all()
        assert 0.3 <= living - before < 1.0
    assert living <= core_seconds_of_all() < living + 0.5
