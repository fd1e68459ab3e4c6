"""Options of the storage driver (`storage-opts`, --storage-opt): docker's names, whichever driver it is."""

from collections.abc import Sequence

from sampan.units import FALSE, TRUE, parse_size


def default_size(options: Sequence[str]) -> int:
    """What containers may write into their trees that are given no `--storage-opt size`, in bytes; 0: as much as there is room for.

    Raises ValueError in docker's words (moby daemon/graphdriver/overlay2).
    """
    size = 0
    for option in options:
        key, separator, value = map(str.strip, option.partition("="))
        if not separator:
            raise ValueError(f"unable to parse storage-opt key/value: {option}")
        match key.lower():
            case "overlay2.size":
                size = parse_size(value)
                if size < 0:  # more than there can be
                    raise ValueError(f"invalid size: '{value}'")
            case "overlay2.override_kernel_check":  # what works is found out by trying it
                if value not in TRUE + FALSE:
                    raise ValueError(f'strconv.ParseBool: parsing "{value}": invalid syntax')
            case unknown:
                raise ValueError(f"overlay2: unknown option {unknown}")
    return size
