"""What the two steps of the short road leave: of a package, and of a release checked and kept."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.reports.files import write_json, write_text
from kfp_bento.runtime.reports.markdown import document, literal
from kfp_bento.runtime.reports.metrics import check_metrics, image_metrics
from kfp_bento.runtime.reports.promotion_page import promotion_page
from kfp_bento.runtime.reports.release_checks import checks_summary, write_checks
from kfp_bento.runtime.reports.summaries import image_summary, promotion_summary, scan_summary

if TYPE_CHECKING:
    from kfp_bento.runtime.packaging import Package
    from kfp_bento.runtime.promotion import Released


def write_package(
    package: Package,
    *,
    models: Any,
    bento: Any,
    golden: Any,
    record: str,
    scan: str,
    attestations: tuple[str, str],
    metrics: MutableMapping[str, Any],
    summary: str,
) -> None:
    """Write what a packaging step leaves; no file of a model is among it.

    Args:
        package: What was made.
        models: The artifact for the facts of the models: `path` and `metadata`.
        bento: The artifact for those of the bento; where the scan let the models not pass it says
            so, and whoever reads it fails with that.
        golden: The artifact for the golden answers.
        record: Gets the image as JSON.
        scan: Gets the scan as JSON.
        attestations: Get the bill of materials and the provenance.
        metrics: Gets the measures of scan and image.
        summary: Gets both as Markdown, and how the bento was proven, also where that was earlier.

    Raises:
        KfpBentoError: A file cannot be written, or the image's documents not be read.
    """
    # Whoever imports this room for something else does not wait for all of these.
    from kfp_bento.runtime.bentos import hand_on, hand_on_refusal
    from kfp_bento.runtime.images import write_attestations
    from kfp_bento.runtime.models import save_facts

    models.metadata["record"] = save_facts(package.models, Path(models.path))
    write_json(package.scan.to_dict(), Path(scan))
    metrics.update(check_metrics(package.scan))
    told = scan_summary(package.scan)
    if package.bento is None or package.golden is None or package.image is None:
        hand_on_refusal(f"the scan refused the models. {package.scan.summary}", bento)
        write_text(told, Path(summary))
        return
    hand_on(package.bento, bento)
    found = package.golden
    golden.metadata.update(
        record=found.save(Path(golden.path)), verified=found.verified, reason=found.told
    )
    write_json(package.image.to_dict(), Path(record))
    write_attestations(package.image, *map(Path, attestations))
    metrics.update(image_metrics(package.image))
    proof = document("# Proof", literal(found.told))
    write_text(document(image_summary(package.image), proof, told), Path(summary))


def write_released(
    done: Released,
    artifact: Any,
    *,
    record: str,
    page: str,
    summary: str,
    metrics: MutableMapping[str, Any],
) -> None:
    """Write what a step leaves that checks a release and keeps or leaves it.

    Args:
        done: What became of it.
        artifact: For the reports, see `write_checks`.
        record: Gets the promotion as JSON; an empty object where there is none.
        page: Gets `promotion_page`, or `checks_page` where the release was refused.
        summary: Gets checks and promotion as Markdown.
        metrics: See `write_checks`.

    Raises:
        KfpBentoError: A file cannot be written.
    """
    write_checks(done.found, artifact, page=page, summary=summary, metrics=metrics)
    promoted = done.promotion
    write_json(promoted.to_dict() if promoted else {}, Path(record))
    if promoted is None:
        return
    kept = promotion_summary(promoted) if promoted.models else literal(promoted.release)
    write_text(document(kept, checks_summary(done.found)), Path(summary))
    if promoted.models:
        write_text(promotion_page(promoted, done.models, done.found), Path(page))
