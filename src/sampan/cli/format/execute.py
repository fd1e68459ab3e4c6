"""Executes templates as Go 1.24's text/template does, with its error texts."""

from __future__ import annotations

from sampan.cli.format import gofmt
from sampan.cli.format.functions import BUILTINS, DOCKER, Function
from sampan.cli.format.lex import TemplateError
from sampan.cli.format.parse import Parser, place
from sampan.cli.format.values import (
    GoInt,
    GoMap,
    GoTime,
    Header,
    Iface,
    Methods,
    Ptr,
    Struct,
    elem_type,
    indirect,
    kind,
    truth,
    type_name,
    unwrap,
)
from sampan.quoting import go_quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sampan.cli.format.nodes import Node

_MISSING = object()  # no value comes down the pipe
_MAX_DEPTH = 60  # Go allows 100000 templates within templates; Python's stack does not
_NAMES = {"value": "reflect.Value", "any": "interface {}"}


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Template:
    """A parsed template. functions: docker's unless others are given; `missing_error`: a key that a map lacks is an error."""

    def __init__(self, text: str, name: str = "", functions: dict[str, Function] | None = None) -> None:
        self.text = text
        self.name = name
        self.functions = {**BUILTINS, **DOCKER, **(functions or {})}
        self.trees = Parser(name, text, self.functions).parse()

    def execute(self, data: Any, *, missing_error: bool = False, functions: dict[str, Function] | None = None) -> str:
        """The text for `data`. Raises TemplateError in Go's words; its `partial` is the text up to there."""
        run = Execution(self, missing_error, {**self.functions, **functions} if functions else self.functions)
        try:
            run.walk(data, self.trees[self.name])
        except TemplateError as error:
            error.partial = "".join(run.out)  # type: ignore[attr-defined]
            raise
        except RecursionError:
            raise TemplateError(f"template: {self.name}: exceeded maximum template depth ({_MAX_DEPTH})") from None
        return "".join(run.out)


class Execution:
    """One run of a template."""

    def __init__(self, template: Template, missing_error: bool, functions: dict[str, Function]) -> None:
        self.template = template
        self.missing_error = missing_error
        self.functions = functions
        self.out: list[str] = []
        self.vars: list[tuple[str, Any]] = []
        self.node: Node | None = None
        self.depth = 0
        self.name = template.name

    def fail(self, message: str) -> TemplateError:
        """The error to raise, with the place."""
        name = self.template.name
        if self.node is None:
            return TemplateError(f"template: {name}: {message}")
        line, column = place(self.template.text, self.node.pos)
        return TemplateError(f"template: {name}:{line}:{column}: executing {go_quote(self.name)} at <{self.node}>: {message}")

    def walk(self, dot: Any, node: Node) -> None:
        """Run a node."""
        if not self.vars:
            self.vars.append(("$", dot))
        self.node = node
        kind_ = node.kind
        if kind_ == "list":
            for child in node.args:
                self.walk(dot, child)
        elif kind_ == "text":
            self.out.append(node.text)
        elif kind_ == "action":
            assert node.pipe is not None
            value = self.pipeline(dot, node.pipe)
            if not node.pipe.declared:
                self.node = node
                self.out.append(self.printable(value))
        elif kind_ in ("if", "with"):
            self._branch(dot, node)
        elif kind_ == "range":
            self._range(dot, node)
        elif kind_ == "template":
            self._template(dot, node)
        elif kind_ == "break":
            raise _Break
        elif kind_ == "continue":
            raise _Continue

    @staticmethod
    def printable(value: Any) -> str:
        """How an action prints a value."""
        value = unwrap(value)
        while isinstance(value, Ptr) and value.target is not None:
            value = value.target
        if isinstance(value, Ptr):
            return "<nil>"
        return "<no value>" if value is None else gofmt.text(value, depth=1 if isinstance(value, Struct) else 0)

    def _branch(self, dot: Any, node: Node) -> None:
        mark = len(self.vars)
        assert node.pipe is not None
        assert node.body is not None
        value = self.pipeline(dot, node.pipe)
        if truth(value):
            self.walk(value if node.kind == "with" else dot, node.body)
        elif node.alternative is not None:
            self.walk(dot, node.alternative)
        del self.vars[mark:]

    def _range(self, dot: Any, node: Node) -> None:
        outer = len(self.vars)
        assert node.pipe is not None
        assert node.body is not None
        value, _ = indirect(self.pipeline(dot, node.pipe))
        mark = len(self.vars)
        declared = node.pipe.declared
        items = self._items(value, len(declared))
        try:
            for key, item in items:
                pair = (item,) if len(declared) == 1 else (key, item)
                for at, variable in enumerate(declared):
                    if node.pipe.assign:
                        self._set(variable.names[0], pair[at])
                    else:
                        self.vars[mark - len(declared) + at] = (variable.names[0], pair[at])
                try:
                    self.walk(item, node.body)
                except _Continue:
                    pass
                finally:
                    del self.vars[mark:]
        except _Break:
            pass
        if not items and node.alternative is not None:
            self.walk(dot, node.alternative)
        del self.vars[outer:]

    def _items(self, value: Any, declared: int) -> list[tuple[Any, Any]]:
        if isinstance(value, list):
            wrap = elem_type(type_name(value)) == "interface {}"
            return [(at, Iface(item) if wrap else item) for at, item in enumerate(value)]
        if isinstance(value, dict):
            wrap = elem_type(type_name(value)) == "interface {}"
            keys = sorted(value, key=lambda key: str(key).encode("utf-8", "surrogateescape"))
            return [(key, Iface(value[key]) if wrap else value[key]) for key in keys]
        if isinstance(value, int) and not isinstance(value, bool):
            if declared > 1:
                raise self.fail(f"can't use {int(value)} to iterate over more than one variable")
            if value > 10_000_000:
                raise self.fail(f"range over {int(value)} is too long")
            return [(at, at) for at in range(value)]
        if value is None or isinstance(value, (Iface, Ptr)):
            return []
        raise self.fail(f"range can't iterate over {gofmt.text(value)}")

    def _template(self, dot: Any, node: Node) -> None:
        body = self.template.trees.get(node.text)
        if body is None:
            raise self.fail(f"template {go_quote(node.text)} not defined")
        if self.depth >= _MAX_DEPTH:
            raise self.fail(f"exceeded maximum template depth ({_MAX_DEPTH})")
        value = self.pipeline(dot, node.pipe) if node.pipe is not None else None
        saved = self.vars, self.name
        self.vars, self.name = [("$", value)], node.text
        self.depth += 1
        self.walk(value, body)
        self.depth -= 1
        self.vars, self.name = saved

    def _set(self, name: str, value: Any) -> None:
        for at in range(len(self.vars) - 1, -1, -1):
            if self.vars[at][0] == name:
                self.vars[at] = (name, value)
                return
        raise self.fail(f"undefined variable: {name}")

    # values

    def pipeline(self, dot: Any, pipe: Node) -> Any:
        """The value of a pipeline; its variables are declared."""
        self.node = pipe
        value: Any = _MISSING
        for command in pipe.commands:
            value = unwrap(self.command(dot, command, value))
        for variable in pipe.declared:
            if pipe.assign:
                self._set(variable.names[0], value)
            else:
                self.vars.append((variable.names[0], value))
        return value

    def command(self, dot: Any, command: Node, final: Any) -> Any:
        """The value of one command; `final` is what the one before it in the pipe gave."""
        first = command.args[0]
        if first.kind == "field":
            self.node = first
            return self._chain(dot, dot, first, first.names, command.args, final)
        if first.kind == "chain":
            return self._chain_node(dot, first, command.args, final)
        if first.kind == "identifier":
            self.node = first
            return self._function(dot, first, command, command.args, final)
        if first.kind == "pipe":
            self._no_arguments(command.args, final)
            return self.pipeline(dot, first)
        if first.kind == "variable":
            return self._variable(dot, first, command.args, final)
        self.node = first
        self._no_arguments(command.args, final)
        if first.kind == "nil":
            raise self.fail("nil is not a command")
        return dot if first.kind == "dot" else self._constant(first)

    def _no_arguments(self, args: Sequence[Node], final: Any) -> None:
        if len(args) > 1 or final is not _MISSING:
            raise self.fail(f"can't give argument to non-function {args[0]}")

    def _constant(self, node: Node) -> Any:
        if node.kind == "number":
            self.node = node
            if isinstance(node.value, int) and not -(1 << 63) <= node.value < 1 << 63:
                raise self.fail(f"{node.text} overflows int")
        return node.value

    def _chain_node(self, dot: Any, node: Node, args: Sequence[Node], final: Any) -> Any:
        self.node = node
        assert node.node is not None
        if node.node.kind == "nil":
            raise self.fail(f"indirection through explicit nil in {node}")
        value = self.argument(dot, "", node.node)
        return self._chain(dot, value, node, node.names, args, final)

    def _variable(self, dot: Any, node: Node, args: Sequence[Node], final: Any) -> Any:
        self.node = node
        value: Any = None
        for name, known in reversed(self.vars):
            if name == node.names[0]:
                value = known
                break
        if len(node.names) == 1:
            self._no_arguments(args or [node], final)
            return value
        return self._chain(dot, value, node, node.names[1:], args, final)

    def _chain(self, dot: Any, value: Any, node: Node, names: Sequence[str], args: Sequence[Node], final: Any) -> Any:
        for name in names[:-1]:
            value = self.field(dot, name, node, (), _MISSING, value)
        return self.field(dot, names[-1], node, args, final, value)

    def field(self, dot: Any, name: str, node: Node, args: Sequence[Node], final: Any, receiver: Any) -> Any:
        """`.name` of a value: a method, a struct's field, a map's entry."""
        if receiver is None:
            if self.missing_error:
                raise self.fail(f"nil data; no entry for key {go_quote(name)}")
            return None
        type_ = type_name(receiver)
        receiver, nil = indirect(receiver)
        if nil and isinstance(receiver, Iface):
            raise self.fail(f"nil pointer evaluating {type_}.{name}")
        if isinstance(receiver, (Methods, Header)):
            method = self._method(receiver, name)
            if method is not None:
                return self._call(dot, method, node, name, args, final)
        if isinstance(receiver, GoTime) and name in ("IsZero", "String", "Unix"):
            return self._call(dot, Function(getattr(receiver, name)), node, name, args, final)
        if isinstance(receiver, Methods) and name == "Header":
            return None  # the one exported field of docker's contexts, empty in rows
        has_arguments = len(args) > 1 or final is not _MISSING
        if isinstance(receiver, Struct) and name in receiver.fields:
            if has_arguments:
                raise self.fail(f"{name} has arguments but cannot be invoked as function")
            return receiver.fields[name]
        if isinstance(receiver, dict) and elem_type(type_name(receiver)):
            if has_arguments:
                raise self.fail(f"{name} is not a method but has arguments")
            if name in receiver:
                value = receiver[name]
                return Iface(value) if elem_type(type_name(receiver)) == "interface {}" else value
            if self.missing_error:
                raise self.fail(f"map has no entry for key {go_quote(name)}")
            return None
        if nil and isinstance(receiver, Ptr):
            from sampan.cli.format import schema

            if schema.has_field(receiver.type.lstrip("*"), name):
                raise self.fail(f"nil pointer evaluating {type_}.{name}")
        raise self.fail(f"can't evaluate field {name} in type {type_}")

    @staticmethod
    def _method(receiver: Methods | Header, name: str) -> Function | None:
        known = ("Label",) if isinstance(receiver, Header) else receiver.METHODS
        if name not in known:
            return None
        return Function(getattr(receiver, name), *(("string",) if name == "Label" else ()))

    # calls

    def _function(self, dot: Any, node: Node, command: Node, args: Sequence[Node], final: Any) -> Any:
        self.node = node
        function = self.functions[node.text]
        return self._call(dot, function, command, node.text, args, final)

    def _call(self, dot: Any, function: Function, node: Node, name: str, args: Sequence[Node], final: Any) -> Any:
        args = args[1:]
        params = function.params
        count = len(args) + (final is not _MISSING)
        if function.rest:
            if count < len(params):
                raise self.fail(f"wrong number of args for {name}: want at least {len(params)} got {len(args)}")
        elif count != len(params):
            raise self.fail(f"wrong number of args for {name}: want {len(params)} got {count}")
        if name in ("and", "or") and function in (BUILTINS["and"], BUILTINS["or"]):
            value: Any = None
            for arg in args:
                value = self.argument(dot, "value", arg)
                if truth(value) == (name == "or"):
                    return value
            return value if final is _MISSING else final
        types = [params[at] if at < len(params) else function.rest for at in range(count)]
        values = [self.argument(dot, type_, arg) for type_, arg in zip(types, args, strict=False)]
        if final is not _MISSING:
            values.append(self.check(final, types[-1]))
        try:
            return function.call(*values)
        except ValueError as error:
            self.node = node
            shown = str(error).replace("{}", str(args[0])) if name == "call" and args else str(error)
            raise self.fail(f"error calling {name}: {shown}") from None
        except (TypeError, OverflowError, MemoryError) as error:
            self.node = node
            raise self.fail(f"error calling {name}: {error}") from None

    def check(self, value: Any, type_: str) -> Any:
        """The value as a parameter of that type takes it."""
        if type_ in ("", "any", "value"):
            return value
        if value is None:
            if type_.startswith("[]"):
                return []
            raise self.fail(f"invalid value; expected {type_}")
        inner = unwrap(value)
        if inner is None:
            raise self.fail(f"wrong type for value; expected {type_}; got interface {{}}")
        if type_name(inner) == type_:
            return inner
        raise self.fail(f"wrong type for value; expected {type_}; got {type_name(value)}")

    def argument(self, dot: Any, type_: str, node: Node) -> Any:
        """An argument, checked against the parameter's type."""
        self.node = node
        kind_ = node.kind
        if kind_ == "dot":
            return self.check(dot, type_)
        if kind_ == "nil":
            if type_ in ("any", "value"):
                return None
            if type_.startswith("[]"):
                return []
            raise self.fail(f"cannot assign nil to {_NAMES.get(type_, type_)}")
        if kind_ == "field":
            return self.check(self._chain(dot, dot, node, node.names, (node,), _MISSING), type_)
        if kind_ == "variable":
            return self.check(self._variable(dot, node, (), _MISSING), type_)
        if kind_ == "pipe":
            return self.check(self.pipeline(dot, node), type_)
        if kind_ == "identifier":
            return self.check(self._function(dot, node, node, (), _MISSING), type_)
        if kind_ == "chain":
            return self.check(self._chain_node(dot, node, (), _MISSING), type_)
        if type_ in ("any", "value", ""):
            return self._constant(node)
        if type_ == "string":
            if kind_ != "string":
                raise self.fail(f"expected string; found {node}")
            return node.value
        if type_ == "int":
            value = node.value
            if kind_ == "number" and isinstance(value, float) and value.is_integer() and abs(value) < 1 << 63:
                return int(value)
            if kind_ != "number" or not isinstance(value, int) or not -(1 << 63) <= value < 1 << 63:
                raise self.fail(f"expected integer; found {node}")
            return value
        raise self.fail(f"can't handle {node} for arg of type {type_}")


__all__ = ["GoInt", "GoMap", "Template", "TemplateError", "kind"]
