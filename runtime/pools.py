"""Connections to any host, each through the proxy that it needs."""

from __future__ import annotations

from typing import Any

import urllib3

from kfp_bento.runtime.proxies import Proxy, proxy_for


class ConnectionPools(urllib3.PoolManager):
    """urllib3's connections, directly or through a proxy as `proxy_for` says for each request.

    A redirect chooses anew, since it may lead from a host behind a proxy to one before it.

    Args:
        options: As for `urllib3.PoolManager`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._options = options
        self._through: dict[Proxy, _Through] = {}
        self._classes: dict[str, Any] | None = None

    def use_pools(self, classes: dict[str, Any]) -> None:
        """Make connections of classes of one's own, by scheme."""
        self._classes = self.pool_classes_by_scheme = classes

    def urlopen(self, method: str, url: str, redirect: bool = True, **more: Any) -> Any:  # type: ignore[override]
        """Make a request; see `urllib3.PoolManager.urlopen`."""
        proxy = proxy_for(url)
        if proxy is None:
            return super().urlopen(method, url, redirect, **more)
        return self._manager(proxy).urlopen(method, url, redirect, **more)

    def clear(self) -> None:
        """Close all connections that nobody uses."""
        super().clear()
        for manager in list(self._through.values()):
            manager.clear()

    def _manager(self, proxy: Proxy) -> _Through:
        if proxy not in self._through:
            made = _Through(self, proxy, **self._options)
            if self._classes:
                made.pool_classes_by_scheme = self._classes
            self._through[proxy] = made
        return self._through[proxy]


class _Through(urllib3.ProxyManager):
    """Connections through one proxy."""

    def __init__(self, owner: ConnectionPools, proxy: Proxy, **options: Any) -> None:
        super().__init__(proxy.address, proxy_headers=proxy.headers, **options)
        self._owner, self._proxy = owner, proxy

    def urlopen(self, method: str, url: str, redirect: bool = True, **more: Any) -> Any:  # type: ignore[override]
        if proxy_for(url) != self._proxy:
            return self._owner.urlopen(method, url, redirect, **more)
        return super().urlopen(method, url, redirect, **more)
