"""The tree of a Go text/template (the node types of Go's package text/template/parse)."""

from __future__ import annotations

from sampan.quoting import go_quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Node:
    """A node of the tree. kind: text action if range with template break continue list pipe command field variable chain identifier
    dot nil bool number string end else. `str(node)` is the source as Go's errors quote it."""

    __slots__ = (
        "alternative",
        "args",
        "assign",
        "body",
        "commands",
        "declared",
        "kind",
        "line",
        "names",
        "node",
        "pipe",
        "pos",
        "text",
        "value",
    )

    def __init__(self, kind: str, pos: int, line: int = 0, text: str = "") -> None:
        self.kind = kind
        self.pos = pos
        self.line = line
        self.text = text
        self.value: Any = None  # of constants; of text: the text
        self.names: list[str] = []  # of fields, variables, chains
        self.args: list[Node] = []  # of commands; of lists: the nodes
        self.commands: list[Node] = []  # of pipes
        self.declared: list[Node] = []
        self.assign = False
        self.node: Node | None = None  # of chains
        self.pipe: Node | None = None
        self.body: Node | None = None
        self.alternative: Node | None = None

    def __str__(self) -> str:
        kind = self.kind
        if kind == "field":
            return "".join("." + name for name in self.names)
        if kind == "variable":
            return ".".join(self.names)
        if kind == "chain":
            inner = f"({self.node})" if self.node is not None and self.node.kind == "pipe" else str(self.node)
            return inner + "".join("." + name for name in self.names)
        if kind == "command":
            return " ".join(f"({arg})" if arg.kind == "pipe" else str(arg) for arg in self.args)
        if kind == "pipe":
            head = ", ".join(map(str, self.declared)) + (" = " if self.assign else " := ") if self.declared else ""
            return head + " | ".join(map(str, self.commands))
        if kind == "list":
            return "".join(map(str, self.args))
        if kind == "action":
            return "{{" + str(self.pipe) + "}}"
        if kind == "template":
            return "{{template " + go_quote(self.text) + (f" {self.pipe}" if self.pipe else "") + "}}"
        if kind in ("if", "range", "with"):
            other = "{{else}}" + str(self.alternative) if self.alternative else ""
            return "{{" + f"{kind} {self.pipe}" + "}}" + str(self.body) + other + "{{end}}"
        if kind in ("end", "else", "break", "continue"):
            return "{{" + kind + "}}"
        return self.text
