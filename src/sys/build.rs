//! The build: versions, and the commit it was built from.

use std::sync::OnceLock;

/// The version of Redis this server is compatible with.
pub(crate) const REDIS_VERSION: &str = "7.2.6";
/// The version of the project itself.
pub(crate) const HEXAD_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that this was built from, 8 hexadecimal digits; zeros where that is not known.
pub(crate) const COMMIT: &str = match option_env!("HEXAD_COMMIT") {
    Some(commit) => commit,
    None => "00000000",
};
/// "1" if what was built differed from that commit.
pub(crate) const IS_DIRTY: &str = match option_env!("HEXAD_DIRTY") {
    Some(dirty) => dirty,
    None => "0",
};

/// Names the build: 16 hexadecimal digits that differ between versions and targets.
pub(crate) fn build_id() -> &'static str {
    // Computed once, as INFO shows it.
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(sum_of_build)
}

fn sum_of_build() -> String {
    let text = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"), " ", env!("CARGO_PKG_RUST_VERSION"));
    let target = format!("{text} {} {}", std::env::consts::ARCH, std::env::consts::OS);
    format!("{:016x}", crc::Crc::<u64>::new(&crc::CRC_64_REDIS).checksum(target.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_has_a_name() {
        assert_eq!(build_id().len(), 16);
    }
}
