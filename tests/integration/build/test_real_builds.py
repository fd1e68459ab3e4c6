"""What people build: packages of Debian by apt, a program in C, one in Python; the tutorial's images; and contexts as large as they come.

The network is as the host has it: its proxies, if it has any, are handed on as build arguments, and its bundle of certificates by a
bind mount, as users behind a company's proxy do.
"""

import contextlib
import http.client
import io
import os
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.support.builds import context
from tests.support.engine import Engine
from tests.support.memory import peaks
from tests.support.serving import Serving

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

Client = Callable[..., str]
PROXIES = [name for base in ("http_proxy", "https_proxy", "no_proxy") for name in (base, base.upper()) if name in os.environ]
CERTIFICATES = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
RSS_MAX = 150 << 20
GIGABYTE = 1 << 30


@pytest.fixture(scope="module")
def own_engine(make_engine: Callable[..., Engine]) -> Engine:
    """One with debian:bookworm, which all of these builds begin with."""
    engine = make_engine()
    engine.start()
    made = engine.cli("image", "bootstrap", "debian:bookworm", timeout=600)
    assert made.returncode == 0, made.stderr
    return engine


@pytest.fixture(scope="module")
def docker(own_engine: Engine, docker_path: str) -> Client:
    """A function that runs the real docker client, which must succeed; its output."""

    def run(*arguments: str, timeout: float = 300) -> str:
        done = own_engine.run_client([docker_path], *arguments, timeout=timeout)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    return run


@pytest.fixture(scope="module")
def build(docker: Client) -> Client:
    """A function that builds a directory with the real docker client: build(directory, OPTIONS...); the output."""

    def run(directory: Path, *options: str) -> str:
        proxies = [word for name in PROXIES for word in ("--build-arg", name)]
        return docker("build", *proxies, *options, str(directory))

    return run


@pytest.fixture(scope="module")
def nginx(build: Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image nginx as Docker Hub's is laid out, of Debian's package."""
    directory = tmp_path_factory.mktemp("nginx")
    (directory / "Dockerfile").write_text(
        "FROM debian:bookworm\n"
        "RUN apt-get update && apt-get install -y nginx\n"
        "RUN sed -i s,/var/www/html,/usr/share/nginx/html, /etc/nginx/sites-available/default\n"
        "EXPOSE 80\n"
        'CMD ["nginx", "-g", "daemon off;"]\n'
    )
    said = build(directory, "-t", "nginx")
    assert "\nSetting up nginx (" in said
    assert said.endswith("\nSuccessfully tagged nginx:latest\n")
    return "nginx"


@contextlib.contextmanager
def running(docker: Client, *arguments: str) -> Iterator[str]:
    """A container with its ports published, for a while; the address of its first one."""
    container = docker("run", "-d", "-P", *arguments).strip()
    try:
        port = docker("inspect", "-f", "{{range .NetworkSettings.Ports}}{{(index . 0).HostPort}} {{end}}", container).split()[0]
        yield f"127.0.0.1:{port}"
    finally:
        docker("rm", "-f", container)


def page(address: str) -> str:
    """What a web server answers with, once it does."""
    deadline = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection(address, timeout=10)
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            assert response.status == 200
            return response.read().decode()
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < deadline, "no page is served"
            time.sleep(0.05)
        finally:
            connection.close()


def layers(docker: Client, image: str) -> list[tuple[str, int]]:
    """`history`: the command of each layer that has any bytes, the first one first, and how many."""
    lines = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image).splitlines()
    parted = [line.split(" ", 1) for line in reversed(lines)]
    return [(command, int(size)) for size, command in parted if int(size)]


def test_nginx_of_apt_serves(nginx: str, docker: Client) -> None:
    with running(docker, nginx) as address:
        assert "Welcome to nginx!" in page(address)


def test_the_tutorials_nginx(nginx: str, docker: Client, build: Client, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {nginx}\nRUN echo '<h1>Hello Docker!</h1>' > /usr/share/nginx/html/index.html\n")
    lines = [line for line in build(tmp_path, "-t", "nginx:v3").splitlines() if line]
    assert lines[0].split() == ["Sending", "build", "context", "to", "Docker", "daemon", "2.048kB"]
    assert lines[1] == "Step 1/2 : FROM nginx"
    assert lines[3] == "Step 2/2 : RUN echo '<h1>Hello Docker!</h1>' > /usr/share/nginx/html/index.html"
    assert lines[-1] == "Successfully tagged nginx:v3"
    assert layers(docker, "nginx:v3")[-1] == ("/bin/sh -c echo '<h1>Hello Docker!</h1>' > /usr/share/nginx/html/index.html", 23)
    with running(docker, "nginx:v3") as address:
        assert page(address) == "<h1>Hello Docker!</h1>\n"
    with running(docker, nginx) as address:
        assert "Welcome to nginx!" in page(address)


def test_the_tutorials_httpd(docker: Client, build: Client, own_engine: Engine, tmp_path: Path) -> None:
    """Five instructions, with a comment; by its file's path as well."""
    (tmp_path / "Dockerfile").write_text(
        "FROM debian:bookworm\n"
        "MAINTAINER sandywei <sandy@hainiu.tech>\n"
        "# move all configuration files into container\n"
        "\n"
        "RUN apt-get update && apt-get install -y apache2\n"
        "EXPOSE 80\n"
        'CMD ["sh","-c","service apache2 start;bash"]\n'
    )
    said = build(tmp_path, "-t", "hainiu/httpd:1.0")
    assert [line for line in said.splitlines() if line.startswith("Step ")][1::3] == [
        "Step 2/5 : MAINTAINER sandywei <sandy@hainiu.tech>",
        'Step 5/5 : CMD ["sh","-c","service apache2 start;bash"]',
    ]
    image = docker("images", "-q", "hainiu/httpd").strip()
    assert said.splitlines()[-2:] == [f"Successfully built {image}", "Successfully tagged hainiu/httpd:1.0"]
    assert docker("inspect", "-f", "{{.Author}} {{json .Config.ExposedPorts}}", image) == 'sandywei <sandy@hainiu.tech> {"80/tcp":{}}\n'
    proxies = [word for name in PROXIES for word in ("--build-arg", name)]
    ours = own_engine.cli("build", *proxies, "-t", "hainiu/httpd:1.1", str(tmp_path / "Dockerfile"))
    assert ours.returncode == 0, ours.stderr
    assert f"Successfully built {image}\n" in ours.stdout
    with running(docker, "-it", "hainiu/httpd:1.0") as address:
        assert "Apache2 Debian Default Page" in page(address)


REDIS = """\
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(6379)};
    char heard[512];
    int here = socket(AF_INET, SOCK_STREAM, 0), there;
    if (bind(here, (struct sockaddr *)&any, sizeof any) < 0 || listen(here, 8) < 0)
        return 1;
    for (; (there = accept(here, 0, 0)) >= 0; close(there))
        while (read(there, heard, sizeof heard) > 0)
            if (write(there, "+PONG\\r\\n", 7) < 0)
                break;
    return 0;
}
"""
MAKEFILE = """\
all: redis-server
redis-server: redis.c
	$(CC) -O2 -o $@ redis.c
install: all
	install redis-server /usr/local/bin
"""
FETCHED = '"http://download.redis.io:{port}/releases/redis-5.0.3.tar.gz"'
SEVEN = f"""\
FROM debian:bookworm
RUN apt-get update
RUN apt-get install -y gcc libc6-dev make wget
RUN wget -O redis.tar.gz {FETCHED}
RUN mkdir -p /usr/src/redis
RUN tar -xzf redis.tar.gz -C /usr/src/redis --strip-components=1
RUN make -C /usr/src/redis
RUN make -C /usr/src/redis install
"""
ONE = f"""\
FROM debian:bookworm
RUN buildDeps='gcc libc6-dev make wget' \\
&& apt-get update \\
&& apt-get install -y $buildDeps \\
&& wget -O redis.tar.gz {FETCHED} \\
&& mkdir -p /usr/src/redis \\
&& tar -xzf redis.tar.gz -C /usr/src/redis --strip-components=1 \\
&& make -C /usr/src/redis \\
&& make -C /usr/src/redis install \\
&& rm -rf /var/lib/apt/lists/* \\
&& rm redis.tar.gz \\
&& rm -r /usr/src/redis \\
&& apt-get purge -y --auto-remove $buildDeps
"""


@pytest.fixture
def releases(own_engine: Engine) -> Iterator[Serving]:
    """A web server, on the engine's bridge, with a source tarball."""
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=buffer, mode="w:gz") as tar,
        tarfile.open(fileobj=io.BytesIO(context({"redis-5.0.3/redis.c": REDIS, "redis-5.0.3/Makefile": MAKEFILE}))) as files,
    ):
        for member in files:
            tar.addfile(member, files.extractfile(member))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(buffer.getbuffer().nbytes))
            self.end_headers()
            self.wfile.write(buffer.getvalue())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = Serving(Handler, own_engine.subnet.partition("/")[0])
    yield server
    server.close()


def test_the_tutorials_redis_in_seven_layers_and_in_one(docker: Client, build: Client, releases: Serving, tmp_path: Path) -> None:
    address, _, port = releases.host.partition(":")
    host = ("--add-host", f"download.redis.io:{address}", "--build-arg", "no_proxy=download.redis.io")
    sizes = {}
    for name, text in (("seven", SEVEN), ("one", ONE)):
        (tmp_path / "Dockerfile").write_text(text.replace("{port}", port))
        build(tmp_path, *host, "-t", f"redis:{name}")
        sizes[name] = layers(docker, f"redis:{name}")
        with running(docker, "--expose", "6379", f"redis:{name}", "redis-server") as where:
            assert answer(where, b"PING\r\n") == b"+PONG\r\n"
    base = sizes["one"][0]
    runs = [line.removeprefix("RUN ") for line in SEVEN.replace("{port}", port).splitlines()[1:]]
    made = sizes["seven"][1:]
    assert sizes["seven"][0] == base
    assert [command.split("/bin/sh -c ")[1] for command, _ in made] == [run for run in runs if not run.startswith("mkdir")]
    (single,) = sizes["one"][1:]
    assert single[1] < 30_000_000
    assert sum(size for _, size in made) > 100_000_000
    total = {name: int(docker("inspect", "-f", "{{.Size}}", f"redis:{name}")) for name in sizes}
    assert total == {name: sum(size for _, size in found) for name, found in sizes.items()}


def answer(address: str, request: bytes) -> bytes:
    """What a server says to a request, once it does."""
    host, _, port = address.partition(":")
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 10) as connection:
            connection.sendall(request)
            if said := connection.recv(100):
                return said
        assert time.monotonic() < deadline, f"nothing answers at {address}"
        time.sleep(0.05)


def test_a_static_program_from_scratch(docker: Client, build: Client, tmp_path: Path) -> None:
    (tmp_path / "hello.c").write_text('#include <stdio.h>\nint main(int n, char **words) { printf("hello %s\\n", words[n - 1]); }\n')
    (tmp_path / "Dockerfile").write_text(
        "FROM debian:bookworm AS build\n"
        "RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev\n"
        "WORKDIR /src\n"
        "COPY hello.c .\n"
        "RUN gcc -O2 -static -o /hello hello.c\n"
        "FROM scratch\n"
        "COPY --from=build /hello /hello\n"
        'ENTRYPOINT ["/hello"]\n'
    )
    build(tmp_path, "-t", "hello")
    assert docker("run", "--rm", "hello", "world") == "hello world\n"
    ((command, size),) = layers(docker, "hello")
    assert command.endswith(" in /hello ")
    assert size < 2_000_000
    (tmp_path / "hello.c").write_text((tmp_path / "hello.c").read_text().replace("hello %s", "hello, %s"))
    assert build(tmp_path, "-t", "hello").count("---> Using cache") == 2  # apt is not asked again
    assert docker("run", "--rm", "hello", "world") == "hello, world\n"


def test_pip_with_a_cache_and_the_hosts_certificates(docker: Client, build: Client, tmp_path: Path) -> None:
    """The second build has no network: what it installs is in the cache that the first one filled."""
    (tmp_path / "ca.pem").write_bytes(CERTIFICATES.read_bytes())
    python = "FROM debian:bookworm\nRUN apt-get update && apt-get install -y --no-install-recommends python3-pip\n"
    cache = "--mount=type=cache,target=/wheels"
    install = "pip install --break-system-packages --no-index --find-links /wheels idna==3.7"
    (tmp_path / "Dockerfile").write_text(
        f"{python}"
        f"RUN {cache} --mount=type=bind,source=ca.pem,target=/run/ca.pem \\\n"
        f"  pip --cert /run/ca.pem wheel --wheel-dir /wheels --find-links /wheels idna==3.7 && {install}\n"
        'CMD ["python3", "-c", "import idna; print(idna.__version__)"]\n'
    )
    assert "Saved /wheels/idna-3.7-py3-none-any.whl\n" in build(tmp_path, "-t", "python:first")
    assert docker("run", "--rm", "python:first") == "3.7\n"
    assert docker("run", "--rm", "python:first", "sh", "-c", "find /run/ca.pem /wheels -type f -size +0 2>/dev/null || true") == ""
    (tmp_path / "Dockerfile").write_text(f"{python}RUN --network=none {cache} {install}\n")
    said = build(tmp_path, "-t", "python:second")
    assert said.count("---> Using cache") == 1
    assert "Processing /wheels/idna-3.7-py3-none-any.whl\n" in said
    assert docker("run", "--rm", "python:second", "python3", "-c", "import idna; print(idna.encode('ä').decode())") == "xn--4ca\n"


def test_a_hundred_instructions(docker: Client, build: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("file\n")
    steps = [f"ENV N={n}\nRUN echo $N >> /all\nCOPY file /f{n}" for n in range(33)]
    (tmp_path / "Dockerfile").write_text("FROM debian:bookworm\n" + "\n".join(steps) + "\n")
    said = build(tmp_path, "-t", "hundred")
    assert "Step 100/100 : COPY file /f32\n" in said
    assert len(layers(docker, "hundred")) == 1 + 2 * 33
    assert docker("run", "--rm", "hundred", "sh", "-c", "cat /all /f* | sort -n | uniq -c | sort -n | tail -n 2").split()[-2:] == [
        "33",
        "file",
    ]
    assert docker("run", "--rm", "hundred", "tail", "-n", "1", "/all") == "32\n"
    assert build(tmp_path, "-t", "hundred").count("---> Using cache") == 99


def test_fifty_thousand_files(docker: Client, build: Client, own_engine: Engine, tmp_path: Path) -> None:
    for directory in range(100):
        (tmp_path / f"files/{directory}").mkdir(parents=True)
        for file in range(500):
            (tmp_path / f"files/{directory}/{file}").write_text(f"{directory} {file}\n")
    (tmp_path / "Dockerfile").write_text("FROM debian:bookworm\nCOPY files /files\nRUN find /files -type f | wc -l\n")
    with peaks(own_engine.pid) as peak:
        assert "\n50000\n" in build(tmp_path, "-t", "many")
        (tmp_path / "files/7/77").write_text("another\n")
        assert "\n50000\n" in build(tmp_path, "-t", "many")
    assert docker("run", "--rm", "many", "cat", "/files/99/499", "/files/7/77") == "99 499\nanother\n"
    print("MB at most:", {kind: value >> 20 for kind, value in peak.items()})
    assert max(peak.values()) < RSS_MAX, peak


def test_a_gigabyte_of_context(docker: Client, build: Client, own_engine: Engine, tmp_path: Path) -> None:
    piece = os.urandom(1 << 20)
    for number in range(4):
        with (tmp_path / f"part{number}").open("wb") as file:
            for index in range(GIGABYTE >> 22):
                file.write(index.to_bytes(8, "big") + piece[8:])
    (tmp_path / "Dockerfile").write_text("FROM debian:bookworm\nCOPY part* /parts/\nRUN cat /parts/* | sha256sum\n")
    expected = subprocess.run(["sh", "-c", f"cat {tmp_path}/part? | sha256sum"], capture_output=True, text=True, check=True).stdout
    with peaks(own_engine.pid) as peak:
        said = build(tmp_path, "-t", "large")
    assert f"\n{expected}" in said
    assert layers(docker, "large")[-1][1] == GIGABYTE
    print("MB at most:", {kind: value >> 20 for kind, value in peak.items()})
    assert {"sampand", "zygote", "other"} <= peak.keys()
    assert max(peak.values()) < RSS_MAX, peak
