# syntax=docker/dockerfile:1
# A server on CPU: docker build -t polyfuse . && docker run --rm -p 8000:8000 -v "$PWD/runs:/runs:ro" polyfuse serve /runs/mine --host 0.0.0.0
FROM python:3.11-slim AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/polyfuse
ENV PATH=/opt/polyfuse/bin:$PATH
WORKDIR /build
COPY requirements.lock ./
# First, and from its own index: elsewhere the wheel of torch brings gigabytes of CUDA. A layer that rarely changes.
RUN pip install --no-deps --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' requirements.lock)"
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --constraint requirements.lock ".[serve,ui,report]" \
 && pip uninstall --yes pip

FROM python:3.11-slim

RUN useradd --uid 10001 --no-create-home --home-dir /work --shell /usr/sbin/nologin polyfuse \
 && install --directory --owner polyfuse /work /log
COPY --from=build /opt/polyfuse /opt/polyfuse
# Nothing is fetched when it runs: an artifact holds its weights.
ENV PATH=/opt/polyfuse/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    POLYFUSE_CACHE=/work/cache \
    MPLCONFIGDIR=/work/matplotlib
USER 10001
WORKDIR /work
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=90s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["polyfuse"]
CMD ["serve", "/runs/current", "--host", "0.0.0.0"]
