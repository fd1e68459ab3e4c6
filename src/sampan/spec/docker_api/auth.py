"""Credentials of a registry, as clients send them in X-Registry-Auth (swagger AuthConfig)."""

import msgspec


class AuthConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a user logged in with; all empty: nobody."""

    username: str = ""
    password: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    """An OAuth2 refresh token, in place of the password."""
    registrytoken: str = ""
    """A bearer token, used as it is."""


class LoginStatus(msgspec.Struct, frozen=True, rename="pascal"):
    """The answer to a login (swagger SystemAuthResponse)."""

    identity_token: str = ""
    """For later, in place of the password; empty: the registry has no such thing."""
    status: str = ""
