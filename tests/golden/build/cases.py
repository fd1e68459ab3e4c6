"""Builds whose stream and image are compared with those of a dockerd 28 (docker28.json)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.support.builds import BASE, Content, packed


class Case(NamedTuple):
    """One build."""

    files: dict[str, Content]
    query: Mapping[str, Any] = {}


_TREE: dict[str, Content] = {
    "d": None, "d/1": {"data": "1\n", "mode": 0o640}, "d/e": None, "d/e/2": "2\n", "x": None, "x/up": {"link": "../d/1"},
    "x/broken": {"link": "nowhere"}, "a b": "w\n", "old": {"data": "", "mtime": 978307200}, "l": {"link": "d/1"},
    "hard": {"hard": "old"}, "suid": {"data": "s", "mode": 0o4755},
}  # fmt: skip
_INNER: dict[str, Content] = {"in": {"data": None, "uid": 12, "gid": 34}, "in/f": {"data": "q\n", "uid": 12, "gid": 34, "mode": 0o4711}}


def _file(text: str, files: dict[str, Content] | None = None, **query: Any) -> Case:
    return Case({"Dockerfile": text.replace("BASE", BASE), **(files or {})}, query)


CASES: dict[str, Case] = {
    "metadata": _file(
        """ARG G=1
FROM BASE AS one
MAINTAINER me <a@b>
ARG A=5
ARG B C=7
ENV X=$A Y="a b"
ENV Z $X and more
LABEL k=v "l m"=n
USER joe
EXPOSE 90 80/udp 7000-7002
HEALTHCHECK CMD first
HEALTHCHECK --interval=1m30s --timeout=1500ms --retries=3 CMD ["b","c"]
CMD ["a","b c"]
ENTRYPOINT echo "q"
CMD again
ENTRYPOINT
STOPSIGNAL SIGINT
SHELL ["/bin/sh","-ec"]
ONBUILD RUN echo trig
ONBUILD COPY . /on
FROM one
CMD x
""",
        labels={"z": "1", "a": "2"},
        buildargs={"A": "9", "UNUSED": "1"},
    ),
    "run": _file(
        """FROM BASE
RUN echo out
RUN echo err >&2
RUN true
RUN ["/bin/echo", "exec"]
ARG Q
ARG HTTP_PROXY
RUN echo $Q $HTTP_PROXY $https_proxy > /args
WORKDIR /w
RUN pwd > f; ln -s f s; ln f h; chmod 4755 f; mkdir d
USER 5:7
RUN id
USER joe
RUN id; cd /; rm -f nothing
SHELL ["/bin/sh", "-xc"]
USER root
RUN rm -r d; rm /etc/group
RUN exit 4
""",
        buildargs={"Q": "3", "HTTP_PROXY": "u", "https_proxy": "v"},
    ),
    "workdir": _file(
        """FROM BASE
WORKDIR "/a b/../c"
WORKDIR rel
WORKDIR /tmp
WORKDIR ..
RUN pwd
"""
    ),
    "volume": _file(
        """FROM BASE
VOLUME /v /w
RUN echo a > /v/x
COPY Dockerfile /v/
RUN ls /v > /out
VOLUME ["/var/j"]
RUN touch /var/j/f
"""
    ),
    "copy": _file(
        """FROM BASE
RUN mkdir -p /r/s && ln -s /r/s /link && echo f > /file && chown joe /file
COPY --chown=joe d /r/s/
COPY --chown=joe:staff d/1 /new/par/one
COPY --chown=77 old /n/
COPY --chown=77:0 d /m
COPY d/1 /link
COPY d /link/
COPY d d/e /multi/
COPY d/* /glob/
COPY x /x/
COPY l /l
COPY l /ldir/
COPY ["a b", "/sp/"]
COPY [ol]?d /q/
COPY suid hard old /hard/
COPY d/1 /file
WORKDIR /rel
COPY d/1 .
COPY d/1 sub/
COPY d/e/ ./t2
COPY . /all
""",
        _TREE,
    ),
    "add": _file(
        """FROM BASE
ADD a.tgz /tgz
ADD a.tar /tar/
ADD plain.gz real.gz /plain/
COPY a.tgz /copied
ADD d /add/
ADD --chown=1:2 d/1 /addc/
ADD a.tgz d/1 /both/
""",
        {
            **_TREE,
            "a.tgz": packed(_INNER, zipped=True),
            "a.tar": packed(_INNER),
            "plain.gz": "no archive\n",
            "real.gz": packed({}, zipped=True),
        },
    ),
    "stages": _file(
        """FROM BASE AS b
COPY --chown=joe . /r
RUN ln -s /r/d/1 /link
FROM BASE
COPY --from=b /r /r2
COPY --from=b /r/old /link /f/
COPY --from=0 /r/x /x
COPY --from=b --chown=5 /r/d/* /st/
""",
        _TREE,
    ),
    "scratch": _file(
        """FROM scratch
COPY d /x
WORKDIR /y
CMD ["/z"]
""",
        _TREE,
    ),
    "ignored": _file(
        """FROM BASE
COPY . /q
RUN ls -A /q
""",
        {".dockerignore": "Dockerfile\n.dockerignore\nzz\n", "zz": "1"},
    ),
    "lower-case-name": Case({"dockerfile": f"FROM {BASE}\n"}),
    "empty-continuation": _file("FROM BASE\nENV a=b \\\n\n c=d\n"),
    "no-image": _file("FROM scratch\n"),
    "missing": _file("FROM BASE\nCOPY nope /x\n"),
    "missing-glob": _file("FROM BASE\nADD a/nope* /x\n"),
    "outside": _file("FROM BASE\nCOPY ../x /x\n"),
    "two-to-a-file": _file("FROM BASE\nCOPY d old /x\n", _TREE),
    "no-user": _file("FROM BASE\nCOPY --chown=nouser old /x\n", _TREE),
    "no-group": _file("FROM BASE\nCOPY --chown=root:nogroup old /x\n", _TREE),
    "from-itself": _file("FROM BASE\nCOPY --from=0 /a /b\n"),
    "run-without-user": _file("FROM BASE\nUSER nosuch\nRUN id\n"),
    "work-in-a-file": _file("FROM BASE\nWORKDIR /bin/busybox\n"),
    "too-little-memory": _file("FROM BASE\nRUN x\n", memory=100),
    "no-network": _file("FROM BASE\nRUN true\n", networkmode="nosuch"),
    "limits": _file(
        "FROM BASE\nRUN df -k /dev/shm | tail -1; ulimit -n\n", shmsize=1 << 20, memory=32 << 20, cpuquota=50000, cpuperiod=100000
    ),
    "cut-off": _file("FROM BASE\nRUN ls /sys/class/net; tail -1 /etc/hosts\n", networkmode="none", extrahosts="a:1.2.3.4"),
}
