# Two stages: the tools for the installation stay behind, and the image runs as an ordinary user.
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /venv
COPY requirements.txt ./
RUN /venv/bin/pip install --require-hashes -r requirements.txt

FROM python:3.13-slim
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 FLASK_SKIP_DOTENV=1 HOST=0.0.0.0
RUN useradd --uid 10001 --user-group --no-create-home app \
    && install -d -o app -g 0 -m 770 /app/instance
WORKDIR /app
COPY --from=build /venv /venv
COPY wsgi.py ./
COPY backend backend
COPY config config
COPY migrations migrations
USER 10001
# For the SQLite database, if you use it. Nothing else must be writable (`--read-only` works). Group
# 0 can write to it, because OpenShift runs the image as a random user in that group.
VOLUME /app/instance
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '8000') + '/healthz')"]
# Migrations are a step of their own: `docker run ... flask --app wsgi db upgrade`.
CMD ["python", "wsgi.py"]
