"""Extract an archive as `docker cp` and `docker import`'s tools do: plain files below a directory, no layer semantics.

The rules are docker 28's (moby go-archive Unpack): a directory merges into one that is there, anything else is replaced; `.wh.` names are
ordinary ones; parents that are missing are made, 0755. No name and no symlink leads out of the directory: absolute ones start in it.
"""

import os
import stat

from sampan.archive.apply import LayerApplier, Reader, printable, write_all
from sampan.archive.reader import DIRECTORY, Entry, InvalidArchive
from sampan.archive.room import Room

_HOLE_MIN = 4096
"""Bytes of zeros in one piece that are left out rather than written."""


class TreeExtractor(LayerApplier):
    """Extracts entries below root_fd. Use `with`, then apply()."""

    whiteouts = False

    def __init__(
        self,
        root_fd: int,
        room: Room | None,
        *,
        owner: tuple[int, int] | None = None,
        keep_owner: bool = True,
        replace: bool = True,
        place: str = "",
        full_names: bool = False,
    ) -> None:
        """room: as for LayerApplier.

        owner: whose everything is to be, instead of what the archive says. keep_owner=False: leave it to be the caller's.

        replace=False: a directory is never replaced by something else, nor the reverse. place: the directory's name for messages,
        with full_names put before the entries' too.
        """
        super().__init__(root_fd, room)
        self._owner = owner
        self._keep_owner = keep_owner
        self._replace = replace
        self._place = place
        self._prefix = f"{place}/" if full_names else ""

    def _owner_of(self, entry: Entry) -> tuple[int, int]:
        if not self._keep_owner:
            return -1, -1
        return self._owner or (entry.uid, entry.gid)

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
        if hole:
            os.ftruncate(fd, entry.size)
