"""Update the Swagger UI that is served at /docs: python -m tools.swagger_ui [VERSION]; needs npm.

No package on PyPI has a recent Swagger UI without a web framework. The files are copied from npm without changes.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "swagger-ui-dist"
FOLDER = Path(__file__).parent.parent / "app" / "openapi" / "swagger_ui"
FILES = ["swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png", "LICENSE", "NOTICE"]
MANIFEST = "manifest.json"


def fetch(version: str, into: Path) -> Path:
    """Download a version and return the archive. npm verifies its integrity. Raises CalledProcessError."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(into), f"{PACKAGE}@{version}"]
    packed = subprocess.run(command, check=True, capture_output=True, text=True)
    return into / packed.stdout.strip()


def install(archive: Path) -> str:
    """Replace the files by those in the archive, write the manifest, and return the version."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    digests = {}
    with tarfile.open(archive) as packed:

        def read(name: str) -> bytes:
            member = packed.extractfile(f"package/{name}")
            if member is None:
                raise KeyError(name)
            return member.read()

        version = str(json.loads(read("package.json"))["version"])
        for name in FILES:
            (FOLDER / name).write_bytes(read(name))
            digests[name] = hashlib.sha256(read(name)).hexdigest()
    manifest = {"package": PACKAGE, "version": version, "sha256": digests}
    (FOLDER / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return version


def main() -> int:
    """Download and replace the files. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.swagger_ui", description=__doc__)
    parser.add_argument("version", nargs="?", default="latest", help="the version to install; default: the latest")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            version = install(fetch(options.version, Path(folder)))
        except FileNotFoundError:
            print("swagger_ui: npm is missing: apt-get install npm", file=sys.stderr)
            return 1
        except subprocess.CalledProcessError as error:
            reason = error.stderr.strip()
            print(f"swagger_ui: npm cannot download {PACKAGE}@{options.version}: {reason}", file=sys.stderr)
            return 1
    print(f"Installed {PACKAGE} {version} in {FOLDER}; now run scripts/test browser")
    return 0


if __name__ == "__main__":
    sys.exit(main())
