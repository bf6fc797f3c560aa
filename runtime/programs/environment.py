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
    *("OMP_*", "OPENBLAS_*", "MKL_*", "BLIS_*", "GOTO_*", "KMP_*", "NUMEXPR_*", "CUDA_*"),
    *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE"),
    # Neither all of TF_* nor of NVIDIA_*: Terraform's variables and API keys begin so as well.
    *("TF_CPP_*", "TF_DETERMINISTIC_*", "TF_ENABLE_*", "TF_FORCE_GPU_*", "TF_GPU_*", "TF_NUM_*"),
    *("TF_USE_*", "TF_XLA_*", "TOKENIZERS_PARALLELISM", "MALLOC_*", "CONDA_PREFIX"),
)
"""How models are computed: threads, processors and accelerators."""

CACHES = (
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_CACHE", "HF_DATASETS_OFFLINE"),
    *("TRANSFORMERS_CACHE", "TRANSFORMERS_OFFLINE", "SENTENCE_TRANSFORMERS_HOME", "TORCH_HOME"),
    *("NLTK_DATA", "MPLCONFIGDIR", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "JAX_PLATFORMS"),
)
"""Where libraries find what was downloaded before; no accounts."""


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
