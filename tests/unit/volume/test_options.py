"""Names and options of local volumes, and the calls of mount(2) they come to."""

import pytest

from sampan.errors import InvalidArgument
from sampan.volume.options import MountCall, address_of, check_name, check_options, mount_calls, needs_mount, without_password


@pytest.mark.parametrize("name", ["ab", "a.b-c_d", "0" * 255, "9_"])
def test_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["a", "", ".a", "-a", "a/b", "..", "a b", "a\n", "ä1", "a" * 256, "aa\0"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^create "):
        check_name(name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"type": "nfs", "device": ":/x", "o": "addr=h"}, ""),
        ({"size": "0"}, ""),
        ({"a": "", "b": ""}, 'invalid option: "a"'),
        ({"device": "x"}, 'missing required option: "type"'),
        ({"type": "x"}, 'missing required option: "device"'),
        ({"o": "ro"}, 'missing required option: "device"'),
        ({"size": "1m"}, "quota size requested but no quota support"),
        ({"size": "big"}, "invalid size: 'big'"),
        ({"type": "tmpfs", "device": "tmpfs", "o": "x" * 4096}, 'invalid option: "o"'),
    ],
)
def test_options(options: dict[str, str], words: str) -> None:
    if words:
        with pytest.raises(InvalidArgument) as caught:
            check_options("v", options)
        assert caught.value.message == f"create v: {words}"
    else:
        check_options("v", options)


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=5"}, [MountCall("tmpfs", "tmpfs", 0, "size=1m,uid=5")]),
        ({"type": "ext4", "device": "/dev/x", "o": "ro,noatime,rw,data=x"}, [MountCall("/dev/x", "ext4", 0x400, "data=x")]),
        ({"type": "none", "device": "/h", "o": "bind"}, [MountCall("/h", "none", 0x1000, "")]),
        ({"type": "none", "device": "/h", "o": "rbind,ro"}, [MountCall("/h", "none", 0x5001, ""), MountCall("", "", 0x1021, "")]),
        (
            {"type": "none", "device": "/h", "o": "bind,rslave,nodev"},
            [MountCall("/h", "none", 0x1004, ""), MountCall("", "", 0x84000, ""), MountCall("", "", 0x1024, "")],
        ),
        ({"type": "nfs", "device": ":/x", "o": "addr=host,soft"}, [MountCall(":/x", "nfs", 0, "addr=10.0.0.1,soft")]),
        (
            {"type": "nfs", "device": ":/x", "o": "mountaddr=host,addr=host"},
            [MountCall(":/x", "nfs", 0, "mountaddr=host,addr=10.0.0.1")],
        ),
    ],
)
def test_what_is_mounted(options: dict[str, str], calls: list[MountCall]) -> None:
    assert needs_mount(options)
    assert mount_calls(options, "10.0.0.1" if "addr" in options["o"] else "") == calls


def test_parts_of_options() -> None:
    assert address_of("ro,addr=h,x") == "h"
    assert address_of("myaddr=h") == ""
    assert without_password("user=a,password=b,c") == "user=a,password=********,c"
    assert not needs_mount(None)
    assert not needs_mount({})
