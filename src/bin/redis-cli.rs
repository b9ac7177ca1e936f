//! redis-cli.
