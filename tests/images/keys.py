"""Keys for tests, made by openssl and by cosign's own form."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest


def openssl_pair(folder: Path, name: str = "cosign", *options: str) -> tuple[Path, Path]:
    """A private key as openssl writes it (PKCS#8), and its public half."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder.mkdir(exist_ok=True)
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    kind = options or ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    subprocess.run([openssl, "genpkey", *kind, "-out", private], check=True, capture_output=True)
    command = [openssl, "pkey", "-in", private, "-pubout", "-out", public]
    subprocess.run(command, check=True, capture_output=True)
    return private, public


def as_cosign_keeps_it(private: Path, password: str) -> str:
    """The same key as `cosign import-key-pair` encrypts it."""
    from nacl.secret import SecretBox

    command = ["openssl", "pkcs8", "-topk8", "-nocrypt", "-in", str(private), "-outform", "DER"]
    der = subprocess.run(command, check=True, capture_output=True).stdout
    salt, nonce, n = b"s" * 32, b"n" * 24, 1 << 10
    derived = hashlib.scrypt(password.encode(), salt=salt, n=n, r=8, p=1, dklen=32)
    locked = SecretBox(derived).encrypt(der, nonce).ciphertext
    document = {
        "kdf": {"name": "scrypt", "params": {"N": n, "r": 8, "p": 1}, "salt": packed(salt)},
        "cipher": {"name": "nacl/secretbox", "nonce": packed(nonce)},
        "ciphertext": packed(locked),
    }
    kind = "ENCRYPTED SIGSTORE PRIVATE KEY"
    body = packed(json.dumps(document).encode())
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    return "\n".join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""])


def packed(content: bytes) -> str:
    return base64.b64encode(content).decode()
