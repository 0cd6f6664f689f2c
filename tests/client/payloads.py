"""The exact JSON of docs/wire.md."""

from __future__ import annotations

from typing import Any

MODEL: dict[str, Any] = {
    "name": "bartowski/qwen2.5-7b-instruct-gguf",
    "id": "qwen2.5-7b-instruct",
    "title": "Qwen2.5 7B Instruct",
    "description": "…",
    "repo": "bartowski/Qwen2.5-7B-Instruct-GGUF",
    "filename": "Qwen2.5-7B-Instruct-Q4_K_M.gguf",
    "revision": "8911e8a4",
    "size": 4683074240,
    "required_memory": 7024611360,
    "tags": ["chat"],
    "capabilities": ["text_generation"],
    "source": "hf_gguf",
    "chat_template": None,
    "format": "gguf",
    "quantization": "Q4_K_M",
    "parameter_count": "7.6B",
    "context_length": 32768,
    "license": "apache-2.0",
    "gated": False,
    "registered": True,
    "attempt": 1,
    "status": "downloading",
    "download_progress": {"percent": 0.38, "bytes_downloaded": 1780000000, "bytes_total": 4683074240, "error": None},
    "transfers": [
        {
            "node_id": "3f2c",
            "node": "gpu-01",
            "phase": "fetching",
            "bytes_done": 1780000000,
            "bytes_total": 4683074240,
            "bytes_per_s": 112000000.0,
            "eta_s": 26.0,
            "file": "Qwen2.5-7B-Instruct-Q4_K_M.gguf",
            "file_index": 1,
            "file_count": 1,
            "attempt": 1,
            "max_attempts": 6,
            "retry_in_s": None,
            "error": None,
            "error_code": None,
        }
    ],
    "placements": [
        {
            "node_id": "3f2c",
            "node": "gpu-01",
            "path": "/m/snapshots/8911/Qwen.gguf",
            "paths": ["/m/snapshots/8911/Qwen.gguf"],
            "disk_bytes": 4683074240,
        }
    ],
    "hf_info": {"downloads": 125000, "likes": 450, "stale": False},
}
NODE: dict[str, Any] = {
    "id": "3f2c",
    "machine_name": "gpu-01",
    "ip_address": "192.168.1.20",
    "runtime_version": "1.0.0",
    "runtime_port": 11434,
    "status": "online",
    "registered_at": "2026-01-02T01:00:00.123456789Z",
    "last_seen": "2026-01-02T01:05:10.5Z",
    "online_since": "2026-01-02T01:00:40Z",
    "tags": [],
    "loaded_models": ["bartowski/phi-3-mini-4k-instruct-gguf"],
    "gpu_devices": [{"model": "NVIDIA RTX 4090", "count": 2, "memory": 25757220864}],
    "gpu_available": True,
    "node_api_port": 11435,
    "initializing": False,
    "sync_state": "running",
    "ram_bytes": 64_000_000_000,
    "disk_free_bytes": 1_000_000_000,
    "disk_total_bytes": 2_000_000_000,
    "models_dir": "/m",
}
HEALTH = {"status": "ok", "service": "modelhub", "version": "0.1.0", "state_id": "abc"}
REGISTERED = {
    "name": "bartowski/phi-3-mini-4k-instruct-gguf",
    "status": "registered",
    "filename": "Phi-3-mini-4k-instruct-Q4_K_M.gguf",
    "size_bytes": 0,
    "required_memory_bytes": 0,
    "warnings": ["Model requires 12.3GB but max node GPU memory is 8.0GB"],
}
