"""Draw the pictures that requests.yaml sends: balls on a table, and a table without any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
BALLS = [  # x, y, radius, colour
    (90, 110, 40, (214, 40, 40)),
    (250, 190, 31, (40, 150, 60)),
    (400, 90, 50, (45, 90, 220)),
    (330, 320, 25, (220, 50, 45)),
    (120, 300, 32, (50, 100, 230)),
    (520, 280, 40, (50, 170, 70)),
]


def table(width: int, height: int) -> np.ndarray:
    """Give a grey table, lighter at one side, with a little noise."""
    down, right = np.mgrid[0:height, 0:width]
    light = 150 + 40 * right / width - 30 * down / height
    noise = np.random.default_rng(23).normal(0, 3, (height, width))
    return np.repeat((light + noise)[..., None], 3, axis=2)


def with_ball(picture: np.ndarray, x: int, y: int, radius: int, colour: tuple) -> np.ndarray:
    """Put a ball on a picture, lit from the upper left."""
    down, right = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
    distance = np.hypot(down - y, right - x)
    away = np.hypot(down - y + radius / 3, right - x + radius / 3) / radius
    shine = np.clip(1.15 - 0.5 * away, 0, 1.2)
    ball = np.clip(np.array(colour) * shine[..., None], 0, 255)
    return np.where((distance <= radius)[..., None], ball, picture)


def main() -> None:
    """Draw both."""
    empty = table(640, 400)
    Image.fromarray(empty.astype(np.uint8)).resize((320, 200)).save(HERE / "table.png")
    picture = empty
    for ball in BALLS:
        picture = with_ball(picture, *ball)
    Image.fromarray(picture.astype(np.uint8)).save(HERE / "balls.jpg", quality=85)


if __name__ == "__main__":
    main()
