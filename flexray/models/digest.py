"""What tells one checkpoint from another, without reading all of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

CHUNK_BYTES = 64 * 1024
CHUNKS = 64
TEMPLATES = "additional_chat_templates"
"""Where transformers looks for more templates than chat_template.jinja."""


def checkpoint_digest(folder: str | Path) -> str:
    """Hex sha256 over a model folder: config and tokenizer files whole, chat templates and code
    too; of each safetensors file its size, its header and 64 chunks of 64 KiB spread evenly over it.

    A fine-tuned copy of a model has the same shapes and other weights, everywhere; the chunks tell them
    apart in a second where reading 16 GB would take the night's first minute. An edit of a few weights
    between the chunks is not seen.
    """
    total, root = hashlib.sha256(), Path(folder)
    templates = (root / TEMPLATES).glob("*.jinja")
    for path in sorted([*root.iterdir(), *templates], key=lambda p: p.relative_to(root).as_posix()):
        if path.suffix == ".safetensors":
            part = _sampled(path)
        elif path.suffix in {".json", ".jinja", ".model", ".py", ".txt"}:
            part = hashlib.sha256(path.read_bytes()).digest()
        else:
            continue
        total.update(path.relative_to(root).as_posix().encode() + b"\0" + part)
    return total.hexdigest()


def _sampled(path: Path) -> bytes:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
        digest.update(stream.read(min(header, size)))
        for i in range(CHUNKS):
            stream.seek(i * max(0, size - CHUNK_BYTES) // (CHUNKS - 1))
            digest.update(stream.read(CHUNK_BYTES))
    return digest.digest()
