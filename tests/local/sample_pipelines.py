"""Small pipelines that the local runner's tests run."""

from typing import Dict, List, Optional  # noqa: UP035 - as people write them

from kfp import dsl

from kfp_bento.components import build_bento


@dsl.component(base_image="python", install_kfp_package=False)
def double(number: int) -> int:
    return 2 * number


@dsl.component(base_image="python", install_kfp_package=False)
def write(number: int, record: dsl.Output[dsl.Artifact]):
    import json
    from pathlib import Path

    Path(record.path).write_text(json.dumps({"number": number}))


@dsl.component(base_image="python", install_kfp_package=False)
def refuse(number: int):
    from kfp_bento.runtime.errors import InvalidInput

    try:
        raise InvalidInput("The first error.", hint="None.")
    except InvalidInput as error:
        told = f"{number} is too small.\nIt must be 10."
        raise InvalidInput(told, hint="Give a larger number.") from error


@dsl.component(base_image="python", install_kfp_package=False)
def refuse_when_the_other_has_ended(number: int, marker: str):
    import os
    import time
    from pathlib import Path

    from kfp_bento.runtime.errors import InvalidInput

    if number == 0:
        Path(marker + ".partial").write_text(str(os.getpid()))
        Path(marker + ".partial").rename(marker)
        return
    while not Path(marker).exists() or Path("/proc", Path(marker).read_text()).exists():
        time.sleep(0.05)
    time.sleep(0.5)  # KFP hears of it a moment later
    raise InvalidInput("One of them is refused.")


@dsl.component(base_image="python", install_kfp_package=False)
def crash():
    raise RuntimeError("something unforeseen")


@dsl.component(base_image="python", install_kfp_package=False)
def sleep(seconds: int, marker: str):
    import os
    import time
    from pathlib import Path

    Path(marker).write_text(str(os.getpid()))
    time.sleep(seconds)


@dsl.component(base_image="python", install_kfp_package=False)
def tell_temporary_directory() -> str:
    import tempfile

    return tempfile.gettempdir()


@dsl.pipeline
def two_steps(
    number: int, factor: float = 1.5, names: list = [], settings: dict = {}, on: bool = True
):
    write(number=double(number=number).output)


@dsl.pipeline
def refusing(number: int = 3):
    refuse(number=double(number=number).output)


@dsl.pipeline
def looping(marker: str):
    with dsl.ParallelFor([0, 1]) as number:
        refuse_when_the_other_has_ended(number=number, marker=marker)


@dsl.pipeline
def crashing():
    crash()


@dsl.pipeline
def sleeping(marker: str, seconds: int = 60):
    sleep(seconds=seconds, marker=marker)


@dsl.pipeline
def temporary():
    tell_temporary_directory()


@dsl.pipeline
def service_artifact(place: str):
    given = dsl.importer(artifact_uri=place, artifact_class=dsl.Artifact)
    build_bento(service_artifact=given.output, verify=False, options={"labels": {"team": "a"}})


@dsl.component(base_image="python", install_kfp_package=False)
def joined(names: list[str], weights: dict[str, float]) -> str:
    """Say what was given."""
    return ",".join(names) + f" {sorted(weights)}"


@dsl.pipeline(name="of-typed-lists")
def of_typed_lists(
    names: List[str],  # noqa: UP006 - as people write them
    weights: Dict[str, float] = {},  # noqa: UP006
):
    """Take a list and an object whose values have types."""
    joined(names=names, weights=weights)


@dsl.component(base_image="python", install_kfp_package=False)
def say_what_is_missing(name: Optional[str] = None, count: Optional[int] = None) -> str:  # noqa: UP045
    return f"{name} {count}"


@dsl.pipeline
def with_nothing(name: Optional[str] = None, count: Optional[int] = None):  # noqa: UP045
    with dsl.ExitHandler(double(number=1)):
        say_what_is_missing(name=name, count=count)
