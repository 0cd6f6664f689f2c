"""What `modelhub doctor` looks at on this machine. Each check answers with one sentence, whatever is broken."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import sqlite3
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from modelhub_tui import __version__, hf_env
from modelhub_tui.config import SETTINGS, Settings, origins
from modelhub_tui.errors import BadSettings, ModelHubError, explain
from modelhub_tui.units import human_size
from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"
LITTLE_BYTES = 1 << 30
"""Free space below which hardly any model fits."""
DATABASE_S = 3.0
_TABLES = {"models": "registration", "nodes": "node", "trash": "deleted model"}
LOG_LINES = 50
_LIBRARIES = ("textual", "rich", "httpx", "huggingface_hub", "hf_xet", "starlette", "uvicorn", "pydantic", "diskcache")
_NETWORK_FS = frozenset({"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "afs", "lustre", "glusterfs"})
_WHERE = {"state_dir": "MODELHUB_STATE_DIR", "cache_dir": "MODELHUB_CACHE_DIR", "hub_cache": "HF_HUB_CACHE"}
_TAIL_BYTES = 64 * 1024
_BAD_LINE = re.compile(r" (ERROR|CRITICAL) |^Traceback ")


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check."""

    name: str
    status: str
    """`ok`, `warning` or `problem`."""
    what: str
    """One sentence."""
    todo: str = ""
    """What to do about it; empty if there is nothing to do."""
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As it stands in the report."""
        return asdict(self)


Look = Callable[[], Check]


def run_all(looks: Iterable[tuple[str, Look]], limit_s: float) -> list[Check]:
    """Do all checks side by side; one that fails or does not end becomes a finding itself.

    Args:
        limit_s: Longest wait for all of them. What hangs (a file server that is gone) is left behind.
    """
    found: dict[str, Check] = {}
    names = []
    threads = []

    def work(name: str, look: Look) -> None:
        try:
            found[name] = look()
        except ModelHubError as error:
            advice = explain(error)
            found[name] = Check(name, PROBLEM, advice.what, advice.todo)
        except Exception as error:
            kind = f"{type(error).__name__}: {clean(error, 200)}"
            found[name] = Check(name, PROBLEM, f"This could not be checked ({kind}).", "Please report it.")

    for name, look in looks:
        names.append(name)
        threads.append(threading.Thread(target=work, args=(name, look), name=f"check {name}", daemon=True))
        threads[-1].start()
    deadline = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = f"This took longer than {limit_s:.0f} s."
    return [
        found.get(name) or Check(name, PROBLEM, late, "A disk or a network file system may not answer.")
        for name in names
    ]


def versions() -> Check:
    """The program, what it runs on, and the libraries it uses."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    with contextlib.suppress(OSError):
        system = f"{platform.freedesktop_os_release().get('PRETTY_NAME', '')}, {system}"
    details = {
        "modelhub": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": system,
        "libraries": found,
    }
    missing = [each for each in ("textual", "httpx", "huggingface_hub", "starlette", "uvicorn") if each not in found]
    if missing:
        todo = "Install modelhub-tui again."
        return Check("versions", PROBLEM, f"Libraries are missing: {', '.join(missing)}.", todo, details)
    return Check("versions", OK, f"modelhub {__version__}, Python {details['python']}, {system}.", "", details)


def terminal() -> Check:
    """What the dashboard would be drawn on."""
    size = shutil.get_terminal_size()
    encoding = (getattr(sys.stdout, "encoding", None) or "unknown").lower()
    details = {
        "term": os.environ.get("TERM", ""),
        "colorterm": os.environ.get("COLORTERM", ""),
        "no_color": "NO_COLOR" in os.environ,
        "columns": size.columns,
        "lines": size.lines,
        "tty": bool(sys.stdout and sys.stdout.isatty()),
        "encoding": encoding,
        "locale": os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or "",
        "ssh": "SSH_CONNECTION" in os.environ,
        "inside": next((name.lower() for name in ("TMUX", "STY") if os.environ.get(name)), ""),
    }
    if details["term"] in ("", "dumb"):
        todo = "Set TERM, such as xterm-256color; the other commands work without it."
        return Check("terminal", WARNING, "TERM does not say what this terminal can do.", todo, details)
    if not encoding.startswith("utf"):
        what = f"The encoding is {encoding}, so only plain characters are drawn."
        return Check("terminal", WARNING, what, "Set LANG to a UTF-8 locale, such as C.UTF-8.", details)
    what = f"{details['term']}, {size.columns} x {size.lines}, {encoding}{', over SSH' if details['ssh'] else ''}."
    return Check("terminal", OK, what, "", details)


def settings_in_force(settings: Settings, flags: dict[str, str | None]) -> Check:
    """Every setting, and where it comes from. Secrets are told as set or unset."""
    sources = origins(flags)
    values: dict[str, Any] = {
        "state_dir": str(settings.state_dir),
        "cache_dir": str(settings.cache_dir),
        "hub_cache": str(settings.hub_cache),
        "hf_endpoint": settings.hf_endpoint,
        "router": settings.router,
        "catalog": str(settings.catalog) if settings.catalog else None,
        "theme": settings.theme,
        "api_key": "set" if settings.api_key else "unset",
        "hf_token": "set" if os.environ.get("HF_TOKEN") else "unset",
    }
    details: dict[str, Any] = {
        each.name: {
            "value": values.get(each.name, os.environ.get(each.env) or (each.default or None)),
            "from": sources[each.name],
        }
        for each in SETTINGS
    }
    details["limits"] = asdict(settings.limits)
    said = [name for name, source in sources.items() if source != "default"]
    where = f"set: {', '.join(said)}" if said else "all as they come"
    mode = "this machine's own service" if settings.embedded else f"the router {settings.router}"
    try:
        hf_env.check()
    except BadSettings as error:
        return Check("settings", PROBLEM, error.reason, "Until then no service starts.", details)
    for remark in hf_env.remarks():
        return Check("settings", WARNING, remark, "", details)
    if settings.notice:
        todo = "Set a key for this router: `--api-key-file`, or MODELHUB_API_KEY without MODELHUB_ROUTER beside it."
        return Check("settings", WARNING, settings.notice, todo, details)
    return Check("settings", OK, f"For {mode}; {where}.", "", details)


def folders(settings: Settings) -> Check:
    """The folders we write to: there, ours, writable, and with room."""
    details: dict[str, Any] = {}
    bad: list[tuple[str, str, str]] = []
    for name in ("state_dir", "cache_dir", "hub_cache"):
        path: Path = getattr(settings, name)
        details[name] = told = _folder(path)
        if told.get("error"):
            bad.append((PROBLEM, f"{path}: {told['error']}.", "Change its owner or mode, or choose another folder."))
        elif not told["exists"] and not told["writable"]:
            todo = f"Choose another folder with {_WHERE[name]}, or let it be made there."
            bad.append((PROBLEM, f"{path} is missing and cannot be created.", todo))
        elif not told["writable"]:
            todo = "Change its owner or mode, or choose another folder."
            bad.append((PROBLEM, f"{path} cannot be written.", todo))
        elif name == "state_dir" and told["owner"] != os.geteuid():
            bad.append((PROBLEM, f"{path} belongs to another user.", "Choose one of your own with MODELHUB_STATE_DIR."))
        elif told["total_bytes"] and told["free_bytes"] < LITTLE_BYTES and name != "cache_dir":
            what = f"Only {human_size(told['free_bytes'])} are free in {path}."
            bad.append((PROBLEM if told["free_bytes"] < 1 << 20 else WARNING, what, "Free some space there."))
        elif name == "state_dir" and told["file_system"] in _NETWORK_FS:
            what = f"{path} is on a network file system ({told['file_system']}), where locks may not hold."
            bad.append((WARNING, what, "Choose a local folder with MODELHUB_STATE_DIR."))
    if not bad:
        told = details["hub_cache"]
        free = f"{human_size(told['free_bytes'])} free" if told["total_bytes"] else "Room"
        return Check("folders", OK, f"{free} for models in {settings.hub_cache}.", "", details)
    bad.sort(key=lambda each: each[0] != PROBLEM)
    return Check("folders", *bad[0], details | {"findings": [each[1] for each in bad]})


def _folder(path: Path) -> dict[str, Any]:
    """What is known of a folder, or of the nearest one above it that is there."""
    there = path
    told: dict[str, Any] = {"path": str(path)}
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        info = there.stat()
        if not stat.S_ISDIR(info.st_mode):
            return told | {"error": f"{there} is not a folder"}
        room = os.statvfs(there)
        return told | {
            "exists": there == path,
            "mode": f"{stat.S_IMODE(info.st_mode):04o}",
            "owner": info.st_uid,
            "writable": os.access(there, os.W_OK | os.X_OK)
            and not room.f_flag & os.ST_RDONLY
            and ((there == path and bool(room.f_blocks)) or _takes_folders(there)),
            "free_bytes": room.f_bavail * room.f_frsize,
            "total_bytes": room.f_blocks * room.f_frsize,
            "file_system": _file_system(there),
        }
    except OSError as error:
        return told | {"error": error.strerror or str(error)}


def _takes_folders(path: Path) -> bool:
    """Whether a folder can be made there. Tried: modes say yes to root, whatever a kernel's own file system thinks."""
    try:
        made = tempfile.mkdtemp(prefix=".modelhub-doctor-", dir=path)
    except OSError:
        return False
    with contextlib.suppress(OSError):
        Path(made).rmdir()
    return True


def _file_system(path: Path) -> str:
    """The kind of file system, where Linux tells; else empty."""
    best = ("", "")
    with contextlib.suppress(OSError):
        real = f"{path.resolve()}/"
        for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines():
            words = line.split(" ")
            if len(words) > 2 and real.startswith(words[1].rstrip("/") + "/") and len(words[1]) >= len(best[0]):
                best = (words[1], words[2])
    return best[1]


def database(settings: Settings) -> Check:
    """Whether SQLite finds the router's database sound, without changing it."""
    from modelhub_tui.service.router.rows import SCHEMA_VERSION, Unreadable, read_rows
    from modelhub_tui.service.statefile import DATABASE

    unreadable: list[Unreadable] = []
    path = settings.state_dir / DATABASE
    try:
        aside = sorted(
            each.name
            for each in settings.state_dir.glob(f"{DATABASE}.damaged-*")
            if not each.name.endswith(("-wal", "-shm"))
        )
        if not path.exists():
            return Check("database", OK, "There is none yet.", "", {"path": str(path), "set_aside": aside})
        details: dict[str, Any] = {"path": str(path), "bytes": path.stat().st_size, "set_aside": aside}
        if not path.is_file():
            return Check(
                "database", PROBLEM, f"{path} is no file.", "Move it away; the service makes a new one.", details
            )
    except OSError as error:
        return Check("database", PROBLEM, f"{settings.state_dir}: {error.strerror}.", "Check its owner and mode.")
    try:
        db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=1.0)
        try:
            ends = time.monotonic() + DATABASE_S
            db.set_progress_handler(lambda: time.monotonic() > ends, 10_000)
            details["schema"] = db.execute("PRAGMA user_version").fetchone()[0]
            found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found == "ok":
                for table in ("models", "nodes", "trash"):
                    with contextlib.suppress(sqlite3.OperationalError):
                        details[table] = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
                if details["schema"] == SCHEMA_VERSION:
                    unreadable = read_rows(db).unreadable
        finally:
            db.close()
    except sqlite3.OperationalError as error:
        locked = "locked" in str(error) or "busy" in str(error)
        what, todo = "Another program holds the database.", "Close what holds it."
        if not locked:
            what = f"The database cannot be read ({clean(error, 100)})."
            todo = "Check its owner and mode, and the free space."
        return Check("database", WARNING if locked else PROBLEM, what, todo, details)
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        return Check("database", PROBLEM, f"The database is damaged ({clean(found, 100)}).", _mend(settings), details)
    if (schema := details.get("schema", 0)) > SCHEMA_VERSION:
        what = f"It was written by a newer modelhub (schema {schema}, not {SCHEMA_VERSION})."
        todo = "Use that version, or choose another folder with MODELHUB_STATE_DIR."
        return Check("database", PROBLEM, what, todo, details)
    if unreadable:
        details["unreadable"] = [f"{_TABLES[each.table]} {each.name}: {each.reason}" for each in unreadable]
        bad = [each for each in unreadable if each.table == "models"]
        if not bad:
            what = f"{len(unreadable)} records of nodes or of the trash cannot be read, and are left out."
            return Check("database", WARNING, what, "Nodes come back by themselves; the trash can be emptied.", details)
        one = len(bad) == 1
        many = "A registration" if one else f"{len(bad)} registrations"
        what = f"{many} cannot be read: {bad[0].name}, {bad[0].reason}."
        todo = f"Delete {'it' if one else 'each'} with `modelhub rm {bad[0].name}`, and pull the model again."
        return Check("database", PROBLEM, what, todo, details)
    if aside:
        todo = "Send it with a bug report, or remove it."
        return Check("database", WARNING, f"A damaged one was kept aside: {aside[-1]}.", todo, details)
    return Check("database", OK, f"Sound, with {details.get('models', 0)} registered models.", "", details)


def _mend(settings: Settings) -> str:
    """What mends a damaged database: a service that starts. One that runs is not asked whether it has noticed."""
    from modelhub_tui.service.statefile import lock_holder

    running = None
    with contextlib.suppress(ModelHubError, OSError):
        running = lock_holder(settings.state_dir)
    start = "`modelhub list`" if settings.embedded else "`modelhub serve`"
    first = "Stop the service with `modelhub stop`, and start" if running else "Start"
    again = "it again" if running else "the service"
    return f"{first} {again} with {start}: it keeps this one aside and begins a new one. Models stay."


def gpu() -> Check:
    """Graphics cards, as the node sees them."""
    from modelhub_tui.service.node.hardware import Hardware

    told = Hardware().describe()
    cards = [f"{each['count']} x {clean(each['model'], 80)}" for each in told["gpu_devices"]]
    return Check("gpu", OK, f"{', '.join(cards) or 'None found; models run on the CPU'}.", "", told)


def logs(settings: Settings, secrets: Iterable[str]) -> Check:
    """The last lines of each log."""
    from modelhub_tui.service.redact import redact

    details: dict[str, Any] = {}
    bad = 0
    for name in ("service.log", "node/node.log", "cli.log"):
        lines = [clean(redact(line, secrets), 400) for line in _tail(settings.state_dir / name)]
        bad += sum(bool(_BAD_LINE.search(line)) for line in lines)
        if lines:
            details[name] = lines
    if bad:
        what = f"{bad} of the last lines tell of errors."
        return Check("logs", WARNING, what, "Look at them below.", details)
    return Check("logs", OK, f"{sum(map(len, details.values()))} lines, without errors.", "", details)


def _tail(path: Path) -> list[str]:
    """The last lines of a file; none if it cannot be read, or is no file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            return []
        raw = os.pread(handle, _TAIL_BYTES, max(0, info.st_size - _TAIL_BYTES))
    except OSError:
        return []
    finally:
        os.close(handle)
    return raw.decode("utf-8", "replace").splitlines()[-LOG_LINES:]
