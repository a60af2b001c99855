"""One demo image as a pure function of seed, split and number: a shaded blob covered with small marks."""

import math
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

__all__ = ["CLASS_NAMES", "NUM_CLASSES", "draw_image"]

CLASS_NAMES = (
    *("bars", "chevrons", "crescents", "crosses", "dots"),
    *("frames", "rings", "squares", "stars", "triangles"),
)
NUM_CLASSES = len(CLASS_NAMES)
_SUPERSAMPLING = 3
_OBJECT_SIZE = (0.28, 0.80)  # diameter as a share of the image's shorter side, log-uniform
_MARKS_ACROSS = (4.5, 6.5)  # how many marks fit across the object
_COMMON_SIZES = ((500, 375), (500, 375), (500, 375), (375, 500), (500, 333))  # as in ImageNet

FloatArray = npt.NDArray[np.float32]
Outline = list[tuple[float, float]]


def draw_image(seed: int, split: str, number: int) -> Image.Image:
    """Draw one image, a pure function of its arguments."""
    rng = np.random.default_rng([seed, ("train", "val").index(split), number])
    width, height = _draw_size(rng)
    pixels = np.array(_draw_background(rng, width, height), dtype=np.float32)
    _paint_object(rng, pixels, CLASS_NAMES[number % NUM_CLASSES])
    pixels += rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(rng.uniform(1, 3.5))
    return Image.fromarray(pixels.clip(0, 255, out=pixels).astype(np.uint8))


def _draw_size(rng: np.random.Generator) -> tuple[int, int]:
    """Return (width, height): mostly the sizes common in ImageNet, else a shorter side of 260 to 420."""
    if rng.random() < 0.6:
        return _COMMON_SIZES[rng.integers(len(_COMMON_SIZES))]
    short = int(rng.integers(260, 421))
    long = int(short * rng.uniform(1.0, 1.6))
    return (long, short) if rng.random() < 0.65 else (short, long)


def _draw_background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Draw smooth noise of three scales with clutter on it, out of focus: at half size, then enlarged."""
    half = (width // 2, height // 2)
    layers = np.zeros((half[1], half[0], 3), dtype=np.float32)
    for cells, strength in ((2, 70.0), (7, 40.0), (30, 25.0)):
        grey = rng.standard_normal((cells, cells, 1))
        noise = (grey + 0.4 * rng.standard_normal((cells, cells, 3))) * strength * rng.uniform(0.2, 1.0)
        small = Image.fromarray((noise + 128).clip(0, 255).astype(np.uint8))
        layers += np.asarray(small.resize(half, Image.Resampling.BICUBIC), dtype=np.float32) - 128
    image = Image.fromarray((layers + rng.uniform(70, 180)).clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(4, 16)):
        _draw_clutter(rng, pen, half)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _draw_clutter(rng: np.random.Generator, pen: ImageDraw.ImageDraw, size: tuple[int, int]) -> None:
    """Draw one background object: a bar, an ellipse or a polygon."""
    x, y = rng.uniform(0, size[0]), rng.uniform(0, size[1])
    reach = min(size) * math.exp(rng.uniform(math.log(0.04), math.log(0.4)))
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    kind = rng.integers(3)
    if kind == 0:
        end = (x + rng.normal(0, 3) * reach, y + rng.normal(0, 3) * reach)
        pen.line([(x, y), end], fill=(red, green, blue), width=max(1, int(reach / 6)))
    elif kind == 1:
        flat = reach * rng.uniform(0.4, 1)
        pen.ellipse((x - reach, y - flat, x + reach, y + flat), fill=(red, green, blue))
    else:
        angles = np.sort(rng.uniform(0, 2 * math.pi, rng.integers(3, 7)))
        corners = [(x + reach * math.cos(angle), y + reach * math.sin(angle)) for angle in angles]
        pen.polygon(corners, fill=(red, green, blue))


def _paint_object(rng: np.random.Generator, pixels: FloatArray, name: str) -> None:
    """Paint the object with its marks into ``pixels`` [height, width, 3], in place, not cut off."""
    height, width, _ = pixels.shape
    low, high = _OBJECT_SIZE
    side = int(min(height, width) * math.exp(rng.uniform(math.log(low), math.log(high))))
    # As in photographs, roughly in the middle: a normal offset, limited by the border.
    left = int(np.clip((width - side) / 2 + rng.normal(0, 0.13) * width, 0, width - side))
    top = int(np.clip((height - side) / 2 + rng.normal(0, 0.13) * height, 0, height - side))
    body, marks = _object_masks(rng, side, name)
    colour = rng.uniform(40, 215, 3)
    step = rng.uniform(50, 105) * (1 if colour.mean() < 128 else -1)
    paint = colour + step + rng.uniform(-25, 25, 3)
    surface = colour.astype(np.float32) * (1 - marks) + paint.astype(np.float32) * marks
    patch = pixels[top : top + side, left : left + side]
    patch += body * (surface * _shading(rng, side) - patch)


def _shading(rng: np.random.Generator, side: int) -> FloatArray:
    """Return the brightness [side, side, 1] of a ball lit from some side, 0.55 to 1.15."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    angle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 0.6)
    x, y = axis - np.float32(reach * math.cos(angle)), axis - np.float32(reach * math.sin(angle))
    return np.maximum(1.15 - 0.25 * (x * x + (y * y)[:, None]), 0.55)[..., None]


def _object_masks(rng: np.random.Generator, side: int, name: str) -> tuple[FloatArray, FloatArray]:
    """Return the coverage, 0 to 1, of each pixel [side, side, 1] by the object, and by a mark."""
    fine = side * _SUPERSAMPLING
    angles = np.linspace(0, 2 * math.pi, 90, endpoint=False)
    reach = np.ones_like(angles)
    for waves in (2, 3, 4):
        reach += rng.uniform(0, 0.16 / waves) * np.cos(waves * angles + rng.uniform(0, 2 * math.pi))
    reach *= fine / 2 / reach.max()
    outline = np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach[:, None] + fine / 2
    body, marks = Image.new("L", (fine, fine)), Image.new("L", (fine, fine))
    ImageDraw.Draw(body).polygon(outline.ravel().tolist(), fill=255)
    _draw_marks(rng, ImageDraw.Draw(marks), fine, name)
    return _shrink(body), _shrink(marks)


def _shrink(mask: Image.Image) -> FloatArray:
    """Return a supersampled mask at the image's scale, [side, side, 1], 0 to 1."""
    return np.asarray(mask.reduce(_SUPERSAMPLING)).astype(np.float32)[..., None] / np.float32(255)


def _draw_marks(rng: np.random.Generator, pen: ImageDraw.ImageDraw, side: int, name: str) -> None:
    """Cover a square with marks in rows, every other row shifted by half a step, each mark turned at random."""
    spacing = side / rng.uniform(*_MARKS_ACROSS)
    grid_turn = _rotation(rng.uniform(0, 2 * math.pi))
    for row in range(-5, 6):
        for column in range(-5, 6):
            x, y = column + (row % 2) / 2 + rng.normal(0, 0.04), row * 0.87 + rng.normal(0, 0.04)
            if math.hypot(x, y) * spacing > 0.55 * side:
                continue
            centre = side / 2 + spacing * (np.array([x, y]) @ grid_turn)
            turn = _rotation(rng.uniform(0, 2 * math.pi)) * (0.52 * spacing)
            for points, fill in zip(_mark_polygons(name), (255, 0), strict=False):
                pen.polygon((points @ turn + centre).ravel().tolist(), fill=fill)


def _rotation(angle: float) -> npt.NDArray[np.float64]:
    """Return the matrix [2, 2] that turns row vectors by ``angle`` in radians."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, sine], [-sine, cosine]])


@cache
def _mark_polygons(name: str) -> tuple[npt.NDArray[np.float64], ...]:
    """Return the polygons [points, 2] of one mark of area 1 about the origin: its outline, then its hole."""
    polygons = [np.array(outline) for outline in _mark_outlines()[name]]
    area = _area(polygons[0]) - sum(_area(hole) for hole in polygons[1:])
    return tuple(points / math.sqrt(area) for points in polygons)


def _area(points: npt.NDArray[np.float64]) -> float:
    """Return the area of a polygon by the shoelace formula."""
    x, y = points.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _mark_outlines() -> dict[str, list[Outline]]:
    """Return the outline of each class's mark, and of its hole if it has one, in any scale."""
    corner = [(1, 1), (1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1)]
    outer = [(x, y) for x, y in _regular(36) if math.hypot(x - 0.45, y) > 0.8]
    inner = [(0.45 + 0.8 * x, 0.8 * y) for x, y in _regular(24)][6:19]
    spikes = zip(_regular(5), _regular(5, 0.42, 0.5), strict=True)
    return {
        "bars": [[(-2, -0.6), (2, -0.6), (2, 0.6), (-2, 0.6)]],
        "chevrons": [[(-1, -0.9), (0, 0.1), (1, -0.9), (1, 0.1), (0, 1.1), (-1, 0.1)]],
        "crescents": [outer + inner[::-1]],
        "crosses": [[*corner, *((-x, -y) for x, y in corner)]],
        "dots": [_regular(24)],
        "frames": [_regular(4), _regular(4, 0.62)],
        "rings": [_regular(24), _regular(24, 0.62)],
        "squares": [_regular(4)],
        "stars": [[point for pair in spikes for point in pair]],
        "triangles": [_regular(3)],
    }


def _regular(corners: int, radius: float = 1.0, phase: float = 0.0) -> Outline:
    """Return the corners of a regular polygon, turned by ``phase`` of the angle between two corners."""
    angles = [2 * math.pi * (corner + phase) / corners for corner in range(corners)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]
