"""Renew the Swagger UI that is served at /docs: python -m tools.swagger_ui [VERSION]; needs npm.

No package on PyPI carries a recent one without a web framework beside it. The files are npm's, byte for byte.
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
FOLDER = Path(__file__).parent.parent / "app" / "docs" / "swagger_ui"
FILES = ["swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png", "LICENSE", "NOTICE"]
MANIFEST = "manifest.json"


def fetch(version: str, into: Path) -> Path:
    """Download a version, whose integrity npm verifies, and return the archive. Raises CalledProcessError."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(into), f"{PACKAGE}@{version}"]
    packed = subprocess.run(command, check=True, capture_output=True, text=True)
    return into / packed.stdout.strip()


def renew(archive: Path) -> str:
    """Replace the files by the archive's, write down what they are, and return their version."""
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
    """Fetch and replace."""
    parser = argparse.ArgumentParser(prog="python -m tools.swagger_ui", description=__doc__)
    parser.add_argument("version", nargs="?", default="latest", help="which version; the latest if none is named")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            version = renew(fetch(options.version, Path(folder)))
        except FileNotFoundError:
            print("swagger_ui: npm is needed: apt-get install npm", file=sys.stderr)
            return 1
        except subprocess.CalledProcessError as error:
            print(f"swagger_ui: npm cannot fetch {PACKAGE}@{options.version}: {error.stderr.strip()}", file=sys.stderr)
            return 1
    print(f"{PACKAGE} {version} is in {FOLDER}; run scripts/test browser")
    return 0


if __name__ == "__main__":
    sys.exit(main())
