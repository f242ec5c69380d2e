"""One app that starts and stops several times, as sanic-testing's test client does for each request."""

from app import create_app
from config import Config


def test_an_app_serves_again_after_a_stop(config: Config) -> None:
    """A stop sets the worker to draining; the next start must not find it so."""
    app = create_app(config=config)
    app.config.DEPRECATION_FILTER = "ignore"  # of sanic-testing; Sanic would override pytest's filter
    for _ in range(2):
        _, response = app.test_client.get("/health/ready")
        assert response.status == 200
        assert response.headers["connection"] == "keep-alive"
