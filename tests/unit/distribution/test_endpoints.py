"""Which endpoints are asked for an image, in what order."""

import pytest

from sampan.distribution.endpoints import Endpoint, endpoints_of
from sampan.registryhosts import HUB, is_insecure

MIRROR = "https://m.example/"
HTTPS_HUB = Endpoint(f"https://{HUB}")


@pytest.mark.parametrize(
    ("domain", "mirrors", "insecure", "found"),
    [
        ("docker.io", [], [], [HTTPS_HUB]),
        ("docker.io", [MIRROR, "http://n:5000"], ["n:5000"],
         [Endpoint("https://m.example", mirror=True), Endpoint("http://n:5000", insecure=True, mirror=True), HTTPS_HUB]),
        ("r.example", [MIRROR], [], [Endpoint("https://r.example")]),
        ("r.example:5000", [], ["r.example:5000"],
         [Endpoint("https://r.example:5000", insecure=True), Endpoint("http://r.example:5000", insecure=True)]),
        ("localhost:5000", [], [],
         [Endpoint("https://localhost:5000", insecure=True), Endpoint("http://localhost:5000", insecure=True)]),
    ],
)  # fmt: skip
def test_order(domain: str, mirrors: list[str], insecure: list[str], found: list[Endpoint]) -> None:
    assert endpoints_of(domain, mirrors, insecure) == [one._replace(insecure_registries=tuple(insecure)) for one in found]


def test_mirrors_of_one_registry_are_told_which() -> None:
    own = ["https://a.example", "http://127.0.0.1:5000/ghcr/"]
    mirrors = [
        Endpoint("https://a.example", mirror=True, namespace="ghcr.io"),
        Endpoint("http://127.0.0.1:5000/ghcr", insecure=True, mirror=True, namespace="ghcr.io"),
    ]
    assert endpoints_of("ghcr.io", [MIRROR], [], own) == [*mirrors, Endpoint("https://ghcr.io")]
    hub = endpoints_of("docker.io", [MIRROR], [], ["https://a.example"])
    assert [(one.url, one.namespace) for one in hub] == [("https://m.example", ""), ("https://a.example", "docker.io"), (HTTPS_HUB.url, "")]


@pytest.mark.parametrize(
    ("host", "listed", "insecure"),
    [
        ("localhost", [], True),
        ("127.0.0.1:5000", [], True),
        ("127.9.9.9", [], True),
        ("[::1]:5000", [], True),
        ("10.1.2.3:5000", [], False),
        ("10.1.2.3:5000", ["10.1.0.0/16"], True),
        ("10.2.2.3:5000", ["10.1.0.0/16"], False),
        ("[fd00::1]:5000", ["fd00::/8"], True),
        ("r.example:5000", ["r.example"], False),
        ("r.example", ["r.example"], True),
        ("10.1.2.3:5000", ["10.1.2.3"], False),
        ("r.example:5000", ["http://r.example:5000"], True),
        ("r.example:5000", ["r.example:5001"], False),
        ("r.example", ["not a network/33", "r.example.org"], False),
        ("localhost.example", [], False),
    ],
)
def test_who_may_do_without_tls(host: str, listed: list[str], insecure: bool) -> None:
    assert is_insecure(host, listed) is insecure
