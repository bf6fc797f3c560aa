"""What stores and their clients say when something fails, in words that people can use."""

from __future__ import annotations

from dataclasses import dataclass

from kfp_bento.runtime.errors import StorageError
from kfp_bento.runtime.proxies import ProxyTrouble, proxy_for, proxy_trouble, refused_by_proxy
from kfp_bento.runtime.storage.place import BrokenTransferError, NotThereError

_ABSENT = {"NoSuchKey", "NoSuchObject", "ResourceNotFound", "NotFound", "404"}
_CHANGED = {"PreconditionFailed", "412", "InvalidRange", "416"}
_DENIED = {"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_BUSY = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "500", "502", "503"}


@dataclass(frozen=True)
class Refusals:
    """The failures of one bucket, as errors.

    Attributes:
        bucket: Its address, `scheme://bucket`.
        endpoint: The variable that says where the store is.
        credentials: The variables that say who asks.
        url: Where the store is.
    """

    bucket: str
    endpoint: str
    credentials: tuple[str, str]
    url: str

    def of_store(self, key: str, code: str, said: str) -> StorageError:
        """Give what an answer of the store means: S3's codes, or the status where it has none."""
        what = self.address(key)
        if code == "407" and (proxy := proxy_for(self.url)):
            return _at_proxy(refused_by_proxy(proxy, self.url, f"407 {said}".rstrip()))
        if code in _ABSENT:
            return NotThereError(f"There is no object {what}.")
        if code in _CHANGED:
            return StorageError(
                f"{what} changed while it was being read.", hint="Run the same command again."
            )
        if code in _DENIED:
            return self.denied(key, f"{code}: {said}" if said else code)
        if code in _BUSY:
            return self.busy(key, code)
        if code == "NoSuchBucket":
            return StorageError(
                f"There is no bucket for {what}.",
                hint=f"Make it first, or look at {self.endpoint}.",
            )
        return StorageError(f"The store refuses {what}: {code} {said}".rstrip(" .") + ".")

    def denied(self, key: str, why: str) -> StorageError:
        """Say that whoever asks may not."""
        return StorageError(
            f"The store does not let us use {self.address(key)}: {why.rstrip('.')}.",
            hint=f"Give credentials in the environment ({', '.join(self.credentials)}), in the "
            "mounted Secret, or by the pod's identity.",
        )

    def busy(self, key: str, why: str) -> StorageError:
        """Say that the store did answer, and may do better later."""
        return BrokenTransferError(
            f"The store of {self.address(key)} is too busy or fails ({why}).",
            hint="Try again later.",
        )

    def untrusted(self, key: str) -> StorageError:
        """Say that nobody vouches for the store's certificate."""
        return StorageError(
            f"The certificate of the store of {self.address(key)} is not trusted.",
            hint="Name the file of your authority in AWS_CA_BUNDLE, or put it as ca.crt into the "
            "mounted Secret.",
        )

    def broken(self, key: str, failure: BaseException) -> StorageError:
        """Say that a connection broke, or never came about, be it for the proxy before it."""
        inner = getattr(failure, "kwargs", {}).get("error")  # as botocore keeps it
        cause = inner if isinstance(inner, BaseException) else failure
        if trouble := proxy_trouble(cause, self.url):
            return _at_proxy(trouble)
        return BrokenTransferError(
            f"{self.address(key)}: the connection to the store broke ({type(failure).__name__}).",
            hint=f"Look at {self.endpoint} and whether the store runs.",
        )

    def unusable(self, key: str, failure: BaseException) -> StorageError:
        """Say what a client objects to."""
        return StorageError(f"{self.address(key)} cannot be used: {failure}.")

    def address(self, key: str) -> str:
        """Give the address of an object."""
        return f"{self.bucket}/{key}"


def _at_proxy(trouble: ProxyTrouble) -> StorageError:
    kind = StorageError if trouble.lasting else BrokenTransferError
    return kind(trouble.message, hint=trouble.hint)
