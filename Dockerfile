# docker build --tag stepsight .                    GPU: the wheels of torch bring CUDA with them, the host its driver
# docker build --tag stepsight:cpu --target cpu .   no GPU: a few GB less
# docker run --gpus all --ipc host --volume "$PWD:/work" stepsight train --config smoke
# docker run --publish 7860:7860 --volume "$PWD:/work" stepsight:cpu demo --host 0.0.0.0 --port 7860
#
# The locked packages. --ipc host: the processes that read data hand over pictures through shared
# memory, of which a container has 64 MB.
FROM python:3.11-slim AS base
COPY --from=ghcr.io/astral-sh/uv:0.13 /uv /usr/local/bin/uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PROJECT_ENVIRONMENT=/opt/venv VIRTUAL_ENV=/opt/venv
ENV PATH="/opt/venv/bin:$PATH" TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
ENV EXTRAS="--extra data --extra film --extra scaling --extra demo --extra export"
WORKDIR /opt/stepsight
COPY pyproject.toml uv.lock ./

# The same versions, but for the libraries of CUDA: torch from its own index of builds without them.
FROM base AS cpu
RUN uv venv /opt/venv \
    && uv export --frozen --no-dev --no-emit-project --no-hashes $EXTRAS --output-file all.txt \
    && grep -vE '^(nvidia-|cuda-|triton)' all.txt > cpu.txt \
    && uv pip install --torch-backend cpu --requirements cpu.txt
COPY . .
RUN uv pip install --no-deps .
# The program is process 1, so that the TERM of `docker stop` or of Kubernetes reaches it.
WORKDIR /work
ENTRYPOINT ["stepsight"]
CMD ["--help"]

FROM base AS cuda
RUN uv sync --frozen --no-dev --no-install-project $EXTRAS
COPY . .
RUN uv sync --frozen --no-dev $EXTRAS
WORKDIR /work
ENTRYPOINT ["stepsight"]
CMD ["--help"]
