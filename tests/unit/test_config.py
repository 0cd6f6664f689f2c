"""Where settings come from, which source wins, and what is said when one cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub_tui import config
from modelhub_tui.config import SETTINGS, Settings, child_env, hf_paths, load_settings
from modelhub_tui.domain import Limits
from modelhub_tui.errors import BadReference, BadSettings
from modelhub_tui.hub_refs import parse_hub_ref
from modelhub_tui.limit_texts import limits_env
from modelhub_tui.untrusted import clean


def write_config(home: Path, text: str) -> None:
    folder = home / ".config" / "modelhub"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(text, encoding="utf-8")


class TestDefaults:
    def test_everything(self, tmp_path: Path) -> None:
        assert load_settings({}, {"HOME": str(tmp_path)}) == Settings(
            state_dir=tmp_path / ".local/state/modelhub",
            cache_dir=tmp_path / ".cache/modelhub",
            hub_cache=tmp_path / ".cache/huggingface/hub",
        )

    def test_without_a_router_we_are_our_own(self, tmp_path: Path) -> None:
        env = {"HOME": str(tmp_path)}
        assert load_settings({}, env).embedded
        assert not load_settings({"router": "http://x"}, env).embedded

    def test_the_real_environment_is_used_when_none_is_given(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MODELHUB_STATE_DIR", str(tmp_path / "here"))
        assert load_settings().state_dir == tmp_path / "here"

    def test_xdg_folders(self, tmp_path: Path) -> None:
        env = {
            "HOME": str(tmp_path),
            "XDG_STATE_HOME": "/x/state",
            "XDG_CACHE_HOME": "/x/cache",
            "XDG_CONFIG_HOME": str(tmp_path / "conf"),
        }
        (tmp_path / "conf/modelhub").mkdir(parents=True)
        (tmp_path / "conf/modelhub/config.toml").write_text('theme = "nord"')
        settings = load_settings({}, env)
        assert (settings.state_dir, settings.cache_dir) == (Path("/x/state/modelhub"), Path("/x/cache/modelhub"))
        assert settings.hub_cache == Path("/x/cache/huggingface/hub")
        assert settings.theme == "nord"

    def test_a_relative_xdg_folder_is_ignored_as_the_standard_says(self, tmp_path: Path) -> None:
        settings = load_settings({}, {"HOME": str(tmp_path), "XDG_STATE_HOME": "state"})
        assert settings.state_dir == tmp_path / ".local/state/modelhub"

    def test_no_home_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(config.Path, "home", no_home)
        with pytest.raises(BadSettings, match=r"^There is no home folder for this user; set HOME\.$"):
            load_settings({}, {})


class TestPrecedence:
    """Flag, then environment, then file, then default: each setting, one source taken away at a time."""

    @pytest.mark.parametrize(
        ("name", "variable", "values", "default"),
        [
            ("router", "MODELHUB_ROUTER", ("http://flag", "http://env", "http://file"), None),
            ("api_key", "MODELHUB_API_KEY", ("flag", "env", "file"), None),
            ("theme", "MODELHUB_THEME", ("flag", "env", "file"), None),
            ("catalog", "MODELHUB_CATALOG", ("/flag", "/env", "/file"), None),
            ("state_dir", "MODELHUB_STATE_DIR", ("/flag", "/env", "/file"), ".local/state/modelhub"),
            ("cache_dir", "MODELHUB_CACHE_DIR", ("/flag", "/env", "/file"), ".cache/modelhub"),
        ],
    )
    def test_order(
        self, name: str, variable: str, values: tuple[str, str, str], default: str | None, tmp_path: Path
    ) -> None:
        flag, in_env, in_file = values
        flags: dict[str, str | None] = {name: flag}
        env = {"HOME": str(tmp_path), variable: in_env}
        write_config(tmp_path, f'{name} = "{in_file}"')

        def value() -> str:
            return str(getattr(load_settings(flags, env), name))

        assert value() == flag
        flags[name] = None
        assert value() == in_env
        flags[name] = ""
        env[variable] = ""
        assert value() == in_file
        write_config(tmp_path, f'{name} = ""')
        assert value() == (str(tmp_path / default) if default else "None")

    def test_the_config_file_itself(self, tmp_path: Path) -> None:
        for name in ("flag", "env"):
            (tmp_path / name).write_text(f'theme = "{name}"')
        write_config(tmp_path, 'theme = "usual"')
        env = {"HOME": str(tmp_path), "MODELHUB_CONFIG": str(tmp_path / "env")}
        assert load_settings({"config": str(tmp_path / "flag")}, env).theme == "flag"
        assert load_settings({}, env).theme == "env"
        assert load_settings({}, {"HOME": str(tmp_path)}).theme == "usual"

    def test_the_hubs_own_variables(self, tmp_path: Path) -> None:
        env = {"HOME": str(tmp_path), "HF_HOME": "/hf"}
        assert load_settings({}, env).hub_cache == Path("/hf/hub")
        env["HUGGINGFACE_HUB_CACHE"] = "/old"
        assert load_settings({}, env).hub_cache == Path("/old")
        env["HF_HUB_CACHE"] = "/new"
        assert load_settings({}, env).hub_cache == Path("/new")
        env["HF_ENDPOINT"] = "https://mirror.example/hub/"
        assert load_settings({}, env).hf_endpoint == "https://mirror.example/hub"

    def test_every_setting_is_documented_with_the_variable_it_reads(self) -> None:
        assert len({each.env for each in SETTINGS}) == len(SETTINGS)
        assert all(each.help for each in SETTINGS)
        assert {each.name for each in SETTINGS} >= config._IN_FILE


class TestKeyFile:
    def test_the_first_source_that_names_a_key_or_its_file_wins(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("sk_file\n")
        home = {"HOME": str(tmp_path)}
        assert load_settings({"api_key_file": str(tmp_path / "key")}, home).api_key == "sk_file"
        env = {**home, "MODELHUB_API_KEY_FILE": "~/key"}
        assert load_settings({}, env).api_key == "sk_file"
        assert load_settings({"api_key": "sk_flag"}, env).api_key == "sk_flag"
        assert load_settings({}, {**env, "MODELHUB_API_KEY": "sk_env"}).api_key == "sk_env"
        write_config(tmp_path, 'api_key_file = "~/key"')
        assert load_settings({}, home).api_key == "sk_file"

    @pytest.mark.parametrize("text", [None, "", "two words", "x" * 20_000])
    def test_a_file_that_holds_no_key_is_named(self, text: str | None, tmp_path: Path) -> None:
        path = tmp_path / "key"
        if text is not None:
            path.write_text(text)
        with pytest.raises(BadSettings) as caught:
            load_settings({"api_key_file": str(path)}, {"HOME": str(tmp_path)})
        assert str(path) in caught.value.reason


class TestPaths:
    def test_home_and_relative_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        env = {"HOME": "/home/me"}
        for text, path in {
            "~/x.yaml": Path("/home/me/x.yaml"),
            "~": Path("/home/me"),
            "x.yaml": tmp_path / "x.yaml",
            "~other/x": tmp_path / "~other/x",
            "/abs/x": Path("/abs/x"),
        }.items():
            assert load_settings({"catalog": text}, env).catalog == path

    def test_a_working_folder_that_is_gone(self, tmp_path: Path) -> None:
        # In a process of its own, because it loses its working folder.
        gone = tmp_path / "gone"
        gone.mkdir()
        code = (
            "import os, sys\n"
            "from modelhub_tui.config import BadSettings, load_settings\n"
            "os.chdir(sys.argv[1]); os.rmdir(sys.argv[1])\n"
            "print(load_settings({'catalog': '/abs'}, {'HOME': '/h', 'HF_HOME': '/hf'}).catalog)\n"
            "try: load_settings({'catalog': 'rel'}, {'HOME': '/h'})\n"
            "except BadSettings as error: print(error.reason)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(gone)], capture_output=True, text=True, timeout=90, check=True
        )
        assert done.stdout.splitlines() == [
            "/abs",
            "'rel' is meant from a folder that is gone; change to another, or give a full path.",
        ]

    def test_no_path(self, tmp_path: Path) -> None:
        write_config(tmp_path, 'catalog = "a\\u0000b"')
        with pytest.raises(BadSettings, match=r"^'ab' is no path; leave out the control characters\.$"):
            load_settings({}, {"HOME": str(tmp_path)})


class TestRouter:
    @pytest.mark.parametrize(
        ("text", "url"),
        [
            ("http://gpu:8080", "http://gpu:8080"),
            ("https://gpu.example/", "https://gpu.example"),
            ("gpu:8080", "http://gpu:8080"),
            ("gpu", "http://gpu"),
            ("192.168.1.5:32768", "http://192.168.1.5:32768"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("HTTP://gpu", "http://gpu"),
            (" http://gpu/base// ", "http://gpu/base"),
            ("http://gpu/?x=1#y", "http://gpu"),
        ],
    )
    def test_understood(self, text: str, url: str, tmp_path: Path) -> None:
        assert load_settings({"router": text}, {"HOME": str(tmp_path)}).router == url

    NO_URLS = ["http://", "http:// ", "ftp://gpu", "http://gpu:port", "http://gpu:99999", "http://[", "://x", "/"]
    NO_URLS += ["file:///etc/passwd", "http://a b", "http://g\x1b[31mpu", "http://g\u202epu"]

    @pytest.mark.parametrize("text", NO_URLS, ids=ascii)
    def test_no_url(self, text: str, tmp_path: Path) -> None:
        with pytest.raises(BadSettings) as caught:
            load_settings({"router": text}, {"HOME": str(tmp_path)})
        shown = text.replace(":port", ":[hidden]")  # what is no port may be a password
        assert caught.value.reason == f"{clean(shown, 80)!r} is no URL for the router; it looks like http://host:port."

    def test_the_hubs_address_is_checked_too(self, tmp_path: Path) -> None:
        with pytest.raises(
            BadSettings, match=r"^'nope://x' is no URL for HF_ENDPOINT; it looks like http://host:port\.$"
        ):
            load_settings({}, {"HOME": str(tmp_path), "HF_ENDPOINT": "nope://x"})

    def test_a_password_in_the_url_is_refused_and_not_repeated(self, tmp_path: Path) -> None:
        with pytest.raises(BadSettings) as caught:
            load_settings({"router": "http://me:secret@gpu"}, {"HOME": str(tmp_path)})
        assert caught.value.reason == "Leave user name and password out of the URL for the router; use an API key."


class TestKey:
    def test_it_is_trimmed_and_kept_out_of_sight(self, tmp_path: Path) -> None:
        settings = load_settings({}, {"HOME": str(tmp_path), "MODELHUB_API_KEY": " sk_secret\n"})
        assert settings.api_key == "sk_secret"
        assert "sk_secret" not in repr(settings)

    @pytest.mark.parametrize("key", ["a\nb", "a\x1bb", "schlüssel", "a\u200bb"])
    def test_what_no_header_can_carry(self, key: str, tmp_path: Path) -> None:
        with pytest.raises(BadSettings) as caught:
            load_settings({"api_key": key}, {"HOME": str(tmp_path)})
        assert caught.value.reason == "The API key has characters that no key has; copy it again."


class TestFile:
    def test_a_missing_file_is_fine_unless_asked_for(self, tmp_path: Path) -> None:
        load_settings({}, {"HOME": str(tmp_path)})
        with pytest.raises(BadSettings) as caught:
            load_settings({"config": "/none/config.toml"}, {"HOME": str(tmp_path)})
        assert caught.value.reason == "There is no config file /none/config.toml."

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("router", "is not valid TOML: "),
            ('a = "\x1b"', "is not valid TOML: "),
            ('theme = "a"\ntheme = "b"', "is not valid TOML: "),
            (
                'colour = "red"',
                "has an unknown setting 'colour'; known: api_key, api_key_file, bandwidth, cache_dir, catalog, disk_",
            ),
            ('"\\u001b[31m" = "x"', "has an unknown setting '[31m'; known: "),
            ("theme = 5", "The setting 'theme' in "),
            ("router = [1]", "The setting 'router' in "),
            ('hf_token = "x"', "has an unknown setting 'hf_token'; known: "),
        ],
    )
    def test_problems(self, text: str, said: str, tmp_path: Path) -> None:
        write_config(tmp_path, text)
        with pytest.raises(BadSettings) as caught:
            load_settings({}, {"HOME": str(tmp_path)})
        assert said in caught.value.reason
        assert str(tmp_path / ".config/modelhub/config.toml") in caught.value.reason
        assert clean(caught.value.reason, 2_000) == caught.value.reason

    def test_a_number_must_be_text(self, tmp_path: Path) -> None:
        write_config(tmp_path, "theme = 5")
        with pytest.raises(BadSettings, match=r"^The setting 'theme' in .* must be text in quotes\.$"):
            load_settings({}, {"HOME": str(tmp_path)})

    def test_not_utf_8(self, tmp_path: Path) -> None:
        (tmp_path / "c.toml").write_bytes(b'theme = "\xff"')
        with pytest.raises(BadSettings) as caught:
            load_settings({"config": str(tmp_path / "c.toml")}, {"HOME": str(tmp_path)})
        assert caught.value.reason == f"The config file {tmp_path / 'c.toml'} cannot be read (not UTF-8)."

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(BadSettings) as caught:
            load_settings({"config": str(tmp_path)}, {"HOME": str(tmp_path)})
        assert caught.value.reason == f"The config file {tmp_path} cannot be read (it is no regular file)."

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_no_permission(self, tmp_path: Path) -> None:
        write_config(tmp_path, "")
        (tmp_path / ".config/modelhub/config.toml").chmod(0)
        with pytest.raises(BadSettings, match=r"cannot be read \(Permission denied\)"):
            load_settings({}, {"HOME": str(tmp_path)})


class TestLimits:
    def test_defaults(self, tmp_path: Path) -> None:
        assert load_settings({}, {"HOME": str(tmp_path)}).limits == Limits()

    def test_the_file_holds_numbers_and_texts_and_the_environment_wins(self, tmp_path: Path) -> None:
        write_config(
            tmp_path,
            'parallel_transfers = 4\nbandwidth = "50M"\ndisk_floor = "20G"\ntrash_seconds = "2d"\ntrash_size = 1000',
        )
        env = {"HOME": str(tmp_path)}
        assert load_settings({}, env).limits == Limits(4, 50_000_000, 20_000_000_000, 172_800, 1000)
        env |= {"MODELHUB_PARALLEL_TRANSFERS": "1", "MODELHUB_BANDWIDTH": "0", "MODELHUB_TRASH_SECONDS": "30m"}
        assert load_settings({}, env).limits == Limits(1, 0, 20_000_000_000, 1800, 1000)

    @pytest.mark.parametrize(
        ("variable", "text", "said"),
        [
            ("MODELHUB_PARALLEL_TRANSFERS", "0", "'0' is out of range; it must be at least 1."),
            ("MODELHUB_PARALLEL_TRANSFERS", "17", "'17' is out of range; it must be at most 16."),
            ("MODELHUB_PARALLEL_TRANSFERS", "two", "'two' is no whole number."),
            ("MODELHUB_BANDWIDTH", "100", "'100' is out of range; it must be at least 1Ki, or 0."),
            ("MODELHUB_BANDWIDTH", "fast", "'fast' is no size; write it as 500M, 20G or 64GiB, or as a number"),
            ("MODELHUB_TRASH_SECONDS", "1y", "'1y' is no duration; write it as 90s, 30m, 1h or 2d, or as a"),
            ("MODELHUB_TRASH_SECONDS", "5000d", "'5000d' is out of range; it must be at most 3650d."),
        ],
    )
    def test_a_complaint_names_the_variable(self, variable: str, text: str, said: str, tmp_path: Path) -> None:
        with pytest.raises(BadSettings) as caught:
            load_settings({}, {"HOME": str(tmp_path), variable: text})
        assert caught.value.reason.startswith(f"{variable}: {said}")

    @pytest.mark.parametrize("value", ["true", "1.5", "[1]"])
    def test_what_is_no_number_in_the_file(self, value: str, tmp_path: Path) -> None:
        write_config(tmp_path, f"disk_floor = {value}")
        with pytest.raises(BadSettings, match=r"'disk_floor' in .* must be a whole number, or text in quotes\.$"):
            load_settings({}, {"HOME": str(tmp_path)})

    @pytest.mark.parametrize("limits", [Limits(), Limits(16, 1024, 5, 0, 0), Limits(1, 0, 0, 90, 64_000_000_001)])
    def test_a_process_of_ours_starts_with_the_same_limits(self, limits: Limits, tmp_path: Path) -> None:
        assert load_settings({}, {"HOME": str(tmp_path), **limits_env(limits)}).limits == limits


@given(
    st.dictionaries(st.sampled_from([each.name for each in SETTINGS if each.name != "config"]), st.text(max_size=40))
)
def test_no_value_raises_anything_but_a_sentence(flags: dict[str, str]) -> None:
    try:
        load_settings(dict(flags), {"HOME": "/nowhere"})
    except BadSettings as error:
        assert error.reason.endswith(".")
        assert clean(error.reason, 1_000) == error.reason


def test_reading_settings_loads_nothing_heavy() -> None:
    code = "import sys, modelhub_tui.config; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=True)
    assert not {"pydantic", "httpx", "yaml", "textual", "asyncio", "huggingface_hub"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("bandwidth = " + "9" * 6000, "a number is too long"),
        ("bandwidth = 0x" + "f" * 60_000, "must be a whole number"),
        ("bandwidth = -" + "9" * 300, "must be a whole number"),
        ("theme = " + "[" * 20_000, "nested too deeply"),
        ("theme = " + "{a=" * 20_000, "nested too deeply"),
        ("a" + ".a" * 20_000 + " = 1", "unknown setting 'a'"),
        ("[" + "a." * 20_000 + "a]", "unknown setting 'a'"),
        ("# " + "x" * 70_000, "it is larger than 64,000 bytes"),
    ],
    ids=lambda text: text[:16],
)
def test_a_hostile_config_file_is_one_sentence(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(BadSettings) as caught:
        load_settings({"config": str(tmp_path / "c.toml")}, {"HOME": str(tmp_path)})
    assert why in caught.value.reason and len(caught.value.reason) < 500


def test_the_mark_that_some_editors_begin_a_file_with(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b'\xef\xbb\xbftheme = "dark"\r\n')
    assert load_settings({"config": str(tmp_path / "c.toml")}, {"HOME": str(tmp_path)}).theme == "dark"


@pytest.mark.parametrize("name", ["HOME", "XDG_STATE_HOME", "HF_HOME", "HF_HUB_CACHE", "MODELHUB_STATE_DIR"])
def test_a_folder_whose_name_cannot_be_told_is_one_sentence(tmp_path: Path, name: str) -> None:
    """A node could not say where its files are: it would end and start again for ever."""
    folder = os.fsdecode(b"/tmp/caf\xe9")
    with pytest.raises(BadSettings, match=r"^The name of the folder or file /tmp/caf.* is not UTF-8; choose another"):
        load_settings({}, {"HOME": str(tmp_path), name: folder})


@pytest.mark.parametrize("setting", ["config", "api_key_file"])
def test_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path, setting: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (str(tmp_path / "pipe"), "/dev/full", "/dev/null"):
        with pytest.raises(BadSettings, match="cannot be read \\(it is no regular file\\)"):
            load_settings({setting: name}, {"HOME": str(tmp_path)})


SECRET_URLS = [
    "http://user:hunter2@",
    "user:hunter2@",
    "user:hunter2@host",
    "user:hunter%402@host:x",
    "http://user:hunter2",
    "http://user:hunter2/x@host",
    "http://user:hunter2#x@host",
    "http://user:hunter2@host:port",
    "http://u@s:hunter2/@host:port",
    "http://[hunter2@host",
    "ftp://user:hunter2@host",
    "http://:hunter2@:99999",
    "http://host:99999/?key=hunter2",
]


@pytest.mark.parametrize("url", SECRET_URLS)
@pytest.mark.parametrize("name", ["MODELHUB_ROUTER", "HF_ENDPOINT"])
def test_a_malformed_address_does_not_show_its_password(tmp_path: Path, name: str, url: str) -> None:
    with pytest.raises(BadSettings) as caught:
        load_settings({}, {"HOME": str(tmp_path), name: url})
    assert "hunter" not in caught.value.reason
    with pytest.raises(BadReference) as refused:
        parse_hub_ref(url if "://" in url else f"https://{url}")
    assert "hunter" not in refused.value.reason


class TestWhoseKey:
    """A key set beside a router is for that router; one set alone goes with whichever is in force."""

    A, B = "https://a.example", "https://b.example"

    @pytest.mark.parametrize(
        ("flags", "env", "file", "key"),
        [
            ({"router": A}, {}, {"router": B, "api_key": "kB"}, None),
            ({"router": A}, {"router": B, "api_key": "kB"}, {}, None),
            ({"router": A}, {"api_key": "k"}, {"router": B}, "k"),
            ({"router": A}, {}, {"api_key": "k"}, "k"),
            ({"router": A, "api_key": "kA"}, {"router": B, "api_key": "kB"}, {}, "kA"),
            ({"api_key": "k"}, {"router": B, "api_key": "kB"}, {}, "k"),
            ({"router": A}, {"router": B, "api_key": "kB"}, {"api_key": "k"}, "k"),
            ({"router": A}, {"router": B, "api_key": "kB"}, {"router": A, "api_key": "kA"}, "kA"),
            ({}, {"router": A}, {"router": B, "api_key": "kB"}, None),
            ({}, {"api_key": "k"}, {"router": B, "api_key": "kB"}, "k"),
            ({}, {}, {"router": B, "api_key": "kB"}, "kB"),
            ({}, {"api_key": "k"}, {}, "k"),
            ({"router": "HTTPS://A.example.:443/base"}, {}, {"router": A, "api_key": "kA"}, "kA"),
            ({"router": "http://a.example"}, {}, {"router": A, "api_key": "kA"}, None),
            ({"router": "https://a.example:8443"}, {}, {"router": A, "api_key": "kA"}, None),
            ({"router": "https://a.example.evil.example"}, {}, {"router": A, "api_key": "kA"}, None),
            ({"router": "http://[0:0::1]:80"}, {}, {"router": "http://[::1]", "api_key": "k"}, "k"),
            ({"router": "http://[::ffff:10.0.0.1]"}, {}, {"router": "10.0.0.1", "api_key": "k"}, "k"),
            ({"router": A}, {}, {"router": "http://[", "api_key": "k"}, None),
            ({"router": A}, {}, {"router": " ", "api_key": "k"}, None),
        ],
    )
    def test_who_gets_which(
        self, tmp_path: Path, flags: dict[str, str], env: dict[str, str], file: dict[str, str], key: str | None
    ) -> None:
        write_config(tmp_path, "\n".join(f'{name} = "{value}"' for name, value in file.items()))
        variables = {f"MODELHUB_{name.upper()}": value for name, value in env.items()}
        settings = load_settings(dict(flags), {"HOME": str(tmp_path), **variables})
        assert settings.api_key == key
        said = [each["api_key"] for each in (flags, env, file) if each.get("api_key")]
        if key is None:
            assert "is not sent to" in settings.notice and " for ," not in settings.notice
        assert not any(each in settings.notice.split() for each in said)

    def test_a_key_beside_a_router_is_that_routers_and_no_services_of_ours(self, tmp_path: Path) -> None:
        beside = {"HOME": str(tmp_path), "MODELHUB_ROUTER": self.A, "MODELHUB_API_KEY": "kA"}
        assert load_settings({}, beside).key_of == self.A
        assert load_settings({"api_key": "own"}, beside).key_of is None
        assert load_settings({}, {"HOME": str(tmp_path), "MODELHUB_API_KEY": "own"}).key_of is None

    def test_a_key_file_of_another_router_is_not_even_read(self, tmp_path: Path) -> None:
        write_config(tmp_path, f'router = "{self.B}"\napi_key_file = "/nonexistent"')
        settings = load_settings({"router": self.A}, {"HOME": str(tmp_path)})
        assert settings.api_key is None
        assert settings.notice == (
            f"The API key in the config file is for {self.B}, set beside it, and is not sent to {self.A}."
        )


@pytest.mark.parametrize(
    "env",
    [
        {"HF_HOME": "$HOME/x"},
        {"HF_HOME": "${HOME}/x/"},
        {"HF_HOME": "~/x"},
        {"HF_HOME": "~root/x"},
        {"HF_HOME": "~nobody-has-this-name/x"},
        {"HF_HOME": "/a/$UNKNOWN/${UNKNOWN}/$/${"},
        {"HF_HOME": "$ONE", "ONE": "/b/$HOME"},
        {"XDG_CACHE_HOME": "$HOME/y"},
        {"XDG_CACHE_HOME": "~/y"},
        {"HF_HUB_CACHE": "$HOME/z"},
        {"HUGGINGFACE_HUB_CACHE": "~/z", "HF_HOME": "/q"},
        {"HF_TOKEN_PATH": "${HOME}/t", "HF_HOME": "~"},
        {},
    ],
    ids=str,
)
def test_paths_are_expanded_as_the_library_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str]
) -> None:
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], **env}
    code = "from huggingface_hub.constants import *; print(HF_HUB_CACHE, HF_TOKEN_PATH, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=True, env=env, cwd=tmp_path
    )
    told = [Path(tmp_path, each) for each in done.stdout.splitlines()]
    monkeypatch.chdir(tmp_path)
    paths = hf_paths(env)
    assert [paths["HF_HUB_CACHE"], paths["HF_TOKEN_PATH"]] == told
    settings = load_settings({}, env)
    assert settings.hub_cache == paths["HF_HUB_CACHE"]
    # What a process of ours is told means the same to it, wherever it starts.
    assert hf_paths({**env, **child_env(settings, env)})["HF_TOKEN_PATH"] == paths["HF_TOKEN_PATH"]


def test_a_process_of_ours_is_told_the_very_same_settings(tmp_path: Path) -> None:
    odd = tmp_path / "a $HOME ${HOME} $ $$X ~ b"
    settings = Settings(odd / "s", odd / "c", odd / "h", "http://127.0.0.1:9", catalog=odd / "$HOME.yaml")
    env = {"HOME": "/elsewhere", "X": "x"}
    assert load_settings({}, {**env, **child_env(settings, env)}) == settings
    code = "from huggingface_hub.constants import *; print(HF_HUB_CACHE)"
    told = {**env, "PATH": os.environ["PATH"], **child_env(settings, env)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=True, env=told
    )
    assert done.stdout == f"{settings.hub_cache}\n"


@pytest.mark.parametrize("text", ["~/x", "$HOME/x", "${HOME}/x"])
def test_our_own_paths_are_expanded_too(tmp_path: Path, text: str) -> None:
    names = ("MODELHUB_STATE_DIR", "MODELHUB_CACHE_DIR", "MODELHUB_CATALOG")
    home = {"HOME": str(tmp_path)}
    settings = load_settings({}, {**home, **dict.fromkeys(names, text)})
    assert {settings.state_dir, settings.cache_dir, settings.catalog} == {tmp_path / "x"}
    settings = load_settings({}, {**home, "XDG_STATE_HOME": text, "XDG_CACHE_HOME": text})
    assert {settings.state_dir, settings.cache_dir} == {tmp_path / "x/modelhub"}
    (tmp_path / "x").write_text("k")
    assert load_settings({"api_key_file": text}, home).api_key == "k"
