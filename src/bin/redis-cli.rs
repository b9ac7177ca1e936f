//! redis-cli; see `hexad::cli`.

fn main() {
    std::process::exit(hexad::cli::main());
}
