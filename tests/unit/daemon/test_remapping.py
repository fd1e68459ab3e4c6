"""`userns-remap`: whose IDs, by the host's files, in docker's words."""

import pwd
from collections.abc import Sequence
from pathlib import Path

import pytest

from sampan.daemon import remapping
from sampan.daemon.remapping import Accounts, maps_of
from sampan.errors import SystemFailure
from sampan.runtime.plan import UserMaps

_USERS = {"root": 0, "ann": 1000, "bob": 1001}
_NOBODY = "getent unable to find entry"


class Few(Accounts):
    """Three users and the groups of two; programs are noted, and make what they say."""

    def __init__(self, etc: Path) -> None:
        super().__init__(etc)
        self.etc = etc
        self.users = dict(_USERS)
        self.groups = {"root": 0, "ann": 1000, "staff": 50}
        self.ran: list[list[str]] = []

    def user(self, name: str) -> pwd.struct_passwd | None:  # type: ignore[override]
        for known, uid in self.users.items():
            if name in (known, str(uid)):
                return pwd.struct_passwd((known, "x", uid, uid, "", "/", ""))
        return None

    def has_group(self, name: str) -> bool:  # type: ignore[override]
        return name in self.groups or name in map(str, self.groups.values())

    def run(self, command: Sequence[str]) -> None:  # type: ignore[override]
        self.ran.append(list(command))
        if command[0] == "usermod":
            first, last = map(int, command[2].split("-"))
            with (self.etc / {"-v": "subuid", "-w": "subgid"}[command[1]]).open("a") as file:
                file.write(f"{command[3]}:{first}:{last - first + 1}\n")
        else:
            self.users[command[-1]] = self.groups[command[-1]] = 200


@pytest.fixture
def accounts(tmp_path: Path) -> Few:
    (tmp_path / "subuid").write_text("# none\n\nann:100000:65536\n1000:300000:10\nann:bad:1\nroot:5:5\nbob:4294967290:65536\n")
    (tmp_path / "subgid").write_text("ann:200000:65536\nroot:5:5\nbob:1:1\n")
    return Few(tmp_path)


@pytest.mark.parametrize("setting", ["ann", "1000", "ann:ann", "1000:1000", "ann:staff", "ann:50"])
def test_a_user_with_ranges(accounts: Few, setting: str) -> None:
    assert maps_of(setting, accounts) == UserMaps(((0, 100000, 65536), (65536, 300000, 10)), ((0, 200000, 65536),))
    assert accounts.ran == []


def test_none_and_root_are_the_hosts(accounts: Few) -> None:
    assert maps_of("", accounts) is None
    assert maps_of("root", accounts) is None
    assert maps_of("0:0", accounts) is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("a:b:c", 'Invalid user/group specification in --userns-remap: "a:b:c"'),
        ("77", f'Uid 77 has no entry in /etc/passwd: {_NOBODY} "77" in passwd database'),
        ("eve", f'Error during uid lookup for "eve": {_NOBODY} "eve" in passwd database'),
        ("bob", f'Error during gid lookup for "bob": {_NOBODY} "bob" in group database'),
        ("ann:x", f'Error during groupname lookup for "x": {_NOBODY} "x" in group database'),
        ("ann:77", f'Gid 77 has no entry in /etc/group: {_NOBODY} "77" in group database'),
        ("bob:staff", 'error creating ID mappings: the range 4294967290:65536 of user "bob" has IDs that there are not'),
    ],
)
def test_what_is_not_there(accounts: Few, setting: str, message: str) -> None:
    with pytest.raises(SystemFailure) as refused:
        maps_of(setting, accounts)
    assert refused.value.message == message


def test_a_user_without_ranges(accounts: Few, tmp_path: Path) -> None:
    (tmp_path / "subgid").unlink()
    with pytest.raises(SystemFailure, match='no subuid ranges found for user "ann"'):
        maps_of("ann", accounts)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("ann:100000:65536\nann:165000:10\n", 'the ranges of user "ann" overlap'),
        ("".join(f"ann:{number}:1\n" for number in range(1, 342)), 'user "ann" has more ranges than a user namespace can'),
        ("".join(f"ann:{10**9 + number}:1\n" for number in range(300)), 'user "ann" has more ranges than a user namespace can'),
    ],
)
def test_ranges_that_the_kernel_does_not_take(accounts: Few, tmp_path: Path, lines: str, problem: str) -> None:
    (tmp_path / "subuid").write_text(lines)
    with pytest.raises(SystemFailure) as refused:
        maps_of("ann", accounts)
    assert refused.value.message == f"error creating ID mappings: {problem}"


def test_a_number_without_end_is_no_range(accounts: Few, tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text(f"ann:{'9' * 10000}:1\nann:100000:65536\n")
    found = maps_of("ann", accounts)
    assert found is not None
    assert found.uids == ((0, 100000, 65536),)


def test_the_hosts_root_among_them_is_told(accounts: Few, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "subgid").write_text("ann:0:65536\n")
    assert maps_of("ann", accounts) is not None
    assert "User namespaces: the range 0:65536 of user ann has the host's root: he is in containers then" in caplog.text


def test_default_makes_what_is_missing(accounts: Few, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remapping.shutil, "which", lambda _: "/usr/sbin/adduser")
    made = UserMaps(((0, 165536, 65536),), ((0, 100000, 65536),))
    assert maps_of("default", accounts) == made
    assert [command[0] for command in accounts.ran] == ["adduser", "usermod", "usermod"]
    assert maps_of("default", accounts) == made
    assert len(accounts.ran) == 3, "what is there is left alone"


def test_default_goes_on_where_a_start_was_killed(accounts: Few) -> None:
    accounts.users["dockremap"] = accounts.groups["dockremap"] = 200
    assert maps_of("default", accounts) is not None
    assert [command[1] for command in accounts.ran] == ["-v", "-w"]
