"""Extract an archive as `docker cp` and `docker import`'s tools do: plain files below a directory, no layer semantics.

The rules are docker 28's (moby go-archive Unpack): a directory merges into one that is there, anything else is replaced; `.wh.` names are
ordinary ones; parents that are missing are made, 0755. No name and no symlink leads out of the directory: absolute ones start in it.
"""

import os
import stat
from contextlib import ExitStack, suppress

from sampan.archive.apply import Applied, LayerApplier, Reader, clean, printable, write_all
from sampan.archive.reader import BLOCKDEV, CHAR, DIRECTORY, Entry, InvalidArchive
from sampan.archive.room import Room
from sampan.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2
from sampan.linux.permissions import Permissions

_CAPABILITY = b"security.capability"
_HOLE_MIN = 4096
"""Bytes of zeros in one piece that are left out rather than written."""
_UNSEEN = 1 << 20
"""Bytes that follow others than zeros, and are moved without a look at them."""


class TreeExtractor(LayerApplier):
    """Extracts entries below root_fd, a tree that others may be at. Use `with`, then apply()."""

    whiteouts = False

    def __init__(
        self,
        root_fd: int,
        room: Room | None,
        *,
        owner: tuple[int, int] | None = None,
        replace: bool = True,
        place: str = "",
        full_names: bool = False,
        permissions: Permissions | None = None,
    ) -> None:
        """room: as for LayerApplier. owner: whose everything is to be, instead of what the archive says.

        replace=False: a directory is never replaced by something else, nor the reverse. place: the directory's name for messages,
        with full_names put before the entries' too. permissions: made before a change of root; None: there will be none. It stays
        the caller's. Raises OSError.
        """
        super().__init__(root_fd, room)
        self._owner = owner
        self._replace = replace
        self._place = place
        self._prefix = f"{place}/" if full_names else ""
        self._ends = ExitStack()
        self._permissions = permissions or self._ends.enter_context(Permissions())

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._ends.close()

    def _owner_of(self, entry: Entry) -> tuple[int, int]:
        return self._owner or (entry.uid, entry.gid)

    def _chmod(self, parent: int, base: bytes, mode: int) -> None:
        """Whoever may write to the directory may have put a symlink in the place of what was just made."""
        self._permissions.set(parent, base, mode)

    def _make_room(self, entry: Entry, parent: int, base: bytes) -> bool:
        if not self._replace:
            try:
                there = stat.S_ISDIR(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode)
            except FileNotFoundError:
                there = entry.type == DIRECTORY
            if there != (entry.type == DIRECTORY):
                old, new = ("directory", "non-directory") if there else ("non-directory", "directory")
                name = self._prefix + printable(entry.name.rstrip(b"/"))
                raise InvalidArchive(f'cannot overwrite {old} "{name}" with {new} "{self._place}"')
        return super()._make_room(entry, parent, base)

    def _fill(self, fd: int, entry: Entry, reader: Reader) -> None:
        """Long runs of zeros become holes: tar streams of docker's kind have lost those of the source."""
        hole = False
        for piece in reader.data():
            if len(piece) >= _HOLE_MIN and not piece[0] and not piece[-1] and not bytes(piece).strip(b"\0"):
                os.lseek(fd, len(piece), os.SEEK_CUR)
                hole = True
            else:
                write_all(fd, piece)
                reader.moved(fd, _UNSEEN)  # what follows data is data, as a rule
        if hole:
            os.ftruncate(fd, entry.size)


class OwnExtractor(TreeExtractor):
    """Extracts what somebody else sent as files of whoever runs this, who has to trust the sender with no more than their contents.

    No name leads through a symlink, and a hard link only to what this archive made. What would give away the right of the caller is left
    out: devices, file capabilities, set-user-ID of files that were not the caller's, and set-group-ID likewise.
    """

    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS

    def __init__(self, root_fd: int, *, place: str = "") -> None:
        """place: as for TreeExtractor. Nothing is replaced by something of another kind. The disk is the caller's own to fill."""
        super().__init__(root_fd, None, replace=False, place=place, full_names=True)
        self._made: set[bytes] = set()
        self._users = os.geteuid(), os.getegid()
        self._parents_owner = -1, -1
        self._closed: dict[bytes, int] = {}
        """Modes of directories that their owner is not to write to, once they are filled: only root can do both at a time"""

    def apply(self, reader: Reader) -> Applied:
        """As LayerApplier's."""
        applied = super().apply(reader)
        for name in sorted(self._closed, key=lambda name: name.count(b"/"), reverse=True):
            parent, _, base = name.rpartition(b"/")
            with suppress(FileNotFoundError, NotADirectoryError):  # an entry after it has taken its place
                fd = openat2(self._root, parent or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, resolve=self.resolve)
                try:
                    if stat.S_ISDIR(os.stat(base, dir_fd=fd, follow_symlinks=False).st_mode):
                        self._chmod(fd, base, self._closed[name])
                finally:
                    os.close(fd)
        return applied

    def _owner_of(self, entry: Entry) -> tuple[int, int]:
        return -1, -1

    def _one(self, entry: Entry, reader: Reader) -> None:
        if entry.type in (CHAR, BLOCKDEV):
            return
        entry.xattrs.pop(_CAPABILITY, None)
        if entry.type != DIRECTORY:
            entry.mode &= ~(stat.S_ISUID if entry.uid != self._users[0] else 0)
            entry.mode &= ~(stat.S_ISGID if entry.gid != self._users[1] else 0)
        name = clean(entry.name)
        self._closed.pop(name, None)
        if entry.type == DIRECTORY and entry.mode & stat.S_IRWXU != stat.S_IRWXU:
            self._closed[name] = entry.mode
            entry.mode |= stat.S_IRWXU
        super()._one(entry, reader)
        self._made.add(name)

    def _link(self, entry: Entry, parent: int, base: bytes) -> bool:
        return clean(entry.link) in self._made and super()._link(entry, parent, base)

    def _link_attributes(self, entry: Entry, parent: int, base: bytes) -> None:
        """None: the file has had them from its own entry."""
