"""Requests to build that are wrong, or of which the options are: query -> what is built with it, and bodies that are no contexts."""

from typing import Any, Final
from urllib.parse import quote

from tests.support.builds import BASE, Built, Call, context, without_ids

_CONTEXT: Final = context({"Dockerfile": f"FROM {BASE}\nENV a=b\nRUN true\n"})
_QUERIES: Final = (
    "securityopt=x", "t=BAD", f"t=a@sha256:{'0' * 64}", "t=a:b:c", "platform=a/b/c/d", "target=nope", "dockerfile=nope", "dockerfile=../x",
    "buildargs={", "buildargs=[]", "labels={", 'labels={"a":1}', "cachefrom={", "ulimits={", "ulimits={}", 'ulimits=[{"Name":1}]',
    "outputs={", "isolation=x", "isolation=process", "version=3", "shmsize=x", "shmsize=-1", "memory=x", "memory=1", "cpushares=-1",
    "cpuperiod=1", "cpuquota=1", "cpusetcpus=x", "cpusetcpus=4000", "cpusetmems=x", "networkmode=nosuch", "networkmode=container:nosuch",
    "networkmode=container:", "extrahosts=h", "extrahosts=h:x", 'ulimits=[{"Name":"x","Soft":1,"Hard":2}]',
    'ulimits=[{"Name":"nofile","Soft":3,"Hard":2}]', "remote=x", "remote=http://127.0.0.1:1/x", "remote=http://[", "memswap=1",
    "memory=8388608 memswap=1", "cgroupparent=a.slice",
)  # fmt: skip
_BODIES: Final = {
    "empty": context({"Dockerfile": ""}),
    "comment": context({"Dockerfile": "# x\n"}),
    "no-from": context({"Dockerfile": "RUN x\n"}),
    "unknown": context({"Dockerfile": "FROM a\nRUM x\n"}),
    "no-dockerfile": context({"x": ""}),
    "bad-from": context({"Dockerfile": "FROM BAD\n"}),
    "garbage": b"x" * 2000,
    "nothing": b"",
    "no-archive": b"FROM x\n",
    "truncated": context({"Dockerfile": "FROM buildbase\n" * 300})[:1000],
    "no-gzip": b"\x1f\x8b\x08\0\0\0\0\0garbage",
    "long-line": context({"Dockerfile": f"FROM a\n#{'x' * 70000}\n"}),
    "link": context({"Dockerfile": {"link": "/etc/passwd"}}),
}
DIFFERENT: Final = {
    "buildargs=[]": "error reading build args: json: cannot unmarshal array into Go value of type map[string]string",
    'labels={"a":1}': "error reading labels: json: cannot unmarshal number into Go value of type string",
    "ulimits={}": "error reading ulimit settings: json: cannot unmarshal object into Go value of type []container.Ulimit",
    'ulimits=[{"Name":1}]': "error reading ulimit settings: json: cannot unmarshal number into Go struct field .Name of type string",
    "cpushares=-1": "invalid CPU shares (-1): value must be a positive integer",
    "networkmode=container:": "invalid container format container:<name|id>",
    "networkmode=container:nosuch": "No such container: nosuch",
}
"""What Sampan says last where it differs: Go's types, what is told earlier than runc would, and a feature that is missing."""
REQUESTS: Final = {**dict.fromkeys(_QUERIES, _CONTEXT), **_BODIES}


def answer_of_request(call: Call, name: str) -> dict[str, Any]:
    """What an engine says: the status and the message, or the stream."""
    given = [part.partition("=") for part in name.split(" ") if "=" in part]
    query = "".join(f"&{key}={quote(value, safe='')}" for key, _, value in given)
    network = "" if "networkmode" in name else "networkmode=none&"
    built = Built(*call("POST", f"/v1.50/build?{network}forcerm=1&nocache=1{query}", REQUESTS[name]))
    return {"status": built.status, "said": without_ids(built.message or built.text).splitlines()}
