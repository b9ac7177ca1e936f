//! The server, and by the name it is called: redis-sentinel, redis-check-aof, redis-check-rdb.

fn main() {
    std::process::exit(hexad::server::startup::main(std::env::args_os().collect()));
}
