# The emulator alone; the model server is another container, or the embedded scripted one.
FROM python:3.13-slim AS build
WORKDIR /source
COPY . .
RUN python -m venv /opt/emulator && /opt/emulator/bin/pip install --no-cache-dir '.[aws,postgresql]'

FROM python:3.13-slim
COPY --from=build /opt/emulator /opt/emulator
RUN useradd --create-home emulator && install --directory --owner emulator /data
USER emulator
WORKDIR /data
VOLUME /data
EXPOSE 4580
ENV JOB_RUNTIME_LOCAL_DATABASE=/data/job-runtime-local.db
# Inside a container, loopback would reach nobody; docker-compose.yml publishes the port on the host's loopback only.
ENV JOB_RUNTIME_LOCAL_HOST=0.0.0.0 JOB_RUNTIME_LOCAL_INSECURE_REMOTE=true
HEALTHCHECK --interval=5s --start-period=10s CMD ["/opt/emulator/bin/python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:4580/_emulator/health')"]
ENTRYPOINT ["/opt/emulator/bin/job-runtime-local"]
CMD ["serve"]
