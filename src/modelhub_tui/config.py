"""Settings and paths: flags, then environment, then config.toml, then defaults.

Reading them costs about a millisecond (no pydantic): the first frame needs them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from urllib.parse import urlsplit

from modelhub_tui.domain import Limits
from modelhub_tui.errors import BadSettings
from modelhub_tui.limit_texts import LIMIT_TEXTS, read_limits
from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass

DEFAULT_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing a user can set, and where. The README's table is made from these."""

    name: str
    """Key in config.toml."""
    env: str
    help: str
    flag: str = ""
    default: str = ""


SETTINGS = (
    Setting("router", "MODELHUB_ROUTER", "URL of a router; unset runs one on this machine", "--router"),
    Setting("api_key", "MODELHUB_API_KEY", "API key for that router", "--api-key"),
    Setting("api_key_file", "MODELHUB_API_KEY_FILE", "file that holds the API key for that router", "--api-key-file"),
    Setting("catalog", "MODELHUB_CATALOG", "catalog file to use instead of the built-in one", "--catalog", "built in"),
    Setting(
        "theme", "MODELHUB_THEME", "dark, light, ansi, or any theme of Textual; unset chooses by terminal", "--theme"
    ),
    Setting("config", "MODELHUB_CONFIG", "config file", "--config", "~/.config/modelhub/config.toml"),
    Setting("state_dir", "MODELHUB_STATE_DIR", "service state, database, logs", default="~/.local/state/modelhub"),
    Setting("cache_dir", "MODELHUB_CACHE_DIR", "hub statistics, last screen", default="~/.cache/modelhub"),
    Setting("hf_endpoint", "HF_ENDPOINT", "HuggingFace-compatible hub", default=DEFAULT_ENDPOINT),
    Setting(
        "hf_token", "HF_TOKEN", "token for gated and private repos; also read from the token file of `hf auth login`"
    ),
    Setting("hf_home", "HF_HOME", "HuggingFace home", default="~/.cache/huggingface"),
    Setting("hub_cache", "HF_HUB_CACHE", "where model files land", default="$HF_HOME/hub"),
    Setting(
        "idle_exit_s",
        "MODELHUB_IDLE_EXIT_S",
        "seconds without use after which the background service exits; 0 never",
        default="900",
    ),
    Setting("parallel_transfers", "MODELHUB_PARALLEL_TRANSFERS", "models downloaded at the same time", default="2"),
    Setting(
        "bandwidth",
        "MODELHUB_BANDWIDTH",
        "most that all downloads together take, in bytes per second, such as 50M; 0 is no limit",
        default="0",
    ),
    Setting(
        "disk_floor",
        "MODELHUB_DISK_FLOOR",
        "free space that downloads leave alone, such as 20G; they pause when it is reached",
        default="2 % of the disk, at most 512Mi",
    ),
    Setting(
        "trash_seconds",
        "MODELHUB_TRASH_SECONDS",
        "how long a deletion can be undone, in seconds or as 30m, 1h, 2d; 0 frees the space at once",
        default="1h",
    ),
    Setting(
        "trash_size",
        "MODELHUB_TRASH_SIZE",
        "most that the trash may hold, such as 64G; the oldest goes first",
        default="64Gi",
    ),
)
_FILE_LIMIT_BYTES = 1_000_000
_NUMBERS = frozenset(each.setting for each in LIMIT_TEXTS)
"""May be numbers in config.toml, or texts with a unit."""
_IN_FILE = frozenset({"router", "api_key", "api_key_file", "catalog", "theme", "state_dir", "cache_dir"}) | _NUMBERS


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything decided before the program starts."""

    state_dir: Path
    cache_dir: Path
    hub_cache: Path
    hf_endpoint: str = DEFAULT_ENDPOINT
    router: str | None = None
    """None means embedded: our own router and node on this machine."""
    api_key: str | None = field(default=None, repr=False)
    catalog: Path | None = None
    theme: str | None = None
    limits: Limits = field(default_factory=Limits)
    """What a service of ours starts with; those of one that runs are changed with `modelhub limits`."""

    @property
    def embedded(self) -> bool:
        """True when the program uses its own service on this machine."""
        return self.router is None


def load_settings(flags: Mapping[str, str | None] | None = None, env: Mapping[str, str] | None = None) -> Settings:
    """Merge flags, environment, config file and defaults.

    Args:
        flags: Command-line values by setting name; None or "" means not given.
        env: The environment; `os.environ` if None.

    Raises:
        BadSettings: With a sentence naming the setting and what to do.
    """
    env = os.environ if env is None else env
    flags = {name: value for name, value in (flags or {}).items() if value}
    home = _home(env)
    explicit = flags.get("config") or env.get("MODELHUB_CONFIG")
    usual = _xdg(env, home, "CONFIG", ".config") / "config.toml"
    file = _read_file(_path(explicit, home) if explicit else usual, bool(explicit))

    def pick(name: str) -> str | None:
        variable = next(each.env for each in SETTINGS if each.name == name)
        return flags.get(name) or env.get(variable) or file.get(name) or None

    router = pick("router")
    catalog, state, cache = pick("catalog"), pick("state_dir"), pick("cache_dir")
    hf_home = _path(env.get("HF_HOME") or f"{env.get('XDG_CACHE_HOME') or home / '.cache'}/huggingface", home)
    hub_cache = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
    return Settings(
        state_dir=_path(state, home) if state else _xdg(env, home, "STATE", ".local/state"),
        cache_dir=_path(cache, home) if cache else _xdg(env, home, "CACHE", ".cache"),
        hub_cache=_path(hub_cache, home) if hub_cache else hf_home / "hub",
        hf_endpoint=_url(env.get("HF_ENDPOINT") or DEFAULT_ENDPOINT, "HF_ENDPOINT"),
        router=_url(router, "the router") if router else None,
        api_key=_key(_said_key(flags, env, file, home)),
        catalog=_path(catalog, home) if catalog else None,
        theme=pick("theme"),
        limits=_limits(env, file),
    )


def origins(flags: Mapping[str, str | None] | None = None, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where each setting comes from, by its name: `flag`, `environment`, `file` or `default`. Never fails."""
    env = os.environ if env is None else env
    flags = {name: value for name, value in (flags or {}).items() if value}
    file: dict[str, str] = {}
    with contextlib.suppress(BadSettings):
        home = _home(env)
        explicit = flags.get("config") or env.get("MODELHUB_CONFIG")
        path = _path(explicit, home) if explicit else _xdg(env, home, "CONFIG", ".config") / "config.toml"
        file = _read_file(path, bool(explicit))
    found = {}
    for each in SETTINGS:
        said = (("flag", flags.get(each.name)), ("environment", env.get(each.env)), ("file", file.get(each.name)))
        found[each.name] = next((source for source, value in said if value), "default")
    return found


def _limits(env: Mapping[str, str], file: Mapping[str, str]) -> Limits:
    """What transfers and trash may take. A complaint names the variable, or the setting in the file."""
    from_env = {each.setting: env[each.env] for each in LIMIT_TEXTS if env.get(each.env)}
    names = {each.setting: each.env for each in LIMIT_TEXTS if each.setting in from_env}
    return read_limits({**file, **from_env}, names)


def _xdg(env: Mapping[str, str], home: Path, kind: str, default: str) -> Path:
    """Our folder under an XDG base directory. Source: the XDG Base Directory Specification."""
    base = env.get(f"XDG_{kind}_HOME")
    return (Path(base) if base and Path(base).is_absolute() else home / default) / "modelhub"


def _home(env: Mapping[str, str]) -> Path:
    try:
        return Path(env.get("HOME") or Path.home())
    except RuntimeError as error:  # a user id without an account, as in some containers
        raise BadSettings("There is no home folder for this user; set HOME.") from error


def _path(text: str, home: Path) -> Path:
    """An absolute path; `~` is the home folder."""
    if "\0" in text:
        raise BadSettings(f"{clean(text, 80)!r} is no path; leave out the control characters.")
    path = home / text[2:] if text == "~" or text.startswith("~/") else Path(text)
    try:
        return path if path.is_absolute() else Path.cwd() / path
    except FileNotFoundError as error:
        what = f"{clean(text, 80)!r} is meant from a folder that is gone"
        raise BadSettings(f"{what}; change to another, or give a full path.") from error


def _said_key(
    flags: Mapping[str, str | None], env: Mapping[str, str], file: Mapping[str, str], home: Path
) -> str | None:
    """The API key, or what its file holds, of the first source that names either."""
    in_env = {name: env.get(f"MODELHUB_{name.upper()}") for name in ("api_key", "api_key_file")}
    for named in (flags, in_env, dict[str, str | None](file)):
        key, path = named.get("api_key"), named.get("api_key_file")
        if key:
            return key
        if path:
            return _read_key(_path(path, home))
    return None


def _read_key(path: Path) -> str:
    """The key that a file holds."""
    try:
        with path.open("rb") as file:
            said = file.read(10_001)
    except OSError as error:
        raise BadSettings(f"The key file {clean(path, 200)} cannot be read ({error.strerror}).") from error
    text = said.decode("latin-1").strip()
    if not text or len(said) > 10_000 or len(text.split()) > 1:
        raise BadSettings(f"The key file {clean(path, 200)} must hold one API key and nothing else.")
    return text


def _key(text: str | None) -> str | None:
    """An API key as a header can carry it."""
    said = (text or "").strip()
    if not (said.isascii() and said.isprintable()):
        raise BadSettings("The API key has characters that no key has; copy it again.")
    return said or None


def _url(text: str, name: str) -> str:
    """A base URL without its trailing slash."""
    said = text.strip()
    wrong = BadSettings(f"{clean(text, 80)!r} is no URL for {name}; it looks like http://host:port.")
    try:
        url = urlsplit(said if "://" in said else f"http://{said}")
        valid = url.scheme in ("http", "https") and url.hostname and (url.port or 1)
    except ValueError as error:
        raise wrong from error
    if not valid or clean(said, 2_000) != said or " " in said:
        raise wrong
    if url.username or url.password:
        raise BadSettings(f"Leave user name and password out of the URL for {name}; use an API key.")
    return f"{url.scheme}://{url.netloc}{url.path}".rstrip("/")


def _read_file(path: Path, explicit: bool) -> dict[str, str]:
    """The config file's values. A missing file is fine unless it was asked for."""
    try:
        with path.open("rb") as file:
            said = file.read(_FILE_LIMIT_BYTES + 1)
        if len(said) > _FILE_LIMIT_BYTES:
            raise BadSettings(f"The config file {path} is larger than 1 MB; name a TOML file with a few settings.")
    except FileNotFoundError:
        if explicit:
            raise BadSettings(f"There is no config file {path}.") from None
        return {}
    except OSError as error:
        raise BadSettings(f"The config file {path} cannot be read ({error.strerror}).") from error
    import tomllib  # most have no file

    try:
        raw = tomllib.loads(said.decode())
    except UnicodeDecodeError as error:
        raise BadSettings(f"The config file {path} cannot be read (not UTF-8).") from error
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"The config file {path} is not valid TOML: {clean(error)}.") from error
    for name, value in raw.items():
        if name not in _IN_FILE:
            known = ", ".join(sorted(_IN_FILE))
            raise BadSettings(f"The config file {path} has an unknown setting {clean(name, 40)!r}; known: {known}.")
        if name in _NUMBERS and isinstance(value, int) and not isinstance(value, bool):
            raw[name] = str(value)
        elif not isinstance(value, str):
            how = "a whole number, or text in quotes" if name in _NUMBERS else "text in quotes"
            raise BadSettings(f"The setting {name!r} in {path} must be {how}.")
    return raw
