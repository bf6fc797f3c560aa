"""From model URIs to a proven image, in one process and one scratch directory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.bentos import build_bento
from kfp_bento.runtime.concurrency import Approval, Stopped
from kfp_bento.runtime.errors import KfpBentoError
from kfp_bento.runtime.files import scratch_inside
from kfp_bento.runtime.images import ImageOptions, build_image, check_destination
from kfp_bento.runtime.models import human_size, pull_models
from kfp_bento.runtime.packaging.proofs import shared_proofs
from kfp_bento.runtime.programs import downloads_kept_in, hides_credentials
from kfp_bento.runtime.proof import given_requests, golden_answers
from kfp_bento.runtime.scan import scan_models

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.images import Image
    from kfp_bento.runtime.models import ModelVersion
    from kfp_bento.runtime.proof import Golden
    from kfp_bento.runtime.scan import ScanReport


@dataclass(frozen=True)
class PackageOptions:
    """What may be wished of a package besides its models and its place.

    Attributes:
        bento_name: See `build_bento`, `name`.
        service: See `build_bento`.
        requirements: See `build_bento`.
        allow_sources: See `build_bento`.
        python_version: See `build_bento`.
        verify: Whether the bento is started and compared; see `golden_answers`.
        prove_anew: Whether it is also where an earlier run has proven the same.
        requests: What it is asked; see `given_requests`.
        relative_tolerance: See `prove_bento`.
        absolute_tolerance: See `prove_bento`.
        options: The bento's rarer wishes; see `BentoOptions`.
        scan_policy: See `scan_models`.
        scan_allow: See `scan_models`.
        image: How the image is to be built.
    """

    bento_name: str = ""
    service: str = ""
    requirements: Sequence[str] = ()
    allow_sources: Sequence[str] = ()
    python_version: str = ""
    verify: bool = True
    prove_anew: bool = False
    requests: Sequence[object] = ()
    relative_tolerance: float = 1e-6
    absolute_tolerance: float = 1e-9
    options: Mapping[str, Any] = field(default_factory=dict)
    scan_policy: str = "warn"
    scan_allow: Sequence[str] = ()
    image: ImageOptions = field(default_factory=ImageOptions)


@dataclass(frozen=True)
class Package:
    """Models, and what was made of them.

    Attributes:
        models: The exact versions; their files are there for the length of the block.
        scan: What loading them would run.
        bento: The bento, there as long; None where the scan did not let the models pass.
        golden: What it answered, with the right answers.
        image: The image, by digest.
    """

    models: tuple[ModelVersion, ...]
    scan: ScanReport
    bento: Bento | None = None
    golden: Golden | None = None
    image: Image | None = None

    @property
    def passed(self) -> bool:
        """Whether there is an image."""
        return self.image is not None

    @property
    def results(self) -> tuple[str, str, bool]:
        """The image by digest, where its bytes are, and whether there is one."""
        image = self.image
        return (image.reference, image.location, True) if image else ("", "", False)


_EXPOSED = (
    "this system hides nothing from the model's code, which is run for the proof: it can read the "
    "credentials of this step. serve_model proves a bento in a step that has none"
)


def _silent(sentence: str) -> None:
    """Tell nobody."""


@contextmanager
def packaged(
    entries: Sequence[str],
    destination: str,
    options: PackageOptions | None = None,
    *,
    tracking_uri: str = "",
    tell: Callable[[str], None] = _silent,
) -> Iterator[Package]:
    """Pull models, look into them, build their bento, prove it, and build its image.

    The same functions as in the steps of the long road, on one disk: weights are read at their
    source once, lie there once, as the bento's files are hard links, and are sent to the registry
    while the bento is being proven. The image gets manifest and tag after the proof alone.

    Args:
        entries: See `pull_models`; none for a service of one's own without models.
        destination: See `build_image`.
        options: What else is wished.
        tracking_uri: See `pull_models`.
        tell: Told what is going on, and what room it needs.

    Yields:
        What was made. Models and bento are gone after the block.

    Raises:
        KfpBentoError: As `pull_models`, `scan_models`, `build_bento`, `prove_bento` and
            `build_image`; no tag has moved then.
    """
    wished = options or PackageOptions()
    # What can be refused by its text is, before anything is read.
    check_destination(destination, wished.image)
    requests = given_requests(wished.requests)
    with (
        scratch_inside(Path(tempfile.gettempdir()), "kfp-bento-package-") as scratch,
        downloads_kept_in(scratch / "uv"),
    ):
        models = _pulled(entries, scratch / "models", tracking_uri, tell)
        found = scan_models(models, policy=wished.scan_policy, allow=wished.scan_allow)
        if not found.passed:
            yield Package(models, found)
            return
        if wished.verify and not hides_credentials():
            tell(_EXPOSED)
        tell("building the bento")
        bento = build_bento(
            models,
            scratch / "bento",
            name=wished.bento_name,
            service=wished.service,
            python_version=wished.python_version,
            requirements=wished.requirements,
            allow_sources=wished.allow_sources,
            options=wished.options,
        )
        golden, image = _proven_image(bento, models, destination, wished, requests, tell)
        yield Package(models, found, bento, golden, image)


def _pulled(
    entries: Sequence[str], directory: Path, tracking_uri: str, tell: Callable[[str], None]
) -> tuple[ModelVersion, ...]:
    if not entries:
        return ()
    told = list[int]()

    def say(_: int, total: int) -> None:
        if not told:
            told.append(total)
            tell(f"reading the models, which need {human_size(total)} of disk, once")

    return tuple(pull_models(entries, directory, tracking_uri=tracking_uri, progress=say))


def _proven_image(
    bento: Bento,
    models: Sequence[ModelVersion],
    destination: str,
    wished: PackageOptions,
    requests: Sequence[object],
    tell: Callable[[str], None],
) -> tuple[Golden, Image]:
    """Prove the bento, and send its image's layers meanwhile.

    The proof, which starts other people's code, is in the thread that an interrupt reaches.
    """
    approval = Approval()

    def tell_failure(done: Future[Image]) -> None:
        error = done.exception()
        if isinstance(error, KfpBentoError) and not isinstance(error, Stopped):
            tell(f"no image: {error.message} The proof ends first.")

    with ThreadPoolExecutor(max_workers=1) as pool:
        building = pool.submit(
            build_image, bento, destination, wished.image, progress=tell, approval=approval
        )
        building.add_done_callback(tell_failure)
        try:
            golden = golden_answers(
                bento,
                models,
                verify=wished.verify,
                requests=requests,
                relative_tolerance=wished.relative_tolerance,
                absolute_tolerance=wished.absolute_tolerance,
                allow_sources=wished.allow_sources,
                batched=bool(wished.options.get("max_batch_size")),
                shared=shared_proofs(destination, wished.image, tell),
                anew=wished.prove_anew,
                tell=tell,
            )
            approval.give()
        finally:
            approval.refuse()
        return golden, building.result()
