"""A web page to look at: repositories, tags, layers and sizes. Made here, without scripts; nothing can be changed by it."""

from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import quote

import msgspec

from sampan.errors import InvalidArgument
from sampan.registry.errors import RegistryError
from sampan.registry.handlers.listing import page_of
from sampan.registry.handlers.manifests import checked_reference
from sampan.registry.http import Answer, Request
from sampan.registry.names import is_digest
from sampan.registry.parts import Parts
from sampan.spec import oci_documents
from sampan.spec.oci_image import ImageConfig

PAGE = 100
CONFIG_MAX = 1 << 20
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ddd;vertical-align:top}
td.n,th.n{text-align:right;white-space:nowrap}code{font-size:.9em;overflow-wrap:anywhere}a{color:#06c;text-decoration:none}a:hover{text-decoration:underline}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}a{color:#6af}th,td{border-color:#444}}"""


class _Entry(msgspec.Struct, rename="camel"):
    media_type: str = ""
    digest: str = ""
    size: int = 0
    platform: dict[str, object] = {}


class _Document(msgspec.Struct, rename="camel"):
    media_type: str = ""
    artifact_type: str = ""
    config: _Entry | None = None
    layers: list[_Entry] | None = None
    manifests: list[_Entry] | None = None
    annotations: dict[str, str] | None = None

    @property
    def size(self) -> int:
        """Bytes of all it names itself."""
        return sum(entry.size for entry in (*([self.config] if self.config else []), *(self.layers or ())))


def bytes_of(size: int) -> str:
    """`12.3 MB`"""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _link(target: str, text: str) -> str:
    return f'<a href="{escape(target)}">{escape(text)}</a>'


def _url(name: str, reference: str = "") -> str:
    mark = "" if not reference else "@" if is_digest(reference) else ":"
    return f"/repositories/{quote(name)}{mark}{quote(reference, safe=':')}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already; the last column is of numbers."""
    last = len(heads) - 1
    top = "".join(f"<th{' class=n' if at == last and at else ''}>{escape(text)}</th>" for at, text in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(f"<td{' class=n' if at == last and at else ''}>{cell}</td>" for at, cell in enumerate(row)) + "</tr>\n"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table>\n"


def _page(title: str, body: str, headers: dict[str, str]) -> Answer:
    following = headers.get("Link", "").partition(">")[0].lstrip("<")
    more = f"<p>{_link(following, 'more')}</p>" if following else ""
    text = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><p>{_link('/', 'Repositories')}</p>\n"
        f"<h1>{escape(title)}</h1>\n{body}{more}</body></html>\n"
    )
    return Answer(200, text.encode(), dict(HEADERS))


def _read(body: bytes | None) -> _Document:
    try:
        return oci_documents.decode(body or b"{}", _Document, "manifest")
    except InvalidArgument:
        return _Document()


def _bounded(request: Request) -> Request:
    request.query = {"n": [str(PAGE)], **{name: request.query[name] for name in ("last",) if name in request.query}}
    return request


async def repositories(parts: Parts, request: Request) -> Answer:
    """`GET /`: what the user may pull from."""
    names = [name for name in await parts.manifests.repositories() if request.user.sees(name)]
    page, headers = page_of(_bounded(request), names)
    rows = [[_link(_url(name), name)] for name in page]
    return _page("Repositories", _table(["Repository"], rows) if rows else "<p>Nothing has been pushed yet.</p>", headers)


async def repository(parts: Parts, request: Request) -> Answer:
    """`GET /repositories/NAME`: its tags."""
    name = request.name
    page, headers = page_of(_bounded(request), await parts.manifests.tags(name))
    rows = []
    for tag in page:
        try:
            manifest = await parts.manifests.get(name, tag)
        except RegistryError:  # gone meanwhile
            continue
        document = _read(manifest.body)
        size = bytes_of(document.size) if document.manifests is None else f"{len(document.manifests)} platforms"
        rows.append([_link(_url(name, tag), tag), f"<code>{escape(manifest.digest)}</code>", size])
    body = _table(["Tag", "Digest", "Size"], rows) if rows else "<p>It has no tags.</p>"
    return _page(name, f"<p><code>docker pull {escape(request.host)}/{escape(name)}</code></p>\n{body}", headers)


async def image(parts: Parts, request: Request) -> Answer:
    """`GET /repositories/NAME:TAG` or `NAME@DIGEST`: layers and sizes, or the platforms, and what refers to it."""
    name, reference = request.name, checked_reference(request.variables["reference"])
    manifest = await parts.manifests.get(name, reference)
    document = _read(manifest.body)
    facts = [["Digest", f"<code>{escape(manifest.digest)}</code>"], ["Type", escape(document.artifact_type or manifest.media_type)]]
    if document.manifests is not None:
        rows = [
            [
                _link(_url(name, entry.digest), _platform(entry) or entry.digest),
                f"<code>{escape(entry.digest)}</code>",
                bytes_of(entry.size),
            ]
            for entry in document.manifests
            if is_digest(entry.digest)
        ]
        body = _table(["Platform", "Manifest", "Size"], rows)
    else:
        facts += await _config_facts(parts, name, document)
        layers = [
            [f"<code>{escape(entry.digest)}</code>", escape(entry.media_type), bytes_of(entry.size)] for entry in document.layers or ()
        ]
        body = _table(["Layer", "Type", "Size"], [*layers, ["<b>with the config</b>", "", f"<b>{bytes_of(document.size)}</b>"]])
    facts += [[escape(key), escape(value)] for key, value in sorted((document.annotations or {}).items())]
    referrers, _ = await parts.manifests.referrers(name, manifest.digest)
    if referrers:
        rows = [[_link(_url(name, entry.digest), entry.artifact_type or entry.media_type), bytes_of(entry.size)] for entry in referrers]
        body += "<h2>Referrers</h2>\n" + _table(["Kind", "Size"], rows)
    mark = "@" if is_digest(reference) else ":"
    return _page(f"{name}{mark}{reference}", _facts(facts) + body, {})


def _facts(rows: Iterable[Sequence[str]]) -> str:
    return "<table>" + "".join(f"<tr><th>{name}</th><td>{value}</td></tr>\n" for name, value in rows) + "</table>\n<p></p>\n"


def _platform(entry: _Entry) -> str:
    return "/".join(str(entry.platform[key]) for key in ("os", "architecture", "variant") if entry.platform.get(key))


async def _config_facts(parts: Parts, name: str, document: _Document) -> list[list[str]]:
    """Of an image's config, if it is one."""
    if document.config is None or not is_digest(document.config.digest) or document.config.size > CONFIG_MAX:
        return []
    try:
        stored = await parts.blobs.open(name, document.config.digest)  # type: ignore[arg-type]
    except RegistryError:
        return []
    try:
        content = b"".join([piece async for piece in stored.pieces(0, min(stored.size, CONFIG_MAX))])
        config = oci_documents.decode(content, ImageConfig, "config")
    except InvalidArgument:
        return []
    finally:
        stored.close()
    if not config.architecture:
        return []
    facts = [["Platform", escape("/".join(filter(None, (config.os, config.architecture, config.variant))))]]
    if config.created:
        facts.append(["Created", escape(config.created)])
    if config.config is not None:
        command = " ".join([*(config.config.entrypoint or ()), *(config.config.cmd or ())])
        facts += [["Command", f"<code>{escape(command)}</code>"]] if command else []
    return facts
