"""Tests with promtool: the Prometheus configuration is valid, and each alert fires only under its condition."""

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
def test_promtool_accepts_the_configuration_and_the_alerting_rules(arguments: list[str]) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is not installed: apt-get install prometheus"
    subprocess.run([promtool, *arguments], cwd=MONITORING, check=True, timeout=60)
