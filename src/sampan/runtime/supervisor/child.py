"""What the forked child does until execve: namespaces, cgroup, root, identity. Never returns to the supervisor's loop.

Every module it needs is imported before: a late import would look in the container's file system. Failures go to the parent as
{"error": {"step", "errno", "path", "message"}} on the sync socket, which is close-on-exec: end of file means that execve succeeded.
"""

import binascii
import contextlib
import errno
import json
import os
import signal
import socket
import stat
import sys
from typing import Any, NoReturn

from sampan.linux import (
    apparmor,
    capabilities,
    cgroup1,
    cgroup2,
    idmap,
    kernelfile,
    keyring,
    libc,
    loopback,
    mounts,
    namespaces,
    prctl,
    pty,
    rlimits,
    seccomp,
    users,
)
from sampan.runtime import ops
from sampan.runtime.supervisor import hooks, init, rootfs

Fds = dict[str, int]


class Host:
    """Facts of this process that children need, gathered once at start."""

    program = ""
    """The file of main.py."""
    build = ""
    """Which version of the lean program this is, as its starter calls it (spawning.build_of_program)."""
    lock = -1
    """The descriptor that holds the lock of our role."""
    mount_point = "/run/sampan/rootfs"
    bounding = 0
    argument_area = (0, 0)
    nofile = (1024, 524288)
    """RLIMIT_NOFILE as the supervisor found it: children get it back."""


class SetupError(Exception):
    """A failure with its own message (a name that is not found)."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number
        self.message = message


def run(plan: ops.Plan, fds: Fds, sync: socket.socket, joined: str = "") -> NoReturn:
    """Become the container's process, which is in the cgroup directory `joined` already.

    fds: stdin, stdout, stderr (absent with a tty), userns, netns, ipcns, layer<n>; for exec also target (a pidfd).
    """
    where = ["start", ""]
    try:
        reset_signals()
        if plan["kind"] == "init":
            _run_init(plan, fds, sync, where, joined)
        else:
            _run_exec(plan, fds, sync, where, joined)
    except BaseException as error:
        report(sync, where, error)
    os._exit(1)


def execute_anew(plan: ops.Plan, fds: Fds, sync: socket.socket, joined: str) -> NoReturn:
    """Go on in run() as a fresh program, without what the supervisor knows of other containers: an --init process stays in its container
    for good, where CAP_SYS_PTRACE can read its memory."""
    try:
        document = os.memfd_create("launch", 0)
        names = {name: fd for name, fd in fds.items() if not name.startswith("custody:")}
        state = {"plan": plan, "fds": names, "sync": sync.fileno(), "joined": joined, "mount_point": Host.mount_point}
        with open(document, "wb", closefd=False) as file:
            file.write(json.dumps(state).encode())
        for fd in (*names.values(), sync.fileno()):
            os.set_inheritable(fd, True)
        os.execve("/proc/self/exe", [sys.executable, "-I", "-S", Host.program, "child", str(document)], dict(os.environ))
    except BaseException as error:
        report(sync, ["start", ""], error)
    os._exit(1)


def run_anew(document: int) -> NoReturn:
    """The other half of execute_anew."""
    with open(document, "rb") as file:
        file.seek(0)
        state = json.load(file)
    sync = socket.socket(fileno=state["sync"])
    for fd in (*state["fds"].values(), state["sync"]):
        os.set_inheritable(fd, False)
    Host.mount_point = state["mount_point"]
    run(state["plan"], state["fds"], sync, state["joined"])


def report(sync: socket.socket, where: rootfs.Where, error: BaseException) -> None:
    """Tell the parent what failed."""
    if isinstance(error, OSError):
        path = error.filename if isinstance(error.filename, str) and error.filename else where[1]
        detail: dict[str, Any] = {
            "step": where[0],
            "errno": error.errno or errno.EIO,
            "path": path,
            "message": error.strerror or str(error),
        }
    elif isinstance(error, (SetupError, users.LookupFailure)):
        detail = {"step": where[0], "errno": error.errno, "path": where[1], "message": error.message}
    else:
        detail = {"step": where[0], "errno": errno.EIO, "path": where[1], "message": f"{type(error).__name__}: {error}"}
    with contextlib.suppress(OSError):
        detail["path"], detail["message"] = detail["path"][:4096], detail["message"][:8192]
        sync.send(json.dumps({"error": detail}).encode())


def reset_signals() -> None:
    """As a program expects them at its start."""
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP) and signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def stdio_of(fds: Fds) -> list[int]:
    """Descriptors for 0, 1, 2 (-1: a null device later). Output pipes are opened read-write: with no reader left nobody dies of SIGPIPE."""
    result = [fds.get("stdin", -1)]
    for name in ("stdout", "stderr"):
        fd = fds.get(name, -1)
        if fd >= 0 and stat.S_ISFIFO(os.fstat(fd).st_mode):
            fd = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        result.append(fd)
    return result


def keep_only(kept: list[int]) -> None:
    """Close every other descriptor: nothing of the host may be reachable from inside (CVE-2024-21626)."""
    previous = 2
    for fd in sorted({fd for fd in kept if fd > 2}):
        libc.close_range(previous + 1, fd - 1)
        previous = fd
    libc.close_range(previous + 1, 2**31 - 1)


def _make_cgroup(plan: ops.Plan, rules: list[cgroup1.Rule], where: rootfs.Where) -> None:
    cgroup = plan["cgroup"]
    for directory in cgroup["dirs"]:
        where[:] = [ops.STEP_CGROUP, directory]
        os.makedirs(directory, exist_ok=True)
    for file, value in cgroup["delegate"]:
        where[1] = file
        for word in value.split():
            # One controller that cannot be delegated (a real-time task, a busy parent) must not take the others along.
            try:
                kernelfile.write(file, word)
            except OSError:
                continue
    for directory in cgroup["cpuset"]:
        for name in ("cpuset.cpus", "cpuset.mems"):
            where[1] = f"{directory}/{name}"
            with open(where[1]) as handle:
                empty = not handle.read().strip()
            if empty:
                with open(f"{os.path.dirname(directory)}/{name}") as handle:
                    kernelfile.write(where[1], handle.read().strip())
    write_limits(cgroup["writes"], where)
    devices = cgroup["devices"]
    if devices:
        every = [*(tuple(rule) for rule in cgroup["rules"]), *rules]
        where[1] = next(iter(devices.values()))
        if "v1" in devices:
            cgroup1.allow_devices(devices["v1"], every)
        elif every[0][0] != "a":
            cgroup2.attach_devices(devices["v2"], every)


def write_limits(writes: list[tuple[str, str, bool]], where: rootfs.Where) -> None:
    """(file, value, required) of cgroups that are there. Raises SetupError."""
    for file, value, required in writes:
        where[:] = [ops.STEP_CGROUP, file]
        try:
            kernelfile.write(file, value)
        except OSError as error:
            if required and not cgroup2.has_bfq_instead(file):
                where[0] = ops.STEP_CGROUP_WRITE
                reason = os.strerror(error.errno or errno.EIO).lower()
                raise SetupError(error.errno or errno.EIO, f'failed to write "{value}": write {file}: {reason}') from None


def _join_cgroup(plan: ops.Plan, where: rootfs.Where, joined: str) -> None:
    """Into every cgroup but the one we are in. v1: as a thread ("tasks") that moves itself, which needs no system-wide lock."""
    unified = plan["cgroup"]["unified"]
    for directory in plan["cgroup"]["dirs"]:
        if directory != joined:
            where[:] = [ops.STEP_CGROUP, f"{directory}/{'cgroup.procs' if directory == unified else 'tasks'}"]
            kernelfile.write(where[1], "0")


def _oom_score(plan: ops.Plan, where: rootfs.Where) -> None:
    value = plan["process"]["oom_score_adj"]
    where[:] = [ops.STEP_OOM, "/proc/self/oom_score_adj"]
    try:
        kernelfile.write(where[1], str(value or 0))
    except OSError:
        # Lowering needs CAP_SYS_RESOURCE: an error only for who asked.
        if value:
            raise SetupError(errno.EPERM, f"this host does not let the OOM score adjustment be set to {value}") from None


def make_userns(maps: dict[str, list[list[int]]], net: bool, sync: socket.socket) -> NoReturn:
    """Answer with descriptors of a new user namespace and, if wanted, of a network namespace that it owns. Never returns."""
    where = [ops.STEP_USERNS, ""]
    try:
        made = idmap.new_namespaces(maps["uids"], maps["gids"], ["net"] if net else [])
        socket.send_fds(sync, [json.dumps({"names": [f"{name}ns" for name in made]}).encode()], list(made.values()))
    except BaseException as error:
        report(sync, where, error)
    os._exit(0)


def _enter_namespaces(plan: ops.Plan, fds: Fds, where: rootfs.Where) -> int:
    """All but the PID namespace. Of a container with a user namespace the mount namespace is only made: a descriptor, else -1."""
    where[:] = [ops.STEP_NAMESPACE, ""]
    flags, own = namespaces.CLONE_NEWNS, ["mnt"]
    for name in ("net", "ipc", "uts", "cgroup"):
        how = plan["namespaces"][name]
        if how == "private":
            flags |= namespaces.FLAGS[name]
            own.append(name)
        elif how == "fd":
            where[1] = name
            namespaces.setns(fds[f"{name}ns"], namespaces.FLAGS[name])
    mount_namespace = -1
    if "userns" in fds:
        where[:] = [ops.STEP_USERNS, ""]
        made = idmap.namespaces_of(fds["userns"], own)
        mount_namespace = made.pop("mnt")
        for name, fd in made.items():
            namespaces.setns(fd, namespaces.FLAGS[name])
    else:
        namespaces.unshare(flags)
    if plan["namespaces"]["net"] == "private":
        where[:] = [ops.STEP_NAMESPACE, "lo"]
        loopback.up()
    return mount_namespace


def _act_as_root_of(userns: ops.Plan, where: rootfs.Where) -> None:
    """What is made from now on belongs to the container's root; all of the host's rights stay until the user namespace is entered."""
    where[:] = [ops.STEP_USERNS, ""]
    prctl.keep_rights_on_setuid()
    gid, uid = idmap.outside(userns["gids"], 0), idmap.outside(userns["uids"], 0)
    os.setresgid(gid, gid, 0)
    os.setresuid(uid, uid, 0)


def _confine(plan: ops.Plan, where: rootfs.Where) -> None:
    where[:] = [ops.STEP_APPARMOR, ""]
    apparmor.confine_at_exec(plan["process"].get("apparmor", ""))
    if "userns" not in plan:
        _join_keyring(plan, where)


def _join_keyring(plan: ops.Plan, where: rootfs.Where) -> None:
    where[:] = [ops.STEP_KEYRING, ""]
    try:
        keyring.join_session(f"_ses.{plan['id']}")
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise


def _sysctls(plan: ops.Plan, where: rootfs.Where) -> None:
    for key, value, required in plan["sysctls"]:
        # A slash in a dotted name is a dot of an interface's name.
        path = "/proc/sys/" + key.translate({ord("."): "/", ord("/"): "."})
        where[:] = [ops.STEP_SYSCTL, path]
        try:
            kernelfile.write(path, value)
        except OSError:
            if required:
                raise


def _run_init(plan: ops.Plan, fds: Fds, sync: socket.socket, where: rootfs.Where, joined: str) -> NoReturn:
    process = plan["process"]
    os.setsid()
    os.umask(0o022)
    stdio = stdio_of(fds)
    found, rules = rootfs.host_devices(plan, where)
    _make_cgroup(plan, rules, where)
    os.umask(0)
    _join_cgroup(plan, where, joined)
    _oom_score(plan, where)
    mount_namespace = _enter_namespaces(plan, fds, where)
    _confine(plan, where)
    root = rootfs.Root(plan, where, fds.get("userns", -1))
    root.open_sources(fds)
    if mount_namespace >= 0:
        _act_as_root_of(plan["userns"], where)
        root.make_kernel_mounts()
        namespaces.setns(mount_namespace, namespaces.CLONE_NEWNS)
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
    root.mount_root(Host.mount_point, fds)
    keep_only([sync.fileno(), root.fd, *root.binds, *root.kernel_mounts.values(), root.userns, *stdio])
    root.run()
    root.devices(found)
    terminal = root.console() if process["tty"] else None
    _sysctls(plan, where)
    where[:] = [ops.STEP_HOSTNAME, ""]
    if plan["namespaces"]["uts"] == "private":
        if plan["hostname"]:
            libc.sethostname(plan["hostname"])
        if plan["domainname"]:
            libc.setdomainname(plan["domainname"])
    hooks.run(plan, where)
    root.read_only_paths()
    root.mask_paths()
    root.finish()
    _become(plan, stdio, terminal, sync, where, fds.get("userns", -1))


def _run_exec(plan: ops.Plan, fds: Fds, sync: socket.socket, where: rootfs.Where, joined: str) -> NoReturn:
    process = plan["process"]
    os.setsid()
    stdio = stdio_of(fds)
    _join_cgroup(plan, where, joined)
    if process["oom_score_adj"] is not None:
        _oom_score(plan, where)
    keep_only([sync.fileno(), fds["target"], fds.get("userns", -1), *stdio])
    _confine(plan, where)
    where[:] = [ops.STEP_JOIN, ""]
    flags = 0
    for name in ("mnt", "ipc", "uts", "net", "cgroup"):
        flags |= namespaces.FLAGS[name]
    namespaces.setns(fds["target"], flags)
    os.close(fds["target"])
    os.chdir("/")
    terminal = None
    if process["tty"]:
        where[:] = [ops.STEP_TTY, "/dev/pts/ptmx"]
        master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        terminal = (master, pty.open_slave(master)[0])
    _become(plan, stdio, terminal, sync, where, fds.get("userns", -1))


def _is_null(fd: int) -> bool:
    info = os.fstat(fd)
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == os.makedev(1, 3)


def _null_device() -> int:
    """The container's own /dev/null, for streams that nobody wants: what the process does to its mode and owner stays in the container.

    What else the container may have put there is never used: then it is a fresh node in a file system that is mounted nowhere.
    """
    with contextlib.suppress(OSError):
        # Nothing but a file that can be opened without waiting: a FIFO or a terminal of the container's must not hold us.
        fd = os.open("/dev/null", os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if _is_null(fd):
            os.set_blocking(fd, True)
            return fd
        os.close(fd)
    return new_null_device()


def new_null_device() -> int:
    """A null device of nobody else's."""
    directory = mounts.new_mount("tmpfs", ["mode=755"], mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NOEXEC)
    try:
        os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3), dir_fd=directory)
        fd = os.open("null", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        os.fchmod(fd, 0o666)
        return fd
    finally:
        os.close(directory)


def _install_stdio(stdio: list[int], terminal: tuple[int, int] | None, owner: int) -> None:
    """owner: the process's user, as the host knows him."""
    if terminal is not None:
        stdio = [terminal[1]] * 3
    null = -1
    for number, fd in enumerate(stdio):
        if fd < 0:
            if null < 0:
                null = _null_device()
            fd = null
        elif owner or terminal is not None:
            # So that the user can open /dev/stdout and /dev/stderr again. Not of a null device, which is the image's or the host's.
            with contextlib.suppress(OSError):
                if not _is_null(fd):
                    os.fchown(fd, owner, -1)
        os.dup2(fd, number, inheritable=True)


def _limits(process: dict[str, Any], where: rootfs.Where) -> None:
    asked = {limit[0] for limit in process["rlimits"]}
    if "nofile" not in asked:
        rlimits.set_limit("nofile", *Host.nofile)
    for name, soft, hard, required in process["rlimits"]:
        where[:] = [ops.STEP_RLIMIT, name]
        try:
            rlimits.set_limit(name, soft, hard)
        except (OSError, ValueError) as error:
            if required:
                # CPython says ValueError for both EPERM and EINVAL
                reason = "invalid argument" if hard != -1 and not -1 <= soft <= hard else "operation not permitted"
                raise SetupError(errno.EPERM, f"error setting rlimit type {rlimits.NUMBERS[name]}: {reason}") from error


def _change_directory(path: str, where: rootfs.Where, *, make: bool) -> bool:
    """Enter the working directory as root, made if it is missing; False when it must be tried again as the user."""
    where[:] = [ops.STEP_CWD, path]
    try:
        if make:
            os.makedirs(path, 0o755, exist_ok=True)
    except FileExistsError:
        where[0] = ops.STEP_CWD_MAKE
        raise SetupError(errno.ENOTDIR, f"Cannot mkdir: {path} is not a directory") from None
    except OSError as error:
        # A read-only root: whether the directory is there decides.
        if error.errno == errno.ENOTDIR or not os.path.isdir(path):
            raise SetupError(error.errno or errno.EIO, f"mkdir {path}: {os.strerror(error.errno or errno.EIO).lower()}") from None
    try:
        os.chdir(path)
    except PermissionError:
        return False
    return True


def _owner(plan: ops.Plan, identity: users.Identity, where: rootfs.Where) -> int:
    """The process's user as the host knows him. Raises SetupError: the container's user namespace has no such user or group."""
    maps = plan.get("userns")
    if maps is None:
        return identity.uid
    where[0] = ops.STEP_IDENTITY
    problem = f"cannot setuid to unmapped uid {identity.uid} in user namespace"
    try:
        uid = idmap.outside(maps["uids"], identity.uid)
        problem = "setgroups: invalid argument"
        for number in (identity.gid, *identity.groups):
            idmap.outside(maps["gids"], number)
    except OSError:
        raise SetupError(errno.EINVAL, f"unable to setup user: {problem}") from None
    return uid


def _set_identity(process: dict[str, Any], identity: users.Identity, bounding: int, where: rootfs.Where) -> None:
    """bounding: what this process's bounding set is."""
    where[:] = [ops.STEP_CAPABILITIES, ""]
    mask = process["capabilities"]
    capabilities.limit_bounding(mask, bounding)
    prctl.set_keepcaps(True)
    where[0] = ops.STEP_USER
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    where[0] = ops.STEP_CAPABILITIES
    prctl.set_keepcaps(False)
    capabilities.capset(mask, mask, 0)
    capabilities.clear_ambient()


def find_program(name: str, environment: dict[str, str]) -> str:
    """The path execve gets. Raises SetupError in runc's words (Go's exec.LookPath)."""
    if "/" in name:
        try:
            info = os.stat(name)
        except OSError as error:
            reason = os.strerror(error.errno or errno.ENOENT)
            raise SetupError(error.errno or errno.ENOENT, f'exec: "{name}": stat {name}: {reason[0].lower()}{reason[1:]}') from None
        if stat.S_ISDIR(info.st_mode):
            raise SetupError(errno.EISDIR, f'exec: "{name}": is a directory: permission denied')
        if not os.access(name, os.X_OK, effective_ids=True):
            raise SetupError(errno.EACCES, f'exec: "{name}": permission denied')
        return name
    denied = False
    for directory in environment.get("PATH", "").split(":"):
        candidate = f"{directory or '.'}/{name}"
        try:
            info = os.stat(candidate)
        except OSError:
            continue
        if stat.S_ISREG(info.st_mode):
            if os.access(candidate, os.X_OK, effective_ids=True):
                return candidate
            denied = True
    if denied:
        raise SetupError(errno.EACCES, f'exec: "{name}": permission denied')
    raise SetupError(errno.ENOENT, f'exec: "{name}": executable file not found in $PATH')


def environment_of(process: dict[str, Any], identity: users.Identity) -> dict[str, str]:
    """The plan's variables, and HOME."""
    environment: dict[str, str] = {}
    for item in process["env"]:
        key, equals, value = item.partition("=")
        if equals and key:
            environment[key] = value
    if not environment.get("HOME"):
        environment["HOME"] = identity.home
    return environment


def _become(
    plan: ops.Plan, stdio: list[int], terminal: tuple[int, int] | None, sync: socket.socket, where: rootfs.Where, userns: int
) -> NoReturn:
    """userns: the user namespace to enter, -1: the host's."""
    process = plan["process"]
    os.umask(0o022)
    where[:] = [ops.STEP_USER, process["user"]]
    identity = users.resolve(process["user"], process["groups"])
    owner = _owner(plan, identity, where)
    where[:] = [ops.STEP_TTY, ""]
    _install_stdio(stdio, terminal, owner)
    if terminal is not None:
        if process["console_size"]:
            pty.set_size(terminal[0], *process["console_size"])
        pty.make_controlling(0)
    _limits(process, where)
    bounding = Host.bounding
    if userns >= 0:
        # From here on as its root, of whom the host knows nothing: what is left to do are the container's own affairs.
        where[:] = [ops.STEP_USERNS, ""]
        idmap.become_root(userns)
        os.close(userns)
        bounding = capabilities.bounding_now()
        _join_keyring(plan, where)
    filter_bytes = binascii.a2b_base64(process["seccomp"])
    if process["no_new_privileges"]:
        prctl.set_no_new_privs()
    elif filter_bytes:
        # Without no_new_privs the filter needs CAP_SYS_ADMIN, which goes with _set_identity.
        where[:] = [ops.STEP_SECCOMP, ""]
        seccomp.install(filter_bytes)
    inside = _change_directory(process["cwd"], where, make=plan["kind"] == "init")
    _set_identity(process, identity, bounding, where)
    where[:] = [ops.STEP_CWD, process["cwd"]]
    if not inside:
        os.chdir(process["cwd"])
    environment = environment_of(process, identity)
    arguments = process["args"]
    where[:] = [ops.STEP_EXEC, arguments[0]]
    program = find_program(arguments[0], environment)
    _ready(sync, terminal)
    if process["no_new_privileges"] and filter_bytes:
        where[0] = ops.STEP_SECCOMP
        seccomp.install(filter_bytes)
        where[0] = ops.STEP_EXEC
    keep_only([sync.fileno()])
    if process["init"]:
        init.block()
        init.set_title(Host.argument_area, ["/sbin/docker-init", "--", *arguments])  # before there is somebody who could look
        pid = os.fork()
        if pid:
            sync.close()
            init.supervise(pid)
        init.foreground()
    try:
        os.execve(program, arguments, environment)
    except OSError as error:
        raise SetupError(error.errno or errno.EIO, f"exec {program}: {(error.strerror or '').lower()}") from None


def _ready(sync: socket.socket, terminal: tuple[int, int] | None) -> None:
    """Tell the parent that only execve is left (with the pty's master), and wait until it says go."""
    message = b'{"ready":true}'
    if terminal is not None:
        socket.send_fds(sync, [message], [terminal[0]])
    else:
        sync.send(message)
    if sync.recv(16) != b"go":
        os._exit(1)
