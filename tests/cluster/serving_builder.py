"""A played builder of images whose pods serve what it has built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bento_downloader import build_context
from image_builder import ImageBuilder
from played_controller import Json
from serving_pods import ServingPods


@dataclass
class ServingBuilder(ImageBuilder):
    """Builds what the request's URL gives, as far as that pods can serve it."""

    pods: ServingPods | None = None
    folder: Path = Path()

    def _write_bento(self, live: Json, image: str) -> None:
        assert self.pods is not None
        place = self.folder / live["metadata"]["uid"]
        if not place.exists():
            self.pods.built[image] = build_context(live["spec"]["downloadUrl"], place)
        super()._write_bento(live, image)
