"""An API server that only a proxy reaches, as kubectl would reach it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from proxy_server import ProxyServer
from stub_api_server import ApiServer, serve_api, write_kubeconfig

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection, connect
from kfp_bento.runtime.errors import DeploymentError, InvalidInput

KINDS = {"v1": {"pods": "Pod"}}
NAMED = "api.cluster.example:6443"
DEAD = "http://127.0.0.1:9"


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with serve_api(ApiServer(kinds=KINDS)) as server:
        yield server


@pytest.fixture
def proxy(api: ApiServer) -> Iterator[ProxyServer]:
    with ProxyServer({NAMED: api.url.removeprefix("http://")}) as standing:
        yield standing


@pytest.fixture(autouse=True)
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    config = write_kubeconfig(tmp_path / "kubeconfig", f"http://{NAMED}")
    monkeypatch.setenv("KUBECONFIG", str(config))
    return config


def name_proxy(kubeconfig: Path, address: str) -> None:
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["proxy-url"] = address
    kubeconfig.write_text(yaml.safe_dump(config))


def ask() -> None:
    with connect(patience_seconds=1) as cluster:
        assert cluster.knows("v1", "Pod")


def test_the_kubeconfigs_proxy_is_asked_before_the_environments(
    proxy: ProxyServer, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", DEAD)
    monkeypatch.setenv("NO_PROXY", "*")  # which kubectl does not ask either
    name_proxy(kubeconfig, proxy.url)
    ask()
    assert set(proxy.asked) == {NAMED}


def test_the_context_says_whose_proxy_it_is(proxy: ProxyServer, kubeconfig: Path) -> None:
    name_proxy(kubeconfig, proxy.url)
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"].append({"name": "far", "cluster": {"server": "http://127.0.0.1:9"}})
    config["contexts"].append({"name": "far", "context": {"cluster": "far", "user": "me"}})
    kubeconfig.write_text(yaml.safe_dump(config))
    far = ClusterConnection("far", patience_seconds=0)
    with pytest.raises(DeploymentError, match="9 does not answer"):
        far.knows("v1", "Pod")
    assert proxy.asked == []


@pytest.mark.parametrize("form", ["http://{}", "{}", "ali:secret@{}"])
def test_the_environments_proxy_is_asked(
    proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", form.format(proxy.host))
    ask()
    assert set(proxy.asked) == {NAMED}
    assert set(proxy.accounts) == ({"Basic YWxpOnNlY3JldA=="} if "ali" in form else set())


def test_a_cluster_in_a_listed_network_is_asked_directly(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_kubeconfig(tmp_path / "near", api.url)
    monkeypatch.setenv("KUBECONFIG", str(config))
    monkeypatch.setenv("HTTP_PROXY", DEAD)
    ask()


def test_the_proxys_trouble_is_not_the_api_servers(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "")
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://{NAMED}"
    kubeconfig.write_text(yaml.safe_dump(config))
    with ProxyServer(refuses="407 Proxy Authentication Required") as proxy:
        name_proxy(kubeconfig, f"http://ali:secret@{proxy.host}")
        with pytest.raises(DeploymentError, match="407 Proxy Authentication") as failure:
            ask()
    assert failure.value.message.startswith(f"The proxy {proxy.url} does not lead to {NAMED}")
    assert "secret" not in str(failure.value)


def test_a_proxy_that_is_none_is_told_by_where_it_stands(kubeconfig: Path) -> None:
    name_proxy(kubeconfig, "socks5://127.0.0.1:1080")
    with pytest.raises(InvalidInput, match="kubeconfig's proxy-url names a proxy of the kind"):
        ask()
