# gpuledger in a container: docs/operating/docker.md says how to run it so that it sees GPUs and processes.
# One file for amd64 and arm64: every dependency has wheels for both, so nothing is compiled.

FROM python:3.13-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY collector collector
COPY gpuledger gpuledger
COPY mcp_server mcp_server
COPY migrations migrations
COPY query query
COPY store store
RUN python -m venv /opt/gpuledger && /opt/gpuledger/bin/pip install --no-cache-dir .

FROM python:3.13-slim-bookworm
# tini passes signals on and reaps what a killed child leaves behind.
# The base image's own releases carry the fixes; a version pinned here would vanish from the mirrors with the next.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/gpuledger --shell /usr/sbin/nologin gpuledger \
    && install --directory --mode 0750 --owner gpuledger --group gpuledger /var/lib/gpuledger
COPY --from=build /opt/gpuledger /opt/gpuledger
ENV PATH=/opt/gpuledger/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    GPULEDGER_DATA=/var/lib/gpuledger
USER 10001:10001
VOLUME /var/lib/gpuledger
EXPOSE 9465 9466
# 200 while sampling goes on; anything else, and no answer, is an exception and exit code 1.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9465/healthz', timeout=4)"]
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["gpuledger", "up"]
