"""The container's file system, built by the forked child out of a plan. Runs as root in a fresh mount namespace; single-threaded."""

import contextlib
import errno
import itertools
import os
import stat
from typing import Any

from sampan.linux import idmap, mounts, overlay, pty, users
from sampan.linux.cgroup1 import Rule
from sampan.runtime import ops

Where = list[str]
"""[step, path]: what is being done, for the error report."""


class Root:
    """The new root while it is being put together; `where` is kept up to date for error reports."""

    def __init__(self, plan: ops.Plan, where: Where, userns: int = -1) -> None:
        """userns: a descriptor of the container's user namespace, -1: the host's."""
        self.plan = plan
        self.where = where
        self.userns = userns
        self.fd = -1
        self.binds: list[int] = []
        self.kernel_mounts: dict[str, int] = {}
        """By their places: those of proc and sysfs that are there already, detached."""
        self.proc = -1
        """The device of the container's procfs, once it is mounted."""

    def at(self, step: str, path: str) -> None:
        """Note what is being done."""
        self.where[:] = [step, path]

    def open_sources(self, fds: dict[str, int]) -> None:
        """Take detached copies of the bind sources while they still are members of the host's peer groups. fds: has those made already."""
        for bind in self.plan["binds"]:
            subpath = bind.get("subpath", "")
            self.at(ops.STEP_SUBPATH if subpath else ops.STEP_MOUNT, f"{bind['source']}/{subpath}".rstrip("/") or "/")
            try:
                ready = bind.get("descriptor")
                if bind.get("mounts_of"):
                    self.binds.append(mounts.clone_of(fds[bind["mounts_of"]], bind["source"]))
                    continue
                if bind.get("layers"):  # stacked once we are where they can be mapped
                    self.binds.append(-1)
                    continue
                self.binds.append(fds[ready] if ready else mounts.clone_below(bind["source"], subpath, bind["recursive"]))
            except FileNotFoundError:
                if not bind.get("optional"):
                    raise
                self.binds.append(-1)

    def make_kernel_mounts(self) -> None:
        """proc and sysfs before a mount namespace that is not the host root's is entered: there the kernel wants to see both whole
        (mount_too_revealing), which they are not where we are in a container ourselves."""
        for op in self.plan["mounts"]:
            if op["op"] == ops.OP_MOUNT and op["type"] in ("proc", "sysfs"):
                self.at(ops.STEP_MOUNT, op["destination"])
                self.kernel_mounts[op["destination"]] = self._new_mount(op, op["options"])

    def mount_root(self, mount_point: str, fds: dict[str, int]) -> None:
        """Mount the root file system on a directory of the host, in our namespace only. fds: has the layers that are descriptors."""
        spec = self.plan["rootfs"]
        self.at(ops.STEP_ROOTFS, spec["upper"])
        lowers = [lower if isinstance(lower, str) else fds[f"layer{lower}"] for lower in spec["lowers"]]
        if not lowers:
            fd = self._mapped(mounts.clone_tree(mounts.AT_FDCWD, spec["upper"], True))
        elif self.userns < 0:
            fd = overlay.mount_overlay(lowers, spec["upper"], spec["work"])
        else:
            fd = self._mapped_overlay(lowers, mount_point, spec)
        for number, bind in enumerate(self.plan["binds"]):
            if bind.get("layers"):
                self.at(ops.STEP_MOUNT, bind["source"])
                self.binds[number] = self._mapped_overlay([fds.get(layer, layer) for layer in bind["layers"]], mount_point)
        self.at(ops.STEP_ROOTFS, spec["upper"])
        target = os.open(mount_point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mounts.move_mount(fd, target, mount_point)
        os.close(target)
        self.fd = fd
        if lowers:
            self._own_directories()

    def _mapped(self, fd: int) -> int:
        """A detached mount, with the container's IDs on its disk where the container has a user namespace."""
        if self.userns >= 0:
            step = self.where[0]
            self.where[0] = ops.STEP_IDMAP
            idmap.map_mount(fd, self.userns)
            self.where[0] = step
        return fd

    def _mapped_overlay(self, lowers: list[str | int], place: str, above: dict[str, Any] | None = None) -> int:
        """An overlay of ID-mapped layers: overlayfs itself refuses to be mapped. They need places for a moment (kernels before 6.15).

        above: has the upper and the work directory, which are beside each other: overlayfs wants them on one mount.
        """
        trees = [*([os.path.dirname(above["upper"])] if above else []), *lowers]
        table = mounts.new_mount("tmpfs", ["mode=700"], 0, "layers")
        target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mounts.move_mount(table, target, place)
        paths = []
        for number, layer in enumerate(trees):
            fd = mounts.clone_tree(mounts.AT_FDCWD, layer, False) if isinstance(layer, str) else mounts.clone_tree(layer, "", False)
            paths.append(f"{place}/{number}")
            os.mkdir(str(number), 0o700, dir_fd=table)
            seat = os.open(str(number), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=table)
            mounts.move_mount(self._mapped(fd), seat, paths[-1])
            os.close(seat)
            os.close(fd)
        if above:
            upper, work = (f"{paths[0]}/{os.path.basename(above[name])}" for name in ("upper", "work"))
            found = overlay.mount_overlay(paths[1:], upper, work)
        else:
            safe = mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOSUID
            found = overlay.mount_overlay(paths, "", "", safe)
        os.close(table)
        os.close(target)
        mounts.umount2(place, mounts.MNT_DETACH)
        return found

    def _own_directories(self) -> None:
        """An image's file or symlink at the places below gives way to a directory, as dockerd does at create in its init layer.

        One that came later (by `docker cp` to a stopped container) is in the upper directory: what is mounted there has to cope.
        """
        for name in ("dev", "proc", "sys"):
            self.at(ops.STEP_ROOTFS, f"/{name}")
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISDIR(os.stat(name, follow_symlinks=False, dir_fd=self.fd).st_mode) and not os.path.lexists(
                    f"{self.plan['rootfs']['upper']}/{name}"
                ):
                    os.unlink(name, dir_fd=self.fd)
                    os.mkdir(name, 0o755, dir_fd=self.fd)

    def ensure(self, path: str, directory: bool) -> int:
        """mounts.ensure_in_root of our root, where the container's root may: we act with the host's rights."""
        may_make = (lambda found: idmap.root_may_write(self.plan["userns"], found)) if self.userns >= 0 else None
        return mounts.ensure_in_root(self.fd, path, directory, may_make=may_make)

    def attach(self, fd: int, path: str, directory: bool = True, source: str = "tmpfs", over_link: bool = False) -> None:
        """Attach a detached mount at path inside the root. over_link: on a symbolic link there, not on what it leads to."""
        target = self._link_at(path) if over_link else -1
        if target < 0:
            target = self.ensure(path, directory)
        try:
            self._keep_proc(target, path, source)
            if stat.S_ISDIR(os.fstat(target).st_mode) != directory:
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            mounts.move_mount(fd, target, path)
        finally:
            os.close(target)

    def _link_at(self, path: str) -> int:
        """An O_PATH descriptor of the symbolic link at path; -1: there is none."""
        try:
            found = mounts.open_in_root(self.fd, path, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return -1
        if stat.S_ISLNK(os.fstat(found).st_mode):
            return found
        os.close(found)
        return -1

    def _keep_proc(self, target: int, path: str, source: str) -> None:
        """Nothing comes over /proc by an image's symbolic link: other steps trust what lies there (runc checkProcMount).

        What may be mounted there by its own name is sampand's to say.
        """
        if os.fstat(target).st_dev == self.proc and not path.startswith("/proc/"):
            self.at(ops.STEP_MOUNT_REFUSED, path)
            problem = f'check proc-safety of {path} mount: "{path}" cannot be mounted because it is inside /proc'
            words = f'error mounting "{source}" to rootfs at "{path}": create mountpoint for {path} mount: {problem}'
            raise OSError(errno.EINVAL, words, path)

    def attach_ordinary(self, fd: int, path: str, kind: str) -> None:
        """attach() for proc and sysfs: never through a symbolic link, as other steps trust what lies there (runc mountToRootfs)."""
        with contextlib.suppress(FileNotFoundError):
            target = mounts.open_in_root(self.fd, path, os.O_PATH | os.O_NOFOLLOW)
            try:
                if not stat.S_ISDIR(os.fstat(target).st_mode):
                    self.at(ops.STEP_MOUNT_REFUSED, path)
                    problem = f'filesystem "{kind}" must be mounted on ordinary directory'
                    raise OSError(errno.EINVAL, f'error mounting "{kind}" to rootfs at "{path}": {problem}', path)
                return mounts.move_mount(fd, target, path)
            finally:
                os.close(target)
        self.attach(fd, path)

    def run(self) -> None:
        """Execute the mount operations in order. Before them, as in docker, a root that will be read-only gets its working directory:
        below a mount only the container itself makes it, who may not be allowed to."""
        if self.plan["rootfs"]["readonly"]:
            with contextlib.suppress(OSError):  # what is wrong with it is told where it is entered
                os.close(self.ensure(self.plan["process"]["cwd"], True))
        for op in self.plan["mounts"]:
            self.at(ops.STEP_MOUNT, str(op.get("destination") or op.get("path") or ""))
            getattr(self, f"_op_{op['op']}")(op)

    def _new_mount(self, op: dict[str, Any], options: list[str]) -> int:
        attributes = 0
        for name in op["attributes"]:
            attributes |= mounts.ATTRIBUTES[name]
        return mounts.new_mount(op["type"], options, attributes, op.get("source") or op["type"])

    def _op_mount(self, op: dict[str, Any]) -> None:
        options = list(op["options"])
        if op.get("copy_mode") and not any(option.startswith("mode=") for option in options):
            # As runc: a tmpfs over an existing directory takes its mode.
            try:
                existing = mounts.open_in_root(self.fd, op["destination"], os.O_PATH)
                options.append(f"mode={stat.S_IMODE(os.fstat(existing).st_mode):o}")
                os.close(existing)
            except FileNotFoundError:
                pass
        fd = self.kernel_mounts.pop(op["destination"], -1)
        if fd < 0:
            fd = self._new_mount(op, options)
        if op["type"] == "devpts" and self.userns >= 0:  # its own are those of who mounts it, which is the host's root
            for name in (".", "ptmx"):
                os.chown(name, os.geteuid(), os.getegid(), dir_fd=fd)
        if op["type"] in ("proc", "sysfs"):
            self.attach_ordinary(fd, op["destination"], op["type"])
            if op["type"] == "proc":
                self.proc = os.fstat(fd).st_dev
        else:
            self.attach(fd, op["destination"])
        os.close(fd)

    def _op_bind(self, op: dict[str, Any]) -> None:
        if (fd := self.prepare_bind(op["bind"])) >= 0:
            bind = self.plan["binds"][op["bind"]]
            self.attach(fd, bind["destination"], stat.S_ISDIR(os.fstat(fd).st_mode), bind["source"], bool(bind.get("over_link")))
            os.close(fd)

    def prepare_bind(self, number: int) -> int:
        """The detached mount of a bind, as it is to be attached; -1: its source is not there, and need not be. The caller's to close."""
        bind, fd = self.plan["binds"][number], self.binds[number]
        destination = bind["destination"]
        if fd < 0:
            return fd
        self.at(ops.STEP_MOUNT, destination)
        if (bind.get("descriptor") or bind.get("layers")) and bind.get("subpath"):
            self.at(ops.STEP_SUBPATH, bind["subpath"])
            fd = mounts.cut_down(fd, bind["subpath"], os.dup(self.fd))
            self.at(ops.STEP_MOUNT, destination)
        if bind.get("idmap"):
            self.at(ops.STEP_USER, self.plan["process"]["user"])
            who = users.resolve(self.plan["process"]["user"], [], lambda path, flags: mounts.open_in_root(self.fd, path, flags))
            self.at(ops.STEP_IDMAP, destination)
            idmap.give_to(fd, *self._outside(who.uid, who.gid))
        elif bind.get("mapped") and not bind.get("layers"):
            self._mapped(fd)
        propagation = bind["propagation"]
        kind = mounts.PROPAGATION.get(propagation.removeprefix("r"), mounts.MS_PRIVATE)
        mounts.mount_setattr(fd, propagation=kind, recursive=propagation.startswith("r"))
        attributes = 0
        for name in bind.get("attributes", ()):
            attributes |= mounts.ATTRIBUTES[name]
        if attributes:
            mounts.mount_setattr(fd, attributes=attributes)
        if bind["readonly"]:
            mounts.mount_setattr(fd, attributes=mounts.MOUNT_ATTR_RDONLY, recursive=bool(bind.get("readonly_recursive")))
        return fd

    def _outside(self, uid: int, gid: int) -> tuple[int, int]:
        """The container's IDs as the host's."""
        if self.userns < 0:
            return uid, gid
        return idmap.outside(self.plan["userns"]["uids"], uid), idmap.outside(self.plan["userns"]["gids"], gid)

    def _op_device(self, op: dict[str, Any]) -> None:
        self.make_node(op["path"], stat.S_IFCHR if op["type"] == "c" else stat.S_IFBLK, op["major"], op["minor"], op["mode"])

    def make_node(self, path: str, kind: int, major: int, minor: int, mode: int, owner: tuple[int, int] | None = None) -> None:
        """A device node, replacing what the image had there. owner: (uid, gid) on the host; None: the container's root."""
        self.at(ops.STEP_DEVICE, path)
        parent = self.ensure(os.path.dirname(path), True)
        name = os.path.basename(path)
        try:
            os.mknod(name, kind | mode, os.makedev(major, minor), dir_fd=parent)
        except FileExistsError:
            os.unlink(name, dir_fd=parent)
            os.mknod(name, kind | mode, os.makedev(major, minor), dir_fd=parent)
        # The mode is as asked for: there is no umask here. No chmod by name, which would follow what a neighbour puts there meanwhile.
        try:
            if owner is not None:
                os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
        except OSError:
            os.unlink(name, dir_fd=parent)
            raise
        finally:
            os.close(parent)

    def _op_symlink(self, op: dict[str, Any]) -> None:
        parent = self.ensure(os.path.dirname(op["path"]), True)
        with contextlib.suppress(FileExistsError):
            os.symlink(op["target"], os.path.basename(op["path"]), dir_fd=parent)
        os.close(parent)

    def _op_cgroup_v1(self, op: dict[str, Any]) -> None:
        safe = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOEXEC
        tmpfs = mounts.new_mount("tmpfs", ["mode=755"], safe, "tmpfs")
        self.attach(tmpfs, op["destination"])
        readonly = mounts.MOUNT_ATTR_RDONLY if op["readonly"] else 0
        for names, directory in op["controllers"]:
            path = f"{op['destination']}/{names}"
            self.at(ops.STEP_MOUNT, path)
            fd = mounts.clone_tree(mounts.AT_FDCWD, directory, True)
            mounts.mount_setattr(fd, attributes=safe | readonly, propagation=mounts.MS_PRIVATE)
            self.attach(fd, path)
            os.close(fd)
        for name, target in op["links"]:
            self._op_symlink({"path": f"{op['destination']}/{name}", "target": target})
        if readonly:
            mounts.mount_setattr(tmpfs, attributes=readonly)
        os.close(tmpfs)

    def _op_cgroup_v2(self, op: dict[str, Any]) -> None:
        attributes = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOEXEC
        attributes |= mounts.MOUNT_ATTR_RDONLY if op["readonly"] else 0
        if op["private"]:
            fd = mounts.new_mount("cgroup2", [], attributes, "cgroup")
        else:
            fd = mounts.clone_tree(mounts.AT_FDCWD, op["source"], True)
            mounts.mount_setattr(fd, attributes=attributes, propagation=mounts.MS_PRIVATE)
        self.attach(fd, op["destination"])
        os.close(fd)

    def devices(self, found: list[tuple[str, os.stat_result]]) -> None:
        """Nodes for the user's devices (stat'ed on the host)."""
        for path, info in found:
            kind = stat.S_IFMT(info.st_mode)
            mode = stat.S_IMODE(info.st_mode)
            try:
                self.make_node(path, kind, os.major(info.st_rdev), os.minor(info.st_rdev), mode, (info.st_uid, info.st_gid))
            except OSError as error:
                if error.errno != errno.EOVERFLOW:
                    raise
                self._bind_node(path, info)

    def _bind_node(self, path: str, info: os.stat_result) -> None:
        """A device node of an owner whom an ID-mapped file system cannot have: in one of its own, of which only the node is mounted."""
        place = mounts.new_mount("tmpfs", ["mode=755"], mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NOEXEC)
        os.mknod("node", info.st_mode, info.st_rdev, dir_fd=place)
        os.chown("node", info.st_uid, info.st_gid, dir_fd=place)
        fd = mounts.cut_down(place, "node", os.dup(self.fd))
        self.attach(fd, path, False, path)
        os.close(fd)

    def console(self) -> tuple[int, int]:
        """(master, slave) of a new pty in the container's devpts, bound on /dev/console."""
        self.at(ops.STEP_TTY, "/dev/console")
        master = mounts.open_in_root(self.fd, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
        slave, number = pty.open_slave(master)
        # Resolved inside the root: an image's /dev may be a symbolic link, which outside leads to the host's terminals.
        target = mounts.open_in_root(self.fd, f"/dev/pts/{number}", os.O_PATH)
        if not os.path.samestat(os.fstat(target), os.fstat(slave)):
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY), f"/dev/pts/{number}")
        fd = mounts.clone_tree(target, "", False)
        os.close(target)
        self.attach(fd, "/dev/console", False)
        os.close(fd)
        return master, slave

    def read_only_paths(self) -> None:
        """The plan's read-only paths: bind mounts of themselves."""
        for path in self.plan["readonly"]:
            self.at(ops.STEP_MOUNT, path)
            try:
                target = mounts.open_in_root(self.fd, path, os.O_PATH)
            except (FileNotFoundError, NotADirectoryError):
                continue
            fd = mounts.clone_tree(target, "", True)
            mounts.mount_setattr(fd, attributes=mounts.MOUNT_ATTR_RDONLY)
            mounts.move_mount(fd, target, path)
            os.close(fd)
            os.close(target)

    def mask_paths(self) -> None:
        """The plan's masked paths: /dev/null over files, an empty read-only tmpfs over directories."""
        paths = list(self.plan["masked"])
        if self.plan["thermal"]:
            paths += thermal_paths()
        for path in paths:
            self.at(ops.STEP_MOUNT, path)
            try:
                target = mounts.open_in_root(self.fd, path, os.O_PATH)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if stat.S_ISDIR(os.fstat(target).st_mode):
                fd = mounts.new_mount("tmpfs", ["nr_blocks=1", "nr_inodes=1"], mounts.MOUNT_ATTR_RDONLY, "tmpfs")
            else:
                null = mounts.open_in_root(self.fd, "/dev/null", os.O_PATH)
                if os.fstat(null).st_rdev != os.makedev(1, 3):
                    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), "/dev/null")
                fd = mounts.clone_tree(null, "", False)
                os.close(null)
            mounts.move_mount(fd, target, path)
            os.close(fd)
            os.close(target)

    def finish(self) -> None:
        """Make the root read-only if asked, and enter it."""
        self.at(ops.STEP_ROOTFS, "/")
        if self.plan["rootfs"]["readonly"]:
            mounts.mount_setattr(self.fd, attributes=mounts.MOUNT_ATTR_RDONLY)
        mounts.pivot_into(self.fd)
        os.close(self.fd)


def thermal_paths() -> list[str]:
    """Docker masks cpu0..cpuN; the list is short-circuited at the first CPU without the file, as all have it or none."""
    paths = (f"/sys/devices/system/cpu/cpu{number}/thermal_throttle" for number in range(os.cpu_count() or 1))
    return list(itertools.takewhile(os.path.exists, paths))


def host_devices(plan: ops.Plan, where: Where) -> tuple[list[tuple[str, os.stat_result]], list[Rule]]:
    """The devices to make and the rules they need: the user's, and with --privileged all of the host's."""
    found: list[tuple[str, os.stat_result]] = []
    rules: list[Rule] = []

    def add(source: str, path: str, access: str) -> None:
        info = os.stat(source)
        if stat.S_ISDIR(info.st_mode):
            for name in sorted(os.listdir(source)):
                child = f"{source}/{name}"
                if name not in ("pts", "shm", "fd", "mqueue", "console", "ptmx") and (
                    stat.S_IFMT(os.lstat(child).st_mode) in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR)
                ):
                    add(child, f"{path}/{name}", access)
            return
        if stat.S_IFMT(info.st_mode) not in (stat.S_IFCHR, stat.S_IFBLK):
            raise OSError(errno.ENOTBLK, "not a device node", source)
        found.append((path, info))
        kind = "c" if stat.S_ISCHR(info.st_mode) else "b"
        rules.append((kind, os.major(info.st_rdev), os.minor(info.st_rdev), access))

    if plan["host_devices"]:
        add("/dev", "/dev", "rwm")
    for source, path, access in plan["devices"]:
        where[:] = [ops.STEP_DEVICE, source]
        add(source, path, access)
    return found, rules
