"""Go's values in Python: what a template sees of them (type names, zero values, truth, fields).

str, bool, int, float stand for string, bool, int, float64; dict and list for map[string]interface {} and []interface {} as Go's JSON
decoder makes them; None for an untyped nil. Everything that has another type carries its name: GoInt, GoStr, GoMap, GoList, Struct, Ptr.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class GoInt(int):
    """An integer of another type than int."""

    type = "int64"


class GoDuration(GoInt):
    """A time.Duration, in nanoseconds; shown as `1m30s`."""

    type = "time.Duration"

    def shown(self) -> str:
        """Duration.String."""
        left = abs(int(self))
        sign = "-" if self < 0 else ""
        for limit, unit in ((1000, "ns"), (10**6, "µs"), (10**9, "ms")):
            if 0 < left < limit:
                return f"{sign}{_decimal(left, limit // 1000)}{unit}"
        seconds = _decimal(left % (60 * 10**9), 10**9)
        minutes, hours = left // (60 * 10**9) % 60, left // (3600 * 10**9)
        return sign + (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds}s"


def _decimal(value: int, unit: int) -> str:
    whole, part = divmod(value, unit)
    return f"{whole}.{part:0{len(str(unit)) - 1}d}".rstrip("0").rstrip(".") if part else str(whole)


class GoStr(str):
    """A string of a named type: json.Number (a number of an untyped document, as written), container.NetworkMode."""

    type = "json.Number"


class GoMap(dict):  # type: ignore[type-arg]
    """A map of a type of its own."""

    def __init__(self, type_: str, items: dict[str, Any] | None = None) -> None:
        super().__init__(items or {})
        self.type = type_
        self.nil = items is None


class GoList(list):  # type: ignore[type-arg]
    """A slice of a type of its own."""

    def __init__(self, type_: str, items: list[Any] | None = None) -> None:
        super().__init__(items or [])
        self.type = type_
        self.nil = items is None


class Iface:
    """A value seen through interface {}: what maps and slices of a JSON document hold. Matters to error texts only."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Ptr:
    """A pointer to a struct, or nil."""

    __slots__ = ("target", "type")

    def __init__(self, type_: str, target: Any) -> None:
        self.type = type_
        self.target = target


class Struct:
    """A struct: its type (schema.StructType) and the values of its fields by Go's names, in the type's order."""

    __slots__ = ("fields", "schema")

    def __init__(self, schema: Any, fields: dict[str, Any]) -> None:
        self.schema = schema
        self.fields = fields

    @property
    def type(self) -> str:
        """The type's name, with its package."""
        name: str = self.schema.name
        return name


class Shown(Struct):
    """A struct with a String method of its own."""

    __slots__ = ("shown",)

    def __init__(self, schema: Any, fields: dict[str, Any], shown: str) -> None:
        super().__init__(schema, fields)
        self.shown = shown


class GoTime:
    """A time.Time."""

    __slots__ = ("text",)
    type = "time.Time"

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        from sampan.cli.format.gotime import go_string

        return go_string(self.text)

    String = __str__

    def IsZero(self) -> bool:
        """Whether this is the time that stands for none."""
        return self.text.startswith("0001-01-01T00:00:00")

    def Unix(self) -> GoInt:
        """Seconds since 1970."""
        from datetime import datetime

        # fractions of more than six digits are more than datetime takes
        return GoInt(datetime.fromisoformat(self.text[:19] + self.text[19:].lstrip(".0123456789").replace("Z", "+00:00")).timestamp() // 1)


class Methods:
    """What docker's formatter hands to a template: a pointer to a struct without fields, with methods (listed in METHODS: name ->
    whether it takes a string). A subclass is one of docker's contexts."""

    go_type = "*formatter.Context"
    METHODS: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What `{{json .}}` shows: every method without arguments."""
        return {name: getattr(self, name)() for name in sorted(self.METHODS) if name != "Label"}


class Header(dict):  # type: ignore[type-arg]
    """The header row: names of fields -> titles (formatter.SubHeaderContext)."""

    type = "formatter.SubHeaderContext"

    def Label(self, name: str) -> str:
        """The title of a label's column: the last part of its name."""
        return name.split(".")[-1].replace("-", " ").replace("_", " ")


def unwrap(value: Any) -> Any:
    """The value inside an interface."""
    return value.value if isinstance(value, Iface) else value


def indirect(value: Any) -> tuple[Any, bool]:
    """What is at the end of interfaces and pointers, and whether that is a nil pointer or interface."""
    while True:
        if isinstance(value, Iface):
            if value.value is None:
                return value, True
            value = value.value
        elif isinstance(value, Ptr):
            if value.target is None:
                return value, True
            value = value.target
        else:
            return value, False


def type_name(value: Any) -> str:
    """The value's type as Go prints it."""
    if isinstance(value, Iface):
        return "interface {}"
    if isinstance(value, Methods):
        return value.go_type
    name = getattr(value, "type", None)
    if isinstance(name, str):
        return name
    for python, go in (
        (bool, "bool"),
        (int, "int"),
        (float, "float64"),
        (complex, "complex128"),
        (str, "string"),
        (dict, "map[string]interface {}"),
        (list, "[]interface {}"),
    ):
        if isinstance(value, python):
            return go
    return "<nil>"


def elem_type(name: str) -> str:
    """The type of a map's or slice's elements."""
    if name.startswith("[]"):
        return name[2:]
    if name.startswith("map["):
        return name[name.index("]") + 1 :]
    return {
        "formatter.SubHeaderContext": "string",
        "nat.PortMap": "[]nat.PortBinding",
        "strslice.StrSlice": "string",
        "nat.PortSet": "struct {}",
    }.get(name, "interface {}")


def kind(value: Any) -> str:
    """The value's kind: bool int uint float complex string map slice struct ptr interface invalid."""
    if value is None:
        return "invalid"
    if isinstance(value, Iface):
        return "interface"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "uint" if type_name(value).startswith("uint") else "int"
    for python, name in (
        (str, "string"),
        (dict, "map"),
        (list, "slice"),
        (float, "float"),
        (complex, "complex"),
        ((Struct, GoTime), "struct"),
    ):
        if isinstance(value, python):
            return name
    return "ptr"


def truth(value: Any) -> bool:
    """Whether `if` takes the branch."""
    value = unwrap(value)
    if isinstance(value, Ptr):
        return value.target is not None
    if isinstance(value, (Struct, GoTime, Methods)):
        return True
    return bool(value)
