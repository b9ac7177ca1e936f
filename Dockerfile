# A small image: the programs, a user without rights, and a folder for data.
FROM rust:1-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/*
WORKDIR /hexad
COPY . .
RUN make && make install PREFIX=/usr/local DESTDIR=/image && strip /image/usr/local/bin/redis-server \
    /image/usr/local/bin/redis-cli /image/usr/local/bin/redis-benchmark

FROM debian:bookworm-slim
RUN groupadd --system --gid 999 redis && useradd --system --uid 999 --gid redis --home-dir /data --no-create-home redis \
    && install -d -o redis -g redis /data
COPY --from=build /image/ /
COPY utils/container/entrypoint /usr/local/bin/docker-entrypoint.sh
WORKDIR /data
VOLUME /data
EXPOSE 6379
HEALTHCHECK --interval=10s --timeout=3s CMD ["redis-cli", "ping"]
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
