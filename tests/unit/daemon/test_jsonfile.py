"""The JSON reader with positions agrees with the standard library's."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.daemon.jsonfile import JsonError, Parser, line_and_column

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values, st.sampled_from([None, 2]), st.booleans())
def test_what_the_standard_library_writes_is_read_back(value, indent, plain):
    assert Parser(json.dumps(value, indent=indent, ensure_ascii=plain)).document() == value


@given(st.text(alphabet='{}[]",:0123456789.-+eEtrufalsn \\\n', max_size=40))
def test_both_accept_the_same_texts(text):
    try:
        expected = json.loads(text, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))
    except ValueError:
        with pytest.raises(JsonError):
            Parser(text).document()
    else:
        assert Parser(text).document() == expected


def test_places_are_those_of_the_keys():
    parser = Parser('{"a": {\n  "b": [1, 2]}}')
    parser.document()
    assert line_and_column(parser.text, parser.places[("a", "b")]) == "line 2, column 3"
    assert line_and_column(parser.text, parser.places[("a", "b", "1")]) == "line 2, column 12"
