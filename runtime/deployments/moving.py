"""A release that was found good in one namespace, rendered for another: nothing is built again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfp_bento.runtime.deployments.kube.cluster import connect
from kfp_bento.runtime.deployments.release.delete import release_objects
from kfp_bento.runtime.deployments.release.record import read_record
from kfp_bento.runtime.deployments.targets.release import Release
from kfp_bento.runtime.deployments.targets.targets import release_ref, target_of
from kfp_bento.runtime.errors import DeploymentError, InvalidInput


def moved_release(
    name: str,
    *,
    target: str,
    source: str,
    namespace: str,
    image: str,
    changes: Mapping[str, Any] | None = None,
    context: str = "",
) -> Release:
    """Render the good release of one namespace for another: the same image by its digest.

    What it is made of stands on the release in the first namespace. Whoever may edit it there might
    have written it, so the image has to be said, and without a seal nothing comes along that its
    live pods do not have.

    Args:
        name: Name of the release, in both.
        target: Kind of target, one of `TARGETS`.
        source: Namespace where it was found good, such as staging.
        namespace: Namespace that it goes to, such as production.
        image: The image by digest that is meant.
        changes: Options of the target that are others there, by name, such as resources.
        context: Context of the kubeconfig.

    Raises:
        InvalidInput: The namespaces are the same, or an option is refused.
        DeploymentError: There is no good release, it has another image, or it is not believed.
    """
    if source == namespace:
        raise InvalidInput(
            f"namespace: {namespace} is where the release is already.", hint="Name another one."
        )
    ref, chosen = release_ref(name, target, source), target_of(target)
    with connect(context) as cluster:
        record = read_record(cluster.get(chosen.holder_of(ref)), ref)
        good = record.last_good
        if good is None:
            if record.disbelieved:
                raise record.disbelieved[0]
            raise DeploymentError(
                f"{ref} has no good release on record.",
                hint="Let its checks pass there first, or confirm it: "
                f"kfp-bento release confirm {name} -n {source}",
            )
        if good.image.rpartition("@")[2] != image.rpartition("@")[2]:
            raise DeploymentError(
                f"The good release of {ref} has image {good.image}, not {image}.",
                hint="Say the image that was checked there; look: "
                f"kfp-bento release status {name} -n {source}",
            )
        good.check_gains(list(release_objects(cluster, ref, chosen)))
    if good.release is None:
        raise DeploymentError(
            f"The options of {ref} at revision {good.revision} were too large to keep.",
            hint=f"Deploy image {good.image} with its options to {namespace}.",
        )
    given = {**good.release.options, **(changes or {}), "namespace": namespace}
    return chosen.render(good.image, good.release.bento, given)
