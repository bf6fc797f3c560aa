"""Keys that sign images and those that verify: PEM, as openssl and cosign write it.

A private key comes from a file, from `KFP_BENTO_SIGNING_KEY` or from the Secret that pipelines
mount; never from a parameter. A public key is no secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from kfp_bento.runtime.errors import InvalidInput, in_a_pipeline
from kfp_bento.runtime.files import parse_json, read_small_file

KEY_VARIABLE = "KFP_BENTO_SIGNING_KEY"
PASSWORD_VARIABLE = "COSIGN_PASSWORD"  # noqa: S105 - its name
MOUNTED_KEY = Path("/etc/kfp-bento/signing/cosign.key")
"""As `cosign generate-key-pair k8s://NAMESPACE/NAME` names it in a Secret."""
_MOUNTED_PASSWORD = "cosign.password"  # noqa: S105 - a file's name

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s*(.*?)\s*-----END \1-----", re.DOTALL)
_OF_COSIGN = {"ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"}
_LIMIT = 64 << 10
# What deriving a key from a password may take: four times what cosign asks for.
_MOST_WORK = 1 << 21
_SHA256 = hashes.SHA256()
_ECDSA = ec.ECDSA(_SHA256)
_DETERMINISTIC = ec.ECDSA(_SHA256, deterministic_signing=True)
_WANTED = (
    "Make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`, or with "
    "`cosign generate-key-pair`."
)


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are verified with.

    Attributes:
        fingerprint: SHA-256 of the key (`SubjectPublicKeyInfo`, DER), `sha256:…`.
    """

    fingerprint: str
    _key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey = field(repr=False, compare=False)

    def verifies(self, signature: bytes, content: bytes) -> bool:
        """Say whether this key's owner signed the content."""
        try:
            if isinstance(self._key, rsa.RSAPublicKey):
                self._key.verify(signature, content, padding.PKCS1v15(), _SHA256)
            else:
                self._key.verify(signature, content, _ECDSA)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """A key that signs; it never shows in a repr.

    Attributes:
        public: What verifies its signatures.
    """

    public: PublicKey
    _key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    def sign(self, content: bytes) -> bytes:
        """Sign the content: the same bytes each time (ECDSA by RFC 6979, SHA-256)."""
        return self._key.sign(content, _DETERMINISTIC)


def parse_public_keys(text: str, name: str) -> tuple[PublicKey, ...]:
    """Read public keys in PEM, one or more; line breaks may have become blanks.

    Args:
        text: The keys.
        name: What they are called in an error.

    Raises:
        InvalidInput: There is none, or it is of a kind that is not supported.
    """
    found = []
    for kind, body in _BLOCK.findall(text):
        if "PRIVATE" in kind:
            raise InvalidInput(
                f"{name} holds a private key, which verifies nothing and is nobody else's.",
                hint="Give its public half: `openssl pkey -in KEY -pubout`, or cosign.pub.",
            )
        try:
            key = serialization.load_der_public_key(_decoded(body))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise _no_key(name, "a public key in PEM") from error
        found.append(_public(key, name))
    if not found:
        raise _no_key(name, "a public key in PEM")
    return tuple(found)


def read_public_keys(file: Path) -> str:
    """Give the public keys in a file as they stand there; see `parse_public_keys`."""
    text = _read(file)
    parse_public_keys(text, str(file))
    return text


def load_public_keys(file: Path) -> tuple[PublicKey, ...]:
    """Read the public keys in a file; see `parse_public_keys`."""
    return parse_public_keys(_read(file), str(file))


def load_signing_key(file: Path) -> SigningKey:
    """Read the private key in a file.

    Its password, if it has one, is in `COSIGN_PASSWORD` or in the file `cosign.password` beside it.

    Raises:
        InvalidInput: It cannot be read or decrypted, or is no ECDSA key on P-256.
    """
    return _signing_key(_read(file), str(file), file.parent / _MOUNTED_PASSWORD)


def own_signing_key() -> SigningKey | None:
    """Give the key that images are to be signed with; None if there is none.

    That is what `KFP_BENTO_SIGNING_KEY` holds, the key itself or the name of its file, else the key
    in the Secret that pipelines mount.

    Raises:
        InvalidInput: It cannot be used.
    """
    if given := os.environ.get(KEY_VARIABLE, "").strip():
        if given.startswith("-----BEGIN "):
            return _signing_key(given, KEY_VARIABLE, None)
        return load_signing_key(Path(given))
    return load_signing_key(MOUNTED_KEY) if MOUNTED_KEY.exists() else None


def fingerprints(keys: Iterable[PublicKey]) -> str:
    """Give keys as people are told of them."""
    return " or ".join(key.fingerprint for key in keys)


def _public(key: Any, name: str) -> PublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise _no_key(name, "an ECDSA or RSA key")
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PublicKey(f"sha256:{hashlib.sha256(der).hexdigest()}", key)


def _signing_key(text: str, name: str, password_file: Path | None) -> SigningKey:
    found = _BLOCK.search(text)
    if found is None or "PRIVATE KEY" not in found[1]:
        raise _no_key(name, "a private key in PEM")
    locked, password = "ENCRYPTED" in f"{found[1]}{found[2][:200]}", _password(password_file)
    if locked and password is None:
        raise InvalidInput(
            f"The key in {name} has a password, and none is given.",
            hint=f"Set {PASSWORD_VARIABLE}. "
            + in_a_pipeline("signing_secret", "it as cosign.password"),
        )
    try:
        if found[1] in _OF_COSIGN:
            key = serialization.load_der_private_key(_unlocked(found[2], password or b""), None)
        else:
            pem = f"-----BEGIN {found[1]}-----\n{found[2]}\n-----END {found[1]}-----\n"
            key = serialization.load_pem_private_key(pem.encode(), password if locked else None)
    except _WrongPassword as error:
        raise InvalidInput(
            f"The key in {name} cannot be decrypted: the password is another one.",
            hint=f"Look at {PASSWORD_VARIABLE}.",
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        what = "a private key that can be read" + ", or its password is another one" * locked
        raise _no_key(name, what) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise _no_key(name, "an ECDSA key on the curve P-256")
    return SigningKey(_public(key.public_key(), name), key)


class _WrongPassword(Exception):
    """Whatever was encrypted does not come out."""


def _unlocked(body: str, password: bytes) -> bytes:
    """Decrypt cosign's own form (scrypt, then NaCl's secretbox): a key in PKCS#8.

    Raises:
        ValueError: It has another form.
    """
    from nacl.exceptions import CryptoError
    from nacl.secret import SecretBox

    try:
        document = parse_json(_decoded(body))
        kdf, cipher = document["kdf"], document["cipher"]
        if (kdf["name"], cipher["name"]) != ("scrypt", "nacl/secretbox"):
            raise ValueError("another cipher")
        n, r, p = (kdf["params"][name] for name in ("N", "r", "p"))
        if not all(type(item) is int and item > 0 for item in (n, r, p)) or n * r * p > _MOST_WORK:
            raise ValueError("parameters that take too long")
        salt, nonce, content = map(_decoded, (kdf["salt"], cipher["nonce"], document["ciphertext"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("another form") from error
    memory = 130 * n * r * p + (1 << 20)
    derived = hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=32)
    try:
        return SecretBox(derived).decrypt(content, nonce)
    except CryptoError as error:
        raise _WrongPassword from error


def _password(file: Path | None) -> bytes | None:
    if (given := os.environ.get(PASSWORD_VARIABLE)) is not None:
        return given.encode()
    if file is not None and file.exists():
        return _read(file).rstrip("\r\n").encode()
    return None


def _decoded(text: str) -> bytes:
    """Decode base64; blanks and line breaks do not count.

    Raises:
        ValueError: It is none.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error


def _read(file: Path) -> str:
    try:
        return read_small_file(file, _LIMIT).decode()
    except OSError as error:
        raise InvalidInput(f"The key {file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise _no_key(str(file), "a key in PEM") from error


def _no_key(name: str, wanted: str) -> InvalidInput:
    return InvalidInput(f"{name} does not hold {wanted}.", hint=_WANTED)
