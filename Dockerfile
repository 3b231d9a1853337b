# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches keep what was compiled over builds; they are no part of the image, so the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin cdc-sink && \
    install -D target/release/cdc-sink /out/cdc-sink

FROM debian:12.12-slim
# TLS to brokers, stores and catalogs: the certificate authorities that the build image has.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/cdc-sink /usr/local/bin/cdc-sink
# A folder that the process may write to: local tables, the index of large ones.
RUN install -d -o 65532 -g 65532 /var/lib/cdc-sink
WORKDIR /var/lib/cdc-sink
USER 65532:65532
# /metrics, /livez, /readyz, /status. Loopback is the default: from outside the container it must be asked for.
ENV CDC_SINK_LISTEN=0.0.0.0:9187
EXPOSE 9187
ENTRYPOINT ["cdc-sink"]
