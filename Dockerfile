# docker build --tag stepsight .
# docker run --gpus all --ipc host --volume "$PWD:/work" stepsight train --config smoke
#
# The locked packages; the wheels of torch bring CUDA with them, the host its driver. --ipc host: the
# processes that read data hand over pictures through shared memory, of which a container has 64 MB.
FROM python:3.11-slim
COPY --from=ghcr.io/astral-sh/uv:0.9 /uv /usr/local/bin/uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PROJECT_ENVIRONMENT=/opt/venv
ENV PATH="/opt/venv/bin:$PATH" TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

WORKDIR /opt/stepsight
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-dev --no-install-project --extra data --extra scaling
COPY . .
RUN uv sync --frozen --no-dev --extra data --extra scaling

# The program is process 1, so that the TERM of `docker stop` or of Kubernetes reaches it.
WORKDIR /work
ENTRYPOINT ["stepsight"]
CMD ["--help"]
