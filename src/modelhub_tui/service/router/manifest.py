"""The list of files of one registered model, as nodes read it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from modelhub_tui.service.router.records import ManifestFile, Registration

_RUNTIMES = {"gguf": "llama_cpp", "onnx": "onnx_runtime", "ggml": "whisper_cpp"}
"""In upstream's words. Safetensors name none: what can load them depends on their configuration."""
_WEIGHTS = (".gguf", ".safetensors", ".onnx", ".onnx_data", ".data", ".bin")
_CONFIG_PRIORITY, _INDEX_PRIORITY = 10, 5


def manifest_json(record: Registration, endpoint: str) -> dict[str, Any]:
    """`GET /v0/models/registry/{name}/manifest.json`

    Args:
        endpoint: Base URL of the hub that file URLs point to.
    """
    weights = [each for each in record.files if each.path.lower().endswith((".gguf", ".safetensors", ".onnx"))]
    # Upstream nodes look for `model.gguf`; a split model's parts find each other by their own names.
    renamed = record.filename if record.format == "gguf" and len(weights) == 1 else None
    files = [
        _file(each, record, endpoint, "model.gguf" if each.path == renamed else each.path) for each in record.files
    ]
    told: dict[str, Any] = {"format": record.format, "files": files}
    return {**told, "quantization": record.quantization} if record.quantization else told


def file_url(file: ManifestFile, endpoint: str) -> str:
    """Where the hub serves a file: pinned to its commit."""
    return f"{endpoint}/{quote(file.repo)}/resolve/{quote(file.revision, safe='')}/{quote(file.path)}"


def _file(file: ManifestFile, record: Registration, endpoint: str, name: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": name,
        "path": file.path,
        "url": file_url(file, endpoint),
        "priority": _priority(file.path),
    }
    if record.format in _RUNTIMES:
        told["runtimes"] = [_RUNTIMES[record.format]]
    return {
        **told,
        "size": file.size,
        "sha256": file.sha256,
        "blob_id": file.blob_id,
        "repo": file.repo,
        "revision": file.revision,
    }


def _priority(path: str) -> int:
    if path.endswith(".index.json"):
        return _INDEX_PRIORITY
    return 0 if path.lower().endswith(_WEIGHTS) else _CONFIG_PRIORITY
