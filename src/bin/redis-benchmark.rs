//! redis-benchmark; see `hexad::bench`.

fn main() {
    std::process::exit(hexad::bench::main(std::env::args_os().skip(1).collect()));
}
