"""sampand's flags and daemon.json: docker's sentences, with the place in the file."""

import re
from pathlib import Path

import pytest

from sampan.daemon import config
from sampan.daemon.config import DaemonConfig, parse_command_line
from sampan.daemon.options import BY_KEY
from sampan.engine.limits import HostLimits
from sampan.runtime.cgroups import Layout

WITH_FILE = "unable to configure the Docker daemon with file {}: "
MERGED = WITH_FILE + "merged configuration validation from file and command line flags failed: "


@pytest.fixture
def refused(tmp_path, capsys):
    """A function: the line sampand leaves with for this daemon.json and these flags."""

    def run(text: str | bytes | None, *flags: str) -> str:
        path = tmp_path / "daemon.json"
        if text is not None:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(SystemExit) as left:
            parse_command_line([*(["--config-file", str(path)] if text is not None else []), *flags])
        assert left.value.code == 1
        return capsys.readouterr().err.strip().replace(str(path), "{}")

    return run


@pytest.fixture
def accepted(tmp_path):
    """A function: the configuration from this daemon.json and these flags."""

    def run(text: str = "", *flags: str) -> DaemonConfig:
        path = tmp_path / "daemon.json"
        path.write_text(text)
        return parse_command_line(["--config-file", str(path), *flags])

    return run


GO = "json: cannot unmarshal {} into Go struct field Config.{} of type {}"


# The sentences up to the bracket were taken from dockerd 28.5.2 --validate.
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"foo": 1}', "the following directives don't match any configuration option: foo (foo: line 1, column 2)"),
        (
            '{"foo":1,\n "bar":2}',
            "the following directives don't match any configuration option: foo, bar (foo: line 1, column 2, bar: line 2, column 2)",
        ),
        ('{"Debug": true}', "the following directives don't match any configuration option: Debug (Debug: line 1, column 2)"),
        ('{\n  "debug": "x"}', "invalid JSON: " + GO.format("string", "debug", "bool") + " (debug: line 2, column 3)"),
        ('{"hosts": "x"}', "invalid JSON: " + GO.format("string", "hosts", "[]string") + " (hosts: line 1, column 2)"),
        ('{"mtu": "a"}', "invalid JSON: " + GO.format("string", "mtu", "int") + " (mtu: line 1, column 2)"),
        ('{"group": 5}', "invalid JSON: " + GO.format("number", "group", "string") + " (group: line 1, column 2)"),
        (
            '{"log-opts": {"max-size": 5}}',
            "invalid JSON: " + GO.format("number", "log-opts.max-size", "string") + " (log-opts: line 1, column 15)",
        ),
        (
            '{"shutdown-timeout": 1.5}',
            "invalid JSON: " + GO.format("number 1.5", "shutdown-timeout", "int") + " (shutdown-timeout: line 1, column 2)",
        ),
        ("{bad", "invalid JSON: invalid character 'b' looking for beginning of object key string (line 1, column 2)"),
        (
            '{"debug": true,\n}',
            "invalid JSON: invalid character '}' looking for beginning of object key string (line 2, column 1)",
        ),
        ('{"debug": true} x', "invalid JSON: invalid character 'x' after top-level value (line 1, column 17)"),
        ('{"hosts": [,]}', "invalid JSON: invalid character ',' looking for beginning of value (line 1, column 12)"),
        ('{"debug": tru', "invalid JSON: unexpected end of JSON input (line 1, column 14)"),
        ("[]", "invalid JSON: json: cannot unmarshal array into Go value of type map[string]interface {} (line 1)"),
        (
            '{"mirrors": ["https://m"]}',
            "invalid JSON: " + GO.format("array", "mirrors", "map[string][]string") + " (mirrors: line 1, column 2)",
        ),
        (
            '{"mirrors": {"ghcr.io": "https://m"}}',
            "invalid JSON: " + GO.format("string", "mirrors.ghcr.io", "[]string") + " (mirrors: line 1, column 14)",
        ),
        ('{"dns": ["zz"]}', "invalid JSON: invalid IP address: zz (dns: line 1, column 2)"),
        ('{"default-shm-size": "12q"}', "invalid JSON: invalid suffix: 'q' (default-shm-size: line 1, column 2)"),
        ('{"default-shm-size": 1234}', 'invalid JSON: invalid size: "1234" (default-shm-size: line 1, column 2)'),
        (b"\xff{}", "failed to decode configuration JSON at offset 0: invalid UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_place(refused, text, message):
    assert refused(text) == WITH_FILE + message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"log-level": "zzz"}', "invalid logging level: zzz (log-level: line 1, column 2)"),
        ('{"log-format": "x"}', "invalid log format: x (log-format: line 1, column 2)"),
        ('{"mtu": -3}', "invalid default MTU: -3 (mtu: line 1, column 2)"),
        ('{"labels": ["x"]}', "bad attribute format: x (labels: line 1, column 2)"),
        (
            '{"max-concurrent-downloads": -1}',
            "invalid max concurrent downloads: -1 (max-concurrent-downloads: line 1, column 2)",
        ),
        (
            '{"host-gateway-ips": ["1.1.1.1", "1.1.1.2"]}',
            "only one IPv4 host gateway IP address can be specified (host-gateway-ips: line 1, column 2)",
        ),
        ('{"dns-search": ["a b"]}', "a b is not a valid domain (dns-search: line 1, column 2)"),
        (
            '{"default-timezone": "../zz"}',
            "unknown time zone ../zz (default-timezone: line 1, column 2)",
        ),
        (
            '{"default-ipc-mode": "zz"}',
            'default IPC mode setting (zz) is invalid; use "shareable" or "private" (default-ipc-mode: line 1, column 2)',
        ),
        (
            '{"default-cgroupns-mode": "zz"}',
            'invalid default cgroup namespace (zz): use "host" or "private" (default-cgroupns-mode: line 1, column 2)',
        ),
        (
            '{"mirrors": {"ghcr.io": ["https://good", "ftp://m"]}}',
            'invalid mirror: unsupported scheme "ftp" in "ftp://m" (mirrors: line 1, column 2)',
        ),
        (
            '{"registry": {"lisen": ":1"}}',
            "registry: Object contains unknown field `lisen` (registry: line 1, column 2)",
        ),
        (
            '{"proxies": {"https-proxy": "socks5://user:secret@p:1080"}}',
            'invalid proxy "socks5://xxxxx:xxxxx@p:1080": only http:// and https:// proxies are spoken to (proxies: line 1, column 2)',
        ),
        (
            '{"mirrors": {"https://ghcr.io": []}}',
            'invalid registry "https://ghcr.io": it is HOST[:PORT], as in ghcr.io (mirrors: line 1, column 2)',
        ),
        (
            '{"mirrors": {"registry-1.docker.io": []}}',
            'invalid registry "registry-1.docker.io": images of Docker Hub are those of docker.io (mirrors: line 1, column 2)',
        ),
        (
            '{\n "init-path": "/init"}',
            "init-path: not supported by Sampan 0.1.0: another init binary (init-path: line 2, column 2)",
        ),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_its_place(refused, text, message):
    assert refused(text) == MERGED + message


@pytest.mark.parametrize(
    ("flags", "pairs"),
    [
        (["-D", "-H", "unix:///b"], "debug: (from flag: true, from file: true), hosts: (from flag: [unix:///b], from file: [unix:///a])"),
        (
            ["--log-level=debug", "--dns", "8.8.8.8"],
            "dns: (from flag: [8.8.8.8], from file: [1.1.1.1]), log-level: (from flag: debug, from file: info)",
        ),
        (["--log-opt", "max-size=5m"], "log-opts: (from flag: map[max-size:5m], from file: map[max-size:1m])"),
        (
            ["--default-ulimit", "nofile=5:5"],
            "default-ulimits: (from flag: [nofile=5:5], from file: map[nofile:map[Hard:10 Name:nofile Soft:10]])",
        ),
        (["--icc", "--mtu", "1500"], "icc: (from flag: true, from file: true), mtu: (from flag: 1500, from file: 1500)"),
    ],
)
def test_a_key_given_as_a_flag_too_is_refused(refused, flags, pairs):
    file = (
        '{"debug":true,"hosts":["unix:///a"],"log-level":"info","dns":["1.1.1.1"],"icc":true,"mtu":1500,'
        '"default-ulimits":{"nofile":{"Name":"nofile","Hard":10,"Soft":10}},"log-opts":{"max-size":"1m"}}'
    )
    message = refused(file, *flags)
    assert message.startswith(WITH_FILE + f"the following directives are specified both as a flag and in the configuration file: {pairs} (")
    assert "line 1, column " in message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--bogus"], "unknown flag: --bogus"),
        (["-x"], "unknown shorthand flag: 'x' in -x"),
        (["-Dx"], "unknown shorthand flag: 'x' in -Dx"),
        (["--mtu=x"], 'invalid argument "x" for "--mtu" flag: strconv.ParseInt: parsing "x": invalid syntax'),
        (["--mtu"], "flag needs an argument: --mtu"),
        (["--debug=x"], 'invalid argument "x" for "-D, --debug" flag: strconv.ParseBool: parsing "x": invalid syntax'),
        (["--default-shm-size=zz"], 'invalid argument "zz" for "--default-shm-size" flag: invalid size: \'zz\''),
        (["--dns", "zz"], 'invalid argument "zz" for "--dns" flag: invalid string being converted to IP address: zz'),
        (["--label", "x"], 'invalid argument "x" for "--label" flag: bad attribute format: x'),
        (["--default-ulimit", "zz"], 'invalid argument "zz" for "--default-ulimit" flag: invalid ulimit argument: zz'),
        (["foo"], '"sampand" accepts no argument(s).'),
    ],
)
def test_a_flag_that_cannot_be_read_is_refused_as_pflag_does(refused, flags, message):
    assert refused(None, *flags) == f"{message}\nSee 'sampand --help'."


def test_a_missing_file_is_refused_only_when_it_was_named(refused):
    line = refused(None, "--config-file", "/nowhere/daemon.json")
    assert line == WITH_FILE.format("/nowhere/daemon.json") + "open /nowhere/daemon.json: no such file or directory"


def test_the_defaults_are_ours(accepted):
    config = accepted()
    assert config.live_restore
    assert (config.log_driver, config.bridge, config.data_root, config.exec_root) == ("", "sampan0", "/var/lib/sampan", "/run/sampan")
    assert config.hosts == ("unix:///run/sampan/sampan.sock",)
    assert config.pidfile == "/run/sampan/sampand.pid"


def test_another_exec_root_brings_its_own_socket_and_pid_file(accepted):
    config = accepted("", "--exec-root", "/run/two")
    assert (config.hosts, config.pidfile) == (("unix:///run/two/sampan.sock",), "/run/two/sampand.pid")


def test_flags_and_file_are_merged(accepted):
    config = accepted(
        '{"debug": true, "features": {"x": false}}',
        "-H=unix:///a", "-Hunix:///b", "--label", "a=b", "--label=c=d", "--live-restore=false",
        "--default-shm-size", "1g", "--log-opt", "max-size=1m",
    )  # fmt: skip
    assert config.hosts == ("unix:///a", "unix:///b")
    assert config.labels == ("a=b", "c=d")
    assert not config.live_restore
    assert config.default_shm_size == 1 << 30
    assert config.log_opts == {"max-size": "1m"}
    assert config.log_level == "debug"


@pytest.mark.parametrize("text", ["", "\ufeff{}", '{"debug": null}', ' {"icc" : true}\n', '{"labels": ["a=\\u00e9\\ud83d\\ude00"]}'])
def test_what_docker_accepts_is_accepted(accepted, text):
    assert accepted(text)


def test_validate_says_so(tmp_path, capsys):
    (tmp_path / "d.json").write_text("{}")
    with pytest.raises(SystemExit) as left:
        parse_command_line(["--validate", "--config-file", str(tmp_path / "d.json")])
    assert left.value.code == 0
    assert capsys.readouterr().out == "configuration OK\n"


def test_help_lists_every_flag(capsys):
    with pytest.raises(SystemExit):
        parse_command_line(["--help"])
    text = capsys.readouterr().out
    assert "\n  -H, --host list " in text
    assert "--config-file string" in text


def test_every_key_is_read_or_refused_or_always_so():
    """A key that is accepted and read by nobody would be ignored in silence."""
    read = set()
    for file in Path(config.__file__).parent.glob("*.py"):
        text = file.read_text()
        text = text.partition("class KeyProblem")[0] if file.name == "config.py" else text  # what checks read is not used
        read |= set(re.findall(r"\bconfig\.([a-z0-9_]+)", text))
    checked = {"exec-opts"}  # the values that are taken are what Sampan does
    for key in BY_KEY:
        kinds = [key in config.MISSING, key in config.ALWAYS_SO, key in checked, key.replace("-", "_") in read]
        assert sum(kinds) == 1, (key, kinds)


ROOTS = ("--data-root=/d", "--exec-root=/e")


@pytest.mark.parametrize(
    ("text", "arguments", "bridge", "sound", "places"),
    [
        ('{"bridge": "b0"}', (), "b0", True, True),
        ('{"bridge": "b0", "no-such-key": 1}', (), "b0", False, True),
        ('{"bridge": "b0", "registry-mirrors": ["ftp://x"]}', (), "b0", False, True),
        ('{"bridge": "b0", "data-root": 7}', (), "b0", False, False),
        ('{"bridge": "b0",', (), DaemonConfig().bridge, False, False),
        ('{"bridge": "b0",', ROOTS, DaemonConfig().bridge, False, True),
        ('{"bridge": "b0"}', ("--bridge=b1",), "b1", False, True),
    ],
)
def test_what_is_known_of_an_engine_with_a_wrong_file(
    tmp_path: Path, text: str, arguments: tuple[str, ...], bridge: str, sound: bool, places: bool
) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(text)
    found = config.known(["--config-file", str(path), *arguments])
    assert (found.config.bridge, found.problem == "", found.places) == (bridge, sound, places)
    assert found.config.data_root == ("/d" if arguments == ROOTS else DaemonConfig().data_root)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), (None, None)),
        (("--tls",), (True, True)),
        (("--tls=false",), (False, False)),
        (("--tlsverify",), (True, True)),
        (("--tlsverify=false",), (True, False)),
        (("--tls", "--tlsverify=false"), (True, False)),
    ],
)
def test_what_is_said_of_tls_is_read_as_docker_does(accepted, flags, expected) -> None:
    found = accepted("", *flags)
    assert (found.tls, found.tlsverify) == expected


def test_no_engine_is_open_to_the_network_unless_that_was_said(refused, accepted) -> None:
    assert "root access" in refused("", "-H", "0.0.0.0:2375")
    assert accepted("", "-H", "0.0.0.0:2375", "--tls=false").hosts == ("tcp://0.0.0.0:2375",)


@pytest.mark.parametrize(
    ("layout", "real_time", "reason"),
    [
        (Layout(1), True, ""),
        (Layout(1), False, "daemon-scoped cpu-rt-period and cpu-rt-runtime are not supported by the kernel"),
        (Layout(2), False, "daemon-scoped cpu-rt-period and cpu-rt-runtime are not implemented for cgroup v2"),
    ],
)
def test_real_time_scheduling(layout: Layout, real_time: bool, reason: str) -> None:
    limits = HostLimits(cpu_count=2, cpus="0-1", nodes="0", real_time=real_time)
    config.check_real_time(DaemonConfig(), layout, limits)
    try:
        config.check_real_time(DaemonConfig(cpu_rt_period=5), layout, limits)
        found = ""
    except config.KeyProblem as problem:
        found = str(problem)
    assert found == reason
