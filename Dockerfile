# The image is one static binary, the root certificates and a user's name: no shell, no library to patch.

FROM rust:1-slim-bookworm AS build
# OpenSSL is built with perl and make, zlib-ng with cmake.
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake gcc libc6-dev make perl \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# The C library is linked in, so that the image needs no loader.
# Cargo keeps this flag from procedural macros, which cannot be static, only where a target is named.
ENV RUSTFLAGS="-C target-feature=+crt-static"

# The dependencies, in a layer that only a manifest or the lock file renews: the members stand empty meanwhile.
COPY Cargo.toml Cargo.lock ./
COPY gateway/Cargo.toml gateway/
COPY plugins/Cargo.toml plugins/
COPY tests/Cargo.toml tests/
RUN mkdir gateway/src plugins/src tests/src \
 && touch gateway/src/lib.rs plugins/src/lib.rs tests/src/lib.rs \
 && echo 'fn main() {}' > gateway/src/main.rs \
 && cargo build --release --locked -p vestibule --target "$(uname -m)-unknown-linux-gnu"

# A copied file keeps its old time, so without the touch cargo would take the empty members for newer.
COPY plugins plugins
COPY gateway gateway
RUN touch plugins/src/lib.rs gateway/src/lib.rs gateway/src/main.rs \
 && cargo build --release --locked -p vestibule --target "$(uname -m)-unknown-linux-gnu" \
 && cp target/*-unknown-linux-gnu/release/vestibule /vestibule

RUN mkdir -p /root-fs/etc/ssl/certs \
 && cp /etc/ssl/certs/ca-certificates.crt /root-fs/etc/ssl/certs/ \
 && echo 'vestibule:x:65532:65532:vestibule:/:/nonexistent' > /root-fs/etc/passwd \
 && echo 'vestibule:x:65532:' > /root-fs/etc/group

FROM scratch
LABEL org.opencontainers.image.title="vestibule" \
      org.opencontainers.image.description="A programmable edge gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /root-fs/ /
COPY conf/gateway.yaml conf/routes.yaml /etc/vestibule/
COPY --from=build /vestibule /vestibule
# By number, so that Kubernetes' runAsNonRoot can tell.
USER 65532:65532
EXPOSE 8080 8443
STOPSIGNAL SIGTERM
ENTRYPOINT ["/vestibule"]
CMD ["run", "-c", "/etc/vestibule"]
