"""What each job on a container's tree needs of it: no more is mounted, and nothing is made on the host that it does not look at."""

from enum import Enum, auto
from typing import Final


class Needs(Enum):
    """From little to all."""

    UPPER = auto()
    """What the container has written, as it lies there; and what lies below, if this kernel can mount it"""
    LAYERS = auto()
    """Both"""
    TREE = auto()
    """Its root file system"""
    MOUNTS = auto()
    """That, with what is mounted in it"""

    @property
    def is_tree(self) -> bool:
        """Whether the worker enters it."""
        return self in (Needs.TREE, Needs.MOUNTS)


NEEDS: Final = {
    "path_stat": Needs.MOUNTS,
    "path_read": Needs.MOUNTS,
    "path_write": Needs.MOUNTS,
    "tree_export": Needs.TREE,
    "tree_changes": Needs.LAYERS,
    "tree_diff": Needs.UPPER,
    "volume_fill": Needs.TREE,
    "tree_chown": Needs.TREE,
}
