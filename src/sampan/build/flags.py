"""The `--name=value` of instructions, checked against what each takes, in docker's words. Pure."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from sampan.build.suggest import suggestion
from sampan.errors import InvalidArgument

Kind: TypeAlias = Literal["bool", "text", "texts"]


class Flags:
    """The flags of one instruction. Raises InvalidArgument for what is not among `known`."""

    def __init__(self, written: Sequence[str], known: Mapping[str, Kind]) -> None:
        self._values: dict[str, list[str]] = {}
        for text in written:
            shown, equals, value = text.partition("=")
            name = shown.removeprefix("--")
            kind = known.get(name)
            if kind is None:
                raise InvalidArgument(f"unknown flag: {shown}{suggestion(name, known)}")
            values = self._values.setdefault(name, [])
            if values and kind != "texts":
                raise InvalidArgument(f"duplicate flag specified: {shown}")
            if (not equals and kind != "bool") or (equals and not value and kind == "bool"):
                raise InvalidArgument(f"missing a value on flag: {shown}")
            if kind == "bool" and value.lower() not in ("true", "false", ""):
                raise InvalidArgument(f"expecting boolean value for flag {shown}, not: {value}")
            values.append(value)

    def text(self, name: str, default: str = "") -> str:
        """The value of a flag that is given at most once."""
        return self._values.get(name, [default])[0]

    def texts(self, name: str) -> tuple[str, ...]:
        """All values of a flag, in order."""
        return tuple(self._values.get(name, ()))

    def truth(self, name: str) -> bool | None:
        """A bool flag; None when it is not given."""
        return self._values[name][0].lower() != "false" if name in self._values else None
