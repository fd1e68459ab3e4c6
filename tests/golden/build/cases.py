"""Builds whose stream and image are compared with those of a dockerd 28 (docker28.json)."""

from tests.golden.build import configs, files, mistakes
from tests.golden.build.case import Case, case
from tests.support.builds import BASE, Content, packed

_TREE: dict[str, Content] = {
    "d": None, "d/1": {"data": "1\n", "mode": 0o640}, "d/e": None, "d/e/2": "2\n", "x": None, "x/up": {"link": "../d/1"},
    "x/broken": {"link": "nowhere"}, "a b": "w\n", "old": {"data": "", "mtime": 978307200}, "l": {"link": "d/1"},
    "hard": {"hard": "old"}, "suid": {"data": "s", "mode": 0o4755},
}  # fmt: skip
_INNER: dict[str, Content] = {"in": {"data": None, "uid": 12, "gid": 34}, "in/f": {"data": "q\n", "uid": 12, "gid": 34, "mode": 0o4711}}


CASES: dict[str, Case] = {
    "metadata": case(
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
    "run": case(
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
    "workdir": case(
        """FROM BASE
WORKDIR "/a b/../c"
WORKDIR rel
WORKDIR /tmp
WORKDIR ..
RUN pwd
"""
    ),
    "volume": case(
        """FROM BASE
VOLUME /v /w
RUN echo a > /v/x
COPY Dockerfile /v/
RUN ls /v > /out
VOLUME ["/var/j"]
RUN touch /var/j/f
"""
    ),
    "copy": case(
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
    "add": case(
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
    "stages": case(
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
    "scratch": case(
        """FROM scratch
COPY d /x
WORKDIR /y
CMD ["/z"]
""",
        _TREE,
    ),
    "ignored": case(
        """FROM BASE
COPY . /q
RUN ls -A /q
""",
        {".dockerignore": "Dockerfile\n.dockerignore\nzz\n", "zz": "1"},
    ),
    "lower-case-name": Case({"dockerfile": f"FROM {BASE}\n"}),
    "empty-continuation": case("FROM BASE\nENV a=b \\\n\n c=d\n"),
    "no-image": case("FROM scratch\n"),
    "missing": case("FROM BASE\nCOPY nope /x\n"),
    "missing-glob": case("FROM BASE\nADD a/nope* /x\n"),
    "outside": case("FROM BASE\nCOPY ../x /x\n"),
    "two-to-a-file": case("FROM BASE\nCOPY d old /x\n", _TREE),
    "no-user": case("FROM BASE\nCOPY --chown=nouser old /x\n", _TREE),
    "no-group": case("FROM BASE\nCOPY --chown=root:nogroup old /x\n", _TREE),
    "from-itself": case("FROM BASE\nCOPY --from=0 /a /b\n"),
    "run-without-user": case("FROM BASE\nUSER nosuch\nRUN id\n"),
    "work-in-a-file": case("FROM BASE\nWORKDIR /bin/busybox\n"),
    "too-little-memory": case("FROM BASE\nRUN x\n", memory=100),
    "no-network": case("FROM BASE\nRUN true\n", networkmode="nosuch"),
    "limits": case(
        "FROM BASE\nRUN df -k /dev/shm | tail -1; ulimit -n\n", shmsize=1 << 20, memory=32 << 20, cpuquota=50000, cpuperiod=100000
    ),
    "cut-off": case("FROM BASE\nRUN ls /sys/class/net; tail -1 /etc/hosts\n", networkmode="none", extrahosts="a:1.2.3.4"),
    **configs.CASES,
    **files.CASES,
    **mistakes.CASES,
}
