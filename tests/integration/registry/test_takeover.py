"""docker-registry's directory: taken over, and given back."""

from contextlib import ExitStack
from pathlib import Path

from tests.support.realregistry import RealRegistry
from tests.support.registryprogram import RegistryProgram
from tests.support.registryserver import Client, digest_of


def test_there_and_back(tmp_path: Path) -> None:
    with ExitStack() as stack:
        theirs = RealRegistry(tmp_path)
        stack.callback(theirs.close)
        client = Client(theirs.host)
        stack.callback(client.close)
        first = client.push_image("team/app", "1")

    with ExitStack() as stack:
        ours = RegistryProgram(tmp_path)  # its root is the same directory
        stack.callback(ours.close)
        client = Client(ours.host)
        stack.callback(client.close)
        assert client("GET", "team/app/manifests/1").body == first
        second = client.push_image("team/app", "2")
        client.push_image("team/other", "1")
        assert client("DELETE", f"team/app/manifests/{digest_of(first)}").status == 202

    with ExitStack() as stack:
        theirs = RealRegistry(tmp_path)
        stack.callback(theirs.close)
        client = Client(theirs.host)
        stack.callback(client.close)
        accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        assert client("GET", "team/app/manifests/2", None, accept).body == second
        assert client("GET", "team/app/manifests/1", None, accept).status == 404
        assert client("GET", "team/app/tags/list").json["tags"] == ["2"]
        assert client("GET", "_catalog").json["repositories"] == ["team/app", "team/other"]
