# The image contains the locked requirements, app/ and config/, and nothing else. scripts/image builds and tests it.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
COPY requirements.txt /
# Only wheels, so that no code of a package runs during the build. The final image contains no pip.
RUN python3 -m venv --without-pip /venv && \
    python3 -m pip --python /venv/bin/python install --no-cache-dir --require-hashes --only-binary=:all: -r /requirements.txt
COPY app /srv/app
COPY config /srv/config
# Make the code readable independent of the checkout's umask, and compile it now: the service cannot write .pyc files.
RUN chmod -R u=rwX,go=rX /srv && /venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /srv

FROM ${BASE}
COPY --from=build /venv /venv
COPY --from=build /srv /srv
WORKDIR /srv
ENV APP_ENV=production PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# `docker stop` kills after 10 seconds. Without a load balancer nothing is gained by waiting before requests are completed,
# so a stop takes at most DRAIN_SECONDS + GRACEFUL_SHUTDOWN_TIMEOUT + 5. Behind a load balancer set both, and a longer
# time until the kill, as docker-compose.cluster.yml does.
ENV APP_DRAIN_SECONDS=0 APP_GRACEFUL_SHUTDOWN_TIMEOUT=3
# A numeric user, so that the container runtime can verify that it is not root. Root owns all files; only /tmp must be
# writable.
USER 10001:10001
EXPOSE 8000
# Liveness, not readiness: without its database the service answers 503, and a restart would not bring the database back.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-I", "-c", \
    "import sys, http.client as http; api = http.HTTPConnection('127.0.0.1', 8000, timeout=4); api.request('GET', '/health/live'); sys.exit(api.getresponse().status != 200)"]
# Exec form without a shell, so that Sanic receives SIGTERM and drains. Run it with --init: the kernel discards signals to
# PID 1 for which no handler is installed yet, so a stop during the first half second would have no effect.
# Other commands use the same settings: sanic app exec create-admin --username=root
CMD ["sanic", "app", "--host=0.0.0.0", "--port=8000", "--workers=2", "--no-motd"]
# At the end, because a change of the revision would rebuild everything that follows.
ARG REVISION=unknown
LABEL org.opencontainers.image.title="sanic_api_demo" \
    org.opencontainers.image.description="An asynchronous JSON API with user accounts, on Sanic and MongoDB" \
    org.opencontainers.image.version="1.0.0" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="MIT"
