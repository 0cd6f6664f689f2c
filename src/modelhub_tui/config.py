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
from modelhub_tui.identifiers import origin
from modelhub_tui.limit_texts import LIMIT_TEXTS, limits_env, read_limits
from modelhub_tui.paths import expanded
from modelhub_tui.small_files import read_small
from modelhub_tui.untrusted import clean, clean_url, encodable
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
    Setting(
        "log_format",
        "MODELHUB_LOG_FORMAT",
        "how the service and the node write their logs: `text`, or `json`, an object on each line",
        default="text",
    ),
    Setting(
        "metrics",
        "MODELHUB_METRICS",
        "who may read GET /metrics: `key`, who has a key; `open`, everybody who can connect",
        default="key",
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
_FILE_LIMIT_BYTES = 64_000
"""For a few settings. TOML is a costly format: a megabyte of dots takes a minute to read."""
_KEY_LIMIT_BYTES = 10_000
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
    key_of: str | None = None
    """The router that the key was set beside: it is that one's, and no service's of ours. None if it stands alone."""
    catalog: Path | None = None
    theme: str | None = None
    limits: Limits = field(default_factory=Limits)
    """What a service of ours starts with; those of one that runs are changed with `modelhub limits`."""
    notice: str = ""
    """A sentence that people should be told: an API key was set, but is for another router."""

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
    _home(env)
    explicit = flags.get("config") or env.get("MODELHUB_CONFIG")
    file = _read_file(_path(explicit, env) if explicit else _usual_file(env), bool(explicit))

    def pick(name: str) -> str | None:
        variable = next(each.env for each in SETTINGS if each.name == name)
        return flags.get(name) or env.get(variable) or file.get(name) or None

    router = _url(said, "the router") if (said := pick("router")) else None
    catalog, state, cache = pick("catalog"), pick("state_dir"), pick("cache_dir")
    key, key_of, notice = _said_key(router, flags, env, file)
    return Settings(
        state_dir=_path(state, env) if state else _xdg(env, "STATE", ".local/state"),
        cache_dir=_path(cache, env) if cache else _xdg(env, "CACHE", ".cache"),
        hub_cache=hf_paths(env)["HF_HUB_CACHE"],
        hf_endpoint=_url(env.get("HF_ENDPOINT") or DEFAULT_ENDPOINT, "HF_ENDPOINT"),
        router=router,
        api_key=_key(key),
        key_of=key_of,
        catalog=_path(catalog, env) if catalog else None,
        theme=pick("theme"),
        limits=_limits(env, file),
        notice=notice,
    )


def hf_paths(env: Mapping[str, str]) -> dict[str, Path]:
    """Where `huggingface_hub` keeps what it shares with us, by variable; absolute, as a child starts elsewhere.

    Raises:
        BadSettings: One of them cannot be a path.
    """
    default = f"{env.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    home = _path(env.get("HF_HOME") or default, env)
    # As the library has it, what is derived from HF_HOME is expanded once more.
    cache = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    token = env.get("HF_TOKEN_PATH") or f"{home}/token"
    return {"HF_HOME": home, "HF_HUB_CACHE": _path(cache, env), "HF_TOKEN_PATH": _path(token, env)}


def child_env(settings: Settings, env: Mapping[str, str]) -> dict[str, str]:
    """What tells a process of ours these settings: full paths, as it starts in another folder."""
    said = {name: str(path) for name, path in hf_paths(env).items() if env.get(name)}
    paths = {
        "MODELHUB_STATE_DIR": settings.state_dir,
        "MODELHUB_CACHE_DIR": settings.cache_dir,
        "HF_HUB_CACHE": settings.hub_cache,
        **({"MODELHUB_CATALOG": settings.catalog} if settings.catalog else {}),
    }
    for name, path in paths.items():
        said[name] = str(path)
        if "$" in said[name]:
            # It expands what it reads, and so does the library: a dollar sign of the name itself is no variable's.
            said |= {name: said[name].replace("$", "${MODELHUB_DOLLAR}"), "MODELHUB_DOLLAR": "$"}
    return {**said, "HF_ENDPOINT": settings.hf_endpoint, **limits_env(settings.limits)}


def origins(flags: Mapping[str, str | None] | None = None, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where each setting comes from, by its name: `flag`, `environment`, `file` or `default`. Never fails."""
    env = os.environ if env is None else env
    flags = {name: value for name, value in (flags or {}).items() if value}
    file: dict[str, str] = {}
    with contextlib.suppress(BadSettings):
        explicit = flags.get("config") or env.get("MODELHUB_CONFIG")
        file = _read_file(_path(explicit, env) if explicit else _usual_file(env), bool(explicit))
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


def _usual_file(env: Mapping[str, str]) -> Path:
    return _xdg(env, "CONFIG", ".config") / "config.toml"


def _xdg(env: Mapping[str, str], kind: str, default: str) -> Path:
    """Our folder under an XDG base directory. Source: the XDG Base Directory Specification."""
    base = expanded(env.get(f"XDG_{kind}_HOME", ""), env)
    return _sayable(Path(base) if base.startswith("/") else _home(env) / default) / "modelhub"


def _home(env: Mapping[str, str]) -> Path:
    try:
        return Path(env.get("HOME") or Path.home())
    except RuntimeError as error:  # a user id without an account, as in some containers
        raise BadSettings("There is no home folder for this user; set HOME.") from error


def _sayable(path: Path) -> Path:
    """The path, if it can be told to a service and a node: JSON and databases hold no bytes that are not UTF-8."""
    if encodable(str(path)) != str(path):
        raise BadSettings(f"The name of the folder or file {clean(path, 80)} is not UTF-8; choose another.")
    return path


def _path(text: str, env: Mapping[str, str]) -> Path:
    """An absolute path; `~` and variables are expanded."""
    if "\0" in text:
        raise BadSettings(f"{clean(text, 80)!r} is no path; leave out the control characters.")
    path = _sayable(Path(expanded(text, env)))
    try:
        return path if path.is_absolute() else Path.cwd() / path
    except FileNotFoundError as error:
        what = f"{clean(text, 80)!r} is meant from a folder that is gone"
        raise BadSettings(f"{what}; change to another, or give a full path.") from error


def _said_key(
    router: str | None, flags: Mapping[str, str | None], env: Mapping[str, str], file: Mapping[str, str]
) -> tuple[str | None, str | None, str]:
    """The API key of the first source that has one for the router in force, the router it was set beside, and a
    sentence on one that is for another.

    A key that stands beside a router belongs to that router; one that stands alone goes with whichever is in force.
    """
    in_env = {name: env.get(f"MODELHUB_{name.upper()}") for name in ("router", "api_key", "api_key_file")}
    notice = ""
    for source, said in (("the flags", flags), ("the environment", in_env), ("the config file", file)):
        key, path, beside = said.get("api_key"), said.get("api_key_file"), said.get("router")
        if not (key or path):
            continue
        if beside and router and not _same_origin(beside, router):
            whose = clean_url(beside) or "another router"
            notice = notice or f"The API key in {source} is for {whose}, set beside it, and is not sent to {router}."
            continue
        return key or _read_key(_path(path or "", env)), beside or None, notice
    return None, None, notice


def _same_origin(one: str, other: str) -> bool:
    try:
        return origin(_url(one, "the router")) == origin(other)
    except (BadSettings, ValueError):
        return False


def _read_key(path: Path) -> str:
    """The key that a file holds."""
    try:
        text = read_small(path, _KEY_LIMIT_BYTES, follow_links=True).decode("latin-1").strip()
    except OSError as error:
        raise BadSettings(f"The key file {clean(path, 200)} cannot be read ({error.strerror}).") from error
    if not text or len(text.split()) > 1:
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
    wrong = BadSettings(f"{clean_url(text)!r} is no URL for {name}; it looks like http://host:port.")
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
    shown = clean(path, 200)
    try:
        said = read_small(path, _FILE_LIMIT_BYTES, follow_links=True)
    except FileNotFoundError:
        if explicit:
            raise BadSettings(f"There is no config file {shown}.") from None
        return {}
    except OSError as error:
        raise BadSettings(f"The config file {shown} cannot be read ({error.strerror}).") from error
    import tomllib  # most have no file

    try:
        raw = tomllib.loads(said.decode("utf-8-sig"))  # some editors begin with a mark
    except UnicodeDecodeError as error:
        raise BadSettings(f"The config file {shown} cannot be read (not UTF-8).") from error
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"The config file {shown} is not valid TOML: {clean(error)}.") from error
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"
        raise BadSettings(f"The config file {shown} cannot be read ({why}).") from error
    for name, value in raw.items():
        if name not in _IN_FILE:
            known = ", ".join(sorted(_IN_FILE))
            raise BadSettings(f"The config file {shown} has an unknown setting {clean(name, 40)!r}; known: {known}.")
        if name in _NUMBERS and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64:
            raw[name] = str(value)
        elif not isinstance(value, str):
            how = "a whole number, or text in quotes" if name in _NUMBERS else "text in quotes"
            raise BadSettings(f"The setting {name!r} in {shown} must be {how}.")
    return raw
