"""Annotations that Yatai's operators read, and where: in another place nothing reads them."""

from __future__ import annotations

from collections.abc import Mapping

PREFIX = "yatai.ai/"
READ_ELSEWHERE: Mapping[str, str] = {
    PREFIX: "Yatai's operators read it on a BentoDeployment or BentoRequest only.",
}
NOT_ON_PODS: Mapping[str, str] = {
    PREFIX: "Yatai's operator reads its switches from annotations=..., not from pods.",
}
