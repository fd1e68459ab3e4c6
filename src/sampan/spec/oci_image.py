"""The image config document (OCI image-spec config.md, with docker's extras). Field order is docker's, so that encodings are stable."""

from typing import Annotated, Any

import msgspec

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""Go's: a larger one could not be shown again."""


class Healthcheck(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """Docker's HealthcheckConfig; durations in nanoseconds."""

    test: list[str] = []
    interval: Int64 = 0
    timeout: Int64 = 0
    start_period: Int64 = 0
    start_interval: Int64 = 0
    retries: Int64 = 0


class ContainerConfig(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """The `config` part: what containers of the image get by default."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    healthcheck: Healthcheck | None = None
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    args_escaped: bool = False
    on_build: list[str] | None = None
    shell: list[str] | None = None


class RootFS(msgspec.Struct, frozen=True):
    """The layers by DiffID, bottom first."""

    type: str = "layers"
    diff_ids: list[str] | None = None


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step that made the image."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """An image's config. The ImageID is the sha256 of the document's bytes as received: never encode a decoded one again."""

    architecture: str = ""
    os: str = ""
    created: str | None = None
    author: str = ""
    config: ContainerConfig | None = None
    rootfs: RootFS = RootFS()
    history: list[History] | None = None
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    docker_version: str = ""
    container: str = ""


class StepConfig(ContainerConfig, frozen=True, rename="pascal", omit_defaults=True):
    """A config with what docker's classic builder adds to it."""

    hostname: str = ""
    """Of the container that a step without a command was made in."""
    image: str = ""
    """The ID of the image that the step began with."""


class StepImage(ImageConfig, frozen=True, omit_defaults=True):
    """The document of a build step's image: how its container was made is in it as well."""

    config: StepConfig | None = None
    container_config: StepConfig | None = None


_encoder = msgspec.json.Encoder(order="sorted")


def encode_config(config: ImageConfig) -> bytes:
    """The document's bytes: keys sorted, so that the same config always has the same ID."""
    return _encoder.encode(config)
