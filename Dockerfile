# A small image: the programs, a user without rights, and a folder for data. Build it with `docker build -t hexad:0.1.0 .`
FROM rust:1.88-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/*
WORKDIR /hexad
COPY . .
RUN make && make install PREFIX=/usr/local DESTDIR=/image \
    && strip /image/usr/local/bin/redis-server /image/usr/local/bin/redis-cli /image/usr/local/bin/redis-benchmark \
    && rm -r /image/usr/local/share

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="hexad" \
      org.opencontainers.image.description="A drop-in Redis server and Redis Cluster in Rust" \
      org.opencontainers.image.licenses="MIT"
RUN groupadd --system --gid 999 redis \
    && useradd --system --uid 999 --gid redis --home-dir /data --no-create-home --shell /usr/sbin/nologin redis \
    && install -d -o redis -g redis /data
COPY --from=build /image/ /
COPY --chmod=755 utils/container/entrypoint /usr/local/bin/docker-entrypoint.sh
WORKDIR /data
VOLUME /data
EXPOSE 6379
STOPSIGNAL SIGTERM
# Whoever answers lives, be it with an error: it may load, or ask for a password. HEALTH_PORT is for servers on another port.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["sh", "-c", "redis-cli -p ${HEALTH_PORT:-6379} -t 2 ping"]
# Started as root it hands /data over and becomes the user redis; --user 999 spares that, KEEP_ROOT=1 leaves it out.
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
