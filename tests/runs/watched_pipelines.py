"""A pipeline that takes models, for what is submitted when an alias moves."""

from kfp import dsl


@dsl.component(base_image="python", install_kfp_package=False)
def look(model_uris: list, seconds: int) -> str:
    return f"{model_uris} {seconds}"


@dsl.pipeline(name="serve")
def serve(model_uris: list, seconds: int = 1):
    look(model_uris=model_uris, seconds=seconds)
