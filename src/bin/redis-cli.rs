//! redis-cli; see `hexad::cli`. It also writes the manual, see `hexad::manual`.

fn main() {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    std::process::exit(hexad::manual::main(&args).unwrap_or_else(hexad::cli::main));
}
