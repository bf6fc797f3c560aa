"""The cluster's DNS, played: names of Services as the API server has them, others from outside.

What CoreDNS answers to an A question for `NAME.NAMESPACE.svc.cluster.local`; a Service without an
address of its own has those of its ready pods.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from pathlib import Path

from kube_api import KubeApi
from servers import ADDRESS

DOMAIN = "cluster.local"
SLICE = ("discovery.k8s.io/v1", "EndpointSlice")
A, NO_SUCH_NAME, NO_ANSWER = 1, 3, 2
SECONDS = 5.0


class ClusterDns:
    """Answers on the node's address while it is entered."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._upstream = _nameserver()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((ADDRESS, 53))

    def __enter__(self) -> ClusterDns:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def addresses(self, name: str) -> list[str] | None:
        """Addresses of a name of the cluster; None where there is no such name."""
        parts = name.removesuffix(f".{DOMAIN}").split(".")
        if len(parts) != 3 or parts[2] != "svc":
            return None
        service = self._api.get("v1", "Service", parts[1], parts[0])
        if service is None:
            return None
        address = service["spec"].get("clusterIP")
        return [address] if address not in (None, "", "None") else self._pods(parts[1], parts[0])

    def _pods(self, namespace: str, service: str) -> list[str]:
        selector = f"kubernetes.io/service-name={service}"
        return [
            address
            for one in self._api.list(*SLICE, namespace, selector)
            for endpoint in one.get("endpoints") or []
            if endpoint["conditions"].get("ready")
            for address in endpoint["addresses"]
        ]

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                question, asker = self._socket.recvfrom(4096)
                threading.Thread(target=self._answer, args=(question, asker), daemon=True).start()

    def _answer(self, question: bytes, asker: tuple[str, int]) -> None:
        name, kind, end = _asked(question)
        if name.endswith(f".{DOMAIN}"):
            try:
                found = self.addresses(name)
            except Exception:  # the API server may be away
                told = _told(question, end, NO_ANSWER, [])
            else:
                code = NO_SUCH_NAME if found is None else 0
                told = _told(question, end, code, (found or []) if kind == A else [])
        else:
            told = self._ask_outside(question) or _told(question, end, NO_ANSWER, [])
        with contextlib.suppress(OSError):
            self._socket.sendto(told, asker)

    def _ask_outside(self, question: bytes) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(SECONDS)
            with contextlib.suppress(OSError):
                asking.sendto(question, (self._upstream, 53))
                return asking.recv(4096)
        return b""


def _nameserver() -> str:
    """The machine's; ours stands before it (`apart`)."""
    words = (line.split() for line in Path("/etc/resolv.conf").read_text().splitlines())
    return [line[1] for line in words if line[:1] == ["nameserver"]][-1]


def _asked(question: bytes) -> tuple[str, int, int]:
    """The name, the kind of record, and where the question ends."""
    labels, at = [], 12
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode("ascii", "replace").lower())
        at += length + 1
    (kind,) = struct.unpack_from("!H", question, at + 1)
    return ".".join(labels), kind, at + 5


def _told(question: bytes, end: int, code: int, addresses: list[str]) -> bytes:
    flags = 0x8580 | code  # an answer, authoritative, recursion wanted and to be had
    head = question[:2] + struct.pack("!HHHHH", flags, 1, len(addresses), 0, 0)
    records = b"".join(
        struct.pack("!HHHIH", 0xC00C, A, 1, 1, 4) + socket.inet_aton(one) for one in addresses
    )
    return head + question[12:end] + records
