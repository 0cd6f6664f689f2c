"""Which certificates are accepted: one context for everybody, and one sentence for a certificate that is not.

`ssl` is imported inside: the first picture and `modelhub list` are over before anybody needs it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from modelhub_tui.errors import NoWay
from modelhub_tui.untrusted import clean

if TYPE_CHECKING:
    import ssl

_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""A file or a folder, in force where neither SSL_CERT_FILE nor SSL_CERT_DIR is set."""
_MOST_BYTES = 16 * 1024 * 1024
_NOT_NOW = frozenset({9, 10})
"""X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED."""
_OTHER_NAME = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH."""


class BadCertificates(NoWay):
    """The environment names certificates that cannot be read."""


class CertificateRefused(NoWay):
    """The other side shows a certificate that is not accepted."""


def context() -> ssl.SSLContext:
    """Make a context, which takes 20 ms: with the certificates that the environment names and no others; else with
    those of the system and of certifi.

    Raises:
        BadCertificates: What the environment names cannot be read.
    """
    import ssl

    file, folder = _named("SSL_CERT_FILE"), _named("SSL_CERT_DIR")
    if file is None and folder is None:
        bundle = next((said for name in _BUNDLES if (said := _named(name))), None)
        if bundle is not None:
            file, folder = (None, bundle) if Path(bundle[1]).is_dir() else (bundle, None)
    if file is None and folder is None:
        import certifi

        made = ssl.create_default_context()
        made.load_verify_locations(cafile=certifi.where())
        return made
    if file is not None:
        _check_file(*file)
    if folder is not None and not any(Path(each).is_dir() for each in folder[1].split(os.pathsep)):
        raise BadCertificates(f"{folder[0]} names {clean(folder[1], 200)}, which is no folder.")
    try:
        return ssl.create_default_context(cafile=file and file[1], capath=folder and folder[1])
    except (ssl.SSLError, OSError, ValueError) as error:
        name, path = file or folder or ("", "")
        raise BadCertificates(f"{name} names {clean(path, 200)}, which holds no certificate in PEM form.") from error


def context_for(url: str) -> ssl.SSLContext:
    """`context()` for https. For plain HTTP a bare one, which trusts nobody: it costs nothing and can leak nothing."""
    import ssl

    return context() if url.lower().startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def use_for_libraries() -> None:
    """Let libraries that are not in Python, which know SSL_CERT_FILE and SSL_CERT_DIR alone, accept the same."""
    if _named("SSL_CERT_FILE") is None and _named("SSL_CERT_DIR") is None:
        bundle = next((said for name in _BUNDLES if (said := _named(name))), None)
        if bundle is not None:
            os.environ["SSL_CERT_DIR" if Path(bundle[1]).is_dir() else "SSL_CERT_FILE"] = bundle[1]


def refusal(error: BaseException, host: str) -> CertificateRefused | None:
    """What to say of a failed request, if a certificate is behind it; None if not.

    Args:
        error: Whatever a library made of it: what lies behind it is looked through.
        host: Of the request.
    """
    import ssl

    at: BaseException | None = error
    for _ in range(10):
        if isinstance(at, ssl.SSLCertVerificationError):
            return CertificateRefused(_sentence(at, host))
        at = at and (at.__cause__ or at.__context__)
    return None


def _sentence(error: ssl.SSLCertVerificationError, host: str) -> str:
    code = getattr(error, "verify_code", 0)
    reason = clean(getattr(error, "verify_message", "") or error.reason or "", 120).rstrip(".")
    todo = "set SSL_CERT_FILE to its CA"
    if code in _NOT_NOW:
        todo = "check this machine's clock, or have the certificate renewed"
    elif code in _OTHER_NAME:
        todo = "use the name that it is made out to"
    return f"The certificate of {clean(host, 120)} is not accepted ({reason}); {todo}."


def _named(variable: str) -> tuple[str, str] | None:
    """A variable that is set, and its value."""
    said = os.environ.get(variable)
    return (variable, said) if said else None


def _check_file(variable: str, path: str) -> None:
    """A device or a pipe would never end."""
    try:
        told = os.stat(path)  # noqa: PTH116  (a NUL in it is a ValueError here too)
    except (OSError, ValueError) as error:
        why = clean(getattr(error, "strerror", None) or "no path", 60)
        raise BadCertificates(f"{variable} names {clean(path, 200)}, which cannot be read ({why}).") from error
    if not stat.S_ISREG(told.st_mode) or told.st_size > _MOST_BYTES or not os.access(path, os.R_OK):
        raise BadCertificates(f"{variable} names {clean(path, 200)}, which is no readable file of certificates.")
