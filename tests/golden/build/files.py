"""Cases of COPY, ADD, WORKDIR and of what RUN does to files."""

import base64
import tarfile
from typing import Final

from tests.golden.build.case import Case, case
from tests.support.builds import Content, packed

_TREE: Final[dict[str, Content]] = {
    "f": {"data": "f\n", "mtime": 978307200}, "g": {"data": "g\n", "mode": 0o600, "uid": 7, "gid": 8}, "empty": "",
    "d": {"data": None, "mode": 0o700, "mtime": 978307201}, "d/1": "1\n", "d/.dot": "dot\n", "d/e": None, "d/e/2": "2\n", "none": None,
}  # fmt: skip
_LINKS: Final[dict[str, Content]] = {
    "f": "f\n", "t": None, "t/to-f": {"link": "../f"}, "t/up": {"link": "../../../f"}, "t/abs": {"link": "/f"}, "t/gone": {"link": "gone"},
    "t/dir": {"link": "d"}, "t/d": None, "t/d/x": "x\n", "lf": {"link": "f"}, "ld": {"link": "t/d"}, "lgone": {"link": "gone"},
    "lup": {"link": "../../f"}, "labs": {"link": "/t/d"}, "chain": {"link": "lf"},
}  # fmt: skip
_MODES: Final[dict[str, Content]] = {
    f"m/{mode:04o}": {"data": f"{mode:o}\n", "mode": mode} for mode in (0, 0o4755, 0o2755, 0o6711, 0o1777, 0o444, 0o2644, 0o777)
} | {"m/sd": {"data": None, "mode": 0o2775}, "m/td": {"data": None, "mode": 0o1777}, "m/sd/in": {"data": "", "mode": 0o660}}  # fmt: skip
_OLD = {"mtime": 978307200}
_ARCHIVE: Final[dict[str, Content]] = {
    "dir": {"data": None, "mode": 0o750, "uid": 3, "gid": 4, **_OLD}, "dir/new": {"data": "new\n", "uid": 3, "gid": 4, **_OLD},
    "dir/deep/er": {"data": "no parents\n", **_OLD}, "over": {"data": "over\n", **_OLD}, "dev": {"data": None, "type": tarfile.CHRTYPE, "device": (1, 3), **_OLD},
    "pipe": {"data": None, "type": tarfile.FIFOTYPE, **_OLD}, "sym": {"link": "dir/new", **_OLD}, "hard": {"hard": "over", **_OLD},
    "suid": {"data": "s", "mode": 0o6755, "uid": 5, **_OLD}, "unreachable": {"link": "/../../x", **_OLD},
    "caps": {"data": "c", "mode": 0o755, "pax": {"SCHILY.xattr.security.capability": "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"}, **_OLD},
    "fraction": {"data": "x", "mtime": 978307200.125},
}  # fmt: skip
_XATTRS: Final[dict[str, Content]] = {
    "caps": _ARCHIVE["caps"], "xattr": {"data": "x", "pax": {"SCHILY.xattr.user.one": "1", "SCHILY.xattr.trusted.two": "2"}, **_OLD},
}  # fmt: skip
_WHITEOUTS: Final[dict[str, Content]] = {"w": None, "w/.wh.gone": "", "o": None, "o/.wh..wh..opq": "", ".wh.top": ""}
_PACKED: Final = {
    "a.tar.gz": "H4sIAAAAAAACA0tjoD0wAAIzExMwDQToNBAYMRgamxuZmxhCxc0MzM0YFAzo4DaG0uKSxCIFBYYRCgq5GEbBKBgFo2AUjEAAAL6VTIUACAAA",
    "a.tar.bz2": "QlpoOTFBWSZTWUglVfsAADDbgMkQQAB9gAAA4QA+AAQIIABUVk00AGhpoMo8qPUwRoB9mFDIhAhyBF77BW0mCJHmnTmyTjLAVardJQeYxilyJyiyszGAfF3JFOFCQSCVV+w=",
    "a.tar.xz": "/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4Af/AD1dADMAM1AYaImDAdzibiEFSB7SzCRqboFGMegQd667mympKCX1MMHMkMnDfgrO8ZErlYYSyJc8ktHKK43R0gAAAAAAfAot+w3OuiwAAVmAEAAAAO9qKwmxxGf7AgAAAAAEWVo=",
    "a.tar.zst": "KLUv/QRo7QEAokIJEMCnA0Tw8+/+LUtaB+UoWAYFpVVmoJN6FXO0y5DCGv57h/8lAQcgIDcd+v2DDsXBJr65KQLD+YljAdTmh60=",
}  # fmt: skip
_PLACES: Final = (
    "RUN mkdir -p /real/dir /other && chmod 711 /real/dir && echo old > /real/file && ln -s /real/dir /abs && ln -s real/dir /rel"
    " && ln -s nowhere /dangling && ln -s ../real /other/up && ln -s /real/file /tofile && ln -s /loop /loop && ln -s ../../../etc /real/out"
)

CASES: Final[dict[str, Case]] = {
    "copy-file": case("FROM BASE\nCOPY f /a\nCOPY f /b/\nCOPY f /c/d/e\nCOPY f /tmp\nCOPY f /tmp/\nCOPY g empty /tmp/\nCOPY f g\n", _TREE),
    "copy-dir": case("FROM BASE\nCOPY d /a\nCOPY d /b/\nCOPY d /\nCOPY d /tmp\nCOPY d/ /c/c\nCOPY none /none\nCOPY d none /both/\n", _TREE),
    "copy-dir-onto": case("FROM BASE\nRUN mkdir -m 750 /a && chown 9:9 /a && echo keep > /a/kept && echo old > /a/1\nCOPY d /a\nCOPY d /a/\n", _TREE),
    "copy-onto-file": case("FROM BASE\nRUN echo old > /a; chmod 640 /a; chown 9:9 /a; ln /a /b\nCOPY f /a\nCOPY g /a\n", _TREE),
    "copy-file-onto-dir-of-that-name": case("FROM BASE\nRUN mkdir -p /a/f\nCOPY f /a/\n", _TREE),
    "copy-dir-onto-file": case("FROM BASE\nRUN echo old > /a\nCOPY d /a\n", _TREE),
    "copy-dir-onto-file-slash": case("FROM BASE\nRUN echo old > /a\nCOPY d /a/\n", _TREE),
    "copy-file-below-file": case("FROM BASE\nRUN echo old > /a\nCOPY f /a/b\n", _TREE),
    "copy-file-onto-file-slash": case("FROM BASE\nRUN echo old > /a\nCOPY f /a/\n", _TREE),
    "copy-tree-with-file-for-dir": case("FROM BASE\nRUN mkdir -p /a && echo old > /a/e\nCOPY d /a\n", _TREE, why="opaque"),
    "copy-tree-with-dir-for-file": case("FROM BASE\nRUN mkdir -p /a/1/deep\nCOPY d /a\n", _TREE),
    "copy-globs": case(
        "FROM BASE\nCOPY * /all/\nCOPY d/* /d/\nCOPY [fg] /class/\nCOPY ? /one/\nCOPY d/?* /two/\nCOPY d*/e /three/\nCOPY f* /four\nCOPY */* /five/\nCOPY ./d/../f /six\n",
        _TREE,
    ),
    "copy-odd-names": case(
        'FROM BASE\nCOPY ["a b", "[x]", "/n/"]\nCOPY [[]x] /o/\nCOPY $V\\$x /p\nCOPY "q\'q" /q\nCOPY é日 /é/日\nCOPY -- /dash/\nCOPY .hid /h\n',
        {"a b": "1", "[x]": "2", "$x": "3", "q'q": "4", "é日": "5", "--": "6", ".hid": "7"},
    ),
    "copy-variables": case("FROM BASE\nENV S=f D=/d/\nARG G=g\nCOPY $S ${G} $D\nCOPY --chown=$G:${G} d$X ${D}x\n", _TREE, buildargs={"G": "g"}),
    "copy-names-from-variables": case("FROM BASE\nARG U=joe:staff\nENV S=f D=/d/\nCOPY --chown=$U $S $D\n", _TREE),
    "copy-root": case("FROM BASE\nCOPY . .\nCOPY / /slash/\nCOPY ./ ./w/\nWORKDIR /w2\nCOPY . .\nCOPY ./d ../up\nCOPY /f .\n", _TREE),
    "copy-links": case("FROM BASE\nCOPY t /t\nCOPY lf /lf\nCOPY ld /ld\nCOPY lup /lup\nCOPY labs /labs\nCOPY chain /c/\nCOPY t/to-f /u\nCOPY ld/x /x\n", _LINKS),
    "copy-link-gone": case("FROM BASE\nCOPY lgone /x\n", _LINKS),
    "copy-link-of-a-glob": case("FROM BASE\nCOPY l* /x/\n", _LINKS),
    "copy-links-of-a-glob": case("FROM BASE\nCOPY t/t* t/d* lf /x/\n", _LINKS),
    "copy-link-loop": case("FROM BASE\nCOPY loop /x\n", {"loop": {"link": "loop"}}),
    "copy-hard-links": case(
        "FROM BASE\nCOPY h /h\nCOPY h/a h/b /two/\nCOPY . /all\n", {"h": None, "h/a": "a\n", "h/b": {"hard": "h/a"}, "c": {"hard": "h/a"}}
    ),
    "copy-modes": case("FROM BASE\nCOPY m /m\nCOPY --chown=3:4 m /o\nCOPY m/4755 /s\nCOPY --chown=joe m/2755 /t\n", _MODES),
    "copy-special": case(
        "FROM BASE\nCOPY s /s\n",
        {"s": None, "s/pipe": {"data": None, "type": tarfile.FIFOTYPE}, "s/null": {"data": None, "type": tarfile.CHRTYPE, "device": (1, 3)}},
    ),
    "copy-xattrs": case("FROM BASE\nCOPY xattr caps /x/\nCOPY --chown=1 caps /y\n", _XATTRS, why="attributes"),
    "copy-xattrs-from": case("FROM BASE AS a\nADD a.tar /a/\nFROM BASE\nCOPY --from=a /a /b\nCOPY --from=a /a/caps /c\n", {"a.tar": packed(_XATTRS)}, why="attributes"),
    "add-xattrs": case("FROM BASE\nADD a.tar /a\n", {"a.tar": packed(_XATTRS)}, why="attributes"),
    "copy-onto-links": case(
        f"FROM BASE\n{_PLACES}\nCOPY f /abs\nCOPY f /rel/\nCOPY f /abs/sub/x\nCOPY d /rel\nCOPY f /other/up/y\nCOPY d /abs/new/\nCOPY f /tofile\nCOPY f /real/out/z\n",
        _TREE,
    ),
    "copy-onto-dangling": case(f"FROM BASE\n{_PLACES}\nCOPY f /dangling\nCOPY f /dangling/x\n", _TREE),
    "copy-dir-onto-dangling": case(f"FROM BASE\n{_PLACES}\nCOPY d /dangling\n", _TREE),
    "copy-onto-loop": case(f"FROM BASE\n{_PLACES}\nCOPY f /loop\n", _TREE),
    "copy-below-loop": case(f"FROM BASE\n{_PLACES}\nCOPY f /loop/x\n", _TREE),
    "copy-dir-onto-file-link": case(f"FROM BASE\n{_PLACES}\nCOPY d /tofile\n", _TREE),
    "copy-work-dir": case(f"FROM BASE\n{_PLACES}\nWORKDIR /abs\nCOPY f .\nCOPY d sub\nCOPY f ./\nCOPY f ../up\nWORKDIR here\nCOPY f there\n", _TREE),
    "copy-chown": case(
        "FROM BASE\nCOPY --chown=joe f /a\nCOPY --chown=joe:staff d /b/c/d\nCOPY --chown=12 f /e/f/\nCOPY --chown=12:joe f /g\nCOPY --chown=joe:12 f /h\n"
        "COPY --chown=0 g /i\nCOPY --chown=55:66 f /j\nUSER joe\nCOPY f /k\nCOPY --chown=4294967294 f /l\n",
        _TREE,
    ),
    "copy-chown-own-tables": case(
        "FROM BASE\nRUN echo 'new:x:500:501::/:/bin/sh' >> /etc/passwd; echo 'new:x:501:' >> /etc/group\nCOPY --chown=new f /a\n"
        "COPY --chown=new:new f /b\nRUN rm /etc/passwd /etc/group\nCOPY --chown=5:6 f /c\n",
        _TREE,
    ),
    "copy-chown-linked-tables": case(
        "FROM BASE\nRUN mkdir /t && mv /etc/passwd /etc/group /t/ && ln -s /t/passwd /etc/passwd && ln -s ../../t/group /etc/group\nCOPY --chown=joe:staff f /a\n",
        _TREE,
    ),
    "copy-chown-scratch": case("FROM scratch\nCOPY --chown=5 f /a\nCOPY --chown=5:6 d /b\n", _TREE),
    "copy-from": case(
        "FROM BASE AS one\nCOPY --chown=joe . /src\nRUN ln -s src /ls && ln /src/f /src/hard && chmod 6755 /src/g\nFROM scratch AS two\nCOPY --from=one /src /a\n"
        "COPY --from=ONE /ls /b\nCOPY --from=0 src/f src/g /c/\nCOPY --from=one --chown=3:4 /src/d /d\nCOPY --from=one /src/* /e/\nFROM two\n"
        "COPY --from=one /ls/f /bin/../g\nCOPY --from=1 / /h\nCOPY --from=BASE /etc/passwd /i\n",
        _TREE,
    ),
    "copy-from-image": case("FROM scratch\nCOPY --from=BASE /etc /etc\nCOPY --from=BASE:latest /bin/sh /sh\n"),
    "copy-from-volume": case("FROM BASE AS a\nVOLUME /v\nCOPY f /v/\nFROM BASE\nCOPY --from=a /v /w\n", _TREE),
    "add-kinds": case("FROM BASE\n" + "".join(f"ADD {name} /{name[6:]}/\n" for name in _PACKED), why="xz", files={name: base64.b64decode(data) for name, data in _PACKED.items()}),
    "add-kinds-at-once": case("FROM BASE\nADD a.tar.gz a.tar.bz2 f /x/\nADD a.* /y/\n", {**_TREE, **{name: base64.b64decode(data) for name, data in _PACKED.items() if "xz" not in name}}),
    "add-archive": case("FROM BASE\nADD a.tar /a\n", {"a.tar": packed(_ARCHIVE)}),
    "add-archive-chown": case("FROM BASE\nADD --chown=1:2 a.tar /a\n", {"a.tar": packed(_ARCHIVE)}),
    "add-archive-onto": case(
        "FROM BASE\nRUN mkdir -m 711 -p /a/dir && chown 9:9 /a/dir && echo kept > /a/dir/kept && mkdir /a/over && touch /a/over/x && ln -s /etc /a/sym\nADD a.tar /a\n",
        {"a.tar": packed(_ARCHIVE)},
    ),
    "add-archive-through-link": case(f"FROM BASE\n{_PLACES}\nADD a.tar /abs\nADD a.tar /rel/new\n", {"a.tar": packed({"d": None, "d/f": "f"})}),
    "add-archive-onto-link": case(f"FROM BASE\n{_PLACES}\nADD a.tar /\n", {"a.tar": packed({"abs": None, "abs/f": "f", "tofile": "t"})}, why="opaque"),
    "add-archive-onto-file": case("FROM BASE\nRUN echo > /a\nADD a.tar /a\n", {"a.tar": packed({"f": "f"})}, why="words"),
    "add-whiteouts": case(
        "FROM BASE\nRUN mkdir /w /o; touch /w/gone /w/kept /o/gone /top\nADD a.tar /\nRUN ls -A /w /o\n", {"a.tar": packed(_WHITEOUTS)}
    ),
    "copy-whiteouts": case("FROM BASE\nRUN mkdir /w; touch /w/gone\nCOPY w /w\nRUN ls -A /w\n", {"w": None, "w/.wh.gone": "", "w/f": "f"}),
    "add-archive-climbs": case("FROM BASE\nADD a.tar /a/b\n", {"a.tar": packed({"../out": "o"})}, why="words"),
    "add-archive-through-own-link": case("FROM BASE\nADD a.tar /a\n", {"a.tar": packed({"l": {"link": "/etc"}, "l/x": "x"})}, why="own-link"),
    "add-archive-bad-hard-link": case("FROM BASE\nADD a.tar /a\n", {"a.tar": packed({"h": {"hard": "nope"}})}, why="words"),
    "add-broken-archive": case("FROM BASE\nADD a.tar /a\n", {"a.tar": packed({"f": "f" * 3000})[:1500]}),
    "add-broken-gzip": case("FROM BASE\nADD a.gz /a\n", {"a.gz": base64.b64decode(_PACKED["a.tar.gz"])[:60]}),
    "add-archive-in-dir": case("FROM BASE\nADD d /d\nADD d/a.tar* /e/\n", {"d": None, "d/a.tar": packed({"f": "f"})}),
    "add-dir": case("FROM BASE\nADD d /a\nADD --chown=joe d f /b/\nADD . /c\nADD f /d\n", _TREE),
    "add-archive-linked": case("FROM BASE\nADD l /a\n", {"l": {"link": "a.tar"}, "a.tar": packed({"f": "f"})}),
    "add-archive-into-linked-dir": case(f"FROM BASE\n{_PLACES}\nADD a.tar /\n", {"a.tar": packed({"abs/f": "f", "other/up/g": "g", "rel/h": "h"})}),
    "copy-from-below-file": case("FROM BASE\nCOPY --from=BASE /etc/passwd/x /b\n"),
    "copy-from-loop": case(f"FROM BASE AS a\n{_PLACES}\nFROM BASE\nCOPY --from=a /loop /b\n"),
    "copy-from-links": case(f"FROM BASE AS a\n{_PLACES}\nFROM BASE\nCOPY --from=a /abs /b\nCOPY --from=a /real /c\nCOPY --from=a /other/up/file /d\n"),
    "copy-chown-group-of-the-name": case(
        "FROM BASE\nRUN echo 'new:x:500:501::/:/bin/sh' >> /etc/passwd; echo 'new:x:777:' >> /etc/group\nCOPY --chown=new f /a\nCOPY --chown=new: f /b\n", _TREE
    ),
    "copy-chown-no-group-of-the-name": case(
        "FROM BASE\nRUN echo 'new:x:500:501::/:/bin/sh' >> /etc/passwd\nCOPY --chown=new f /a\n", _TREE, why="own-group"
    ),
    "work-dirs": case(
        f"FROM BASE\n{_PLACES}\nWORKDIR /new/deep\nWORKDIR rel\nWORKDIR ../..\nWORKDIR /abs\nWORKDIR in\nWORKDIR /rel/in2\nWORKDIR .\nWORKDIR /\n"
        "ENV D=/var/x\nWORKDIR $D/${y:-z}\nWORKDIR '/q q'\nWORKDIR //a//b/./c/\nRUN pwd\n"
    ),
    "work-dir-user": case("FROM BASE\nUSER joe\nWORKDIR /a/b\nUSER nosuch\nWORKDIR /c\n"),
    "work-dir-through-file": case("FROM BASE\nRUN echo > /f\nWORKDIR /f/x\n"),
    "work-dir-dangling": case(f"FROM BASE\n{_PLACES}\nWORKDIR /dangling\nRUN pwd\n"),
    "work-dir-out": case(f"FROM BASE\n{_PLACES}\nWORKDIR /real/out/x\n"),
    "run-removes": case(
        """FROM BASE
RUN mkdir -p /a/b /c/d && touch /a/b/1 /a/2 /c/d/3 /e && ln -s e /l && mkfifo /p
RUN rm -r /a /l && rm /c/d/3
RUN rm -r /c && mkdir /c && touch /c/new; rm /e && mkdir /e
RUN rmdir /e && touch /e; mv /p /q; touch /x && rm /x
RUN rm -r /c; ln -s tmp /c
""", why="opaque"),
    "run-changes": case(
        """FROM BASE
RUN echo 1 > /f && ln /f /g && mkdir /d && touch -d @1000000000 /old
RUN chmod 600 /f
RUN chown joe:staff /d
RUN touch -d @1100000000 /d
RUN mv /d /e; ln /old /old2
RUN echo 2 >> /g
RUN chmod 644 /f && chmod 600 /f
RUN cat /f > /dev/null
RUN mknod /c c 1 3; mknod /b b 7 0; mkfifo -m 600 /p
RUN mkdir /k && cp -a /old /k/ && touch -h -d @1000000000 /bin/sh
"""
    ),
    "run-writes-mounted": case("FROM BASE\nRUN echo x > /dev/shm/x; echo y > /tmp/y; ls /proc/1 > /dev/null; echo 1.2.3.4 a >> /etc/hosts; touch /run1\nRUN ls /dev/shm /etc\n"),
    "ignore-stars": case(
        "FROM BASE\nCOPY . /x\n", {**_TREE, ".dockerignore": "*\n!d\nd/e\n"},
    ),
    "ignore-forms": case(
        "FROM BASE\nCOPY . /x\n",
        {".dockerignore": "# comment\n\n  a  \n/b\n./c\n**/z\n!y/z\nk*/\n", "a": "", "b": "", "c": "", "x": None, "x/z": "", "y": None, "y/z": "", "kk": None, "kk/f": ""},
    ),
    "ignored-dockerfile-copied": case("FROM BASE\nCOPY Dockerfile /x\n", {".dockerignore": "Dockerfile\n"}),
    "other-dockerfile": Case({"x/My.file": "FROM buildbase\nCOPY . /x\n", "f": "1"}, {"dockerfile": "x/My.file"}),
    "other-dockerfile-ignored": Case(
        {"My.file": "FROM buildbase\nCOPY . /x\n", "My.file.dockerignore": "f\n", ".dockerignore": "g\nMy.file\n", "f": "1", "g": "1", "h": "1"}, {"dockerfile": "My.file"}, why="ignore-file"
    ),
    "scratch-forms": case("FROM scratch\nCOPY f /a/b/c\nADD f .\nWORKDIR x\nCOPY f .\n", _TREE),
    "scratch-metadata": case('FROM scratch\nENV a=b\nLABEL c=d\nCMD ["x"]\n'),
    "scratch-run": case("FROM scratch\nRUN x\n"),
    "scratch-run-exec": case('FROM scratch\nRUN ["/nope"]\n'),
}  # fmt: skip
