"""The tests of the Node verifier in Express, Fastify, node:http and fetch handlers."""

import subprocess

from verifiers.tests.servers import VERIFIERS


def test_the_verifier_works_in_the_frameworks_of_node() -> None:
    tests = sorted((VERIFIERS / "node/tests").glob("*.test.mjs"))
    done = subprocess.run(["node", "--test", *tests], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
