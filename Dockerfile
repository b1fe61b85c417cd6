# `regnet serve` on port 8000, by a user who is not root: docs/serve-operations.md says how to run it.
FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
WORKDIR /source
COPY pyproject.toml hatch_build.py constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
RUN --mount=type=bind,from=build,source=/,target=/build \
    pip install --no-cache-dir -c /build/source/constraints.txt "$(ls /build/wheels/*.whl)[serve]"
RUN useradd --uid 10001 --create-home regnet && install --directory --owner regnet /cache
USER regnet
ENV REGNET_CACHE=/cache
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=5)"]
ENTRYPOINT ["regnet", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["bundled"]
