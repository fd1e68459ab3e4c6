"""Where a registry keeps its content: what the configuration says, opened."""

from pathlib import Path

from sampan.errors import SystemFailure
from sampan.registry.config import Config
from sampan.registry.filesystem import FileSystem
from sampan.registry.storage import Storage

SECRET_MAX = 4096


def secret_of(file: str) -> str:
    """A password in a file of its own. Raises SystemFailure."""
    try:
        return Path(file).read_text()[:SECRET_MAX].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SystemFailure(f"{file}: {error}") from None


def open_storage(config: Config) -> Storage:
    """Raises SystemFailure, OSError. root exists."""
    if config.s3 is None:
        return FileSystem(Path(config.root))
    from sampan.registry.s3 import S3  # what it needs is an optional dependency

    s3 = config.s3
    settings = {"region": s3.region, "endpoint": s3.endpoint, "access_key_id": s3.access_key_id}
    if s3.secret_access_key_file:
        settings["secret_access_key"] = secret_of(s3.secret_access_key_file)
    return S3.connect(s3.bucket, prefix=s3.prefix, settings={name: value for name, value in settings.items() if value})
