"""What is measured, and what our side is to reach."""

from __future__ import annotations

from dataclasses import dataclass

_MEMORY = 150_000_000


@dataclass(frozen=True)
class Limit:
    """An upper limit of one figure of our side: a number, a share of the peer's or of the model's.

    Attributes:
        figure: A figure's name, as in the report.
        at_most: The limit.
        of: "" (the limit is the number itself), "peer" (a share of the peer's same figure) or
            "model" (a share of the model's bytes).
    """

    figure: str
    at_most: float
    of: str = ""


@dataclass(frozen=True)
class Case:
    """One situation in which an image is built.

    Attributes:
        name: What `--cases` calls it.
        title: What it is, in words.
        bento: The bento that is built.
        before: The bento whose image is in the registry already; "" for none.
        keeps_state: Whether our builder finds the cache of the build before. If not, it starts
            like a new pod: with nothing but the registry and the package cache.
        peer_keeps_layers: Whether the peer finds the layers of the build before in its storage.
            If not, it builds without layer caching.
        packages: Whether the wheels are in the package cache.
        starts: Whether containers of the image are started and asked.
        reach: What our side is to reach.
    """

    name: str
    title: str
    bento: str
    before: str = ""
    keeps_state: bool = False
    peer_keeps_layers: bool = False
    packages: bool = True
    starts: bool = False
    reach: tuple[Limit, ...] = ()

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What our side is to reach here, and in every case."""
        return (*self.reach, Limit("peak_rss", _MEMORY))

    @property
    def large(self) -> bool:
        """Whether the bento holds a large model."""
        return self.bento.startswith("large")


_FIRST = (Limit("seconds", 0.25, "peer"), Limit("unpacked_bytes", 0.75, "peer"))
_START = Limit("start_seconds", 0.8, "peer")
_UNCHANGED = (Limit("seconds", 0.7), Limit("requests", 10), Limit("bytes_sent", 0))
_SOURCE = (Limit("seconds", 1), Limit("bytes_sent", 100_000))

CASES = (
    Case("first", "first build ever", "small", starts=True, reach=(*_FIRST, _START)),
    Case(
        "first-download",
        "first build ever, package cache empty",
        "small",
        packages=False,
        reach=_FIRST[1:],
    ),
    Case(
        "new-bento",
        "new bento, dependencies built before",
        "small-other",
        before="small",
        reach=(Limit("seconds", 2),),
    ),
    Case("unchanged", "nothing changed", "small", before="small", reach=_UNCHANGED),
    Case(
        "unchanged-cached",
        "nothing changed, local caches kept",
        "small",
        before="small",
        keeps_state=True,
        peer_keeps_layers=True,
        reach=_UNCHANGED,
    ),
    Case(
        "source",
        "source changed",
        "small-source",
        before="small",
        peer_keeps_layers=True,
        reach=_SOURCE,
    ),
    Case(
        "dependency",
        "one wheel added",
        "small-wheel",
        before="small",
        peer_keeps_layers=True,
        reach=(Limit("seconds", 0.06, "peer"),),
    ),
    Case(
        "large-source",
        "source changed, large model",
        "large-source",
        before="large",
        peer_keeps_layers=True,
        reach=_SOURCE,
    ),
    Case(
        "large-model",
        "large model changed",
        "large-model",
        before="large",
        peer_keeps_layers=True,
        reach=(
            Limit("seconds", 3),
            Limit("bytes_sent", 1.02, "model"),
            # What the interpreter reads to start is in there too.
            Limit("bytes_read", 1.1, "model"),
        ),
    ),
)
