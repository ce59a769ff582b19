"""Scenes and the renderer: what stands where, in which place, and the image of it with its ground truth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from mnemon.world.backgrounds import BACKGROUNDS, paint_background
from mnemon.world.looks import Look, free_look, palette_look
from mnemon.world.styles import Style, apply_style
from mnemon.world.things import NOUNS, OUTLINES, ROLES

SIZE = 64  # pixels a side
_OVER = 2  # supersampling

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Pose:
    """Where a thing stands: centre and half-extent in pixels of the finished image, tilt in degrees."""

    x: float
    y: float
    size: float
    angle: float = 0.0


@dataclass(frozen=True)
class Scene:
    """One or two things in one place, drawn plainly or in a style. `seed` jitters the background."""

    looks: tuple[Look, ...]
    poses: tuple[Pose, ...]
    background: str
    seed: int
    style: Style | None = None


@dataclass(frozen=True)
class Render:
    """An image, (64, 64, 3) uint8, with a mask (64, 64) 0..1 and a box for each thing."""

    pixels: NDArray[np.uint8]
    masks: tuple[NDArray[np.float32], ...]
    boxes: tuple[Box, ...]

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.pixels)


def single_pose(rng: np.random.Generator) -> Pose:
    """Large and near the centre."""
    return Pose(32 + rng.uniform(-5, 5), 35 + rng.uniform(-4, 4), rng.uniform(19.5, 24.5), rng.normal(0, 6))


def pair_poses(rng: np.random.Generator) -> tuple[Pose, Pose]:
    """Two things side by side, the first on the left."""
    left, right = (
        Pose(x + rng.uniform(-1.5, 1.5), 36 + rng.uniform(-4, 4), rng.uniform(13, 15.5), rng.normal(0, 5))
        for x in (16.5, 47.5)
    )
    return left, right


def random_scene(
    rng: np.random.Generator, *, pair: float = 0.25, free: float = 0.25, style: Style | None = None
) -> Scene:
    """A scene of the base's training data: `pair` and `free` are the shares of two-thing scenes and of free looks."""
    look = free_look if rng.random() < free else palette_look
    background, seed = str(rng.choice(list(BACKGROUNDS))), int(rng.integers(2**31))
    if rng.random() >= pair:
        return Scene((look(rng),), (single_pose(rng),), background, seed, style)
    nouns = [str(noun) for noun in rng.choice(NOUNS, 2, replace=False)]
    looks = (look(rng, nouns[0]), look(rng, nouns[1]))
    return Scene(looks, pair_poses(rng), background, seed, style)


def render(scene: Scene) -> Render:
    """Draw `scene`. The same scene gives the same pixels."""
    size = SIZE * _OVER
    canvas = paint_background(scene.background, np.random.default_rng(scene.seed), size)
    masks, boxes = [], []
    for look, pose in zip(scene.looks, scene.poses, strict=True):
        roles = _draw_roles(look, pose, size)
        canvas = _colour(canvas, roles, look, pose)
        mask = _shrink((roles > 0).astype(np.float32))
        masks.append(mask)
        boxes.append(_bounds(mask))
    image = _shrink(canvas)
    if scene.style is not None:
        image = apply_style(image, scene.style)
    pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Render(pixels, tuple(masks), tuple(boxes))


def _draw_roles(look: Look, pose: Pose, size: int) -> NDArray[np.uint8]:
    """(size, size) of role numbers: 0 nothing, 1 body, 2 trim, 3 dark, 4 light."""
    image = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(image)
    turn = np.radians(pose.angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = np.array([pose.x, pose.y])
    for role, points in OUTLINES[look.noun](look.shape):
        placed = (points @ rotation.T * pose.size + centre) * _OVER
        draw.polygon([(x, y) for x, y in placed.tolist()], fill=ROLES.index(role) + 1)
    return np.asarray(image)


def _colour(canvas: NDArray[np.float32], roles: NDArray[np.uint8], look: Look, pose: Pose) -> NDArray[np.float32]:
    """Paint the thing over `canvas`, with a soft dark rim that sets it off from any background."""
    outer = np.asarray(Image.fromarray((roles > 0).astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(3))) > 0
    across, down = _own_coordinates(pose, roles.shape[0])
    second = _pattern(look, across, down)
    palette = np.array([look.body, look.trim, (0.1, 0.1, 0.13), (0.97, 0.97, 0.9)], np.float32)
    paint_colour = palette[np.maximum(roles, 1) - 1]
    paint_colour = np.where((second & (roles == 1))[..., None], np.array(look.second, np.float32), paint_colour)
    shade = np.clip(1.06 - 0.16 * (down + 0.2), 0.8, 1.15).astype(np.float32)[..., None]
    painted = np.where((roles > 0)[..., None], paint_colour * shade, canvas)
    rim = (outer & (roles == 0))[..., None]
    return np.where(rim, canvas * 0.3, painted).astype(np.float32)


def _own_coordinates(pose: Pose, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    grid = (np.arange(size, dtype=np.float32) + 0.5) / _OVER
    x, y = (grid[None, :] - pose.x) / pose.size, (grid[:, None] - pose.y) / pose.size
    turn = np.radians(-pose.angle)
    return x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)


def _pattern(look: Look, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where the body shows its second colour."""
    turn, period = np.radians(look.angle), 0.5 * look.scale
    u, v = (x * np.cos(turn) + y * np.sin(turn)) / period, (-x * np.sin(turn) + y * np.cos(turn)) / period
    if look.pattern == "striped":
        return (u % 1.0) < 0.5
    if look.pattern == "checked":
        return ((u % 1.6) < 0.8) ^ ((v % 1.6) < 0.8)
    if look.pattern == "spotted":
        return ((u * 0.85) % 1.0 - 0.5) ** 2 + ((v * 0.85) % 1.0 - 0.5) ** 2 < 0.27**2
    if look.pattern == "banded":
        return np.abs(y - 0.2) < 0.2 * look.scale
    return np.zeros(x.shape, bool)


def _shrink(array: NDArray[np.float32]) -> NDArray[np.float32]:
    side = array.shape[0] // _OVER
    blocks = array.reshape(side, _OVER, side, _OVER, *array.shape[2:])
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def _bounds(mask: NDArray[np.float32]) -> Box:
    rows, columns = np.where(mask.max(1) > 0.5)[0], np.where(mask.max(0) > 0.5)[0]
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
