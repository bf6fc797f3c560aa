"""A pipeline of one's own, out of the components: a bento that exists already is served."""

from kfp import dsl

from kfp_bento.components import (
    build_image,
    check_release,
    confirm_release,
    deploy_bento,
    import_bento,
)


@dsl.pipeline(name="serve-old-bento")
def serve(
    bento_uri: str,
    image_destination: str,
    requests: list = [],  # noqa: B006 - KFP wants the default in the signature
    image_base: str = "",
    deploy_mode: str = "auto",
) -> None:
    """Import a bento, lock it, make an image of it, deploy, and check what is served."""
    bento = import_bento(uri=bento_uri, requests=requests)
    image = build_image(
        bento=bento.outputs["bento"], destination=image_destination, base=image_base
    )
    release = deploy_bento(
        image=image.outputs["image"],
        image_location=image.outputs["location"],
        bento=bento.outputs["facts"],
        mode=deploy_mode,
    )
    checked = check_release(release=release.outputs["release"], golden=bento.outputs["golden"])
    confirm_release(reports=checked.outputs["reports"])
