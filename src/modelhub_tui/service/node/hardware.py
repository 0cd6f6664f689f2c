"""What this machine has: graphics memory, main memory, load. Never fails, never slow; what is unknown is left out."""

from __future__ import annotations

import contextlib
import logging
import platform
import subprocess
import threading
import time
from dataclasses import field
from pathlib import Path
from typing import Any

from modelhub_tui.identifiers import whole_number
from modelhub_tui.values import dataclass

log = logging.getLogger(__name__)

_PROBE_S = 3.0
_FRESH_S = 5.0
_AMD = "0x1002"
# Source: Metal's recommendedMaxWorkingSetSize is about three quarters of the memory that an Apple chip shares.
_APPLE_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Card:
    """One graphics card."""

    model: str
    memory_bytes: int
    used_bytes: int | None = None
    load_percent: float | None = None
    temperature_c: float | None = None


@dataclass(slots=True)
class Hardware:
    """Looks at the machine, in a thread that may hang without anybody waiting for it."""

    drm: Path = Path("/sys/class/drm")
    _cards: tuple[Card, ...] = ()
    _at: float | None = None
    _busy: threading.Event = field(default_factory=threading.Event)

    def cards(self, *, wait: bool = False) -> tuple[Card, ...]:
        """The cards as of a few seconds ago; looks again in the background. `wait` gives the first look up to 3 s."""
        now = time.monotonic()
        if not self._busy.is_set() and (self._at is None or now - self._at > _FRESH_S):
            self._busy.set()
            thread = threading.Thread(target=self._look, name="hardware", daemon=True)
            thread.start()
            if wait:
                thread.join(_PROBE_S)
        return self._cards

    def describe(self) -> dict[str, Any]:
        """Members of a registration."""
        cards = self.cards(wait=True)
        groups: dict[tuple[str, int], int] = {}
        for card in cards:
            groups[card.model, card.memory_bytes] = groups.get((card.model, card.memory_bytes), 0) + 1
        devices = [{"model": model, "count": count, "memory": memory} for (model, memory), count in groups.items()]
        return {
            "gpu_available": bool(cards),
            "gpu_devices": devices,
            "gpu_count": len(cards) or None,
            "gpu_model": cards[0].model if cards else None,
        }

    def load(self) -> dict[str, Any]:
        """Members of a heartbeat."""
        import psutil

        told: dict[str, Any] = {"cpu_usage": 0.0, "memory_usage": 0.0, "active_requests": 0}
        with contextlib.suppress(Exception):
            memory = psutil.virtual_memory()
            told.update(
                cpu_usage=psutil.cpu_percent(interval=None), memory_usage=memory.percent, ram_bytes=memory.total
            )
        cards = self.cards()
        if cards:
            total, used = sum(card.memory_bytes for card in cards), [card.used_bytes for card in cards]
            told.update(gpu_model_name=cards[0].model, gpu_memory_total_mb=total // 2**20)
            if None not in used and total:
                told.update(
                    gpu_memory_used_mb=sum(each or 0 for each in used) // 2**20,
                    gpu_memory_usage=round(100 * sum(each or 0 for each in used) / total, 1),
                )
            loads = [card.load_percent for card in cards if card.load_percent is not None]
            heats = [card.temperature_c for card in cards if card.temperature_c is not None]
            if loads:
                told["gpu_usage"] = round(sum(loads) / len(loads), 1)
            if heats:
                told["gpu_temperature"] = max(heats)
        return told

    def _look(self) -> None:
        try:
            self._cards = _nvidia() or _amd(self.drm) or _apple()
        except Exception:
            log.debug("the graphics cards cannot be told", exc_info=True)
        finally:
            self._at = time.monotonic()
            self._busy.clear()


def _nvidia() -> tuple[Card, ...]:
    """Through the driver's own library; empty without a driver."""
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    cards = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        name = pynvml.nvmlDeviceGetName(handle)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        load = heat = None
        with contextlib.suppress(pynvml.NVMLError):
            load = float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        with contextlib.suppress(pynvml.NVMLError):
            heat = float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
        model = name.decode() if isinstance(name, bytes) else str(name)
        cards.append(Card(model, int(memory.total), int(memory.used), load, heat))
    return tuple(cards)


def _amd(drm: Path) -> tuple[Card, ...]:
    """From sysfs, as the amdgpu driver shows it."""
    cards = []
    for device in sorted(drm.glob("card[0-9]*/device")):
        if _line(device / "vendor") != _AMD:
            continue
        total, used, load = (
            whole_number(_line(device / each))
            for each in ("mem_info_vram_total", "mem_info_vram_used", "gpu_busy_percent")
        )
        if total is not None:
            model = _line(device / "product_name") or "AMD graphics"
            cards.append(Card(model, total, used, None if load is None else float(load)))
    return tuple(cards)


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _apple() -> tuple[Card, ...]:
    """Apple's chips share their memory with the graphics part."""
    if platform.system() != "Darwin" or platform.machine() != "arm64":
        return ()
    import psutil

    told = subprocess.run(
        ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, timeout=2, check=False
    )
    return (Card(told.stdout.strip() or "Apple", int(psutil.virtual_memory().total * _APPLE_SHARE)),)
