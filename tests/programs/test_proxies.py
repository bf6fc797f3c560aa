"""Which proxy is used is one rule for all: that of Go's programs, and of clusters' lists."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from proxy_server import ProxyServer
from servers import free_port

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.pools import ConnectionPools
from kfp_bento.runtime.proxies import (
    for_other_programs,
    is_exempt,
    parsed_proxy,
    proxy_for,
    proxy_trouble,
)

# Each pair as golang.org/x/net/http/httpproxy documents and tests it.
DIRECT = [
    ("10.0.0.0/8,.svc,.cluster.local", "https://10.1.2.3:5000"),
    (".svc,.cluster.local", "https://registry.images.svc"),
    ("fd00::/8", "https://[fd00::5]:5000"),
    ("fd00::5", "https://[fd00::5]:5000"),
    ("[fd00::5]", "https://[fd00::5]:5000"),
    ("[fd00::5]:5000", "https://[fd00::5]:5000"),
    ("10.0.0.0/8", "https://[::ffff:10.1.2.3]"),
    ("10.1.2.3", "https://10.1.2.3:5000"),
    ("10.1.2.3:5000", "https://10.1.2.3:5000"),
    ("*.corp.example", "https://a.corp.example"),
    (".corp.example", "https://a.corp.example"),
    ("corp.example", "https://corp.example"),
    ("corp.example", "https://a.corp.example:8443"),
    ("a.example:443", "https://a.example"),
    ("a.example:80", "http://a.example"),
    (" Other.example , A.EXAMPLE ", "https://a.example"),
    ("*", "https://anything.example"),
    ("", "http://localhost:5000"),
    ("", "https://127.8.9.1"),
    ("", "https://[::1]:5000"),
]
BY_PROXY = [
    ("", "https://a.example"),
    ("10.0.0.0/8", "https://11.1.2.3"),
    ("10.0.0.0/8", "https://ten.example"),
    ("fd00::5", "https://[fd00::6]"),
    ("[fd00::5]:5001", "https://[fd00::5]:5000"),
    ("10.1.2.3:5001", "https://10.1.2.3:5000"),
    ("2.3", "https://10.1.2.3"),
    (".corp.example", "https://corp.example"),
    ("*.corp.example", "https://corp.example"),
    ("corp.example", "https://notcorp.example"),
    ("a.example:8443", "https://a.example"),
    (",,:80,.", "https://a.example"),
    ("10.0.0.0/99", "https://10.0.0.0"),
    ("", "https://localhost.example"),
]


@pytest.mark.parametrize(("listed", "url"), DIRECT)
def test_what_is_listed_is_asked_directly(listed: str, url: str) -> None:
    assert is_exempt(urlsplit(url), listed)


@pytest.mark.parametrize(("listed", "url"), BY_PROXY)
def test_what_is_not_listed_is_asked_by_the_proxy(listed: str, url: str) -> None:
    assert not is_exempt(urlsplit(url), listed)


def test_variables_are_chosen_by_scheme_and_may_be_in_small_letters() -> None:
    variables = {"https_proxy": "http://small:1", "HTTP_PROXY": "http://plain:2"}

    def chosen(url: str) -> str:
        proxy = proxy_for(url, variables)
        return proxy.address if proxy else ""

    assert chosen("https://a.example") == "http://small:1"
    assert chosen("http://a.example") == "http://plain:2"
    variables["HTTPS_PROXY"] = "http://capital:3"
    assert chosen("https://a.example") == "http://capital:3"
    variables["no_proxy"] = "a.example"
    assert chosen("https://a.example") == ""


def test_what_has_no_variable_of_its_scheme_is_asked_by_that_for_all() -> None:
    variables = {"all_proxy": "http://all:1", "HTTP_PROXY": "http://plain:2"}
    assert proxy_for("http://a.example", variables).address == "http://plain:2"  # type: ignore[union-attr]
    chosen = proxy_for("https://a.example", variables)
    assert chosen is not None
    assert (chosen.address, chosen.named_by) == ("http://all:1", "ALL_PROXY")
    assert proxy_for("https://a.example", variables | {"NO_PROXY": ".example"}) is None
    assert proxy_for("s3://bucket", variables) is None
    with pytest.raises(InvalidInput, match="ALL_PROXY names a proxy of the kind socks5"):
        proxy_for("https://a.example", {"ALL_PROXY": "socks5://proxy:1080"})


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("proxy.corp.example:3128", "http://proxy.corp.example:3128"),
        ("user:p%40ss@proxy:3128", "http://proxy:3128"),
        ("http://proxy", "http://proxy:80"),
        ("https://proxy", "https://proxy:443"),
        ("[fd00::1]:3128", "http://[fd00::1]:3128"),
    ],
)
def test_a_proxy_without_a_scheme_is_plain_http(given: str, address: str) -> None:
    assert parsed_proxy(given, "HTTPS_PROXY").address == address


@pytest.mark.parametrize("given", ["http://", "two words", "http://proxy:port", "://", "[::1"])
def test_what_is_no_address_is_told_by_the_name_of_its_variable(given: str) -> None:
    with pytest.raises(InvalidInput, match="HTTPS_PROXY is no address"):
        parsed_proxy(given, "HTTPS_PROXY")


def test_another_kind_of_proxy_is_said_not_to_be_supported() -> None:
    with pytest.raises(InvalidInput, match="of the kind socks5"):
        parsed_proxy("socks5://proxy:1080", "HTTPS_PROXY")


def test_an_account_reaches_the_proxy_and_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    with ProxyServer(refuses="403 Forbidden") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"ali:the%2Fsecret@{proxy.host}")
        with pytest.raises(Exception, match="proxy") as failure:
            ConnectionPools().request("GET", "https://a.example", retries=False)
    assert proxy.accounts == ["Basic YWxpOnRoZS9zZWNyZXQ="]
    trouble = proxy_trouble(failure.value, "https://a.example")
    assert trouble is not None
    assert (proxy.url in trouble.message, "secret" in repr(trouble)) == (True, False)
    assert "secret" not in repr(proxy_for("https://a.example"))


def test_a_redirect_chooses_its_proxy_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with ProxyServer() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "direct.example")
        pools = ConnectionPools()
        answer = pools.request("GET", "http://a.example/")
        assert (answer.status, proxy.asked) == (502, ["a.example:80"])
        through = pools._manager(proxy_for("http://a.example"))  # type: ignore[arg-type]
        with pytest.raises(Exception, match="Failed to resolve"):
            through.urlopen("GET", "http://direct.example/", retries=False)
    assert proxy.asked == ["a.example:80"]


def test_trouble_that_is_not_the_proxys_is_not_called_so() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Exception, match="refused") as failure:
        ConnectionPools().request("GET", url, retries=False)
    assert proxy_trouble(failure.value, url) is None


@pytest.mark.parametrize(
    ("listed", "url", "direct"),
    [
        ("", "http://127.0.0.1:8080", True),
        ("", "http://[::1]:8080", True),
        ("", "http://localhost:8080", True),
        ("*.corp.example", "https://index.corp.example", True),
        ("index.corp.example:8443", "https://index.corp.example:8443", True),
        ("index.corp.example:8443", "https://index.corp.example", False),
        ("fd00::/8", "https://[fd00::5]:5000", True),
        ("[fd00::5]", "https://[fd00::5]:5000", True),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("other.example", "https://index.corp.example", False),
    ],
)
def test_programs_with_rules_of_their_own_are_told_what_ours_says(
    listed: str, url: str, direct: bool
) -> None:
    """As requests, which MLflow's client is built on, sees it; uv is asked elsewhere."""
    from requests.utils import should_bypass_proxies

    variables = {"HTTPS_PROXY": "http://proxy:3128", "HTTP_PROXY": "proxy:3128", "NO_PROXY": listed}
    told = for_other_programs([url], variables)
    assert told["NO_PROXY"] == told["no_proxy"]
    assert should_bypass_proxies(url, told["no_proxy"]) is direct


def test_where_there_is_no_proxy_others_are_told_nothing() -> None:
    assert for_other_programs(["https://a.example"], {"NO_PROXY": "*.b.example"}) == {}


def test_what_is_asked_directly_altogether_is_so_for_others() -> None:
    variables = {"ALL_PROXY": "http://proxy:3128", "no_proxy": "*"}
    assert for_other_programs([], variables)["NO_PROXY"] == "*"


def test_a_proxy_is_named_to_others_with_its_scheme_and_in_small_letters() -> None:
    told = for_other_programs([], {"HTTPS_PROXY": "ali:p%40ss@proxy:3128"})
    assert told["https_proxy"] == told["HTTPS_PROXY"] == "http://ali:p%40ss@proxy:3128"
    assert "http_proxy" not in told
    every = for_other_programs([], {"all_proxy": "https://proxy:3128"})
    assert {every[name] for name in ("http_proxy", "https_proxy")} == {"https://proxy:3128"}
    # What is none of ours may be one of theirs.
    assert for_other_programs([], {"ALL_PROXY": "socks5://p:1"})["http_proxy"] == "socks5://p:1"
