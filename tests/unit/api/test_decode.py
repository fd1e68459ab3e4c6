"""Queries, filters and JSON bodies: docker's texts, and Go's JSON manners."""

from urllib.parse import urlencode

import pytest

from sampan.api.decode import Query, atoi, check_json_type, decode_body, decode_filters, dimension, removed_platform, timestamp_ns
from sampan.errors import InvalidArgument
from sampan.spec.docker_api.container import CreateRequest, ExecStartRequest, HostConfig
from sampan.spec.oci_layout import Platform


def message(call: object, *arguments: object) -> str:
    with pytest.raises(InvalidArgument) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", False), ("0", False), ("no", False), ("False", False), ("NONE", False), ("1", True), ("true", True), ("x", True), ("-1", True)],
)
def test_flags(text: str, expected: bool) -> None:
    assert Query(f"a={text}").flag("a") is expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (['{"os":"linux","architecture":"arm64"}', '{"os":"linux","architecture":"amd64"}'], "multiple platforms are not supported"),
        (['{"os":"linux","architecture":"arm64"}', "arm64"], "failed to parse platform: "),
        ([""], "failed to parse platform: "),
        (['{"os":"linux"}'], "both OS and Architecture must be provided"),
    ],
)
def test_the_platform_that_a_removal_is_for(texts: list[str], expected: str) -> None:
    assert message(removed_platform, Query(urlencode({"platforms": texts}, doseq=True))).startswith(expected)


def test_a_removal_is_for_one_platform_or_for_any() -> None:
    assert removed_platform(Query("")) is None
    assert removed_platform(Query(urlencode({"platforms": '{"os":"linux","architecture":"arm64"}'}))) == Platform("arm64", "linux")


def test_absent_flag_has_its_default() -> None:
    assert Query("").flag("a", True) is True
    assert Query("a").flag("a", True) is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bad", 'strconv.Atoi: parsing "bad": invalid syntax'),
        ("1.5", 'strconv.Atoi: parsing "1.5": invalid syntax'),
        ("9223372036854775808", 'strconv.Atoi: parsing "9223372036854775808": value out of range'),
        ("1" * 3000, f'strconv.Atoi: parsing "{"1" * 3000}": value out of range'),
        ("١", 'strconv.Atoi: parsing "١": invalid syntax'),
    ],
)
def test_numbers_fail_in_strconvs_words(text: str, expected: str) -> None:
    assert message(atoi, text) == expected


@pytest.mark.parametrize(("text", "expected"), [("5", 5), ("-5", -5), ("+7", 7), ("-9223372036854775808", -(1 << 63))])
def test_numbers(text: str, expected: int) -> None:
    assert atoi(text) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('{"status":{"running":true,"exited":true}}', {"status": ["running", "exited"]}),
        ('{"label":["a=b","c"]}', {"label": ["a=b", "c"]}),
        ("{}", {}),
        ("null", {}),
        ('{"a":null}', {"a": []}),
    ],
)
def test_filters(raw: str, expected: dict[str, list[str]]) -> None:
    assert decode_filters(raw) == expected


@pytest.mark.parametrize("raw", ["{x", "[]", '"a"', "5", '{"a":5}', '{"a":{"b":"c"}}', '{"a":[1]}', "[" * 10_000])
def test_bad_filters(raw: str) -> None:
    assert message(decode_filters, raw) == "invalid filter"


@pytest.mark.parametrize(
    ("text", "problem"),
    [("a", "invalid syntax"), ("", "invalid syntax"), ("-1", "value out of range"), ("4294967296", "value out of range")],
)
def test_bad_dimensions(text: str, problem: str) -> None:
    assert message(dimension, Query(f"h={text}"), "h", "height") == f'invalid resize height "{text}": {problem}'


@pytest.mark.parametrize(("text", "expected"), [("", 0), ("5", 5_000_000_000), ("1.5", 1_500_000_000), ("1.000000001", 1_000_000_001)])
def test_timestamps(text: str, expected: int) -> None:
    assert timestamp_ns(text) == expected


def test_content_type() -> None:
    check_json_type("application/json; charset=utf-8", True)
    check_json_type("", False)
    assert message(check_json_type, "text/plain", True) == "unsupported Content-Type header (text/plain): must be 'application/json'"


def test_null_is_zero_keys_ignore_case_and_unknown_keys_are_skipped() -> None:
    body = b'{"IMAGE":"x","env":null,"Cmd":"one word","tty":null,"Nope":[{}],"hostconfig":{"memory":5,"consolesize":[1],"Binds":[null]}}'
    request = decode_body(body, CreateRequest)
    assert (request.image, request.env, request.cmd, request.tty) == ("x", None, ["one word"], False)
    assert request.host_config == HostConfig(memory=5, console_size=(1, 0), binds=[""])


def test_last_of_equal_keys_wins_and_bad_utf8_is_replaced() -> None:
    assert decode_body(b'{"Image":"a","Image":"b\xff"}', CreateRequest).image == "b�"
    assert decode_body(b'{"Image":"\\ud800x","Env":["\\ud83d\\ude00"]}', CreateRequest).image == "�x"
    assert decode_body(b'{"Env":["\\ud83d\\ude00","\\udc00"]}', CreateRequest).env == ["😀", "�"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"HostConfig":{"Memory":"x"}}',
            "json: cannot unmarshal string into Go struct field CreateRequest.HostConfig.Memory of type int64",
        ),
        (
            b'{"HostConfig":{"Memory":1.5}}',
            "json: cannot unmarshal number 1.5 into Go struct field CreateRequest.HostConfig.Memory of type int64",
        ),
        (
            b'{"HostConfig":{"BlkioWeight":-1}}',
            "json: cannot unmarshal number -1 into Go struct field CreateRequest.HostConfig.BlkioWeight of type uint16",
        ),
        (b'{"Env":5}', "json: cannot unmarshal number into Go struct field CreateRequest.Env of type []string"),
        (b'{"Env":[true]}', "json: cannot unmarshal bool into Go struct field CreateRequest.Env of type string"),
        (b'{"Labels":[]}', "json: cannot unmarshal array into Go struct field CreateRequest.Labels of type map[string]string"),
        (b'{"Image":}', "invalid character '}' looking for beginning of value"),
        (b'{"Image":"a"', "unexpected EOF"),
        (b'{"Image', "unexpected EOF"),
        (b'{"Image":"a" "b"}', "invalid character '\"' after object key:value pair"),
        (b'{"Env":["a" "b"]}', "invalid character '\"' after array element"),
        (b"{'a':1}", "invalid character '\\'' looking for beginning of object key string"),
        (b'{"Image":NaN}', "invalid character 'N' looking for beginning of value"),
        (b"", "got EOF while reading request body"),
        (b"[]", "json: cannot unmarshal array into Go value of type container.CreateRequest"),
    ],
)
def test_bad_bodies(body: bytes, expected: str) -> None:
    assert message(decode_body, body, CreateRequest) == f"invalid JSON: {expected}"


def test_trailing_data() -> None:
    assert message(decode_body, b"{} x", ExecStartRequest) == "unexpected content after JSON"
    assert decode_body(b"{} \n", ExecStartRequest) == ExecStartRequest()
