"""The environment of `huggingface_hub`, looked at before the library reads it: it fails, without a name, at its import.

Nothing heavy is imported here: commands ask before they start a service.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from modelhub_tui.config import hf_paths
from modelhub_tui.errors import BadSettings
from modelhub_tui.small_files import NotAPlainFile, read_small
from modelhub_tui.untrusted import clean

log = logging.getLogger(__name__)

TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_WHOLE_NUMBERS = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")
_VERBOSITIES = ("critical", "debug", "error", "info", "warning")
_MOST_TOKEN_BYTES = 10_000


def check(env: Mapping[str, str] | None = None) -> None:
    """Make sure that the library can be used with what it reads from the environment.

    Raises:
        BadSettings: With a sentence that names the variable.
    """
    said = os.environ if env is None else env
    for trouble in _numbers(said):
        raise BadSettings(trouble)


def remarks(env: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong with it, but stops nothing."""
    said = os.environ if env is None else env
    word = said.get("HF_HUB_VERBOSITY", "")
    if word and word not in _VERBOSITIES:
        return [f"HF_HUB_VERBOSITY is {clean(word, 40)!r}, which is none of {', '.join(_VERBOSITIES)}: it is ignored."]
    return []


def token_trouble(env: Mapping[str, str]) -> str:
    """Why the token file cannot be read, where it would be; empty if there is none, or nothing wrong with it."""
    if next(filter(None, map(env.get, TOKEN_VARIABLES)), "").strip():  # the first that is set, as the library has it
        return ""
    path = hf_paths(env)["HF_TOKEN_PATH"]
    shown = clean(path, 160)
    try:
        read_small(path, _MOST_TOKEN_BYTES, follow_links=True).decode()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except UnicodeDecodeError:
        why = "it is no text"
    except NotAPlainFile:
        why = "it is no plain file"
    except OSError as error:
        why = clean(error.strerror or error, 80)
    else:
        return ""
    return f"The token file {shown} (HF_TOKEN_PATH) cannot be read: {why}. Change it, or set HF_TOKEN."


def hub_token() -> str | None:
    """The user's token as the library finds it, for everybody who asks a hub; None if there is none to be had. Blocks.

    The library opens the token file whatever it is: a pipe would hold its caller up for ever, a device fill the memory.
    """
    from huggingface_hub import get_token

    try:
        trouble = token_trouble(os.environ)
        if not trouble:
            return get_token()
    except Exception as error:  # whatever the library raises where it finds no token
        trouble = f"The HuggingFace token cannot be read ({clean(error, 200)})."
    log.warning("%s Going on without one.", trouble)
    return None


def _numbers(env: Mapping[str, str]) -> list[str]:
    """As the library reads them: with `int()`, also where a variable is set to nothing."""
    found = []
    for name in _WHOLE_NUMBERS:
        if name in env:
            try:
                int(env[name])
            except ValueError:
                said = repr(clean(env[name], 40)) if env[name] else "empty"
                found.append(f"{name} is {said}, not a whole number of seconds: change it or unset it.")
    return found
