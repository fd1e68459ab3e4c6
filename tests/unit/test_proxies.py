"""NO_PROXY means what it means to Go's programs."""

import pytest

from sampan.errors import SystemFailure
from sampan.proxies import Proxies


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("", "https://registry.example/v2/", False),
        ("", "https://localhost:5000/v2/", True),
        ("", "http://127.0.0.9:5000/v2/", True),
        ("", "http://[::1]:5000/v2/", True),
        ("registry.example", "https://registry.example/v2/", True),
        ("example", "https://registry.example/v2/", True),
        (".example", "https://registry.example/v2/", True),
        (".registry.example", "https://registry.example/v2/", False),
        ("*.example", "https://registry.example/v2/", True),
        ("ample", "https://registry.example/v2/", False),
        ("registry.example:5000", "https://registry.example/v2/", False),
        ("other, registry.example:443", "https://registry.example/v2/", True),
        ("10.0.0.0/8", "https://10.1.2.3/v2/", True),
        ("10.0.0.0/8", "https://11.1.2.3/v2/", False),
        ("10.1.2.3", "https://10.1.2.3:5000/v2/", True),
        ("2001:db8::/32", "https://[2001:db8::1]:5000/v2/", True),
        ("nonsense/99", "https://registry.example/v2/", False),
        ("*", "https://registry.example/v2/", True),
    ],
)
def test_who_is_reached_directly(no_proxy: str, url: str, direct: bool) -> None:
    proxies = Proxies("proxy:3128", "http://secure:3128", no_proxy)
    expected = None if direct else "http://secure:3128" if url.startswith("https") else "http://proxy:3128"
    assert proxies.proxy_for(url) == expected


def test_a_proxy_without_a_scheme_is_http() -> None:
    assert Proxies(http="proxy:3128").proxy_for("http://registry.example/") == "http://proxy:3128"


def test_the_file_over_the_environment() -> None:
    environment = {"HTTPS_PROXY": "http://a", "https_proxy": "http://b", "no_proxy": "c"}
    assert Proxies.of(environment, {}) == Proxies("", "http://a", "c")
    assert Proxies.of(environment, {"https-proxy": "http://d"}) == Proxies("", "http://d", "c")


def test_a_proxy_that_speaks_something_else() -> None:
    proxies = Proxies(https="socks5://p:1080")
    assert proxies.problem() == 'invalid proxy "socks5://p:1080": only http:// and https:// proxies are spoken to'
    with pytest.raises(SystemFailure, match="invalid proxy"):
        proxies.proxy_for("https://registry.example/")
    assert proxies.proxy_for("http://registry.example/") is None
    assert Proxies("p:1", "HTTPS://p:1").problem() == ""
