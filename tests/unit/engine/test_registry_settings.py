"""What `docker info` says of proxies."""

from sampan.proxies import Proxies


def test_nobody_sees_a_proxys_password() -> None:
    shown = Proxies("http://user:pass@proxy:3128", "proxy:3128", "a,b").shown()
    assert shown == ("http://xxxxx:xxxxx@proxy:3128", "proxy:3128", "a,b")
