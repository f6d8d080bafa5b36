# The image is one static binary and nothing else: no shell, no package to patch. It listens on all interfaces, since
# loopback inside a container reaches nobody; set QUAIL_REQUIREPASS, or publish the port on 127.0.0.1 only.

# Another base with Go in it can be given, for a mirror or a machine without a network.
ARG GO_IMAGE=golang:1.26-bookworm

FROM ${GO_IMAGE} AS build
ARG VERSION=0.1.0
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/quail ./cmd/quail
# An empty directory to own: a new volume takes the owner of what it covers.
RUN mkdir /out/data /out/backup

FROM scratch
COPY --from=build /out/quail /quail
COPY --from=build --chown=65532:65532 /out/data /data
# For a volume that backups may go to, with QUAIL_BACKUP_DIR=/backup.
COPY --from=build --chown=65532:65532 /out/backup /backup

# By number, so that a platform that forbids root can see that this is not root.
USER 65532:65532

# shutdown-timeout is below the ten seconds that "docker stop" waits before it kills.
ENV QUAIL_LISTEN=0.0.0.0:6389 \
    QUAIL_DATA=/data \
    QUAIL_LOG_FORMAT=json \
    QUAIL_PROTECTED_MODE=no \
    QUAIL_SHUTDOWN_TIMEOUT=8000

VOLUME /data
EXPOSE 6389
STOPSIGNAL SIGTERM

# The start period covers the replay of a full journal.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/quail", "health"]

ENTRYPOINT ["/quail"]
CMD ["serve"]
