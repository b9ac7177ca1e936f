//! The server, which is redis-check-aof or redis-check-rdb when called by that name.

fn main() {
    std::process::exit(hexad::server::startup::main(std::env::args_os().collect()));
}
