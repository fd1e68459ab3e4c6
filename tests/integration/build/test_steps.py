"""Steps of builds: their containers, the cache, mounts, what goes wrong, and what is left of it."""

import hashlib
import http.server
import io
import os
import re
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.integration.build.conftest import Build
from tests.support.builds import context, taken_apart
from tests.support.engine import Engine


def containers(engine: Engine) -> list[dict[str, str]]:
    """All containers."""
    found: list[dict[str, str]] = engine.request("GET", "/containers/json?all=1")[1]
    return found


def output(engine: Engine, image: str, command: str) -> str:
    """What a command in an image says."""
    result = engine.cli("run", "--rm", image, "sh", "-c", command)
    assert result.returncode == 0, result.stderr
    return result.stdout


# containers of steps


def test_a_failed_step_leaves_a_container_that_goes_on(run_build: Build, engine: Engine) -> None:
    built = run_build("FROM buildbase\nRUN echo kept > /kept; exit 4\n")
    assert (built.code, built.error) == (4, "The command '/bin/sh -c echo kept > /kept; exit 4' returned a non-zero code: 4")
    (left,) = containers(engine)
    assert left["State"] == "exited"
    assert f" ---> Running in {left['Id'][:12]}\n" in built.text
    assert engine.request("POST", f"/commit?container={left['Id']}&repo=rescued")[0] == 201
    assert output(engine, "rescued", "cat /kept") == "kept\n"
    assert engine.request("POST", f"/containers/{left['Id']}/start")[0] == 204


def test_a_failed_step_leaves_nothing_when_it_is_forced(run_build: Build, engine: Engine) -> None:
    built = run_build("FROM buildbase\nRUN exit 4\n", forcerm=1)
    assert "Removed intermediate container" in built.text
    assert containers(engine) == []


def test_containers_are_kept_if_they_are_to_be(run_build: Build, engine: Engine) -> None:
    built = run_build("FROM buildbase\nENV kept=1\nRUN echo $kept\n", rm=0, nocache=1)
    assert "Removed" not in built.text
    states = {container["Command"]: container["State"] for container in containers(engine)}
    assert states == {"/bin/sh -c 'echo $kept'": "exited", "/bin/sh -c '#(nop) ' 'ENV kept=1'": "created"}


def test_a_running_step_is_in_ps_and_ends_with_its_client(run_build: Build, engine: Engine) -> None:
    body = context({"Dockerfile": "FROM buildbase\nRUN echo begun; sleep 600\n"})
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(engine.socket)
        client.sendall(
            b"POST /v1.50/build HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        client.sendall(body)
        got = b""
        while b'"begun' not in got:
            got += client.recv(65536)
        (running,) = containers(engine)
        assert running["State"] == "running"
        pid = engine.request("GET", f"/containers/{running['Id']}/json")[1]["State"]["Pid"]
    deadline = time.monotonic() + 10
    while containers(engine) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert containers(engine) == []
    assert not os.path.exists(f"/proc/{pid}")


def test_a_step_is_limited_and_isolated_as_a_container(run_build: Build) -> None:
    text = "FROM buildbase\nRUN cat /proc/1/comm\nRUN mount -t tmpfs x /tmp\n"
    built = run_build(text, forcerm=1)
    assert "\ncat\n" in built.text
    assert built.code is not None
    assert "permission denied" in built.text.lower()


# the cache


def test_the_cache_goes_by_content(run_build: Build) -> None:
    text = "FROM buildbase\nCOPY a /a\nRUN cat /a > /b\nCOPY d /d\n"
    files = {"a": "1", "d": None, "d/x": "2"}
    first = run_build(text, dict(files), t="cached")
    again = run_build(text, {"a": {"data": "1", "mtime": 5}, "d": {"data": None, "mtime": 6}, "d/x": {"data": "2", "mtime": 7}})
    assert (again.cached, again.image) == (3, first.image)
    assert run_build(text, {**files, "d/x": "3"}).cached == 2
    assert run_build(text, {**files, "a": "3"}).cached == 0
    assert run_build(text, {**files, "a": {"data": "1", "mode": 0o600}}).cached == 0
    assert run_build(text, {**files, "a": {"data": "1", "uid": 7}}).cached == 0
    assert run_build(text, dict(files), nocache=1).cached == 0
    assert run_build(text, dict(files)).cached == 3


def test_a_link_that_leads_elsewhere_is_another(run_build: Build) -> None:
    text = "FROM buildbase\nCOPY d /d\n"
    run_build(text, {"d": None, "d/l": {"link": "/a"}})
    assert run_build(text, {"d": None, "d/l": {"link": "/b"}}).cached == 0
    assert run_build(text, {"d": None, "d/l": {"link": "/a"}}).cached == 1


def test_the_names_of_what_is_copied_are_part_of_it(run_build: Build) -> None:
    files = {"d": None, "d/f": "x", "l": {"link": "/d/f"}}
    run_build("FROM buildbase\nCOPY d/f /names/\n", files)
    assert run_build("FROM buildbase\nCOPY l /names/\n", files).cached == 0
    run_build("FROM buildbase\nCOPY --parents d/f /parents/\n", files)
    assert run_build("FROM buildbase\nCOPY --parents d/./f /parents/\n", files).cached == 0


def test_a_mounted_link_that_leads_elsewhere_is_another(run_build: Build) -> None:
    text = "FROM buildbase\nRUN --mount=type=bind,source=d,target=/mnt readlink /mnt/l > /where\n"
    run_build(text, {"d": None, "d/l": {"link": "/a"}})
    assert run_build(text, {"d": None, "d/l": {"link": "/b"}}).cached == 0
    assert run_build(text, {"d": None, "d/l": {"link": "/a"}}).cached == 1


def test_arguments_are_part_of_what_runs(run_build: Build) -> None:
    text = "FROM buildbase\nARG A\nRUN echo $A > /a\n"
    run_build(text, buildargs={"A": "1"})
    assert run_build(text, buildargs={"A": "2"}).cached == 1
    assert run_build(text, buildargs={"A": "1", "http_proxy": "x"}).cached == 2


def test_a_removed_image_is_no_longer_in_the_cache(run_build: Build, engine: Engine) -> None:
    text = "FROM buildbase\nLABEL removed=yes\nRUN echo > /removed\n"
    run_build(text, t="removed")
    assert run_build(text, t="removed").cached == 2
    assert engine.request("DELETE", "/images/removed")[0] == 200
    assert run_build(text).cached == 0


def test_intermediate_images_go_with_their_child(run_build: Build, engine: Engine) -> None:
    before = {image["Id"] for image in engine.request("GET", "/images/json?all=1")[1]}
    built = run_build("FROM buildbase\nLABEL chain=1\nLABEL chain=2\nRUN echo > /chain\n", t="chain")
    new = {image["Id"] for image in engine.request("GET", "/images/json?all=1")[1]} - before
    assert len(new) == 3
    assert {image["Id"] for image in engine.request("GET", "/images/json")[1]} - before == {built.image}
    parent = engine.request("GET", f"/images/{built.image}/json")[1]["Parent"]
    assert parent in new
    deleted = [item["Deleted"] for item in engine.request("DELETE", "/images/chain")[1] if "Deleted" in item]
    assert new <= set(deleted)


def test_an_image_from_elsewhere_is_a_cache(run_build: Build, engine: Engine) -> None:
    text = "FROM buildbase\nCOPY a /a\nRUN cat /a > /b\nLABEL from=elsewhere\n"
    first = run_build(text, {"a": "elsewhere"}, t="elsewhere", nocache=1)
    archive = engine.request("GET", "/images/elsewhere/get")[1]
    engine.request("DELETE", "/images/elsewhere")
    engine.request("POST", "/images/load", archive, {"Content-Type": "application/x-tar"})
    assert run_build(text, {"a": "elsewhere"}).cached == 0
    engine.request("POST", "/build/prune?all=1")
    again = run_build(text, {"a": "elsewhere"}, cachefrom='["elsewhere"]')
    assert (again.cached, again.image) == (3, first.image)


def test_prune(run_build: Build, engine: Engine) -> None:
    text = "FROM buildbase\nRUN head -c 100000 /dev/urandom > /pruned\n"
    nameless = run_build(text, nocache=1)
    status, report = engine.request("POST", "/build/prune")
    assert status == 200
    assert report["SpaceReclaimed"] >= 100000
    assert engine.request("GET", f"/images/{nameless.image}/json")[0] == 404
    run_build(text, t="pruned")
    assert engine.request("POST", "/build/prune?all=1")[0] == 200
    assert run_build(text, t="pruned").cached == 0


# stages


def test_stages_run_side_by_side_and_are_told_of_in_order(run_build: Build) -> None:
    wait = "RUN --mount=type=cache,target=/c for i in $(seq 100); do [ -e /c/{other} ] && exit 0; touch /c/{own}; sleep 0.1; done; exit 1"
    text = f"""FROM buildbase AS one
{wait.format(other="two", own="one")}
RUN --mount=type=cache,target=/c touch /c/one; sleep 0.3; echo one is last
FROM buildbase AS unused
RUN exit 5
FROM buildbase AS two
{wait.format(other="one", own="two")}
RUN --mount=type=cache,target=/c touch /c/two; echo two is first
FROM buildbase
COPY --from=one /etc/passwd /one
COPY --from=two /etc/passwd /two
"""
    built = run_build(text, nocache=1)
    assert built.error == ""
    assert built.text.index("one is last") < built.text.index("two is first")
    assert "Step 1/9 : FROM buildbase AS one\n" in built.text
    assert "unused" not in built.text


def test_a_target(run_build: Build, engine: Engine) -> None:
    text = "FROM buildbase AS first\nLABEL stage=first\nFROM buildbase\nLABEL stage=second\n"
    built = run_build(text, target="FIRST", labels={"more": "1"})
    labels = engine.request("GET", f"/images/{built.image}/json")[1]["Config"]["Labels"]
    assert labels == {"stage": "first", "more": "1"}
    assert run_build(text, target="third").message == 'target stage "third" could not be found'


def test_the_same_image_each_time(run_build: Build) -> None:
    text = "FROM buildbase\nARG SOURCE_DATE_EPOCH\nCOPY a /a\nRUN echo > /b; mkdir /c\n"
    images = {
        run_build(text, {"a": {"data": "x", "mtime": 2_000_000_000 + turn}}, buildargs={"SOURCE_DATE_EPOCH": "1600000000"}, nocache=1).image
        for turn in range(2)
    }
    assert len(images) == 1


def test_squash(run_build: Build, engine: Engine) -> None:
    built = run_build("FROM buildbase\nRUN echo 1 > /a; echo 2 > /b\nRUN rm /a /etc/group; chmod 600 /b\n", squash=1, t="squashed")
    layers, base = (engine.request("GET", f"/images/{name}/json")[1]["RootFS"]["Layers"] for name in ("squashed", "buildbase"))
    assert layers[:-1] == base
    assert len(base) == 1
    assert built.error == ""
    assert output(engine, "squashed", "ls /a /etc/group 2>/dev/null; stat -c %a /b; cat /b") == "600\n2\n"
    history = engine.request("GET", "/images/squashed/history")[1]
    assert history[0]["Comment"].startswith("merge sha256:")
    document = taken_apart(engine.request("GET", "/images/squashed/get")[1], "")["document"]
    assert document["container_config"]["Cmd"][-1].startswith("rm /a")
    assert document["config"]["Image"] == document["container_config"]["Image"]


# mounts


def test_mounts(run_build: Build, engine: Engine) -> None:
    text = """FROM buildbase AS other
RUN mkdir /o && echo other > /o/f
FROM buildbase
RUN --mount=target=/src --mount=type=tmpfs,target=/t --mount=from=other,source=/o,target=/o \
  cat /src/in/f /o/f; touch /src/x; stat -f -c %T /t; echo > /t/x
RUN --mount=type=bind,source=in,target=/rw,rw echo changed > /rw/f; cat /rw/f
RUN --mount=type=cache,id=mounts,target=/cache n=$(cat /cache/n 2>/dev/null)+; echo $n | tee /cache/n
RUN --mount=type=bind,source=in,target=/rw cat /rw/f
"""
    built = run_build(text, {"in": None, "in/f": "context\n"}, t="mounts", nocache=1)
    assert built.error == ""
    assert "context\nother\n" in built.text
    assert "tmpfs" in built.text
    assert "Read-only file system" in built.text
    assert "changed\n" in built.text
    assert output(engine, "mounts", "ls -A /cache /rw /src /t /o 2>/dev/null; true") == ""
    assert "++\n" in run_build(text, {"in": None, "in/f": "context\n"}, nocache=1).text


def test_what_is_only_read_of_an_image_is_not_copied(run_build: Build, engine: Engine) -> None:
    text = """FROM buildbase AS other
RUN mkdir -p /o/d && echo other > /o/d/f && ln -s d /o/l
FROM buildbase
RUN --mount=from=other,source=/o/l,target=/m --mount=from=buildbase,target=/all --mount=from=other,source=/o/l/f,target=/f \\
  --mount=from=other,source=/o,target=/w,rw \\
  cat /m/f /f /w/d/f; ls -d /all/etc/passwd; touch /m/x /all/x 2>&1; echo new > /w/d/f; cat /w/l/f; \\
  for m in /m /all /w; do grep " $m " /proc/self/mountinfo | cut -d " " -f 4; done
"""
    built = run_build(text, nocache=1, t="bound")
    assert built.error == ""
    assert "other\nother\nother\n/all/etc/passwd\n" in built.text
    assert built.text.count("Read-only file system") == 2
    printed = re.sub("\x1b\\[91m.*?\x1b\\[0m", "", built.text, flags=re.DOTALL)  # what touch says may come between
    assert re.search(r"new\n/o/d\n/\n/\S+/fetched/mount\d+\n", printed), built.text
    assert output(engine, "bound", "ls -d /m /all /f /w 2>/dev/null; true") == ""


def test_a_new_cache_begins_with_what_it_is_from(run_build: Build) -> None:
    text = """FROM buildbase AS other
RUN mkdir -p /o/d && echo in it > /o/d/f && chmod 700 /o && chown joe /o
FROM buildbase
RUN --mount=type=cache,id=filled,from=other,source=/o,target=/c stat -c '%U %a' /c; ls /c; cat /c/d/f; touch /c/kept
RUN --mount=type=cache,id=filled,target=/c ls -A /c | wc -l
"""
    first = run_build(text)
    assert (first.error, "joe 700\nd\nin it\n" in first.text, "\n0\n" in first.text) == ("", True, True)
    assert "joe 700\nd\nkept\nin it\n" in run_build(text.replace("ls /c;", "ls  /c;")).text
    other = run_build(text.replace("in it", "in another image"))
    assert "joe 700\nd\nin another image\n" in other.text
    assert "stat none: file does not exist" in run_build(text.replace("source=/o", "source=/none")).error


def test_a_mount_is_part_of_the_key(run_build: Build) -> None:
    text = "FROM buildbase\nRUN --mount=target=/s,source=f cat /s > /f\n"
    run_build(text, {"f": "1"})
    assert run_build(text, {"f": "1", "g": "2"}).cached == 1
    assert run_build(text, {"f": "2"}).cached == 0


@pytest.mark.parametrize(
    "text",
    [
        "RUN --mount=target=/s,source=f cat /s > /g\n",
        "RUN <<EOF\n#!/bin/sh\necho {f} > /f\nEOF\n",
        "RUN --mount=type=cache,target=/c,id={f} ls /c > /f\n",
    ],
)
def test_an_image_to_take_steps_from_does_not_tell_what_a_run_reads(run_build: Build, text: str) -> None:
    first, second = (f"FROM buildbase\n{text.replace('{f}', f)}" for f in "12")
    assert run_build(first, {"f": "1"}, t="steps-of").error == ""
    again = run_build(second, {"f": "2"}, cachefrom='["steps-of"]')
    assert (again.error, again.cached) == ("", 0)


def test_secrets_that_nobody_sent(run_build: Build) -> None:
    assert run_build("FROM buildbase\nRUN --mount=type=secret,id=key,required=true true\n").error == "secret key: not found"
    assert run_build("FROM buildbase\nRUN --mount=type=secret,id=key ls /run/secrets || true\n").error == ""
    refused = run_build("FROM buildbase\nRUN --network=host true\n")
    assert refused.error.startswith("RUN --network=host is not allowed"), refused.text
    assert run_build("FROM buildbase\nRUN --network=host true\n", networkmode="host").error == ""
    assert "--security=insecure" in run_build("FROM buildbase\nRUN --security=insecure true\n").error


@pytest.mark.parametrize("name", ["..", '"a\0b"', "a" * 256])
def test_names_of_here_documents_that_no_file_can_have(run_build: Build, name: str) -> None:
    bare = name.strip('"')
    assert run_build(f"FROM buildbase\nCOPY <<{name} /x/\na\n{bare}\n").error.endswith(" cannot be the name of a file")


def test_scripts(run_build: Build) -> None:
    text = """FROM buildbase
RUN <<EOT
echo one
echo two
EOT
RUN <<PY
#!/bin/cat
the script itself
PY
COPY <<a <<b /h/
1
a
2
b
RUN cat /h/a /h/b
"""
    built = run_build(text, nocache=1)
    assert built.error == ""
    assert "one\ntwo\n" in built.text
    assert "the script itself\n" in built.text
    assert "1\n2\n" in built.text


def test_triggers_that_name_stages(run_build: Build) -> None:
    base = "FROM buildbase\nONBUILD COPY --from=helper /h /h\nONBUILD RUN --mount=from=deep,target=/d cat /h /d/deep\n"
    assert run_build(base, t="triggering").error == ""
    text = """FROM buildbase AS unused
RUN exit 9
FROM buildbase AS deep
RUN echo deep > /deep
FROM deep AS helper
RUN echo help > /h
FROM triggering AS one
FROM triggering AS two
FROM buildbase
COPY --from=one /h /1
COPY --from=two /h /2
RUN cat /1 /2; echo end
"""
    built = run_build(text, nocache=1)
    assert built.error == ""
    assert built.text.count("help\ndeep\n") == 2
    assert "help\nhelp\nend\n" in built.text
    assert built.text.count(" : RUN echo help") == 1
    assert run_build("FROM buildbase\nFROM triggering AS one\nFROM buildbase AS helper\nFROM one\n").error.startswith(
        'cannot copy from stage "helper", it needs to be defined before current stage'
    )


# COPY and ADD beyond docker's classic builder


def test_flags_of_copy(run_build: Build) -> None:
    files = {"a": None, "a/b": None, "a/b/c.txt": "c", "a/b/d.md": "d", "e.sh": "e"}
    text = """FROM buildbase
RUN ln -s /tmp /link
COPY --chmod=u=rwx,go= --chown=joe e.sh /bin/e
COPY --chmod=640 a /octal
COPY --exclude=*.md a/b /without
COPY --parents a/b/c.txt a/./b/d.md /parents/
COPY --link e.sh /link/e
RUN stat -c '%A %U %G' /bin/e; stat -c %a /octal/b/c.txt; find /without /parents -type f | sort; ls -d /link
"""
    built = run_build(text, files, nocache=1)
    assert built.error == ""
    assert "-rwx------ joe joe\n640\n/parents/a/b/c.txt\n/parents/b/d.md\n/without/c.txt\n" in built.text


def test_copies_with_their_parents(run_build: Build) -> None:
    files = {
        "x": None, "x/y": {"type": b"5", "mode": 0o750}, "x/y/a.txt": "a", "x/y/b.md": "b", "x/c.txt": "c", "x/l": {"link": "c.txt"},
        "x/dangling": {"link": "none"}, "d.txt": "d",
    }  # fmt: skip
    text = """FROM buildbase AS other
COPY x /x
FROM buildbase
COPY --parents **/*.txt /deep/
COPY --parents ./x/./y/*.txt x/./l /pivot/
COPY --parents x/./ /all
COPY --parents --exclude=x/y/*.txt --exclude=*/c.txt . /but
COPY --parents --from=other /x/./**/*.md /x/l /from/
RUN cd /; for d in deep pivot all but from; do find $d ! -type d; done | grep -v -e Dockerfile | sort; stat -c %a /deep/x/y /from/y
"""
    for more in ({}, {f"many/{number}": "" for number in range(1001)}):
        built = run_build(text, {**files, **({"many": None} if more else {}), **more}, nocache=1)
        assert built.error == ""
        lines = [line for line in built.text.splitlines() if line.split("/")[0] in ("deep", "pivot", "all", "but", "from")]
        assert [line for line in lines if "/many/" not in line] == [
            "all/c.txt", "all/dangling", "all/l", "all/y/a.txt", "all/y/b.md",
            "but/d.txt", "but/x/dangling", "but/x/l", "but/x/y/b.md",
            "deep/d.txt", "deep/x/c.txt", "deep/x/y/a.txt",
            "from/x/l", "from/y/b.md",
            "pivot/l", "pivot/y/a.txt",
        ]  # fmt: skip
        assert "\n750\n750\n" in built.text


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server: its URL, and the directory it shows."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", tmp_path
    server.shutdown()
    thread.join()
    server.server_close()


def test_add_of_urls(run_build: Build, served: tuple[str, Path]) -> None:
    url, directory = served
    (directory / "f").write_text("fetched")
    os.utime(directory / "f", (1_500_000_000, 1_500_000_000))
    digest = hashlib.sha256(b"fetched").hexdigest()
    text = f"FROM buildbase\nADD --checksum=sha256:{digest} {url}/f /d/\nADD {url}/f /g\nRUN stat -c '%a %Y' /d/f; cat /g\n"
    built = run_build(text, nocache=1)
    assert built.error == ""
    assert "600 1500000000\nfetched" in built.text
    wrong = run_build(f"FROM buildbase\nADD --checksum=sha256:{'0' * 64} {url}/f /d/\n")
    assert f"digest mismatch sha256:{digest}" in wrong.error
    assert "404" in run_build(f"FROM buildbase\nADD {url}/missing /d/\n").error


def test_sources_of_all_kinds(run_build: Build, served: tuple[str, Path]) -> None:
    url, directory = served
    (directory / "f").write_text("fetched\n")
    text = f"FROM buildbase\nADD own {url}/f other/* <<here /d/\nwritten\nhere\nRUN cat /d/own /d/f /d/x /d/here\n"
    built = run_build(text, {"own": "own\n", "other": None, "other/x": "x\n"}, nocache=1)
    assert built.error == ""
    assert "own\nfetched\nx\nwritten\n" in built.text
    assert "source can't be a URL for COPY" in run_build(f"FROM buildbase\nCOPY {url}/f /f\n").error


def test_a_mode_that_is_none(run_build: Build) -> None:
    assert "invalid chmod parameter: 'rwx'" in run_build("FROM buildbase\nCOPY --chmod=rwx Dockerfile /f\n").error


def test_contexts_from_elsewhere(run_build: Build, served: tuple[str, Path]) -> None:
    url, directory = served
    (directory / "c.tar").write_bytes(context({"sub/Dockerfile": "FROM buildbase\nCOPY f /f\nRUN cat /f\n", "f": "in the tar\n"}))
    (directory / "alone").write_text("FROM buildbase\nRUN echo alone\n")
    assert "in the tar\n" in run_build("", remote=f"{url}/c.tar", dockerfile="sub/Dockerfile", nocache=1).text
    assert "alone\n" in run_build("", remote=f"{url}/alone", nocache=1).text
    assert f"{url}/none" in run_build("", remote=f"{url}/none").message


# what clients send


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_compressed_contexts(engine: Engine, run_build: Build, kind: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as tar:
        info = tarfile.TarInfo("Dockerfile")
        data = b"FROM buildbase\n"
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    status, answer = engine.request("POST", "/build", buffer.getvalue(), {"Content-Type": "application/x-tar"})
    assert status == 200
    assert b"Successfully built" in answer


@pytest.mark.parametrize(
    ("name", "content"),
    [("../out", "x"), ("a/../../out", "x"), ("out", {"hard": "../../../../etc/passwd"})],
    ids=["up", "up-from-below", "hard-link"],
)
def test_a_context_that_leads_out(run_build: Build, name: str, content: str | dict[str, str]) -> None:
    built = run_build("FROM buildbase\n", {name: content})
    assert built.status == 500
    assert built.message


def test_links_in_a_context_stay_in_it(run_build: Build) -> None:
    files = {"l": {"link": "/etc/shadow"}, "up": {"link": "../../../../../../../../etc"}, "dir": {"link": "/"}}
    assert "COPY failed" in run_build("FROM buildbase\nCOPY l /x\n", dict(files)).error
    assert "COPY failed" in run_build("FROM buildbase\nCOPY up/shadow /x\n", dict(files)).error
    listed = run_build("FROM buildbase\nCOPY dir/ /x\nRUN ls /x\n", dict(files), nocache=1)
    assert "Dockerfile\ndir\nl\nup\n" in listed.text


def test_a_destination_that_leads_out(run_build: Build, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    text = f"FROM buildbase\nRUN ln -s {victim} /l; ln -s /../../../../../../../{victim} /m\nCOPY Dockerfile /l/\nCOPY Dockerfile /m/\n"
    assert run_build(text, nocache=1).error == ""
    assert list(victim.iterdir()) == []


def test_nothing_is_left_of_a_build(run_build: Build, engine: Engine) -> None:
    run_build("FROM buildbase\nCOPY . /x\n", {f"f{number}": "x" for number in range(100)})
    deadline = time.monotonic() + 10
    while (left := sorted(os.listdir(engine.data_root / "build"))) != ["mounts", "void"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == ["mounts", "void"]


def test_what_a_client_asks_wrongly(run_build: Build) -> None:
    assert run_build("FROM buildbase\n", t="UPPER").message.startswith("invalid reference format")
    assert run_build("FROM buildbase\n", t="a@sha256:" + "0" * 64).message == "build tag cannot contain a digest"
    assert run_build("FROM buildbase\n", buildargs="xx").message.startswith("error reading build args: ")
    assert run_build("FROM buildbase\n", version=2).status == 501
