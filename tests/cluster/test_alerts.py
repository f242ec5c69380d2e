"""Prometheus's own tool on the alerts that are shipped: they fire when they should, and only then."""

import shutil
import subprocess

import pytest

from tests.serving import CHECKOUT

MONITORING = CHECKOUT / "deploy" / "monitoring"


@pytest.mark.parametrize(
    "arguments",
    [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]],
    ids=" ".join,
)
def test_promtool_has_nothing_against_them(arguments: list[str]) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "no promtool on this machine: apt-get install prometheus"
    subprocess.run([promtool, *arguments], cwd=MONITORING, check=True, timeout=60)
