"""What a light installation lacks, said before anything is tried."""

from __future__ import annotations

from importlib.util import find_spec

from kfp_bento.runtime.errors import InvalidInput

MODULES = {
    "runtime": (
        *("bentoml", "jinja2", "kubernetes", "mlflow", "pyarrow", "urllib3", "uv", "zstandard"),
    ),
    "local": ("bentoml", "mlflow", "pandas", "sklearn", "uv"),
}


def require_extra(extra: str) -> None:
    """Make sure that an extra of the distribution is installed.

    Args:
        extra: runtime or local.

    Raises:
        InvalidInput: If a module of it is missing.
    """
    missing = [module for module in MODULES[extra] if find_spec(module) is None]
    if missing:
        raise InvalidInput(
            f"This command needs what is not installed: {', '.join(missing)}.",
            hint=f"pip install 'kfp-bento[{extra}]'",
        )
