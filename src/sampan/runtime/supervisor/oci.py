"""The helper that has an OCI runtime start a container, or a process in one (adr/0021): the supervisor's forked child, which stays outside.

It makes the bundle in a mount namespace of its own, runs the runtime's program, and ends. On the sync socket it says
{"ready": true, "pid": N}, with the terminal's master if there is one, waits for "go", says {"started": true}.
"""

import contextlib
import errno
import json
import os
import select
import signal
import socket
import stat
from typing import Any, NoReturn

from sampan.linux import mounts, namespaces, pidfd, prctl, pty, rlimits, users
from sampan.runtime import ops
from sampan.runtime.supervisor import child, rootfs

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_ATTRIBUTES = ((os.ST_RDONLY, "ro"), (os.ST_NOSUID, "nosuid"), (os.ST_NODEV, "nodev"), (os.ST_NOEXEC, "noexec"))
_LOG_SIZE = 64 * 1024
_TMPFS_SIZE = "size=64m"
"""Of the bundle, and of the log that a runtime may flood."""
_CONSOLE_SECONDS = 10.0
_ALONE_MS = 3000
"""How long the runtime may still be at work once the supervisor is gone."""


def run(plan: ops.Plan, fds: child.Fds, sync: socket.socket) -> NoReturn:
    """Have it started. fds: as for our own child."""
    where = ["start", ""]
    try:
        child.reset_signals()
        # Not those of the supervisor's other launches and peers: who listens there would not see its end.
        child.keep_only([sync.fileno(), *fds.values()])
        os.setsid()
        os.umask(0o022)
        rlimits.set_limit("nofile", *child.Host.nofile)
        # What the runtime leaves comes to us, and once we have ended to the supervisor, which knows its number by then.
        prctl.set_child_subreaper()
        if plan["kind"] == "init":
            _start_container(plan, fds, sync, where)
        else:
            _start_exec(plan, fds, sync, where)
        sync.send(b'{"started":true}')
    except BaseException as error:
        child.report(sync, where, error)
        os._exit(1)
    os._exit(0)


class Runtime:
    """The runtime's program, and the directory that only we see."""

    def __init__(self, plan: ops.Plan, where: rootfs.Where, sync: socket.socket) -> None:
        """In a mount namespace of our own, where `/` is private."""
        self.sync = sync
        where[:] = [ops.STEP_ROOTFS, child.Host.mount_point]
        self.plan, self.where, self.place = plan, where, child.Host.mount_point
        oci = plan["oci"]
        self.container: str = oci["container"]
        self.pid = 0
        """The process that it has made."""
        self.words = [*oci["command"], "--root", f"{self.place}/state", "--log", f"{self.place}/log", "--log-format", "json"]
        fd = mounts.new_mount("tmpfs", ["mode=700", _TMPFS_SIZE], mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV)
        target = os.open(self.place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mounts.move_mount(fd, target, self.place)
        os.close(target)
        os.close(fd)
        os.mkdir(f"{self.place}/rootfs")  # for execs, too: runc starts there, as it was started there
        # By no path of the host's: when the start is given up this directory is removed, and whoever comes late makes nothing in its place.
        _attach(mounts.clone_tree(mounts.AT_FDCWD, oci["root"], False), f"{self.place}/state")
        self.unified = self._hide_hybrid(*oci["hybrid"]) if oci["hybrid"] else -1

    def _hide_hybrid(self, mount_point: str, cgroup: str) -> int:
        """crun refuses a v1 host with a v2 hierarchy, which nothing of ours depends on: the runtime does not see it, and we join it."""
        self.where[:] = [ops.STEP_CGROUP, cgroup]
        os.makedirs(cgroup, exist_ok=True)
        fd = os.open(f"{cgroup}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        mounts.umount2(mount_point, mounts.MNT_DETACH)
        return fd

    def call(self, *arguments: str, stdio: list[int] | None = None) -> None:
        """Run it to its end. Raises SetupError with what it says."""
        self.where[:] = [ops.STEP_RUNTIME, arguments[0]]
        null = -1
        actions = []
        for number, fd in enumerate(stdio or (-1, -1, -1)):
            if fd < 0:
                fd = null = child.new_null_device() if null < 0 else null
            actions.append((os.POSIX_SPAWN_DUP2, fd, number))
        try:
            pid = os.posix_spawn(self.words[0], [*self.words, *arguments], _ENVIRONMENT, file_actions=actions)
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO).lower()
            raise child.SetupError(
                error.errno or errno.EIO, f"unable to retrieve OCI runtime error: fork/exec {self.words[0]}: {reason}"
            ) from None
        finally:
            if null >= 0:
                os.close(null)
        self._wait(pid)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            raise child.SetupError(0, self._last_error() or f"exit status {status}")

    def _wait(self, pid: int) -> None:
        """For the runtime's end. One that hangs is the supervisor's to end, and ours, with us, once the supervisor is gone."""
        handle, waiting = os.pidfd_open(pid), select.poll()
        waiting.register(handle, select.POLLIN)
        waiting.register(self.sync, 0)  # its end is told without being asked for
        waiting.poll()
        waiting.unregister(self.sync)
        if not pidfd.has_ended(handle) and not waiting.poll(_ALONE_MS):
            os.killpg(0, signal.SIGKILL)
        os.close(handle)

    def _last_error(self) -> str:
        """The last error near the end of its log (containerd's shim does the same)."""
        found = ""
        with contextlib.suppress(OSError), open(f"{self.place}/log", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_SIZE))
            for line in file.read(_LOG_SIZE).splitlines():  # what it has left at work may go on writing
                with contextlib.suppress(ValueError, AttributeError, RecursionError):
                    entry = json.loads(line)
                    found = str(entry.get("msg") or "") if entry.get("level") == "error" else found
        return found

    def begin(self, stdio: list[int], *arguments: str) -> int:
        """`create` or `exec` with these arguments, the process's descriptors or a terminal: its master, -1 without one."""
        process = self.plan["process"]
        console = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        more = ["--pid-file", f"{self.place}/pid"]
        if process["tty"]:
            console.bind(f"{self.place}/console")
            console.listen(1)
            more += ["--console-socket", f"{self.place}/console"]
        self.call(*arguments, *more, self.container, stdio=None if process["tty"] else stdio)
        with open(f"{self.place}/pid") as file:
            self.pid = int(file.read())
        if self.unified >= 0:
            with contextlib.suppress(ProcessLookupError):  # it has ended already
                os.write(self.unified, str(self.pid).encode())
        return self._terminal(console) if process["tty"] else -1

    def _terminal(self, console: socket.socket) -> int:
        self.where[:] = [ops.STEP_TTY, ""]
        console.settimeout(_CONSOLE_SECONDS)
        connection, _ = console.accept()
        connection.settimeout(_CONSOLE_SECONDS)
        _, received, _, _ = socket.recv_fds(connection, 4096, 1)
        if not received:
            raise child.SetupError(errno.EBADF, "the runtime has not sent the terminal")
        if self.plan["process"]["console_size"]:
            pty.set_size(received[0], *self.plan["process"]["console_size"])
        return received[0]

    def delete(self) -> None:
        """End and forget the container, whatever there is of it."""
        with contextlib.suppress(child.SetupError):
            self.call("delete", "--force", self.container)

    def write(self, name: str, document: dict[str, Any]) -> str:
        """A file of ours; its path."""
        path = f"{self.place}/{name}"
        with open(path, "w") as file:
            json.dump(document, file)
        return path


def _enter_own_mounts(root: rootfs.Root | None, fds: child.Fds, where: rootfs.Where) -> None:
    where[:] = [ops.STEP_NAMESPACE, ""]
    namespaces.unshare(namespaces.CLONE_NEWNS)
    if root is not None:
        root.open_sources(fds)  # while they are members of the host's peer groups
    mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)


def _start_container(plan: ops.Plan, fds: child.Fds, sync: socket.socket, where: rootfs.Where) -> None:
    stdio = child.stdio_of(fds)
    found, rules = rootfs.host_devices(plan, where)
    for directory in {os.path.dirname(file) for file, _, _ in plan["oci"]["parents"]}:
        os.makedirs(directory, exist_ok=True)
    child.write_limits(plan["oci"]["parents"], where)
    root = rootfs.Root(plan, where)
    _enter_own_mounts(root, fds, where)
    runtime = Runtime(plan, where, sync)
    config = plan["oci"]["config"]
    root.mount_root(f"{runtime.place}/rootfs", fds)
    _attach_binds(config, root, runtime)
    _bind_namespaces(config, fds, runtime)
    _make_cwd(plan, root)
    _identify(plan, config["process"], root.fd, where)
    for path, info in found:
        config["linux"]["devices"].append(_device(path, info))
    for kind, major, minor, access in rules:
        rule = {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}
        config["linux"]["resources"]["devices"].append(rule)
    if plan["thermal"]:
        config["linux"]["maskedPaths"] += rootfs.thermal_paths()
    runtime.write("config.json", config)
    os.close(root.fd)
    try:
        terminal = runtime.begin(stdio, "create", "--bundle", runtime.place)
        _ready(sync, runtime.pid, terminal)
        runtime.call("start", runtime.container)
    except BaseException:
        failed = list(where)
        runtime.delete()
        where[:] = failed
        raise


def _start_exec(plan: ops.Plan, fds: child.Fds, sync: socket.socket, where: rootfs.Where) -> None:
    stdio = child.stdio_of(fds)
    _enter_own_mounts(None, fds, where)
    runtime = Runtime(plan, where, sync)
    where[:] = [ops.STEP_JOIN, ""]
    target = pidfd.number(fds["target"])
    root = os.open(f"/proc/{target}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if pidfd.has_ended(fds["target"]):
        raise child.SetupError(errno.ESRCH, "the container's process is gone")
    process = plan["oci"]["config"]
    _identify(plan, process, root, where)
    os.close(root)
    document = runtime.write("process.json", process)
    try:
        terminal = runtime.begin(stdio, "exec", "--detach", "--process", document)
        _ready(sync, runtime.pid, terminal)
    except BaseException:
        if runtime.pid > 0:
            os.kill(runtime.pid, signal.SIGKILL)  # a child of ours, not waited for: the number is still its own
        raise


def _attach_binds(config: dict[str, Any], root: rootfs.Root, runtime: Runtime) -> None:
    """Where the runtime finds the sources of bind mounts; those that are not there, and need not be, are no mounts."""
    os.mkdir(f"{runtime.place}/binds")
    kept = []
    for entry in config["mounts"]:
        if entry["type"] == "bind":
            fd = root.prepare_bind(entry["source"])
            if fd < 0:
                continue
            # Said again, because crun gives the mount what it is told, and takes away what it is not.
            has = os.fstatvfs(fd).f_flag
            entry["options"] += [name for flag, name in _ATTRIBUTES if has & flag and name not in entry["options"]]
            entry["source"] = f"{runtime.place}/binds/{entry['source']}"
            _attach(fd, entry["source"])
        kept.append(entry)
    config["mounts"] = kept


def _attach(fd: int, path: str) -> None:
    """A detached mount, which is closed, at a new place of ours."""
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.mkdir(path)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    mounts.move_mount(fd, target, path)
    os.close(target)
    os.close(fd)


def _bind_namespaces(config: dict[str, Any], fds: child.Fds, runtime: Runtime) -> None:
    """Files of the namespaces that come as descriptors: the network's is one, others are pidfds of a process that is in it."""
    for entry in config["linux"]["namespaces"]:
        name = entry.get("path")
        if name is None:
            continue
        runtime.where[:] = [ops.STEP_NAMESPACE, name]
        fd = fds[name]
        source = f"/proc/self/fd/{fd}" if name == "netns" else f"/proc/{pidfd.number(fd)}/ns/{name.removesuffix('ns')}"
        entry["path"] = f"{runtime.place}/{name}"
        os.close(os.open(entry["path"], os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        mounts.mount(source, entry["path"], None, mounts.MS_BIND)
        if name != "netns" and pidfd.has_ended(fd):
            raise child.SetupError(errno.ESRCH, "the process whose namespace is shared is gone")


def _make_cwd(plan: ops.Plan, root: rootfs.Root) -> None:
    """As docker does it, before there are mounts: who asks for a directory below one has what is mounted there."""
    path = plan["process"]["cwd"]
    root.at(ops.STEP_CWD_MAKE, path)
    if any(f"{path}/".startswith(f"{entry['destination'].rstrip('/')}/") for entry in plan["oci"]["config"]["mounts"]):
        return
    try:
        fd = root.ensure(path, True)
    except NotADirectoryError:
        fd = -1
    if fd < 0 or not stat.S_ISDIR(os.fstat(fd).st_mode):
        raise child.SetupError(errno.ENOTDIR, f"Cannot mkdir: {path} is not a directory")
    os.close(fd)


def _identify(plan: ops.Plan, document: dict[str, Any], root: int, where: rootfs.Where) -> None:
    """Who the process will be, by the files of its root: a runtime takes numbers only."""
    process = plan["process"]
    where[:] = [ops.STEP_USER, process["user"]]
    found = users.resolve(process["user"], process["groups"], lambda path, flags: mounts.open_in_root(root, path, flags))
    document["user"] = {"uid": found.uid, "gid": found.gid, "additionalGids": found.groups}
    document["env"] = [f"{name}={value}" for name, value in child.environment_of(process, found).items()]


def _device(path: str, info: os.stat_result) -> dict[str, Any]:
    return {
        "path": path, "type": "c" if stat.S_ISCHR(info.st_mode) else "b", "major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev),
        "fileMode": stat.S_IMODE(info.st_mode), "uid": info.st_uid, "gid": info.st_gid,
    }  # fmt: skip


def _ready(sync: socket.socket, pid: int, terminal: int) -> None:
    """Tell the parent, and wait until it says go. Raises SetupError: it is gone."""
    message = json.dumps({"ready": True, "pid": pid}).encode()
    if terminal >= 0:
        socket.send_fds(sync, [message], [terminal])
        os.close(terminal)
    else:
        sync.send(message)
    if sync.recv(16) != b"go":
        raise child.SetupError(errno.ECHILD, "the supervisor is gone")
