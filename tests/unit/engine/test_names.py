"""Names of containers."""

import re

import pytest

from sampan.engine.names import ALLOWED, VALID, made_up_name


@pytest.mark.parametrize(("name", "valid"), [
    ("web", True), ("/web", True), ("a1", True), ("A_b.c-d", True), ("a", False), ("", False), ("/", False), ("_a", False), ("-ab", False),
    ("a b", False), ("a/b", False), ("ä1", False), ("ab\n", False),
])  # fmt: skip
def test_which_names_a_user_may_give(name: str, valid: bool) -> None:
    assert (VALID.fullmatch(name) is not None) is valid
    assert ALLOWED in VALID.pattern


def test_a_made_up_name_is_a_valid_one_that_is_free() -> None:
    taken: set[str] = set()

    def is_taken(name: str) -> bool:
        """Every plain name is, so that digits have to be added."""
        return re.search(r"[0-9]", name) is None or name in taken

    for _ in range(50):
        name = made_up_name(is_taken)
        assert VALID.fullmatch(name)
        assert name not in taken
        taken.add(name)
    assert re.fullmatch(r"[a-z]+_[a-z]+", made_up_name(lambda _: False))
