"""How large objects appear in the network's input, in training and in testing (FixRes, section 3)."""

from dataclasses import dataclass

import numpy as np

from pipelines.plan.crops import CropFunction, Floats, Ints, centre_crop, random_resized_crop
from pipelines.resolution import MIN_RESOLUTION_PX, STRIDE_PX, Resolution

__all__ = ["SizeComparison", "apparent_sizes", "compare_sizes"]


@dataclass(frozen=True, slots=True, eq=False)
class SizeComparison:
    """Apparent sizes of objects in training crops, and in test crops at several resolutions.

    Attributes:
        train_res: Resolution of the training crops.
        trained: Apparent sizes in them, pixels, (images,).
        tested: Apparent sizes in test crops, by resolution, pixels, (images,) each.
        matching_px: The test resolution at which the mean size is that in training.
    """

    train_res: Resolution
    trained: Floats
    tested: dict[Resolution, Floats]
    matching_px: float

    @property
    def matching_multiple_px(self) -> int:
        """The multiple of 32 nearest to `matching_px`."""
        return max(MIN_RESOLUTION_PX, STRIDE_PX * round(self.matching_px / STRIDE_PX))


def apparent_sizes(heights: Ints, widths: Ints, crop: CropFunction, resolution: Resolution, uniforms: Floats) -> Floats:
    """Return how large an object as large as its image appears in the network's input.

    An object of one pixel of the source has crop side over crop box side pixels in the input; where the crop box is not
    square, its side is the root of its area. The object is taken as large as the image, with a side that is the root
    of the image's area, so that images of all sizes compare: the paper's K_train / sigma.

    Args:
        heights: Of the images in pixels, (n,).
        widths: Likewise.
        crop: The crop function.
        resolution: At which size.
        uniforms: Random numbers for the crop boxes, (n, NUM_UNIFORMS).

    Returns:
        Pixels of the network's input, (n,).
    """
    y0, x0, y1, x1 = crop(heights, widths, resolution, uniforms).T
    sizes: Floats = resolution.crop_px * np.sqrt(heights * widths / ((y1 - y0) * (x1 - x0)))
    return sizes


def compare_sizes(
    heights: Ints,
    widths: Ints,
    train_res: Resolution,
    test_resolutions: tuple[Resolution, ...],
    uniforms: Floats,
    test_crop: CropFunction = centre_crop,
) -> SizeComparison:
    """Compare training crops with test crops of the same images.

    Sizes in test crops are in proportion to the resolution (but for the rounding of the resize), so the resolution
    that matches is the training resolution times the ratio of the expectations.

    Args:
        heights: Of the images in pixels, (n,).
        widths: Likewise.
        train_res: Of the training crops.
        test_resolutions: Of the test crops.
        uniforms: Random numbers for the training crops, (n, NUM_UNIFORMS).
        test_crop: The crop function of tests.
    """
    trained = apparent_sizes(heights, widths, random_resized_crop, train_res, uniforms)
    tested = {
        resolution: apparent_sizes(heights, widths, test_crop, resolution, uniforms)
        for resolution in (*test_resolutions, train_res)
    }
    matching_px = train_res.crop_px * float(trained.mean() / tested[train_res].mean())
    at_test = {resolution: tested[resolution] for resolution in test_resolutions}
    return SizeComparison(train_res, trained, at_test, matching_px)
