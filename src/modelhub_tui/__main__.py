"""The `modelhub` command. Starts with the two modules every interpreter has loaded; everything else comes when needed.

Without a subcommand it opens the dashboard, and the order is what makes that instant: the last session's screen goes to
the terminal first, Textual is imported after it.
"""

from __future__ import annotations

import os
import sys

from modelhub_tui.paths import expanded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Flags that go with the dashboard, by the name of the setting they set. All take a value.
_FLAGS = {
    "--router": "router",
    "--api-key": "api_key",
    "--catalog": "catalog",
    "--theme": "theme",
    "--config": "config",
}


def main() -> int:
    """Run the command with the arguments of this process; return its exit code."""
    _open_closed_streams()
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"]):
        from modelhub_tui import __version__

        try:
            os.write(1, f"modelhub {__version__}\n".encode())
        except OSError as error:
            _say(f"The output cannot be written: {error.strerror}.")
            return 1
        return 0
    flags = dashboard_flags(arguments)
    if flags is None:
        import gc

        # Nearly all that a short command allocates are modules, which stay: collecting is a tenth of what it takes.
        gc.set_threshold(100_000)
        from modelhub_tui.cli import main as command_line

        return command_line(arguments)
    if not (os.isatty(0) and os.isatty(1)):
        _say("The dashboard needs a terminal. `modelhub list` prints the models without one.")
        return 2
    return _dashboard(flags)


def dashboard_flags(arguments: list[str]) -> dict[str, str] | None:
    """Return the settings given by flags, if the arguments hold nothing else; None leaves them to the command line."""
    flags: dict[str, str] = {}
    rest = list(reversed(arguments))
    while rest:
        name, equals, value = rest.pop().partition("=")
        if name not in _FLAGS or not (equals or rest):
            return None
        flags[_FLAGS[name]] = value if equals else rest.pop()
    return flags


def _dashboard(flags: dict[str, str]) -> int:
    """Open the dashboard; whatever happens, the terminal is given back as it was."""
    # Both are read when Textual is imported. Its 60 frames a second would make a key wait up to 16 ms for its paint.
    os.environ.setdefault("TEXTUAL_FPS", "240")
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    import gc

    # Nearly everything allocated up to the first frame stays: collecting it again and again costs a tenth of the start.
    gc.disable()
    from modelhub_tui.terminal import instant

    error: BaseException | None = None
    try:
        folder, key = picture_place(flags, os.environ)
        instant.begin(folder, key)
        from modelhub_tui.cli.trouble import log_to_file
        from modelhub_tui.config import load_settings

        settings = load_settings(flags)
        log_to_file(settings)
        from modelhub_tui.cli.tui import run_tui

        return run_tui(settings, picture_key=key)
    except KeyboardInterrupt:
        return 130
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except BaseException as caught:
        error = caught
    finally:
        instant.restore()
    from modelhub_tui.cli.trouble import exit_code
    from modelhub_tui.errors import explain

    _say(str(explain(error)))
    return exit_code(error)


def picture_place(flags: Mapping[str, str], env: Mapping[str, str]) -> tuple[str, str]:
    """Where the last screen is kept, and the key it must have been kept under.

    Says the same as `modelhub_tui.config` about the cache folder, without importing it: that, and reading TOML, costs
    more than showing the picture. Only a config file that may set the folder is read in full.
    """
    from modelhub_tui import __version__
    from modelhub_tui.terminal import instant

    def path(text: str) -> str:
        said = expanded(text, env)
        return said if said.startswith("/") else f"{os.getcwd()}/{said}"  # noqa: PTH109

    home = env.get("HOME") or os.path.expanduser("~")  # noqa: PTH111
    explicit = flags.get("config") or env.get("MODELHUB_CONFIG")
    config = path(explicit) if explicit else f"{_base(env, home, 'CONFIG', '.config')}/config.toml"
    chosen = env.get("MODELHUB_CACHE_DIR")
    folder = path(chosen) if chosen else _base(env, home, "CACHE", ".cache")
    try:
        fd = os.open(config, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if b"cache_dir" in os.read(fd, 100_000):
                from modelhub_tui.config import load_settings

                folder = str(load_settings(flags, env).cache_dir)
        finally:
            os.close(fd)
    except OSError:
        pass  # no config file
    here = __file__.rpartition("/")[0]
    chosen = flags.get("catalog") or env.get("MODELHUB_CATALOG")
    catalogs = (path(chosen),) if chosen else (f"{here}/catalog.yaml", f"{here}/../../catalog.yaml")
    given = [f"{name}={value}" for name, value in sorted(flags.items()) if name != "api_key"]
    return folder, instant.identity(__version__, env, given, (config, *catalogs))


def _base(env: Mapping[str, str], home: str, kind: str, default: str) -> str:
    said = expanded(env.get(f"XDG_{kind}_HOME", ""), env)
    return f"{said if said.startswith('/') else f'{home}/{default}'}/modelhub"


def _open_closed_streams() -> None:
    """Put the null device where a standard stream was closed: the next file opened would be taken for it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                # The lowest free number is this one, since those below are open.
                setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "w" if number else "r"))


def _say(sentence: str) -> None:
    from modelhub_tui.untrusted import printable

    try:
        os.write(2, f"modelhub: {printable(sentence)}\n".encode(errors="replace"))
    except OSError:
        pass  # nobody can be told


if __name__ == "__main__":
    sys.exit(main())
