"""What settings switch on. These modules are imported when that is so, and cost nothing otherwise."""

from importlib import import_module

from config import Config


def load(config: Config) -> None:
    """Import what the settings switch on, before workers are forked: they then share its memory."""
    names = []
    if config.ENCRYPTION_KEY:
        names += ["app.capabilities.encryption", "app.capabilities.keys", "app.security.enrolment"]
        if config.passkeys_enabled:
            names.append("app.security.passkeys")
    if config.SMTP_URL:
        names.append("app.capabilities.mail")
    for name in names:
        import_module(name)
