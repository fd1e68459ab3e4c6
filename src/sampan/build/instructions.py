"""What a Dockerfile says, as values: one frozen type for each instruction. No behaviour, nothing expanded.

Texts are the file's UTF-8; bytes that are none are kept as surrogates (`surrogateescape`). Whatever may hold `$variables` still holds them:
`resolve.py` replaces them when the step's environment is known. `msgspec.to_builtins` of any of these is what the golden files hold.
"""

from typing import ClassVar, Final, Literal, TypeAlias

from msgspec import Struct

EscapeToken = Literal["\\", "`"]
Network = Literal["default", "none", "host"]
Security = Literal["sandbox", "insecure"]
Sharing = Literal["shared", "private", "locked"]

DEFAULT_ESCAPE: Final[EscapeToken] = "\\"


class Lines(Struct, frozen=True, array_like=True):
    """Where something stands in the file: lines counted from 1, the last one included."""

    first: int
    last: int


class ParseWarning(Struct, frozen=True, kw_only=True):
    """Something odd that docker tells of and builds all the same."""

    message: str
    line: int


class Heredoc(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`<<NAME … NAME`. `content` has every line up to the terminator, its newline included, leading tabs still there."""

    name: str
    content: str
    expand: bool = True
    """False: the name was quoted, variables in the content stay as they are (of COPY and ADD; a shell does its own)."""
    strip_tabs: bool = False
    """Written `<<-`: leading tabs of each line do not count (`stripped`)."""
    descriptor: int = 0
    """The number before `<<`; the shell's matter."""

    def stripped(self) -> str:
        """The content without leading tabs if it was written `<<-`."""
        if not self.strip_tabs:
            return self.content
        return "".join(line.lstrip("\t") for line in self.content.splitlines(keepends=True))


class CommandLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What RUN, CMD and ENTRYPOINT run. Never expanded: that is the shell's."""

    words: tuple[str, ...] = ()
    """Exec form: the JSON's strings. Shell form: one word with the whole text (none: nothing was written)."""
    shell: bool = True
    """Shell form: the image's SHELL (`/bin/sh -c`) comes before `words`."""
    heredocs: tuple[Heredoc, ...] = ()


class Instruction(Struct, frozen=True, kw_only=True, tag_field="instruction", omit_defaults=True):
    """What all have. `keyword` is the instruction's name in upper case."""

    keyword: ClassVar[str] = ""

    text: str
    """As written, continuation lines joined, comments and heredoc bodies left out: what `Step 1/2 : ` shows."""
    lines: Lines


class Pair(Struct, frozen=True, array_like=True):
    """`name=value`, quotes still there."""

    name: str
    value: str


class Env(Instruction, tag="ENV", frozen=True, kw_only=True):
    """ENV name=value …, or (`legacy`) ENV name the rest."""

    keyword: ClassVar[str] = "ENV"
    pairs: tuple[Pair, ...]
    legacy: bool = False


class Label(Instruction, tag="LABEL", frozen=True, kw_only=True):
    """LABEL name=value … `expand` is False for those of the option `--label`."""

    keyword: ClassVar[str] = "LABEL"
    pairs: tuple[Pair, ...]
    legacy: bool = False
    expand: bool = True


class Maintainer(Instruction, tag="MAINTAINER", frozen=True, kw_only=True):
    """MAINTAINER text: the image's author."""

    keyword: ClassVar[str] = "MAINTAINER"
    maintainer: str


class InlineFile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A heredoc as a source of COPY and ADD: a file of mode 0644."""

    path: str
    """The heredoc's name; the file's, unless the destination names one."""
    content: str
    """Leading tabs are gone already."""
    expand: bool = True


class Transfer(Instruction, frozen=True, kw_only=True):
    """What COPY and ADD have in common. Empty texts: not given."""

    sources: tuple[str, ...] = ()
    files: tuple[InlineFile, ...] = ()
    """Come after `sources`."""
    destination: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()


class Add(Transfer, tag="ADD", frozen=True, kw_only=True):
    """ADD: local tars are unpacked, URLs and git repositories fetched."""

    keyword: ClassVar[str] = "ADD"
    checksum: str = ""
    """`sha256:…` of what an http(s) URL gives, or the commit of a git one."""
    keep_git_dir: bool | None = None
    unpack: bool | None = None
    """None: local tars are, fetched ones are not."""


class Copy(Transfer, tag="COPY", frozen=True, kw_only=True):
    """COPY, of the context or `from_` a stage (name or number) or an image."""

    keyword: ClassVar[str] = "COPY"
    from_: str = ""
    parents: bool = False


class BindMount(Struct, frozen=True, kw_only=True, tag_field="type", tag="bind", omit_defaults=True):
    """--mount=type=bind: files of the context, a stage or an image. What is written into it is thrown away."""

    target: str
    source: str = "/"
    from_: str = ""
    readonly: bool = True


class CacheMount(Struct, frozen=True, kw_only=True, tag_field="type", tag="cache", omit_defaults=True):
    """--mount=type=cache: a directory that outlives the build and is in no layer."""

    target: str
    id: str
    """As given, or the target."""
    sharing: Sharing = "shared"
    from_: str = ""
    """What a new cache begins with; empty: nothing."""
    source: str = "/"
    readonly: bool = False
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


class TmpfsMount(Struct, frozen=True, kw_only=True, tag_field="type", tag="tmpfs", omit_defaults=True):
    """--mount=type=tmpfs: a file system in memory, of `size` bytes (0: no limit of its own)."""

    target: str
    size: int = 0
    readonly: bool = False


class SecretMount(Struct, frozen=True, kw_only=True, tag_field="type", tag="secret", omit_defaults=True):
    """--mount=type=secret: a file, an environment variable (`env`), or both, that no layer, history or key of the cache has."""

    id: str
    target: str = ""
    """The file's path; empty: only a variable."""
    env: str = ""
    required: bool = False
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


class SshMount(Struct, frozen=True, kw_only=True, tag_field="type", tag="ssh", omit_defaults=True):
    """--mount=type=ssh: a socket to the client's ssh agent, SSH_AUTH_SOCK."""

    id: str = "default"
    target: str = ""
    """Empty: /run/buildkit/ssh_agent.N, N counted within the instruction."""
    required: bool = False
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


RunMount: TypeAlias = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount


class Device(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """--device of RUN: a CDI device."""

    name: str = ""
    required: bool = False


class Run(Instruction, tag="RUN", frozen=True, kw_only=True):
    """RUN."""

    keyword: ClassVar[str] = "RUN"
    command: CommandLine
    mount_flags: tuple[str, ...] = ()
    """The values of --mount as written: they may hold variables. `mounts.mounts_of` makes a RunMount of each."""
    network: Network = "default"
    security: Security = "sandbox"
    devices: tuple[Device, ...] = ()


class Cmd(Instruction, tag="CMD", frozen=True, kw_only=True):
    """CMD."""

    keyword: ClassVar[str] = "CMD"
    command: CommandLine


class Entrypoint(Instruction, tag="ENTRYPOINT", frozen=True, kw_only=True):
    """ENTRYPOINT."""

    keyword: ClassVar[str] = "ENTRYPOINT"
    command: CommandLine


class HealthCheck(Instruction, tag="HEALTHCHECK", frozen=True, kw_only=True):
    """HEALTHCHECK; times in nanoseconds, 0: docker's default."""

    keyword: ClassVar[str] = "HEALTHCHECK"
    test: tuple[str, ...]
    """("NONE",), ("CMD", word, …) or ("CMD-SHELL", text): what the image's config has."""
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class Expose(Instruction, tag="EXPOSE", frozen=True, kw_only=True):
    """EXPOSE; as written, sorted as docker does. After expansion one of them may be several (`resolve.py`)."""

    keyword: ClassVar[str] = "EXPOSE"
    ports: tuple[str, ...]


class User(Instruction, tag="USER", frozen=True, kw_only=True):
    """USER name[:group]."""

    keyword: ClassVar[str] = "USER"
    user: str


class Volume(Instruction, tag="VOLUME", frozen=True, kw_only=True):
    """VOLUME."""

    keyword: ClassVar[str] = "VOLUME"
    paths: tuple[str, ...]


class WorkDir(Instruction, tag="WORKDIR", frozen=True, kw_only=True):
    """WORKDIR; may be relative to the one before."""

    keyword: ClassVar[str] = "WORKDIR"
    path: str


class StopSignal(Instruction, tag="STOPSIGNAL", frozen=True, kw_only=True):
    """STOPSIGNAL; not checked: it may be a variable."""

    keyword: ClassVar[str] = "STOPSIGNAL"
    signal: str


class ArgDeclaration(Struct, frozen=True, array_like=True):
    """One name of an ARG. `default` None: none given, which is not the same as an empty one."""

    name: str
    default: str | None = None


class Arg(Instruction, tag="ARG", frozen=True, kw_only=True):
    """ARG name[=default] …"""

    keyword: ClassVar[str] = "ARG"
    declarations: tuple[ArgDeclaration, ...]


class Shell(Instruction, tag="SHELL", frozen=True, kw_only=True):
    """SHELL ["…"]."""

    keyword: ClassVar[str] = "SHELL"
    words: tuple[str, ...]


class OnBuild(Instruction, tag="ONBUILD", frozen=True, kw_only=True):
    """ONBUILD; `trigger` is the text that the image keeps, parsed where a child is built (`parse.parse_trigger`).

    A heredoc of it is part of the text.
    """

    keyword: ClassVar[str] = "ONBUILD"
    trigger: str


StageInstruction: TypeAlias = (
    Env
    | Label
    | Maintainer
    | Add
    | Copy
    | Run
    | Cmd
    | Entrypoint
    | HealthCheck
    | Expose
    | User
    | Volume
    | WorkDir
    | StopSignal
    | Arg
    | Shell
    | OnBuild
)


class Stage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """FROM and what follows it."""

    index: int
    """Counted from 0: COPY --from=0."""
    base: str
    """An image, an earlier stage's name, or `scratch`; may hold global ARGs, as may `platform`."""
    platform: str = ""
    alias: str = ""
    """AS, in lower case; empty: none."""
    text: str
    lines: Lines
    instructions: tuple[StageInstruction, ...] = ()


class Directives(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`# name=value` before everything else."""

    syntax: str = ""
    escape: EscapeToken = DEFAULT_ESCAPE
    check: str = ""


class Dockerfile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A whole file; at least one stage."""

    directives: Directives
    args: tuple[Arg, ...] = ()
    """Those before the first FROM: seen by FROMs, and by stages that declare the name again. Each counts as a step."""
    stages: tuple[Stage, ...]
    warnings: tuple[ParseWarning, ...] = ()
