"""Cases of the instructions that change the config: ENV, ARG, LABEL, CMD, ENTRYPOINT, and their like."""

from typing import Final

from tests.golden.build.case import Case, case

CASES: Final[dict[str, Case]] = {
    "env-forms": case(
        r"""FROM BASE
ENV a=1 b="two words" c=it\ is d='$a' e=$a f=${a}x
ENV g $b  end
ENV h=${nope:-default} i=${a:+set} j=${nope:+set} k=${nope} l=\$a m="\"q\"" n='"' o=
ENV a=2 p=$a
ENV q=${b%words} r=${b#two} s=${b/two/three}
ENV PATH=/x:$PATH
RUN echo "$a|$b|$c|$d|$g|$PATH"
"""
    ),
    "env-of-base": case("FROM BASE AS one\nENV A=1 B=2\nFROM one\nENV B=3 C=$A\n"),
    "arg-before-from": case("ARG NAME=BASE\nARG TAG=${NAME}:latest\nFROM $TAG\nARG NAME\nRUN echo $NAME $TAG\n"),
    "arg-of-a-stage": case(
        "FROM BASE AS a\nARG V=1\nRUN echo $V\nFROM a\nRUN echo 2${V}\nARG V\nRUN echo 3${V}\n",
        buildargs={"V": "given"},
    ),
    "arg-and-env": case("FROM BASE\nARG V=1\nENV V=2\nRUN echo $V\nARG W=$V\nRUN echo $W\nENV X=$W\n", buildargs={"V": "given"}),
    "arg-proxy": case("FROM BASE\nRUN echo $http_proxy\nARG http_proxy\nRUN echo $http_proxy\n", buildargs={"http_proxy": "http://p:1"}),
    "arg-null": case("FROM BASE\nARG A\nARG B=b\nRUN echo A$A B$B\n", buildargs={"A": None, "B": ""}),
    "arg-quoted": case("FROM BASE\nARG A=\"a b\" B='c d' C=$A\nRUN echo $A $B $C\nLABEL l=$A\n"),
    "args-unused": case("FROM BASE\nRUN true\n", buildargs={"Z": "1", "A": "2", "HTTP_PROXY": "x"}),
    "labels": case(
        r"""FROM BASE
LABEL one=1 two="t w o" 'three'='3 3' "fo ur"=4
LABEL five six seven
LABEL multi="a \
b" next=c
LABEL one=changed $x=y empty=
ENV V=v
LABEL v=$V w="${V}w" x='$V'
"""
    ),
    "labels-given": case("FROM BASE\nLABEL a=1\n", labels={"a": "2", "$b": "$c", "d e": ""}),
    "cmd-forms": case('FROM BASE\nCMD ["a", "b\\"c"]\nCMD echo  "two  blanks" $X\nCMD [ not json ]\nCMD []\n'),
    "cmd-of-base-reset": case('FROM BASE AS one\nCMD ["base"]\nFROM one\nENTRYPOINT ["/e"]\n'),
    "cmd-of-base-kept": case('FROM BASE AS one\nCMD ["base"]\nENTRYPOINT ["/e"]\nFROM one\nLABEL a=b\n'),
    "cmd-own-kept": case('FROM BASE AS one\nCMD ["base"]\nFROM one\nCMD ["own"]\nENTRYPOINT ["/e"]\nENTRYPOINT shell form\n'),
    "entrypoint-empty": case('FROM BASE\nENTRYPOINT ["/e"]\nCMD a\nENTRYPOINT []\n'),
    "entrypoint-and-run": case('FROM BASE\nENTRYPOINT ["/nope"]\nCMD ["x"]\nRUN echo ran\nWORKDIR /w\nCOPY Dockerfile .\n'),
    "shell": case('FROM BASE\nSHELL ["/bin/sh", "-uc"]\nRUN echo a\nCMD b\nENTRYPOINT c\nHEALTHCHECK CMD d\nONBUILD RUN e\n'),
    "shell-of-base": case('FROM BASE AS one\nSHELL ["/bin/sh", "-uc"]\nFROM one\nRUN echo a\nCMD b\n'),
    "healthchecks": case(
        """FROM BASE
HEALTHCHECK --start-period=5s --start-interval=1s CMD curl -f http://x/ || exit 1
HEALTHCHECK NONE
HEALTHCHECK --interval=1h2m3s --timeout=1.5s --retries=0 CMD ["a", "b"]
HEALTHCHECK CMD []
RUN true
"""
    ),
    "stop-signals": case("FROM BASE\nSTOPSIGNAL 9\nSTOPSIGNAL sigterm\nENV S=SIGUSR1\nSTOPSIGNAL $S\nSTOPSIGNAL RTMIN+3\n"),
    "expose": case(
        "FROM BASE\nEXPOSE 80 443/tcp 53/udp 9/SCTP 8000-8002/udp\nENV P='81 82'\nEXPOSE $P\nEXPOSE 80/tcp 99:100 1.2.3.4:5:6\n"
    ),
    "volumes": case('FROM BASE\nENV V=/v\nVOLUME $V "/q q"\nVOLUME ["/j", " /k ", "rel"]\nVOLUME /v\n'),
    "volume-writes": case(
        """FROM BASE
RUN mkdir /v && echo a > /v/before
VOLUME /v
RUN echo b > /v/after; ls /v
RUN ls /v; rm /v/before; mkdir -p /w/x
VOLUME /w/x
RUN touch /w/x/f /w/y
COPY Dockerfile /v/
WORKDIR /v/sub
"""
    ),
    "user": case(
        """FROM BASE
RUN mkdir -m 777 /w
USER joe
WORKDIR /w/made
COPY Dockerfile /w/copied
RUN id; touch /w/ran; mkdir /w/dir
USER 77:88
RUN id; touch /w/ran2
USER joe:staff
RUN id
USER 55
RUN id
ENV U=root
USER $U
RUN id -u
"""
    ),
    "maintainer": case("FROM BASE\nMAINTAINER one\nMAINTAINER two words <a@b>\nLABEL a=b\n"),
    "on-build": case(
        """FROM BASE AS one
ONBUILD ENV E=on
ONBUILD ARG A=1
ONBUILD RUN echo $E $A > /ran
ONBUILD COPY Dockerfile /copied
ONBUILD ADD Dockerfile /added
ONBUILD WORKDIR /work
ONBUILD USER joe
ONBUILD EXPOSE 1
ONBUILD VOLUME /vol
ONBUILD LABEL l=1
ONBUILD CMD ["c"]
ONBUILD ENTRYPOINT ["e"]
ONBUILD STOPSIGNAL 3
ONBUILD SHELL ["/bin/sh", "-c"]
ONBUILD HEALTHCHECK NONE
onbuild   run   echo   blanks
FROM one AS two
RUN pwd
FROM two AS three
"""
    ),
    "on-build-unread": case("FROM BASE AS one\nONBUILD FOO bar\nONBUILD COPY one\n"),
    "on-build-of-unknown": case("FROM BASE AS one\nONBUILD FOO bar\nFROM one\n"),
    "on-build-from": case("FROM BASE AS one\nRUN echo 1 > /f\nFROM BASE AS two\nONBUILD COPY --from=one /f /g\nFROM two\n", why="stages"),
    "directives": case("# escape=`\n# a comment\nFROM BASE\nENV a=b`\n c=d\nRUN echo a\\b `\n   # inner\n  && echo c\n"),
    "lower-case": case("from BASE as One\nrun echo a\nenv a=b\ncopy dockerfile* /\nFROM oNE\n"),
    "line-ends": case("FROM BASE\r\nENV a=b \\\r\n  c=d\r\nRUN echo x\r\n"),
    "blanks": case("\n\n  FROM   BASE  \n\n\t ENV   a=b    c=d  \n   # comment\n RUN    echo    a   b  \n"),
    "cached": case(
        "ARG A=1\nFROM BASE\nARG B=2\nENV c=$B\nRUN echo a > /a\nCOPY Dockerfile /d\nWORKDIR /w\nADD Dockerfile e\nCMD x\n", again=True
    ),
    "cached-stages": case("FROM BASE AS a\nRUN echo 1 > /f\nFROM BASE\nCOPY --from=a /f /g\nONBUILD RUN x\n", again=True),
    "target": case("FROM BASE AS a\nENV a=1\nFROM BASE AS b\nENV b=1\n", target="a"),
    "target-number": case("FROM BASE AS a\nENV a=1\nFROM BASE\nENV b=1\n", target="0", why="target"),
    "only-from": case("FROM BASE\n"),
    "only-from-twice": case("FROM BASE AS a\nFROM a\n"),
    "run-exec": case('FROM BASE\nRUN ["echo", "$HOME", "a b"]\nRUN [ "sh", "-c", "echo $HOME" ]\nRUN [echo, x]\n'),
    "run-output": case(
        "FROM BASE\nRUN printf 'no end'\nRUN printf 'a\\n\\nb\\n'\nRUN echo err >&2\nRUN printf '\\t\\033[1mbold\\033[0m\\n'\n"
    ),
    "run-surroundings": case(
        "FROM BASE\nARG A=1\nENV E=2\nRUN env | grep -v HOSTNAME | sort; pwd; umask; id\nUSER joe\nWORKDIR /tmp\nRUN env | grep -v HOSTNAME | sort; pwd\n"
    ),
    "keeps": case("FROM BASE\nENV a=b\nRUN true\n", rm=0, forcerm=0),
}
