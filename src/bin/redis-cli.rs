//! redis-cli.

fn main() {}
