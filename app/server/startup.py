"""What must be right before Sanic starts: refused in one line that names the option or the variable."""

import errno
import os
import socket
import stat
import tempfile
from pathlib import Path

MAX_PORT = 65_535
MAX_WORKERS = 1000
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000  # Sanic's
PORT_ERRORS = (errno.EADDRINUSE, errno.EACCES)  # in use, or reserved for root
# The path of a Unix socket has at most 107 bytes (unix(7)); multiprocessing adds 32 to that of its folder, and Sanic 44
# to the path of --unix, which it binds under another name.
MAX_FOLDER_BYTES = 75
MAX_SOCKET_BYTES = 63


def option_error(options: object) -> str | None:
    """Return why Sanic cannot start with the options of its command line, or None.

    `options` has them as attributes; without any, the app was not made by the command line.
    """
    port, workers = getattr(options, "port", None), getattr(options, "workers", None)
    if port is not None and not 0 < port <= MAX_PORT:
        return f"--port: must be a number from 1 to {MAX_PORT}"
    if workers is not None and not 0 < workers <= MAX_WORKERS:
        return f"--workers: must be a number from 1 to {MAX_WORKERS}"
    unix = getattr(options, "unix", None)
    if unix and (reason := _socket_fault(Path(unix))):
        return f"--unix: {unix} {reason}"
    return _certificate_error(options)


def workers_of(options: object) -> int:
    """Return how many workers the options ask for."""
    if getattr(options, "fast", False):
        return os.cpu_count() or 1
    return getattr(options, "workers", None) or 1


def check_single_process(options: object) -> None:
    """Exit with the reason if a server without worker processes cannot bind its address."""
    if getattr(options, "single", False) and not getattr(options, "unix", None):
        check_free(getattr(options, "host", None) or DEFAULT_HOST, getattr(options, "port", None) or DEFAULT_PORT)


def check_free(host: str, port: int) -> None:
    """Exit with the reason if the address cannot be bound."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen()
    except OSError as error:
        option, reason = "port" if error.errno in PORT_ERRORS else "host", error.strerror
    except UnicodeError:  # a label that is empty or too long (RFC 5891)
        option, reason = "host", "not the name of a host"
    else:
        return
    raise SystemExit(f"{host}:{port} cannot be used ({reason}): choose another with --{option}")


def check_temporary_folder() -> None:
    """Exit with the reason if the processes cannot share files and sockets."""
    try:
        folder = tempfile.gettempdir()
    except OSError:
        raise SystemExit("TMPDIR: no folder for temporary files is writable; in a container, mount a tmpfs") from None
    if len(os.fsencode(folder)) > MAX_FOLDER_BYTES:
        raise SystemExit(f"TMPDIR: the path has more than {MAX_FOLDER_BYTES} bytes, which is too long for sockets")


def _socket_fault(path: Path) -> str | None:
    """Return why a Unix socket cannot be made at a path, or None."""
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        return "cannot be made: its folder does not exist, or is not writable"
    if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
        return "exists, and is not a socket"
    if len(os.fsencode(path.absolute())) > MAX_SOCKET_BYTES:
        return f"has more than {MAX_SOCKET_BYTES} bytes, which is too long for sockets"
    return None


def _certificate_error(options: object) -> str | None:
    """Return the first file of a certificate that cannot be read, or None."""
    files = [("--cert", getattr(options, "cert", None)), ("--key", getattr(options, "key", None))]
    for folder in getattr(options, "tls", None) or ():
        files += [("--tls", Path(folder) / name) for name in ("fullchain.pem", "privkey.pem")]
    unreadable = (f"{option}: {file} cannot be read" for option, file in files if file and not _readable(Path(file)))
    return next(unreadable, None)


def _readable(file: Path) -> bool:
    return file.is_file() and os.access(file, os.R_OK)
