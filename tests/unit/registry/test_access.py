"""Passwords, tokens, rules, and how failures are slowed."""

import asyncio
import base64
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from sampan.linux.crypt import crypt
from sampan.registry.access.access import Access, Logins
from sampan.registry.access.brake import FREE, MAX_SECONDS, REFUSE_AT, Brake
from sampan.registry.access.htpasswd import Htpasswd, hashed, parse
from sampan.registry.access.rules import Rule, Rules
from sampan.registry.access.tokens import Grant, Tokens, key_in, parse_scope
from sampan.registry.errors import RegistryError
from sampan.registry.http import Request

T = TypeVar("T")
# "bcrypt-test" of crypt_blowfish, and a line of `htpasswd -nbB alice secret`
KNOWN = [
    ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    ("", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy"),
]


class NoBody:
    received = 0

    def __init__(self, content: bytes = b"") -> None:
        self.content = content

    async def pieces(self) -> AsyncIterator[bytes]:
        yield self.content

    async def read(self, limit: int) -> bytes:
        return self.content[: limit + 1]


def request(authorization: str = "", *, method: str = "GET", form: bytes = b"", **query: str) -> Request:
    headers = {"Authorization": authorization} if authorization else {}
    return Request(
        method, "/v2/", {name: [value] for name, value in query.items()}, headers, NoBody(form), "192.0.2.1", "registry.example:5000"
    )


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def run(awaitable: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(awaitable, 20))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_text(f"alice:{hashed('secret', 4)}\nbob:{hashed('other', 4)}\n")
    return path


class Made:
    """An Access with what is slowed noted, not waited for."""

    def __init__(self, htpasswd: Path, *rules: Rule, bearer: bool = False) -> None:
        self.waited: list[float] = []

        async def sleep(seconds: float) -> None:
            self.waited.append(seconds)

        self.clock = Clock()
        self.tokens = Tokens(bytes(32), 300, self.clock)
        everything = Rule(actions=("pull", "push", "delete", "catalogue"))
        self.logins = Logins(Htpasswd(htpasswd), Brake(), sleep)
        self.access = Access(Rules(rules or (everything,)), self.logins, self.tokens, bearer=bearer)

    def admit(self, asked: Request, action: str = "pull", name: str = "team/app") -> str:
        """The user; or the code of the error and its challenge."""
        try:
            run(self.access.admit(asked, action, name))
        except RegistryError as error:
            return f"{error.code} {error.headers.get('WWW-Authenticate', '')}".strip()
        return asked.user.name


@pytest.mark.parametrize(("password", "hash"), KNOWN)
def test_known_hashes(password: str, hash: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text(f"u:{hash}\n")
    assert Htpasswd(tmp_path / "f").check("u", password)
    assert not Htpasswd(tmp_path / "f").check("u", password + "x")


def test_lines_that_are_none() -> None:
    users, complaints = parse("# comment\n\nnobody\n:x\nmd5:$apr1$x$y\nalice:" + hashed("x", 4) + "\n")
    assert list(users) == ["alice"]
    assert [complaint.split(":")[0] for complaint in complaints] == ["line 3", "line 4", "line 5"]


def test_basic(htpasswd: Path) -> None:
    made = Made(htpasswd)
    assert made.admit(request(basic("alice", "secret"))) == "alice"
    assert made.admit(request(basic("alice", "wrong"))) == 'UNAUTHORIZED Basic realm="sampan"'
    assert made.admit(request(basic("nobody", "secret"))) == 'UNAUTHORIZED Basic realm="sampan"'
    assert made.admit(request("Basic %%%")) == 'UNAUTHORIZED Basic realm="sampan"'
    assert made.admit(request()) == 'UNAUTHORIZED Basic realm="sampan"'
    assert made.admit(request(), "", "") == 'UNAUTHORIZED Basic realm="sampan"'


def test_a_password_that_is_changed_is_no_longer_good(htpasswd: Path) -> None:
    made = Made(htpasswd)
    assert made.admit(request(basic("alice", "secret"))) == "alice"
    htpasswd.write_text(f"alice:{hashed('a new one', 4)}\n")
    assert made.admit(request(basic("alice", "secret"))).startswith("UNAUTHORIZED")
    assert made.admit(request(basic("alice", "a new one"))) == "alice"


def test_failures_are_slowed_and_at_last_refused(htpasswd: Path) -> None:
    made = Made(htpasswd)
    answers = [made.admit(request(basic("alice", f"guess {number}"))) for number in range(REFUSE_AT + 1)]
    assert made.waited[:FREE] == [0.0] * FREE
    assert made.waited[FREE : FREE + 3] == [0.5, 1.0, 2.0]
    assert max(made.waited) == MAX_SECONDS
    assert answers[-1] == "TOOMANYREQUESTS"


def test_guesses_of_one_do_not_lock_another_out(htpasswd: Path) -> None:
    made = Made(htpasswd)
    for number in range(REFUSE_AT + 1):
        made.admit(request(basic("alice", f"guess {number}")))
    other = request(basic("alice", "secret"))
    other.remote = "192.0.2.2"
    assert made.admit(other) == "alice"


def test_guesses_from_all_addresses_of_a_network_are_those_of_one(htpasswd: Path) -> None:
    made = Made(htpasswd)
    answers = []
    for number in range(REFUSE_AT + 1):
        guess = request(basic(f"user {number}", "guess"))
        guess.remote = f"2001:db8:0:1:{number:x}::1"
        answers.append(made.admit(guess))
    assert answers[-1] == "TOOMANYREQUESTS"
    other = request(basic("alice", "secret"))
    other.remote = "2001:db8:0:2::1"
    assert made.admit(other) == "alice"


def test_the_brake_forgets() -> None:
    clock = Clock()
    brake = Brake(clock)
    for _ in range(REFUSE_AT):
        brake.failed("a")
    assert brake.refuses("a")
    clock.now += 301
    assert not brake.refuses("a")
    assert brake.failed("a") == 0.0


@pytest.mark.parametrize(
    ("user", "action", "repository", "allowed"),
    [
        ("alice", "push", "team/app", True),
        ("alice", "push", "team/app/deep", True),
        ("alice", "push", "teamwork", False),
        ("alice", "delete", "team/app", False),
        ("bob", "push", "team/app", False),
        ("bob", "pull", "team/app", True),
        ("bob", "push", "home/bob/x", True),
        ("bob", "push", "home/alice/x", False),
        ("", "pull", "team/app", False),
        ("", "pull", "public/app", True),
        ("", "push", "public/app", False),
        ("", "push", "home//x", False),
        ("*", "push", "home/bob/x", False),
        ("", "catalogue", "", True),
    ],
)
def test_rules(user: str, action: str, repository: str, allowed: bool) -> None:
    rules = Rules(
        [
            Rule(("team/*",), ("alice",), ("pull", "push")),
            Rule(("home/{user}/*",), ("*",), ("pull", "push")),
            Rule(("*",), ("*",), ("pull",)),
            Rule(("public/*",), ("anonymous",), ("pull",)),
        ]
    )
    assert rules.allows(user, action, repository) is allowed


def test_who_may_not_is_denied_who_has_not_logged_in_is_asked_to(htpasswd: Path) -> None:
    made = Made(htpasswd, Rule(("team/*",), ("alice",), ("pull", "push")), Rule(("*",), ("anonymous",)), bearer=True)
    assert made.admit(request(basic("bob", "other")), "push") == "DENIED"
    assert made.admit(request(), "pull") == ""
    realm = 'Bearer realm="http://registry.example:5000/token",service="registry.example:5000"'
    assert made.admit(request(), "push") == f'UNAUTHORIZED {realm},scope="repository:team/app:pull,push"'
    assert made.admit(request(), "", "") == f"UNAUTHORIZED {realm}"
    page = request()
    page.path = "/repositories/team/app"
    assert made.admit(page, "push") == 'UNAUTHORIZED Basic realm="sampan"'  # what browsers ask a password for


def test_a_list_by_a_token_has_what_the_rules_show(htpasswd: Path) -> None:
    made = Made(htpasswd, Rule(("team/*",), ("alice",), ("pull", "catalogue")), bearer=True)
    token = made.tokens.make("alice", [])
    asked = request(f"Bearer {token}")
    assert made.admit(asked, "catalogue", "") == "alice"
    assert (asked.user.sees("team/app"), asked.user.sees("other")) == (True, False)
    asked = request(basic("alice", "secret"))
    assert made.admit(asked, "catalogue", "") == "alice"
    assert (asked.user.sees("team/app"), asked.user.sees("other")) == (True, False)


@pytest.mark.parametrize("authorization", ["Foo x", "Negotiate YII=", "x"])
def test_a_scheme_that_we_do_not_know_is_no_login(htpasswd: Path, authorization: str) -> None:
    made = Made(htpasswd, Rule(users=("anonymous",)))
    assert made.admit(request(authorization), "", "") == 'UNAUTHORIZED Basic realm="sampan"'


def test_who_does_not_exist_takes_as_long_as_others(htpasswd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    monkeypatch.setattr("sampan.registry.access.htpasswd.matches", lambda password, known: bool(compared.append(known)))
    for cost in (6, 5):
        htpasswd.write_text(f"alice:{hashed('secret', 4)}\nbob:{hashed('other', cost)}\n")
        users = Htpasswd(htpasswd)
        assert not users.check("nobody", "x")
        assert compared[-1].startswith(f"$2y${cost:02}$".encode())
    htpasswd.write_text(f"alice:{hashed('a longer one', 7)}\n# changed\n")
    users.refresh()
    users.check("nobody", "x")
    assert compared[-1].startswith(b"$2y$07$")


def test_the_hash_of_nobody_is_computed(htpasswd: Path) -> None:
    assert crypt(b"x", Htpasswd(htpasswd)._nobody) is not None


def test_a_form_with_too_many_fields(htpasswd: Path) -> None:
    made = Made(htpasswd, bearer=True)
    with pytest.raises(RegistryError) as caught:
        run(made.access.token(request(method="POST", form=b"&".join(b"scope=x" for _ in range(101)))))
    assert (caught.value.code, caught.value.status) == ("REQUEST_INVALID", 400)


def test_tokens(htpasswd: Path) -> None:
    made = Made(htpasswd, Rule(("team/*",), ("alice",), ("pull", "push")), Rule(("public/*",), ("anonymous",)), bearer=True)

    def token(asked: Request) -> str:
        return str(msgspec.json.decode(run(made.access.token(asked)).body)["token"])  # type: ignore[arg-type]

    got = token(request(basic("alice", "secret"), scope="repository:team/app:pull,push,delete repository:other:pull"))
    assert made.admit(request(f"Bearer {got}"), "push") == "alice"
    assert made.admit(request(f"Bearer {got}"), "", "") == "alice"
    assert made.admit(request(f"Bearer {got}"), "delete").startswith("UNAUTHORIZED Bearer")
    assert made.admit(request(f"Bearer {got}"), "pull", "other").startswith("UNAUTHORIZED Bearer")
    assert made.admit(request(f"Bearer {got}x")).startswith("UNAUTHORIZED")
    head, payload, _ = got.split(".")
    assert made.admit(request(f"Bearer {head}.{payload}.")).startswith("UNAUTHORIZED")
    made.clock.now += 301
    assert made.admit(request(f"Bearer {got}"), "push").startswith("UNAUTHORIZED")
    nobody = token(request(scope="repository:public/app:pull,push"))
    assert made.admit(request(f"Bearer {nobody}"), "pull", "public/app") == ""
    assert made.admit(request(f"Bearer {nobody}"), "push", "public/app").startswith("UNAUTHORIZED")
    with pytest.raises(RegistryError):
        token(request(basic("alice", "wrong")))


def test_refresh_tokens_end_with_the_password(htpasswd: Path) -> None:
    made = Made(htpasswd, bearer=True)
    form = b"grant_type=password&username=alice&password=secret&access_type=offline&scope=repository:team/app:pull"
    answer = msgspec.json.decode(run(made.access.token(request(method="POST", form=form))).body)  # type: ignore[arg-type]
    assert made.admit(request(f"Bearer {answer['refresh_token']}")).startswith("UNAUTHORIZED")
    again = b"grant_type=refresh_token&scope=repository:team/app:push&refresh_token=" + answer["refresh_token"].encode()
    fresh = msgspec.json.decode(run(made.access.token(request(method="POST", form=again))).body)["token"]  # type: ignore[arg-type]
    assert made.admit(request(f"Bearer {fresh}"), "push") == "alice"
    htpasswd.write_text(f"alice:{hashed('a new one', 4)}\n")
    with pytest.raises(RegistryError):
        run(made.access.token(request(method="POST", form=again)))


def test_scopes() -> None:
    assert parse_scope("repository:localhost:5000/a:pull,push") == Grant("localhost:5000/a", ["pull", "push"])
    assert parse_scope("registry:catalog:*") == Grant("catalog", ["*"], "registry")
    assert [parse_scope(text) for text in ("", "repository", "repository:", "other:a:pull")] == [None] * 4


def test_the_key_is_kept_and_secret(tmp_path: Path) -> None:
    key = key_in(tmp_path / "below/key")
    assert (key_in(tmp_path / "below/key"), len(key)) == (key, 32)
    assert (tmp_path / "below/key").stat().st_mode & 0o777 == 0o600
