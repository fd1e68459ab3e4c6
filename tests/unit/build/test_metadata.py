"""Texts of histories as Go writes them, configs after instructions, keys of steps. tests/golden/build compares the whole with docker's."""

import pytest

from sampan.build import cache, gotext, metadata
from sampan.build.instructions import CommandLine, Entrypoint, Env, Expose, HealthCheck, Lines, Pair, StopSignal, Volume
from sampan.errors import InvalidArgument
from sampan.quoting import go_quote
from sampan.spec.oci_image import ContainerConfig

AT = Lines(1, 1)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [("a b", '"a b"'), ('"\\', '"\\"\\\\"'), ("\t\n\r\a", '"\\t\\n\\r\\a"'), ("\x01\x7f", '"\\x01\\x7f"'),
     ("ä☃", '"ä☃"'), ("\u200b", '"\\u200b"'),
     ("\udcff", '"\\xff"'), ("\U000e0001", '"\\U000e0001"')],
)  # fmt: skip
def test_quoted_as_go_does(text: str, quoted: str) -> None:
    assert go_quote(text) == quoted


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0s"), (1, "1ns"), (1500, "1.5µs"), (2_000_000, "2ms"), (1_500_000_000, "1.5s"), (90_000_000_000, "1m30s"),
     (3_600_000_000_000, "1h0m0s"), (-1_000_000_000, "-1s"), (100_000_000_001, "1m40.000000001s")],
)  # fmt: skip
def test_durations_as_go_does(ns: int, text: str) -> None:
    assert gotext.duration(ns) == text


def test_env_replaces_in_place() -> None:
    config = ContainerConfig(env=["A=1", "B=2"])
    changed = metadata.apply(Env(text="", lines=AT, pairs=(Pair("A", "3"), Pair("C", ""))), config, False)
    assert changed.config.env == ["A=3", "B=2", "C="]
    assert changed.comment == "ENV A=3 C="
    assert config.env == ["A=1", "B=2"]


@pytest.mark.parametrize(("had_cmd", "cmd"), [(False, None), (True, ["x"])])
def test_an_entry_point_takes_the_bases_command_away(had_cmd: bool, cmd: list[str] | None) -> None:
    entrypoint = Entrypoint(text="", lines=AT, command=CommandLine(words=("/e",), shell=False))
    changed = metadata.apply(entrypoint, ContainerConfig(cmd=["x"]), had_cmd)
    assert (changed.config.entrypoint, changed.config.cmd) == (["/e"], cmd)


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        ("foo", "Invalid containerPort: foo"),
        ("80/foo", "Invalid proto: foo"),
        ("70000", "Invalid containerPort: 70000"),
        ("9-8", "Invalid containerPort: 9-8"),
    ],
)
def test_ports_that_are_none(ports: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        metadata.apply(Expose(text="", lines=AT, ports=(ports,)), ContainerConfig(), False)
    assert caught.value.message == message


def test_what_else_is_refused() -> None:
    for wrong in (StopSignal(text="", lines=AT, signal="FOO"), Volume(text="", lines=AT, paths=(" ",))):
        with pytest.raises(InvalidArgument):
            metadata.apply(wrong, ContainerConfig(), False)


def test_a_health_check_over_another() -> None:
    check = HealthCheck(text="", lines=AT, test=("CMD", "b"), interval=3_000_000_000)
    first = metadata.apply(check, ContainerConfig(), False)
    assert first.comment == "HEALTHCHECK &{[CMD b] 3s 0s 0s 0s 0}"
    assert first.note == ""
    assert metadata.apply(check, first.config, False).note == "Note: overriding previous HEALTHCHECK: [CMD b]\n"


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [("", "/a", "/a"), ("/a", "b", "/a/b"), ("/a", "../..", "/"), ("", "b", "/b"), ("/a", "//c/./d", "/c/d")],
)
def test_working_directories(before: str, path: str, after: str) -> None:
    assert metadata.working_dir(ContainerConfig(working_dir=before), path) == after


def test_a_stage_has_a_path_and_no_triggers() -> None:
    first = metadata.first_config(ContainerConfig(env=["A=1"], on_build=["RUN x"]))
    assert first.env == ["A=1", metadata.DEFAULT_PATH]
    assert first.on_build is None
    assert metadata.first_config(ContainerConfig(env=["PATH=/x"])).env == ["PATH=/x"]


def test_whatever_differs_makes_another_key() -> None:
    config = ContainerConfig(env=["A=1"])
    keys = {
        cache.key("p", ["a", "b"], config),
        cache.key("q", ["a", "b"], config),
        cache.key("p", ["a b"], config),
        cache.key("p", ["a", "b"], ContainerConfig(env=["A=2"])),
        cache.key("p", ["a", "b"], ContainerConfig(labels={"A": "1"})),
        cache.key("p", ["a", "b"], config, ["more"]),
    }
    assert len(keys) == 6
    assert cache.key("p", ["a", "\udcff"], config) == cache.key("p", ["a", "\udcff"], config)
