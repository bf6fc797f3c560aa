"""Which variables a foreign program gets: lists of names, each for one purpose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

BASIC = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TEMP", "TMP", "TZ"),
    *("LANG", "LANGUAGE", "LC_*", "LD_LIBRARY_PATH", "XDG_RUNTIME_DIR"),
)
"""What any program needs to find others and to write text."""

NETWORK = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
"""How servers are reached, and whom to trust; a proxy's address may hold an account."""

COMPUTING = (
    *("OMP_*", "OPENBLAS_*", "MKL_*", "BLIS_*", "GOTO_*", "KMP_*", "CUDA_*", "NVIDIA_*"),
    *("TF_*", "TOKENIZERS_PARALLELISM", "MALLOC_*", "CONDA_PREFIX"),
)
"""How models are computed: threads, processors and accelerators."""


def chosen(environment: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Give the variables of an environment that are listed.

    Args:
        environment: Names and values.
        names: What is listed; a name that ends in `*` stands for all that begin so.
    """
    listed = frozenset(names)
    beginnings = tuple(name[:-1] for name in listed if name.endswith("*"))
    return {
        name: value
        for name, value in environment.items()
        if name in listed or (beginnings and name.startswith(beginnings))
    }
