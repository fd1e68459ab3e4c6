"""The local driver: where volumes' data lies, and what is mounted there.

    <data root>/volumes/
        <name>/_data        what containers see
        <name>/.copying     an image's files on their way into an empty volume: garbage once sampand is another
        <name>/.copied      the same, complete: being moved into _data, which sampand's start finishes
        .trash/             removed, deleted later

Nothing in here removes data that no row of the state asks it to remove: see strays().
Methods that are not coroutines touch metadata only, but mount(), which may wait for another machine.
"""

import errno
import os
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from sampan.errors import Conflict, SystemFailure
from sampan.linux import libc, mounts
from sampan.linux.openat2 import RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from sampan.volume.options import MountCall, address_of, mount_calls, without_password
from sampan.worker.client import WorkerPool

DATA = "_data"
_COPYING, _COPIED, _TRASH = ".copying", ".copied", ".trash"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NETWORK = ("nfs", "nfs4", "cifs")


class LocalVolumes:
    """Directories by the names of volumes, which are checked by who calls."""

    def __init__(self, data_root: Path, workers: WorkerPool) -> None:
        """Use (and make) `volumes/` below the data root. Raises OSError."""
        self._root = data_root / "volumes"
        self._workers = workers
        self._root.mkdir(mode=0o701, parents=True, exist_ok=True)
        (self._root / _TRASH).mkdir(mode=0o700, exist_ok=True)

    def path(self, name: str) -> str:
        """Where a volume's data is."""
        return f"{self._root}/{name}/{DATA}"

    # directories

    def make(self, name: str) -> None:
        """Make the directories, as far as they are missing: data that is there already stays. Raises SystemFailure."""
        for path, mode, what in ((f"{self._root}/{name}", 0o701, "root"), (self.path(name), 0o755, "data")):
            try:
                os.mkdir(path)
                os.chmod(path, mode)
            except FileExistsError:
                continue
            except OSError as error:
                reason = (error.strerror or "").lower()
                raise SystemFailure(f"create {name}: error while creating volume {what} path '{path}': mkdir {path}: {reason}") from error

    def open(self, name: str) -> int:
        """A descriptor of the data directory. Raises OSError."""
        return os.open(self.path(name), _DIRECTORY)

    def is_empty(self, name: str) -> bool:
        """Whether nothing is in it (as now mounted)."""
        with suppress(FileNotFoundError), os.scandir(self.path(name)) as entries:
            return next(entries, None) is None
        return True

    def discard(self, name: str) -> None:
        """Have a volume and all that is in it deleted, soon. Raises Conflict while something is mounted in there, SystemFailure."""
        self.unmount(name)
        place = f"{os.path.realpath(self._root)}/{name}"
        if any(f"{point}/".startswith(f"{place}/") for point in mounts.mount_points()):
            raise Conflict(f"remove {name}: volume has active mounts")  # emptying the trash would go on in there
        try:
            os.rename(place, self._root / _TRASH / os.urandom(12).hex())
        except FileNotFoundError:
            pass
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise SystemFailure(f"remove {name}: error removing volume path '{place}': {reason}") from error

    async def empty_trash(self) -> None:
        """Delete what was removed. Safe to interrupt at any time."""
        fd = os.open(self._root / _TRASH, _DIRECTORY)
        try:
            if os.listdir(fd):
                await self._workers.run("empty", {}, [fd])
        finally:
            os.close(fd)

    async def size(self, name: str) -> int:
        """Bytes in it: sum of the sizes of files, hard links once; -1 when that cannot be told."""
        try:
            fd = self.open(name)
        except OSError:
            return -1
        try:
            return int((await self._workers.run("usage", {}, [fd]))["size"])
        except SystemFailure:
            return -1
        finally:
            os.close(fd)

    def strays(self, known: Collection[str]) -> list[str]:
        """See stray_directories()."""
        return stray_directories(self._root, known)

    def check_stray(self, name: str) -> None:
        """Whether what lies where a new volume is to be can be taken over. Raises Conflict."""
        place = f"{self._root}/{name}"
        try:
            fd = os.open(place, _DIRECTORY)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Conflict(f"create {name}: {place} is there, and no directory") from error
        try:
            with os.scandir(fd) as entries:
                if any(entry.name == DATA and not entry.is_dir(follow_symlinks=False) for entry in entries):
                    raise Conflict(f"create {name}: {place}/{DATA} is there, and no directory")
        finally:
            os.close(fd)

    def drop_if_empty(self, name: str) -> bool:
        """Remove a stray directory without data in it; what a kill leaves between its making and its row is one."""
        with suppress(OSError):
            with suppress(FileNotFoundError):
                os.rmdir(self.path(name))
            os.rmdir(f"{self._root}/{name}")
            return True
        return False

    # an image's files for an empty volume

    @contextmanager
    def staging(self, name: str) -> Iterator[int]:
        """A descriptor of an empty directory beside the data, which finish_copy() takes in when the block is left without an error.

        It gets owner and mode of the data's directory. Raises OSError.
        """
        place = f"{self._root}/{name}"
        self._drop_staging(name)
        os.mkdir(f"{place}/{_COPYING}", 0o700)
        fd = os.open(f"{place}/{_COPYING}", _DIRECTORY)
        try:
            try:
                _copy_attributes(place, DATA, _COPYING)
                yield fd
            finally:
                os.close(fd)
            os.rename(f"{place}/{_COPYING}", f"{place}/{_COPIED}")
        except BaseException:
            self._drop_staging(name)
            raise

    def _drop_staging(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.rename(self._root / name / _COPYING, self._root / _TRASH / os.urandom(12).hex())

    def finish_copy(self, name: str) -> None:
        """Move what was copied beside the data into it. What is there already, by whomever, stays. Can be interrupted and run again."""
        place = f"{self._root}/{name}"
        self._drop_staging(name)
        try:
            source = os.open(f"{place}/{_COPIED}", _DIRECTORY)
        except FileNotFoundError:
            return
        try:
            target = os.open(f"{place}/{DATA}", _DIRECTORY)
            try:
                for entry in os.listdir(source):
                    with suppress(FileExistsError):
                        libc.rename_to_free(source, entry, target)
            finally:
                os.close(target)
        finally:
            os.close(source)
        _copy_attributes(place, _COPIED, DATA)
        try:
            os.rmdir(f"{place}/{_COPIED}")
        except OSError:  # somebody had files of the same names
            os.rename(f"{place}/{_COPIED}", self._root / _TRASH / os.urandom(12).hex())

    # what is mounted on it

    def is_mounted(self, name: str) -> bool:
        """Whether a file system is mounted on the data's directory."""
        root = os.open(self._root / name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.close(openat2(root, DATA.encode(), os.O_PATH, resolve=RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS))
        except OSError as error:
            return error.errno == errno.EXDEV
        finally:
            os.close(root)
        return False

    def mount(self, name: str, options: Mapping[str, str]) -> None:
        """Mount what the options say on the data's directory, unless it is mounted. May take long. Raises SystemFailure."""
        if self.is_mounted(name):
            return
        text = options.get("o", "")
        resolved = ""
        if options.get("type") in _NETWORK and (address := address_of(text)):
            resolved = self._resolved(name, address)
        for call in mount_calls(options, resolved):
            try:
                mounts.mount(call.source or None, self.path(name), call.kind or None, call.flags, call.data)
            except OSError as error:
                self.unmount(name)
                raise SystemFailure(self._failed(name, call, error)) from error

    def _resolved(self, name: str, address: str) -> str:
        try:
            return str(socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][4][0])
        except (OSError, UnicodeError) as error:
            raise SystemFailure(
                f"error while mounting volume '{self.path(name)}': error resolving passed in network volume address: "
                f"lookup {address}: {error}"
            ) from error

    def _failed(self, name: str, call: MountCall, error: OSError) -> str:
        path = self.path(name)
        words = f"mount {call.source}:{path}"
        if call.flags:
            words += f", flags: 0x{call.flags:x}"
        if call.data:
            words += f", data: {without_password(call.data)}"
        reason = os.strerror(error.errno or errno.EIO).lower()
        if error.errno == errno.ENODEV:
            reason += f": this host's kernel has no file system of type {call.kind!r}"
        return f"error while mounting volume '{path}': failed to mount local volume: {words}: {reason}"

    def unmount(self, name: str) -> None:
        """Take off what is mounted on the data's directory. Who still uses it keeps what he has."""
        with suppress(OSError):
            while self.is_mounted(name):
                mounts.umount2(self.path(name), mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)


def stray_directories(root: Path, known: Collection[str]) -> list[str]:
    """Names in the directory of all volumes that are none of the known volumes': for `system check`, and for who wants them back.

    They may hold data: `volume create NAME` takes one over as it is.
    """
    return sorted(entry.name for entry in os.scandir(root) if entry.name not in known and entry.name != _TRASH)


def _copy_attributes(place: str, source: str, target: str) -> None:
    """Owner, xattrs and mode of one directory in `place` for another."""
    fds = [os.open(f"{place}/{name}", _DIRECTORY) for name in (source, target)]
    try:
        info = os.fstat(fds[0])
        os.fchown(fds[1], info.st_uid, info.st_gid)
        os.fchmod(fds[1], info.st_mode & 0o7777)
        for key in os.listxattr(fds[0]):
            with suppress(OSError):  # one of a file system's own
                os.setxattr(fds[1], key, os.getxattr(fds[0], key))
    finally:
        for fd in fds:
            os.close(fd)
