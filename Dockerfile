# The service as an image: the locked requirements, app/ and config/, nothing else. scripts/image builds it and tries it.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
COPY requirements.txt /
# Wheels alone, so that no package's own code runs while the image is built; pip stays behind.
RUN python3 -m venv --without-pip /venv && \
    python3 -m pip --python /venv/bin/python install --no-cache-dir --require-hashes --only-binary=:all: -r /requirements.txt
COPY app /srv/app
COPY config /srv/config
# Whatever the checkout's umask was, the service can read itself; and what it could not write later is compiled now.
RUN chmod -R u=rwX,go=rX /srv && /venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /srv

FROM ${BASE}
COPY --from=build /venv /venv
COPY --from=build /srv /srv
WORKDIR /srv
ENV APP_ENV=production PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# A number, so that whoever runs it can tell that it is not root. All files are root's, and only /tmp must be writable.
USER 10001:10001
EXPOSE 8000
# Live, not ready: without its database the service answers 503, and killing it would not bring the database back.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-I", "-c", \
    "import sys, http.client as http; api = http.HTTPConnection('127.0.0.1', 8000, timeout=4); api.request('GET', '/health/live'); sys.exit(api.getresponse().status != 200)"]
# No shell between, so that SIGTERM reaches Sanic, which then drains. Run it with --init: the kernel keeps from a process
# with pid 1 every signal that it has not asked for yet, so a stop during the first half second would not be heard.
# Other commands have the same settings: sanic app exec create-admin --username=root
CMD ["sanic", "app", "--host=0.0.0.0", "--port=8000", "--workers=2", "--no-motd"]
