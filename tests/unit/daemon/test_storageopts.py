"""Options of the storage driver: a size for all containers, in docker's words."""

import pytest
from msgspec.structs import replace

from sampan.daemon.config import DEFAULTS, KeyProblem, check_modes
from sampan.daemon.storageopts import default_size


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ((), 0),
        (("overlay2.size=10G",), 10 << 30),
        ((" Overlay2.Size = 10m ",), 10 << 20),
        (("overlay2.size=10G", "overlay2.size=0"), 0),
        (("overlay2.override_kernel_check=true",), 0),
    ],
)
def test_a_size_for_all(options: tuple[str, ...], size: int) -> None:
    assert default_size(options) == size


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("overlay2.size", "unable to parse storage-opt key/value: overlay2.size"),
        ("overlay2.size=", "invalid size: ''"),
        ("overlay2.size=-1", "invalid size: '-1'"),
        ("overlay2.size=8192p", "invalid size: '8192p'"),
        ("overlay2.override_kernel_check=perhaps", 'strconv.ParseBool: parsing "perhaps": invalid syntax'),
        ("dm.basesize=10G", "overlay2: unknown option dm.basesize"),
    ],
)
def test_what_is_refused(option: str, words: str) -> None:
    with pytest.raises(KeyProblem) as raised:
        check_modes(replace(DEFAULTS, storage_opts=(option,)))
    assert (raised.value.key, str(raised.value)) == ("storage-opts", words)
