# syntax=docker/dockerfile:1
# Two images from scratch, each one static binary:
#   docker build --target braid -t braid .
#   docker build --target braid-agent -t braid-agent .
# The last stage, the server, is what a build without --target makes.

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=dev
# timetzdata puts the time zones into the binaries: an empty image has none.
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -tags timetzdata -ldflags "-s -w -X main.version=$VERSION" -o /out/ ./cmd/braid ./cmd/braid-agent
RUN mkdir -p /out/var/lib/braid /out/var/lib/braid-agent

FROM scratch AS braid-agent
ARG VERSION=dev REVISION=unknown
LABEL org.opencontainers.image.title="braid-agent" \
      org.opencontainers.image.description="The node agent of Braid: logs, metrics and OTLP of a node" \
      org.opencontainers.image.source="https://github.com/braidobs/braid" \
      org.opencontainers.image.documentation="https://github.com/braidobs/braid/blob/main/docs/guides/kubernetes.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/var/lib/braid-agent /var/lib/braid-agent
COPY LICENSE NOTICE /
COPY --from=build /out/braid-agent /braid-agent
# The kubelet's log files belong to root and nobody else may read them.
USER 0:0
WORKDIR /var/lib/braid-agent
EXPOSE 4317 4318 9095
ENTRYPOINT ["/braid-agent"]

FROM scratch AS braid
ARG VERSION=dev REVISION=unknown
LABEL org.opencontainers.image.title="braid" \
      org.opencontainers.image.description="Metrics, logs and traces in one store, joined" \
      org.opencontainers.image.source="https://github.com/braidobs/braid" \
      org.opencontainers.image.documentation="https://github.com/braidobs/braid/blob/main/docs/guides/kubernetes.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=65532:65532 /out/var/lib/braid /var/lib/braid
COPY LICENSE NOTICE /
COPY --from=build /out/braid /braid
USER 65532:65532
WORKDIR /var/lib/braid
EXPOSE 4317 4318 9090
ENTRYPOINT ["/braid"]
