"""What `image bootstrap debian:...` asks mmdebstrap for."""

import pytest

from sampan.errors import InvalidArgument
from sampan.image import debian

HOST = debian.read_os_release('PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\nVERSION_CODENAME=bookworm\n# no=thing\n')
TARGETS = """http://mirror.example/debian/|Debian|bookworm
http://mirror.example/debian/|Debian|bookworm-updates
http://other.example/debian-security/|Debian|bookworm-security
http://third.example/apt/|Third|stable
"""


@pytest.mark.parametrize(
    ("name", "suite", "slim", "image"),
    [
        ("debian:bookworm", "bookworm", False, "debian:bookworm"),
        ("debian:bookworm-slim", "bookworm", True, "debian:bookworm-slim"),
        ("debian:12", "bookworm", False, "debian:12"),
        ("debian:13-slim", "trixie", True, "debian:13-slim"),
        ("debian", "bookworm", False, "debian:latest"),
        ("ubuntu:24.04", "noble", False, "ubuntu:24.04"),
    ],
)
def test_names(name: str, suite: str, slim: bool, image: str) -> None:
    base = debian.parse_base(name, (), HOST)
    assert (base.suite, base.slim, base.name) == (suite, slim, image)


@pytest.mark.parametrize(
    ("name", "include", "message"),
    [
        ("fedora:40", (), "cannot bootstrap 'fedora:40': the images that can be made here are: busybox, debian:RELEASE, ubuntu:RELEASE"),
        ("ubuntu", (), "say which release, as in ubuntu:noble"),
        ("debian:../x", (), "is no name of a release"),
        ("debian:bookworm --foo", (), "is no name of a release"),
        ("debian:bookworm", ("--hook",), "'--hook' is no name of a package"),
        ("debian:bookworm", ("a;b",), "'a;b' is no name of a package"),
    ],
)
def test_refusals(name: str, include: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        debian.parse_base(name, include, HOST)
    assert message in caught.value.message


def test_the_hosts_mirrors_are_used() -> None:
    signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    assert debian.sources(debian.parse_base("debian:trixie", (), HOST), TARGETS, HOST) == [
        f"deb {signed} http://mirror.example/debian trixie main",
        f"deb {signed} http://mirror.example/debian trixie-updates main",
        f"deb {signed} http://other.example/debian-security trixie-security main",
    ]
    assert debian.sources(debian.parse_base("debian:sid", (), HOST), TARGETS, HOST) == [
        f"deb {signed} http://mirror.example/debian sid main"
    ]
    assert debian.sources(debian.parse_base("ubuntu:noble", (), HOST), TARGETS, HOST) == []


def test_before_the_first_apt_update() -> None:
    targets = "http://mirror.example/debian/|$(ORIGIN)|bookworm\nhttp://third.example/apt/|$(ORIGIN)|stable\n"
    lines = debian.sources(debian.parse_base("debian:bookworm", (), HOST), targets, HOST)
    assert [line.split()[2:4] for line in lines] == [
        ["http://mirror.example/debian", "bookworm"],
        ["http://mirror.example/debian", "bookworm-updates"],
    ]


def test_the_command() -> None:
    base = debian.parse_base("debian:bookworm-slim", ("vim,curl", "git=1:2.39-1"), HOST)
    command = debian.command(base, "/tree", "/a cache; x", ['Acquire::http::Proxy "http://proxy:1";'])
    assert command[-2:] == ["bookworm", "/tree"]
    assert "--setup-hook=sync-in '/a cache; x' /var/cache/apt/archives/" in command
    assert "--include=curl,git=1:2.39-1,vim" in command
    assert '--aptopt=Acquire::http::Proxy "http://proxy:1";' in command
    assert "--dpkgopt=path-exclude=/usr/share/doc/*" in command
    assert command.index("--kill-child=KILL") < command.index("mmdebstrap")
    (config,) = (word for word in command if "apt.conf.d/90image" in word)
    assert 'APT::Keep-Downloaded-Packages "false"' in config


def test_proxies_of_apts_config() -> None:
    wanted = ['Acquire::http::Proxy "http://proxy:3142";', 'Acquire::http::Proxy::host "DIRECT";']
    dump = ['APT "";', wanted[0], 'Acquire::Retries "3";', wanted[1], 'Acquire::https::Proxy "";']
    assert debian.proxies("\n".join(dump)) == wanted


def test_the_image_says_what_is_in_it() -> None:
    config = debian.image_config(debian.parse_base("debian:bookworm", ("vim",), HOST), "sha256:" + "0" * 64, ["apt=1", "vim=2"], 86400)
    assert config.created == "1970-01-02T00:00:00Z"
    assert config.config is not None
    assert (config.config.labels or {})["sampan.packages"] == "apt=1 vim=2"
    assert config.config.cmd == ["bash"]
    assert config == debian.image_config(
        debian.parse_base("debian:bookworm", ("vim",), HOST), "sha256:" + "0" * 64, ["apt=1", "vim=2"], 86400
    )
