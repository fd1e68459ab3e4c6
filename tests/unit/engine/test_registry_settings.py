"""What `docker info` says of registries and proxies."""

from sampan.distribution.proxies import Proxies
from sampan.engine.registries import RegistrySettings


def test_registries_in_info() -> None:
    settings = RegistrySettings(mirrors=("https://mirror.example",), insecure_registries=("10.1.0.0/16", "host:5000", "bad/99"))
    assert settings.shown() == {
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8", "10.1.0.0/16"],
        "IndexConfigs": {
            "host:5000": {"Name": "host:5000", "Mirrors": [], "Secure": False, "Official": False},
            "bad/99": {"Name": "bad/99", "Mirrors": [], "Secure": False, "Official": False},
            "docker.io": {"Name": "docker.io", "Mirrors": ["https://mirror.example/"], "Secure": True, "Official": True},
        },
        "Mirrors": ["https://mirror.example/"],
    }


def test_nobody_sees_a_proxys_password() -> None:
    shown = Proxies("http://user:pass@proxy:3128", "proxy:3128", "a,b").shown()
    assert shown == ("http://xxxxx:xxxxx@proxy:3128", "proxy:3128", "a,b")
