"""The differences between development, testing and production."""

from typing import Annotated, Literal

from pydantic import Field

from config.base import Config
from config.product import NAME


class DevelopmentConfig(Config):
    """A laptop: an access log, and a MongoDB on the same machine.

    DEBUG only names the environment.
    """

    DEBUG: bool = True
    ACCESS_LOG: bool = True


class TestingConfig(Config):
    """The test suite: a separate database.

    TESTING only names the environment.
    """

    TESTING: bool = True
    MONGO_URI: str = Field(default=f"mongodb://127.0.0.1:27017/{NAME}_test", repr=False)


class ProductionConfig(Config):
    """Production: no DEBUG, no default database, longer passwords, a JSON log, a drain before the stop."""

    DEBUG: Literal[False] = False
    MONGO_URI: str = Field(repr=False)
    LOG_FORMAT: Literal["text", "json"] = "json"
    DRAIN_SECONDS: Annotated[float, Field(ge=0)] = 10  # a load balancer that probes every 5 has noticed
    # NIST SP 800-63B-4 section 3.1.1.2, where the password is the only factor
    PASSWORD_MIN_LENGTH: Annotated[int, Field(ge=8, le=64)] = 15


ENVIRONMENTS: dict[str, type[Config]] = {
    "development": DevelopmentConfig,
    "testing": TestingConfig,
    "production": ProductionConfig,
}
