"""How the Engine API's Go structs are written here.

Each body is a frozen msgspec Struct with exact JSON names. Go's `omitempty` is omit_defaults; a field that Go always writes says so
by `always(default)`: msgspec never omits a default made by a factory of ours. A Go nil slice or map is None (written as null).
Field names are the snake_case of the JSON name; `go_name` holds the exceptions.
"""

from typing import Annotated, Any, TypeVar

import msgspec

T = TypeVar("T")

_EXACT = {
    "id": "Id",
    "uts_mode": "UTSMode",
    "io_maximum_iops": "IOMaximumIOps",
    "io_maximum_bandwidth": "IOMaximumBandwidth",
    "blkio_device_read_iops": "BlkioDeviceReadIOps",
    "blkio_device_write_iops": "BlkioDeviceWriteIOps",
    "ipam_config": "IPAMConfig",
    "ipam": "IPAM",
    "ip_address": "IPAddress",
    "ip_prefix_len": "IPPrefixLen",
    "ipv4_address": "IPv4Address",
    "ipv6_address": "IPv6Address",
    "ipv6_gateway": "IPv6Gateway",
    "global_ipv6_address": "GlobalIPv6Address",
    "global_ipv6_prefix_len": "GlobalIPv6PrefixLen",
    "link_local_ips": "LinkLocalIPs",
    "link_local_ipv6_address": "LinkLocalIPv6Address",
    "link_local_ipv6_prefix_len": "LinkLocalIPv6PrefixLen",
    "secondary_ip_addresses": "SecondaryIPAddresses",
    "secondary_ipv6_addresses": "SecondaryIPv6Addresses",
    "enable_ipv4": "EnableIPv4",
    "enable_ipv6": "EnableIPv6",
    "endpoint_id": "EndpointID",
    "network_id": "NetworkID",
    "sandbox_id": "SandboxID",
    "container_id": "ContainerID",
    "container_id_file": "ContainerIDFile",
    "image_id": "ImageID",
    "device_ids": "DeviceIDs",
    "dns_names": "DNSNames",
    "exec_ids": "ExecIDs",
    "kernel_memory_tcp": "KernelMemoryTCP",
    "oom_killed": "OOMKilled",
    "app_armor_profile": "AppArmorProfile",
    "ip": "IP",
    "ip_range": "IPRange",
    "rw": "RW",
    "root_fs": "RootFS",
    "size_root_fs": "SizeRootFs",
}


def go_name(field: str) -> str:
    """The JSON name of a field: pascal case, but for Go's initialisms."""
    return _EXACT.get(field) or "".join(word[:1].upper() + word[1:] for word in field.split("_"))


def always(value: T) -> T:
    """A default that is written out even so: a Go field without `omitempty`. The value must be immutable."""
    field: Any = msgspec.field(default_factory=lambda: value)
    return field  # type: ignore[no-any-return]


class Body(msgspec.Struct, frozen=True, omit_defaults=True, rename=go_name, kw_only=True):
    """Base of all bodies of the API."""


GoInt = Annotated[int, "int"]
"""Go's int; a plain `int` is int64."""
Uint = Annotated[int, "uint"]
Uint16 = Annotated[int, "uint16"]
Uint64 = Annotated[int, "uint64"]
StrSlice = Annotated[list[str], "strslice"]
"""moby's strslice.StrSlice: a list of strings, or one string, which becomes a list of one."""
EmptySet = dict[str, dict[str, Any]]
"""Go's map[T]struct{}: `{"80/tcp": {}}`."""
