"""`--change`: what docker's `import -c` and `commit -c` make of each instruction."""

import msgspec
import pytest

from sampan.build.changes import apply_changes
from sampan.errors import InvalidArgument
from sampan.spec.oci_image import ContainerConfig


def changed(*changes: str) -> object:
    return msgspec.to_builtins(apply_changes(ContainerConfig(), changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (['CMD ["sh", "-c", "x"]'], {"Cmd": ["sh", "-c", "x"]}),
        (["cmd sh -c x"], {"Cmd": ["/bin/sh", "-c", "sh -c x"]}),
        (['ENTRYPOINT ["a", x]'], {"Entrypoint": ["/bin/sh", "-c", '["a", x]']}),
        (['ENV A=b C="d e"', "ENV A=2"], {"Env": ["A=2", "C=d e"]}),
        (["ENV A the rest"], {"Env": ["A=the rest"]}),
        (['LABEL x=y "with space"="1 2"'], {"Labels": {"x": "y", "with space": "1 2"}}),
        (["EXPOSE 80 53/udp 8000-8001"], {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}}}),
        (['VOLUME ["/a", "/b"]', "VOLUME /c /d"], {"Volumes": {"/a": {}, "/b": {}, "/c": {}, "/d": {}}}),
        (["WORKDIR /a/b", "WORKDIR ../c"], {"WorkingDir": "/a/c"}),
        (["USER 1:2"], {"User": "1:2"}),
        (["STOPSIGNAL SIGKILL"], {"StopSignal": "SIGKILL"}),
        (
            ["HEALTHCHECK --interval=5s --retries=3 CMD true"],
            {"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5 * 10**9, "Retries": 3}},
        ),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
        (["ONBUILD RUN x"], {"OnBuild": ["RUN x"]}),
        (["ENV A=1\nUSER x"], {"Env": ["A=1"], "User": "x"}),
        (["ENV A=1", "ENV B=$A", "USER $A"], {"Env": ["A=1", "B=1"], "User": "1"}),
        (["CMD b", "ENTRYPOINT a"], {"Cmd": ["/bin/sh", "-c", "b"], "Entrypoint": ["/bin/sh", "-c", "a"]}),
        (["# escape=`", "CMD a `\n b"], {"Cmd": ["/bin/sh", "-c", "a  b"]}),
        (["LABEL a=b \\\n c=d"], {"Labels": {"a": "b", "c": "d"}}),
        (["CMD"], {"Cmd": ["/bin/sh", "-c"]}),
        (["EXPOSE 80/"], {"ExposedPorts": {"80/tcp": {}}}),
        ([], {}),
    ],
)
def test_instructions(changes: list[str], expected: object) -> None:
    assert changed(*changes) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("FROM x", "FROM is not a valid change command"),
        ("foo x", "foo is not a valid change command"),
        ("ENV A", "ENV must have two arguments"),
        ("EXPOSE x", "Invalid containerPort: x"),
        ("EXPOSE 1/foo", "Invalid proto: foo"),
        ("ENV", "ENV requires at least one argument"),
        ("CMD --x=y z", "unknown flag: --x"),
        ("ARG a", "ARG is not a valid change command"),
        ("CMD [1]", "when using JSON array syntax, arrays must be comprised of strings only"),
        ("# nothing", "file with no instructions"),
        ("STOPSIGNAL NOPE", "invalid signal: NOPE"),
        ("HEALTHCHECK FOO x", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
    ],
)
def test_refusals(change: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        changed(change)
    assert caught.value.message == message
