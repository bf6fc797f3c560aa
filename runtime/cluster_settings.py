"""What a cluster's administrator says once for all steps: certificates, proxies, plain registries.

The pipelines mount a ConfigMap by name, if it is there; each key is a file. Outside of such a pod
there is no such directory, and nothing of this happens. What the environment says already wins.
"""

from __future__ import annotations

import os
from pathlib import Path

MOUNTED = Path("/etc/kfp-bento/cluster")
"""Where the pipelines mount the ConfigMap."""

VARIABLES = {
    "http_proxy": ("HTTP_PROXY", "http_proxy"),
    "https_proxy": ("HTTPS_PROXY", "https_proxy"),
    "no_proxy": ("NO_PROXY", "no_proxy"),
    "insecure_registries": ("KFP_BENTO_INSECURE_REGISTRIES",),
    "allowed_storage_hosts": ("KFP_BENTO_ALLOWED_STORAGE_HOSTS",),
    "plain_http": ("KFP_BENTO_PLAIN_HTTP",),
}
CERTIFICATES = "ca.crt"
"""The key with certificates that are trusted besides the image's own."""

_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "CURL_CA_BUNDLE")
_LONGEST = 1 << 20


def use_cluster_settings() -> None:
    """Put what is mounted into the environment, for us, for libraries and for programs."""
    if not MOUNTED.is_dir():
        return
    for key, names in VARIABLES.items():
        value = _read(MOUNTED / key).decode("utf-8", "replace").strip()
        if value and not any(name in os.environ for name in names):
            os.environ[names[0]] = value
    if own := _read(MOUNTED / CERTIFICATES).strip():
        bundle = _bundle(own)
        os.environ.update(dict.fromkeys(_BUNDLES, str(bundle)))


def _bundle(own: bytes) -> Path:
    """Write certificates of one's own below those that are trusted anyway."""
    import atexit
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="kfp-bento-ca-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    trusted = _trusted()
    bundle = folder / "bundle.pem"
    bundle.write_bytes(b"\n".join([_read(trusted), own, b""]) if trusted else own + b"\n")
    return bundle


def _trusted() -> Path | None:
    """Give the bundle that is in use: what the environment names, the system's, or certifi's."""
    import ssl

    named = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    if named and Path(named).is_file():
        return Path(named)
    try:
        import certifi
    except ImportError:
        return None
    return Path(certifi.where())


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_LONGEST)
    except OSError:
        return b""
