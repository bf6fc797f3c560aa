"""Find coloured balls in a picture: as JSON, or drawn into the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import bentoml
from bentoml.exceptions import InvalidArgument
from bentoml.validators import ContentType
from pydantic import BaseModel, Field

with bentoml.importing():
    import mlflow.pyfunc
    import numpy as np
    from PIL import Image, ImageDraw

SIDE = 256
LARGEST = 20_000_000
"""Pixels of a picture."""

LABELS = ("red ball", "green ball", "blue ball")

Upload = Annotated[Path, ContentType("image/*")]


class Detection(BaseModel):
    """A thing that was found."""

    label: str
    score: float
    box: list[float] = Field(description="left, top, right, bottom in pixels of the picture")


class Detections(BaseModel):
    """What was found in a picture, the surest first."""

    width: int
    height: int
    objects: list[Detection]


@bentoml.service(traffic={"timeout": 30})
class ObjectDetection:
    """Find coloured balls in pictures."""

    reference = bentoml.models.BentoModel("ball_detector:latest")

    def __init__(self) -> None:
        self.model = mlflow.pyfunc.load_model(self.reference.path)

    @bentoml.api
    def inference(self, image: Upload) -> Detections:
        """Find balls in a picture."""
        return self.found(opened(image))

    @bentoml.api
    def render(
        self, image: Upload, context: bentoml.Context
    ) -> Annotated[Path, ContentType("image/png")]:
        """Draw what is found into the picture."""
        picture = opened(image)
        drawn = with_boxes(picture, self.found(picture).objects)
        place = Path(context.temp_dir) / "rendered.png"
        drawn.save(place)
        return place

    def found(self, picture: Any) -> Detections:
        """Ask the model, and give boxes in pixels of the picture."""
        tensor, scale = model_input(picture)
        answer = self.model.predict({"image": tensor})
        width, height = picture.size
        boxes = np.clip(answer["boxes"] / scale, 0, [width, height, width, height])
        objects = [
            Detection(label=LABELS[kind], score=score, box=[round(edge, 1) for edge in box])
            for kind, score, box in zip(
                answer["classes"].tolist(), answer["scores"].tolist(), boxes.tolist(), strict=True
            )
        ]
        objects.sort(key=lambda one: -one.score)
        return Detections(width=width, height=height, objects=objects)


def opened(path: Path) -> Any:
    """Open an uploaded picture; what is none, or too large, is the caller's mistake."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > LARGEST:
                raise InvalidArgument("The picture is too large.")
            return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidArgument("The upload is no picture.") from error


def model_input(picture: Any) -> tuple[Any, float]:
    """Make a picture small enough, and give it with how much smaller it is."""
    scale = SIDE / max(picture.size)
    size = tuple(max(1, round(length * scale)) for length in picture.size)
    square = Image.new("RGB", (SIDE, SIDE))
    square.paste(picture.resize(size, Image.Resampling.BILINEAR))
    tensor = np.asarray(square, dtype=np.float32).transpose(2, 0, 1)[None] / 255
    return tensor, scale


def with_boxes(picture: Any, objects: list[Detection]) -> Any:
    """Draw boxes and what is in them."""
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    for found in objects:
        left, top, right, bottom = found.box
        pen.rectangle((left, top, right, bottom), outline="yellow", width=3)
        text = f"{found.label} {found.score:.2f}"
        above = (left, max(0, top - 14))
        pen.rectangle(pen.textbbox(above, text), fill="yellow")
        pen.text(above, text, fill="black")
    return drawn
