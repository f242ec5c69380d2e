"""The name of the product, in the only place of the code; `scripts/rename` changes it everywhere else, too."""

NAME = "sanic_api_demo"  # of the app, the database and the package
SLUG = NAME.replace("_", "-")  # in tokens: the issuer, the audience, the purpose of derived keys
SECOND_FACTOR_GRANT = f"urn:{SLUG}:second-factor"  # a grant type (RFC 6749 section 4.5)
