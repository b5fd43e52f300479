# One image per binary: docker build --build-arg BIN=braid-agent .
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG BIN=braid VERSION=dev TARGETOS TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/run ./cmd/$BIN \
    && mkdir /out/braid-data

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/run /usr/local/bin/run
COPY --from=build --chown=nonroot:nonroot /out/braid-data /var/lib/braid
COPY LICENSE NOTICE /
WORKDIR /var/lib/braid
ENTRYPOINT ["/usr/local/bin/run"]
