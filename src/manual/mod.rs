//! What people and shells are told of the programs: man pages, completions, and the lists of commands and directives in `docs/`.
//!
//! - `tools`: each program with its options
//! - `directives`: the directives with what `conf/redis.conf` says of them
//! - `roff`: man pages
//! - `shells`: completions for bash, zsh and fish
//! - `markdown`: `docs/COMMANDS.md` and `docs/CONFIGURATION.md`
//!
//! Invariant: all of it is made from the rows by which the programs themselves work, so that a new row is told of everywhere.

mod directives;
mod markdown;
mod roff;
mod shells;
mod tools;

use crate::catalog::row::Command;
use crate::server::commands;
use std::ffi::OsString;
use std::path::Path;

/// The commands that Redis 7.2 does not have, for a sentence.
const NOT_OF_REDIS: &str =
    "those of Valkey 9 and Redis 8.4 that move slots as a whole; DOCTOR, CLUSTER DOCTOR and CLIENT DURABLE are ours";

/// A file: its path in the folder that it is written to, and its text.
type File = (String, String);

/// `redis-cli --write-manual <folder>` writes man pages and completions where programs look for them below `share`, and
/// `--write-docs <folder>` the lists. Gives the exit code, or nothing if something else is asked for.
pub fn main(args: &[OsString]) -> Option<i32> {
    let [what, folder] = args else { return None };
    let files = match what.to_str()? {
        "--write-manual" => roff::pages().into_iter().chain(shells::completions()).collect(),
        "--write-docs" => markdown::documents(),
        _ => return None,
    };
    Some(match write(Path::new(folder), &files) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("Can't write to {}: {error}", folder.display());
            1
        }
    })
}

fn write(folder: &Path, files: &[File]) -> std::io::Result<()> {
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// Every command by its words, `CONFIG GET`, without those that only contain others.
fn all_commands() -> Vec<(String, &'static Command)> {
    let rows = commands::rows();
    let mut all: Vec<_> = rows
        .top_level()
        .flat_map(|command| std::iter::once(command.row).chain(command.row.subcommands))
        .filter(|row| row.run.is_some())
        .map(|row| (row.name.to_uppercase().replace('|', " "), row))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `make docs` writes them anew.
    #[test]
    fn the_lists_in_docs_are_those_of_the_rows() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        for (name, text) in markdown::documents() {
            let there = std::fs::read_to_string(docs.join(&name)).unwrap_or_default();
            assert!(there == text, "docs/{name} is stale: run make docs");
        }
    }

    #[test]
    fn files_are_written_where_programs_look_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let written = |option: &str| main(&[option.into(), dir.path().into()]);
        assert_eq!((written("--write-manual"), written("--write-nothing")), (Some(0), None));
        for name in [
            "man/man1/redis-server.1",
            "man/man1/redis-cli.1",
            "man/man1/redis-benchmark.1",
            "man/man1/redis-check-aof.1",
            "man/man1/redis-check-rdb.1",
            "man/man5/redis.conf.5",
            "man/man7/redis-commands.7",
            "bash-completion/completions/redis-cli",
            "zsh/site-functions/_redis-server",
            "fish/vendor_completions.d/redis-benchmark.fish",
        ] {
            assert!(dir.path().join(name).is_file(), "{name}");
        }
        assert_eq!(main(&["--write-docs".into(), "/proc/no/such".into()]), Some(1));
    }

    /// A command that is new is told of by nothing but its row.
    #[test]
    fn every_command_and_directive_is_in_the_manual() {
        let pages = roff::pages();
        let page = |name: &str| &pages.iter().find(|(path, _)| path.ends_with(name)).expect(name).1;
        for (words, _) in all_commands() {
            assert!(page("redis-commands.7").contains(&format!("\n.B {}\n", roff::escaped(&words))), "{words}");
        }
        // A directive and its other names.
        let names = |line: &str| {
            line.strip_prefix(".B ").unwrap_or_default().split(", ").map(str::to_owned).collect::<Vec<_>>()
        };
        let directives: Vec<String> = page("redis.conf.5").lines().flat_map(names).collect();
        for row in crate::config::TABLE {
            assert!(directives.contains(&roff::escaped(row.name)), "{}", row.name);
        }
        for option in crate::cli::option_texts() {
            let name = format!("\\fB{}\\fR", roff::escaped(option.names[0]));
            assert!(page("redis-cli.1").contains(&name), "{name}");
        }
    }
}
