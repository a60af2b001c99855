"""The compiled operator called as DALI calls it, between guard bytes: extreme sizes against PIL."""

import ctypes

import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines.dali.fused import AS_PIL, GIVES_BYTES, VERTICAL_FIRST
from pipelines.dali.fused.arithmetic import radius_of
from pipelines.dali.fused.machine_code import Entries, entries
from pipelines.plan.interpolation import INTERPOLATIONS, RADII

GUARD = 1 << 14
GUARD_BYTE = 0xA5
POINTER, INT32 = ctypes.c_void_p, ctypes.c_int32
SET_UP = ctypes.CFUNCTYPE(None, POINTER, POINTER, INT32, POINTER, POINTER, INT32, INT32)
RUN = ctypes.CFUNCTYPE(None, POINTER, POINTER, POINTER, INT32, POINTER, POINTER, POINTER, INT32)
SIZES = [(1, 1), (1, 50), (50, 1), (3, 2), (1500, 7), (7, 1500), (1, 9000), (9000, 1), (200, 333), (64, 64)]


class Guarded:
    """Memory with guard bytes on both sides, aligned as DALI's is."""

    def __init__(self, size: int) -> None:
        self._all = np.full(size + 2 * GUARD + 64, GUARD_BYTE, np.uint8)
        first = GUARD + (-self._all.ctypes.data - GUARD) % 64
        self.inside = self._all[first : first + size]
        self._outside = self._all[:first], self._all[first + size :]

    def is_intact(self) -> bool:
        """Return whether nothing was written outside."""
        return all(bool((part == GUARD_BYTE).all()) for part in self._outside)


def addresses(arrays: list[NDArray[np.generic]]) -> NDArray[np.uint64]:
    """Return where arrays lie."""
    return np.array([array.ctypes.data for array in arrays], np.uint64)


def crop(
    image: NDArray[np.uint8], box: tuple[float, float, float, float], side: int, options: int, erased: list[list[int]]
) -> NDArray[np.generic]:
    """Return the operator's crop, with its colours left alone."""
    compiled = entries()
    assert isinstance(compiled, Entries)
    colour = np.eye(3, 4, dtype=np.float32)
    ins: list[NDArray[np.generic]] = [np.zeros(side, np.uint8), image, np.array(box, np.float64), colour]
    ins += [np.array(erased, np.int32), np.array([options], np.int32)]
    shapes: list[NDArray[np.generic]] = [np.array(array.shape, np.int64) for array in ins]
    out_shapes: list[NDArray[np.generic]] = [np.zeros(3, np.int64), np.zeros(1, np.int64)]
    outs_at, ins_at = addresses(out_shapes), addresses(shapes)
    SET_UP(compiled.set_up)(outs_at.ctypes.data, None, 2, ins_at.ctypes.data, None, 6, 1)
    dtype = np.dtype(np.uint8 if options & GIVES_BYTES else np.float32)
    memory = [Guarded(int(out_shapes[0].prod()) * dtype.itemsize), Guarded(int(out_shapes[1][0]))]
    data, data_in = addresses([one.inside for one in memory]), addresses(ins)
    RUN(compiled.run)(data.ctypes.data, outs_at.ctypes.data, None, 2, data_in.ctypes.data, ins_at.ctypes.data, None, 6)
    assert all(one.is_intact() for one in memory)
    return memory[0].inside.view(dtype).reshape(side, side, 3)


@pytest.mark.parametrize("kind", range(len(INTERPOLATIONS)))
@pytest.mark.parametrize("side", [32, 65, 300])
def test_extreme_sizes_stay_in_memory_and_near_pil(side: int, kind: int) -> None:
    """Images of one pixel's width, strong aspects and upsampling: nothing is written outside, PIL's image comes out."""
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        # Pillow 13 takes tall images in the other order.
        down_first = int(PIL.__version__.split(".")[0]) >= 13 and height - side > max(0, 2 * (width - side))
        as_pil = kind + AS_PIL + GIVES_BYTES + (VERTICAL_FIRST if down_first else 0)
        for box in ((0.0, 0.0, height, width), (height / 4, width / 8, height * 0.75, width * 0.5)):
            y0, x0, y1, x1 = box
            filter_ = Image.Resampling[INTERPOLATIONS[kind].upper()]
            expected = np.asarray(Image.fromarray(image).resize((side, side), filter_, box=(x0, y0, x1, y1)))
            mirrored = crop(image, (y1, x1, y0, x0), side, kind, [[0, 0, 0, 0]])
            quick = crop(image, box, side, kind, [[0, 0, 0, 0]])
            np.testing.assert_array_equal(mirrored[::-1, ::-1], quick)
            np.testing.assert_array_equal(crop(image, box, side, as_pil, [[0, 0, 0, 0]]), expected)
            if kind == 0:
                assert np.abs(quick - expected).max() <= 1.001


def test_boxes_are_erased_as_far_as_they_lie_inside() -> None:
    """What a box has outside of the crop is left out."""
    image = np.full((40, 40, 3), 200, np.uint8)
    found = crop(image, (0, 0, 40, 40), 32, 0, [[-3, 25, 4, 90], [30, -5, 99, 2]])
    expected = np.full((32, 32, 3), 200, np.float32)
    expected[:4, 25:] = expected[30:, :2] = 0
    np.testing.assert_array_equal(found, expected)


def test_filters_reach_as_far_as_regions_are_decoded() -> None:
    """The plan's radii, which decode regions are made with, are the operator's."""
    assert [radius_of.py_func(kind) for kind in range(len(INTERPOLATIONS))] == RADII.tolist()
