"""Flask with Flask-JWT-Extended, after its documentation: the stack of the tutorial behind this service."""

import os
from datetime import timedelta

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue
from flask_jwt_extended import JWTManager, create_access_token, jwt_required

app = Flask(__name__)
app.config["JWT_SECRET_KEY"] = os.environ["BENCH_KEY"]
app.config["JWT_ACCESS_TOKEN_EXPIRES"] = timedelta(hours=1)
jwt = JWTManager(app)


@app.route("/auth", methods=["POST"])
def login() -> ResponseReturnValue:
    """Issue a token."""
    return jsonify(access_token=create_access_token(identity=request.json["username"]))


@app.route("/tests/hello")
def hello() -> ResponseReturnValue:
    """Return the public response."""
    return jsonify(Hello="World!")


@app.route("/tests/secret")
@jwt_required()
def secret() -> ResponseReturnValue:
    """Return the response for clients with a valid token."""
    return jsonify(Hello="Secret!")
