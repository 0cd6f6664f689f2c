"""The command's first steps: which arguments open the dashboard, and where its picture and keys are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhub_tui.__main__ import dashboard_flags, picture_place
from modelhub_tui.cli.keys import keep_key, kept_key
from modelhub_tui.config import Settings, load_settings
from modelhub_tui.terminal import instant


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        ([], {}),
        (["--router", "http://a"], {"router": "http://a"}),
        (["--router=http://a=b", "--theme", "light"], {"router": "http://a=b", "theme": "light"}),
        (["--api-key=k"], {"api_key": "k"}),
        (["--catalog", "c.yaml", "--config", "x.toml"], {"catalog": "c.yaml", "config": "x.toml"}),
        (["--router"], None),
        (["list"], None),
        (["--router", "http://a", "list"], None),
        (["--help"], None),
        (["--unknown", "x"], None),
        (["-"], None),
    ],
)
def test_only_the_dashboards_own_flags_open_it(arguments: list[str], flags: dict[str, str] | None) -> None:
    assert dashboard_flags(arguments) == flags


@pytest.mark.parametrize(
    ("env", "config"),
    [
        ({}, ""),
        ({"XDG_CACHE_HOME": "/x/cache"}, ""),
        ({"XDG_CACHE_HOME": "relative"}, ""),
        ({"MODELHUB_CACHE_DIR": "/y"}, ""),
        ({"MODELHUB_CACHE_DIR": "~/y"}, ""),
        ({"MODELHUB_CACHE_DIR": "y/z"}, ""),
        ({"MODELHUB_CACHE_DIR": "$HOME/y"}, ""),
        ({"MODELHUB_CACHE_DIR": "${HOME}/y$NONE"}, ""),
        ({"MODELHUB_CACHE_DIR": "~root/y"}, ""),
        ({"MODELHUB_CACHE_DIR": "~"}, ""),
        ({"XDG_CACHE_HOME": "$HOME/y"}, ""),
        ({"XDG_CACHE_HOME": "~/y"}, ""),
        ({}, 'cache_dir = "/from/file"'),
        ({"MODELHUB_CACHE_DIR": "/y"}, 'cache_dir = "/from/file"'),
        ({}, 'theme = "light"  # not the cache_dir'),
    ],
)
def test_the_picture_is_where_the_settings_say(tmp_path: Path, env: dict[str, str], config: str) -> None:
    env = {"HOME": str(tmp_path), **env}
    (tmp_path / ".config/modelhub").mkdir(parents=True)
    if config:
        (tmp_path / ".config/modelhub/config.toml").write_text(config)
    folder, _ = picture_place({}, env)
    assert Path(folder) == load_settings({}, env).cache_dir


def test_the_key_of_a_picture_follows_everything_it_depends_on(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "TERM": "xterm", "MODELHUB_CATALOG": str(tmp_path / "c.yaml")}
    config = tmp_path / ".config/modelhub/config.toml"
    config.parent.mkdir(parents=True)
    keys = [picture_place({}, env)[1], picture_place({"router": "http://a"}, env)[1]]
    keys += [picture_place({}, {**env, name: "x"})[1] for name in ("TERM", "COLORTERM", "MODELHUB_THEME", "LANG")]
    (tmp_path / "c.yaml").write_text("schema: 1")
    keys.append(picture_place({}, env)[1])
    config.write_text('theme = "light"')
    keys.append(picture_place({}, env)[1])
    assert len(set(keys)) == len(keys)
    assert picture_place({}, env)[1] == keys[-1]


def test_no_key_of_a_router_is_in_the_key_of_a_picture(tmp_path: Path) -> None:
    _, key = picture_place({"api_key": "s3cret-1"}, {"HOME": str(tmp_path), "MODELHUB_API_KEY": "s3cret-2"})
    assert "s3cret" not in key


def save(path: Path, **change: object) -> None:
    body = "\x1b[1;1H\x1b[0;1mModel\x1b[2;1H\x1b[0mstatus line  "
    said: dict[str, object] = {"slot": (1, 0, 30), "style": "2;38;2;1;2;3", "heard_at": 1000.0, **change}
    instant.save(str(path), "key", str(said.pop("body", body)), **said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("later_s", "says"),
    [
        (-5, "as of 0 s ago, starting…"),
        (42, "as of 42 s ago, starting…"),
        (240, "as of 4 min ago, starting…"),
        (7200, "as of 2 h ago, starting…"),
        (260_000, "as of 3 days ago, starting…"),
    ],
)
def test_a_picture_says_how_old_it_is(tmp_path: Path, later_s: float, says: str) -> None:
    save(tmp_path / "p")
    shown = instant.load(str(tmp_path / "p"), "key", 1000 + later_s)
    assert shown is not None
    assert f"\x1b[2;1H\x1b[0;2;38;2;1;2;3m{says.ljust(30)}\x1b[0m" in shown
    assert (tmp_path / "p").stat().st_mode & 0o777 == 0o600


def test_a_picture_of_nothing_heard_says_starting(tmp_path: Path) -> None:
    save(tmp_path / "p", heard_at=None)
    assert "mstarting…   " in (instant.load(str(tmp_path / "p"), "key", 5.0) or "")


def test_a_picture_for_something_else_is_not_loaded(tmp_path: Path) -> None:
    save(tmp_path / "p")
    assert instant.load(str(tmp_path / "p"), "other", 1000) is None
    assert instant.load(str(tmp_path / "none"), "key", 1000) is None


@pytest.mark.parametrize(
    "body", ["\x1b]0;x\x07", "\x1b[2J", "a\nb", "\x1b[1;1Ha\x9b", "\x1b[?25h", "\x1b[1;1H\u202e", "x"]
)
def test_a_picture_that_would_do_more_than_show_is_neither_kept_nor_shown(tmp_path: Path, body: str) -> None:
    save(tmp_path / "p", body=body)
    assert not (tmp_path / "p").exists()
    save(tmp_path / "p")
    path = tmp_path / "p"
    path.write_bytes(path.read_bytes() + body.encode())
    assert instant.load(str(path), "key", 1000) is None or body == "x"


def test_a_picture_with_an_evil_place_is_not_shown(tmp_path: Path) -> None:
    save(tmp_path / "p", style="0m\x1b]52;c;x\x07\x1b[0")
    assert instant.load(str(tmp_path / "p"), "key", 1000) is None


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="\x1b[]?;0123456789HmJKaé\x07\x9b\u200b\n", max_size=30))
def test_what_passes_for_safe_can_only_position_colour_and_print(text: str) -> None:
    if instant.is_safe(text):
        for piece in text.split("\x1b")[1:]:
            assert piece[0] == "["
            assert piece.lstrip("[0123456789;")[0] in "Hm"
        assert text.replace("\x1b", "").isprintable()


def test_only_a_few_sizes_are_kept(tmp_path: Path) -> None:
    for width in range(80, 95):
        save(Path(instant.path_for(str(tmp_path), width, 24)))
    assert len(list(tmp_path.iterdir())) == 6
    assert Path(instant.path_for(str(tmp_path), 94, 24)).exists()


def settings_for(tmp_path: Path, router: str | None) -> Settings:
    return Settings(state_dir=tmp_path / "s", cache_dir=tmp_path, hub_cache=tmp_path, router=router)


def test_a_kept_api_key_is_found_again_for_its_router_only(tmp_path: Path) -> None:
    here, there = settings_for(tmp_path, "http://a"), settings_for(tmp_path, "http://b")
    assert kept_key(here) is None
    keep_key(here, "one")
    keep_key(there, "two")
    assert (kept_key(here), kept_key(there)) == ("one", "two")
    path = tmp_path / "s" / "router-keys.json"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_kept_api_key_belongs_to_an_origin_however_it_is_spelt(tmp_path: Path) -> None:
    keep_key(settings_for(tmp_path, "https://router.example:443/base"), "one")
    for same in ("https://router.example", "HTTPS://Router.Example./other", "https://router.example:443"):
        assert kept_key(settings_for(tmp_path, same)) == "one"
    for other in ("http://router.example", "https://router.example:8443", "https://router.example.evil"):
        assert kept_key(settings_for(tmp_path, other)) is None
    path = tmp_path / "s" / "router-keys.json"
    path.write_text(json.dumps({"https://older.example/base": "two", "http://[": "three"}))
    assert kept_key(settings_for(tmp_path, "https://older.example")) == "two", "kept by an earlier version"


def test_a_key_file_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    here = settings_for(tmp_path, "http://a")
    keep_key(here, "one")
    path = tmp_path / "s" / "router-keys.json"
    path.chmod(0o644)
    assert kept_key(here) is None
    path.chmod(0o600)
    path.write_text(json.dumps(["http://a"]))
    assert kept_key(here) is None
