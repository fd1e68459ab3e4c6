"""From tokens to the tree of a Go text/template, with Go 1.24's error texts (its package text/template/parse)."""

from __future__ import annotations

from sampan.cli.format.lex import Lexer, TemplateError, Token
from sampan.cli.format.literals import number, unquote
from sampan.cli.format.nodes import Node
from sampan.cli.format.quoting import byte_len
from sampan.quoting import go_quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container


class Parser:
    """Builds the trees of one template text: `trees` maps names (of define and block; "" or the template's own) to lists of nodes."""

    def __init__(self, name: str, text: str, functions: Container[str]) -> None:
        self.name = name
        self.text = text
        self.functions = functions
        self.lexer = Lexer(text)
        self.pending: list[Token] = []  # pushed back, last first
        self.last: Token | None = None
        self.vars = ["$"]
        self.range_depth = 0
        self.action_line = 0
        self.trees: dict[str, Node] = {}

    # tokens

    def next(self) -> Token:
        """The next token, blanks included."""
        token = self.pending.pop() if self.pending else self._lex()
        return token

    def _lex(self) -> Token:
        self.last = self.lexer.next()
        return self.last

    def peek(self) -> Token:
        """The next token, left where it is."""
        if not self.pending:
            self.pending.append(self._lex())
        return self.pending[-1]

    def next_word(self) -> Token:
        """The next token that is not a blank."""
        token = self.next()
        while token.kind == "space":
            token = self.next()
        return token

    def peek_word(self) -> Token:
        """The next token that is not a blank, left where it is (blanks before it are dropped)."""
        token = self.next_word()
        self.pending.append(token)
        return token

    def fail(self, message: str) -> TemplateError:
        """The error to raise, with the place."""
        line = self.last.line if self.last else 1
        return TemplateError(f"template: {self.name}:{line}: {message}")

    def unexpected(self, token: Token, context: str) -> TemplateError:
        """The error for a token that does not belong here."""
        if token.kind == "error":
            extra = ""
            if self.action_line and self.action_line != token.line:
                extra = f" in action started at {self.name}:{self.action_line}"
                if token.value.endswith(" action"):
                    extra = extra[len(" in action") :]
            return self.fail(f"{token}{extra}")
        return self.fail(f"unexpected {token} in {context}")

    def expect(self, kind: str, context: str) -> Token:
        """The next token, which must be of this kind."""
        token = self.next_word()
        if token.kind != kind:
            raise self.unexpected(token, context)
        return token

    # lists

    def parse(self) -> dict[str, Node]:
        """Parse the whole text."""
        try:
            root = Node("list", 0)
            while self.peek().kind != "eof":
                if self.peek().kind == "left":
                    left = self.next()
                    token = self.next_word()
                    if token.kind == "keyword" and token.value == "define":
                        self._define()
                        continue
                    self.pending += [token, left]
                node = self._text_or_action()
                if node.kind in ("end", "else"):
                    raise self.fail(f"unexpected {node}")
                root.args.append(node)
            self._add(self.name, root)
            self.trees.setdefault(self.name, root)
        except RecursionError:
            raise self.fail("template nested too deeply") from None
        return self.trees

    def _add(self, name: str, root: Node) -> None:
        old = self.trees.get(name)
        if old is None or _empty(old):
            self.trees[name] = root
        elif not _empty(root):
            raise self.fail(f"template: multiple definition of template {go_quote(name)}")

    def _name(self, token: Token, context: str) -> str:
        if token.kind not in ("string", "rawstring"):
            raise self.unexpected(token, context)
        try:
            return unquote(token.value)
        except ValueError as error:
            raise self.fail(str(error)) from None

    def _define(self) -> None:
        name = self._name(self.next_word(), "define clause")
        self.expect("right", "define clause")
        saved, self.vars = self.vars, ["$"]
        body, end = self._list()
        self.vars = saved
        if end.kind != "end":
            raise self.fail(f"unexpected {end} in define clause")
        self._add(name, body)

    def _list(self) -> tuple[Node, Node]:
        body = Node("list", self.peek_word().pos)
        while self.peek_word().kind != "eof":
            node = self._text_or_action()
            if node.kind in ("end", "else"):
                return body, node
            body.args.append(node)
        raise self.fail("unexpected EOF")

    def _text_or_action(self) -> Node:
        token = self.next_word()
        if token.kind == "text":
            node = Node("text", token.pos, text=token.value)
            node.value = token.value
            return node
        if token.kind == "left":
            self.action_line = token.line
            try:
                return self._action()
            finally:
                self.action_line = 0
        raise self.unexpected(token, "input")

    def _action(self) -> Node:
        token = self.next_word()
        if token.kind == "keyword":
            word = token.value
            if word in ("if", "range", "with"):
                return self._control(word)
            if word in ("break", "continue"):
                return self._loop_control(token)
            if word == "end":
                return Node("end", self.expect("right", "end").pos)
            if word == "else":
                return self._else()
            if word == "template":
                return self._template()
            if word == "block":
                return self._block()
        self.pending.append(token)
        token = self.peek()
        node = Node("action", token.pos, token.line)
        node.pipe = self._pipeline("command", "right")
        return node

    def _loop_control(self, token: Token) -> Node:
        after = self.next_word()
        if after.kind != "right":
            raise self.unexpected(after, f"{{{{{token.value}}}}}")
        if self.range_depth == 0:
            raise self.fail(f"{{{{{token.value}}}}} outside {{{{range}}}}")
        return Node(token.value, token.pos, token.line)

    def _else(self) -> Node:
        token = self.peek_word()
        if token.kind == "keyword" and token.value in ("if", "with"):
            return Node("else", token.pos, token.line)
        token = self.expect("right", "else")
        return Node("else", token.pos, token.line)

    def _control(self, context: str) -> Node:
        known = len(self.vars)
        pipe = self._pipeline(context, "right")
        node = Node(context, pipe.pos, pipe.line)
        node.pipe = pipe
        self.range_depth += context == "range"
        node.body, end = self._list()
        self.range_depth -= context == "range"
        if end.kind == "else":
            token = self.peek()
            if context in ("if", "with") and token.kind == "keyword" and token.value == context:
                self.next()
                node.alternative = Node("list", end.pos)
                node.alternative.args.append(self._control(context))
            else:
                node.alternative, end = self._list()
                if end.kind != "end":
                    raise self.fail(f"expected end; found {end}")
        del self.vars[known:]
        return node

    def _template(self) -> Node:
        token = self.next_word()
        node = Node("template", token.pos, token.line, self._name(token, "template clause"))
        after = self.next_word()
        if after.kind != "right":
            self.pending.append(after)
            node.pipe = self._pipeline("template clause", "right")
        return node

    def _block(self) -> Node:
        token = self.next_word()
        name = self._name(token, "block clause")
        node = Node("template", token.pos, token.line, name)
        node.pipe = self._pipeline("block clause", "right")
        saved, self.vars = self.vars, ["$"]
        body, end = self._list()
        self.vars = saved
        if end.kind != "end":
            raise self.fail(f"unexpected {end} in block clause")
        self._add(name, body)
        return node

    # pipelines

    def _pipeline(self, context: str, end: str) -> Node:
        token = self.peek_word()
        pipe = Node("pipe", token.pos, token.line)
        self._declarations(pipe, context)
        while True:
            token = self.next_word()
            if token.kind == end:
                break
            operands = ("bool", "constant", "dot", "field", "identifier", "number", "rawstring", "string", "variable", "lparen")
            if token.kind not in operands and not (token.kind == "keyword" and token.value == "nil"):
                raise self.unexpected(token, context)
            self.pending.append(token)
            pipe.commands.append(self._command())
        if not pipe.commands:
            raise self.fail(f"missing value for {context}")
        for stage, command in enumerate(pipe.commands[1:], 2):
            if command.args[0].kind in ("bool", "dot", "nil", "number", "string"):
                raise self.fail(f"non executable command in pipeline stage {stage}")
        return pipe

    def _declarations(self, pipe: Node, context: str) -> None:
        while True:
            variable = self.peek_word()
            if variable.kind != "variable":
                return
            self.next()
            after = self.peek()
            token = self.peek_word()
            if token.kind in ("assign", "declare"):
                pipe.assign = token.kind == "assign"
                self.next_word()
                self._declare(pipe, variable)
                return
            if token.kind == "char" and token.value == ",":
                self.next_word()
                self._declare(pipe, variable)
                if context == "range" and len(pipe.declared) < 2:
                    if self.peek_word().kind in ("variable", "right", "rparen"):
                        continue
                    raise self.fail("range can only initialize variables")
                raise self.fail(f"too many declarations in {context}")
            if after.kind == "space":
                self.pending.append(after)
            self.pending.append(variable)
            return

    def _declare(self, pipe: Node, variable: Token) -> None:
        node = Node("variable", variable.pos)
        node.names = [variable.value]
        pipe.declared.append(node)
        self.vars.append(variable.value)

    def _command(self) -> Node:
        command = Node("command", self.peek_word().pos)
        while True:
            self.peek_word()
            operand = self._operand()
            if operand is not None:
                command.args.append(operand)
            token = self.next()
            if token.kind == "space":
                continue
            if token.kind in ("right", "rparen"):
                self.pending.append(token)
            elif token.kind != "pipe":
                raise self.unexpected(token, "operand")
            break
        if not command.args:
            raise self.fail("empty command")
        return command

    def _operand(self) -> Node | None:
        node = self._term()
        if node is None or self.peek().kind != "field":
            return node
        pos = self.peek().pos
        names = []
        while self.peek().kind == "field":
            names.append(self.next().value[1:])
        if node.kind in ("field", "variable"):
            node.names += names
            node.pos = pos
            return node
        if node.kind in ("bool", "string", "number", "nil", "dot"):
            raise self.fail(f"unexpected . after term {go_quote(str(node))}")
        chain = Node("chain", pos)
        chain.node = node
        chain.names = names
        return chain

    def _term(self) -> Node | None:
        token = self.next_word()
        kind = token.kind
        if kind == "lparen":
            return self._pipeline("parenthesized pipeline", "rparen")
        node = Node(kind, token.pos, token.line, token.value)
        if kind == "identifier":
            if token.value not in self.functions:
                raise self.fail(f"function {go_quote(token.value)} not defined")
        elif kind == "variable":
            if token.value not in self.vars:
                raise self.fail(f"undefined variable {go_quote(token.value)}")
            node.names = [token.value]
        elif kind == "field":
            node.names = [token.value[1:]]
        elif kind == "bool":
            node.value = token.value == "true"
        elif kind in ("string", "rawstring", "number", "constant"):
            try:
                node.value = number(token.value) if kind in ("number", "constant") else unquote(token.value)
            except ValueError as error:
                raise self.fail(str(error)) from None
            node.kind = "number" if kind in ("number", "constant") else "string"
        elif kind == "keyword" and token.value == "nil":
            node.kind = "nil"
        elif kind != "dot":
            self.pending.append(token)
            return None
        return node


def _empty(node: Node) -> bool:
    return all(child.kind == "text" and not child.text.strip() for child in node.args)


def place(text: str, pos: int) -> tuple[int, int]:
    """Line (from 1) and byte column (from 0) of an index, as Go's errors give them."""
    start = text.rfind("\n", 0, pos) + 1
    return 1 + text.count("\n", 0, pos), byte_len(text[start:pos])
