"""The sections of the report, one for each stop of the road."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kfp_bento.runtime.reports.blocks import (
    code,
    digest,
    disclosure,
    facts,
    listing,
    note,
    table,
    yaml_listing,
)
from kfp_bento.runtime.reports.elements import Child, Markup, element
from kfp_bento.runtime.reports.quantities import counted, human_bytes, measure
from kfp_bento.runtime.reports.road import bento_tag, image_size
from kfp_bento.runtime.reports.signature import Field, fields
from kfp_bento.runtime.reports.story import Facts, part, sentence

_HOST_NOTE = "made of this machine's own interpreter: for trying out, not for production"
_MOST_FIELDS = 24
_MODES = {
    "rendered": "Rendered only: the manifests were written, no cluster was touched, nothing runs.",
    "applied": "Applied to the cluster, server-side.",
    "local": "Started on this machine for the length of the run; no cluster was touched.",
}
_RUNTIMES = {
    "podman": "the image, in podman",
    "docker": "the image, in Docker",
    "process": "the same bento with the same locked dependencies, as a process without a container",
}


def model_section(summary: Facts) -> Child:
    """Give what was pulled: name, version, run, digests, and the signature as a table."""
    model = part(summary, "model")
    if not model:
        return None
    found = facts(
        {
            "Name": model.get("name"),
            "Version": model.get("version"),
            "Asked for as": code(model["uri"]) if model.get("uri") else None,
            "Run": code(model["run_id"]) if model.get("run_id") else None,
            "Logged model": code(model["model_id"]) if model.get("model_id") else None,
            "Digest": digest(model.get("digest")),
            "Digest of the content": digest(model.get("content_digest")),
            "Size": human_bytes(model["size"]) if model.get("size") else None,
            "Flavors": ", ".join(map(str, model.get("flavors") or ())),
            "Python": model.get("python_version"),
            "MLflow": model.get("mlflow_version"),
            **{
                measure(name, value)[0]: measure(name, value)[1]
                for name, value in part(model, "metrics").items()
            },
        }
    )
    lines = "\n".join(map(str, model.get("requirements") or ()))
    required = disclosure(
        counted(lines.count("\n") + 1, "requirement") + " of the model",
        listing(lines, "Requirements of the model"),
    )
    left = element("div", found, required if lines else None)
    return element("div", left, _signature(model), class_="columns")


def _signature(model: Facts) -> Markup:
    sides = model.get("signature") or model
    columns: list[tuple[str, Field]] = [
        (title, field)
        for title, side in (("input", "inputs"), ("output", "outputs"), ("parameter", "params"))
        for field in fields(sides.get(side))
    ]
    if not columns:
        return note("The model has no signature: the service takes any JSON and checks nothing.")
    shown, more = columns[:_MOST_FIELDS], columns[_MOST_FIELDS:]
    rest = disclosure(f"{counted(len(more), 'field')} more", _field_table("Further fields", more))
    return element("div", _field_table("Signature", shown), rest if more else None)


def _field_table(caption: str, columns: Sequence[tuple[str, Field]]) -> Markup:
    return table(
        caption,
        ("Name", "Type", "Is"),
        (
            (field.name, code(field.type), f"{side}, {field.note}" if field.note else side)
            for side, field in columns
        ),
        class_="signature",
    )


def bento_section(summary: Facts) -> Child:
    """Give what was built around the model."""
    bento = part(summary, "bento")
    if not bento:
        return None
    return facts(
        {
            "Tag": code(bento_tag(bento)),
            "Digest": digest(bento.get("digest")),
            "Service": code(bento["service"]) if bento.get("service") else None,
            "Python": bento.get("python_version"),
            "BentoML": bento.get("bentoml_version"),
            "Models": [
                element("div", code(model.get("tag", "?")), " ", digest(model.get("digest")))
                for model in bento.get("models") or ()
            ]
            or None,
        }
    )


def image_section(summary: Facts) -> Child:
    """Give the image with its layers, as a bar in proportion and as a table."""
    image = part(summary, "image")
    if not image:
        return None
    layers: list[Facts] = list(image.get("layers") or ())
    reference = image.get("reference") or "@".join(
        filter(None, map(image.get, ("repository", "digest")))
    )
    base = str(image.get("base") or "")
    host_note = image.get("base_note") or (_HOST_NOTE if base == "host" else "")
    found = facts(
        {
            "Reference": digest(reference),
            "Tags": ", ".join(map(str, image.get("tags") or ())),
            "Base": digest(base),
            "Platform": image.get("platform"),
            "Size": f"{human_bytes(image_size(image))} in {counted(len(layers), 'layer')}",
            "Location": code(image["location"]) if image.get("location") else None,
        }
    )
    return [
        found,
        note(
            [element("strong", f"Base {base or 'image'}: "), sentence(str(host_note))], warning=True
        )
        if host_note
        else None,
        [_layer_bar(layers), _layer_table(layers)] if layers else None,
    ]


def _layer_bar(layers: Sequence[Facts]) -> Markup:
    whole = sum(layer.get("size", 0) for layer in layers) or 1
    return element(
        "div",
        (
            element(
                "span",
                _share(layer, whole) if layer.get("size", 0) / whole > 0.1 else None,
                class_=f"layer {_layer_class(layer)}",
                style=f"flex-grow:{layer.get('size', 0) / whole:.5f}",
                title=f"{layer.get('title', '')}: {human_bytes(layer.get('size', 0))}",
            )
            for layer in layers
        ),
        class_="layers",
        aria_hidden="true",
    )


def _layer_table(layers: Sequence[Facts]) -> Markup:
    whole = sum(layer.get("size", 0) for layer in layers) or 1
    return table(
        "Layers, from the lowest to the highest",
        ("Kind", "Content", "Size", "Share", "Digest", "Origin"),
        (
            (
                [element("span", class_=f"swatch {_layer_class(layer)}"), layer.get("kind", "?")],
                str(layer.get("title", "")),
                human_bytes(layer.get("size", 0)),
                _share(layer, whole),
                digest(layer.get("digest")),
                str(layer.get("origin", "")),
            )
            for layer in layers
        ),
        right=frozenset({2, 3}),
        class_="contents",
    )


def _layer_class(layer: Facts) -> str:
    kind = str(layer.get("kind"))
    return kind if kind in ("base", "dependencies", "model", "source") else "other"


def _share(layer: Facts, whole: float) -> str:
    percent = 100 * float(layer.get("size", 0)) / whole
    return f"{percent:.0f} %" if percent >= 1 else "< 1 %"


def release_section(summary: Facts, manifests: Mapping[str, str]) -> Child:
    """Give where the image runs and why there, and the manifests."""
    release = part(summary, "release")
    if not release and not manifests:
        return None
    runtime, why = str(release.get("runtime") or ""), str(release.get("runtime_note") or "")
    what = f"What ran here: {_RUNTIMES.get(runtime, runtime)}." if runtime else ""
    reason = f" Why not in a container: {sentence(why)}" if why else ""
    found = facts(
        {
            "Name": release.get("name"),
            "Namespace": release.get("namespace"),
            "Kind": release.get("target"),
            "Mode": release.get("mode"),
            "Ran as": runtime,
            "Revision": code(release["revision"]) if release.get("revision") else None,
            "Answered at": code(release["url"]) if release.get("url") else None,
        }
    )
    listings = (
        element("figure", element("figcaption", code(name)), yaml_listing(text, f"Manifest {name}"))
        for name, text in manifests.items()
    )
    return [
        element("p", _MODES.get(str(release.get("mode")), ""), " ", what, reason),
        found,
        element("h3", "Manifests"),
        element("div", listings, class_="manifests")
        if manifests
        else note("No manifest came with this report."),
    ]


def promotion_section(summary: Facts) -> Child:
    """Give which version holds the alias now, and which one held it before."""
    promoted = part(summary, "promoted")
    if not promoted:
        return None
    changed = promoted.get("changed")
    return facts(
        {
            "Alias": code(promoted.get("alias", "?")),
            "Points to": f"{promoted.get('name', '')} version {promoted.get('version', '?')}",
            "Pointed before to": f"version {promoted['previous']}"
            if promoted.get("previous")
            else "nothing: this is its first version",
            "Moved in this run": "no, it was there already" if changed is False else "yes",
            "History tag": code(promoted["history_tag"]) if promoted.get("history_tag") else None,
        }
    )
