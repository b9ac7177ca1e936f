//! `--eval file key ... , arg ...`: runs a Lua script from a file.

use crate::cli::connection::describe;
use crate::cli::session::{Failed, Session};
use crate::cli::term::complain;

/// Sends the script with its keys and arguments, separated by a lone comma.
pub(crate) fn run(session: &mut Session, file: &[u8], words: &[Vec<u8>]) -> i32 {
    let done = read_command(file, words).and_then(|command| session.issue(&command));
    i32::from(done.is_err())
}

/// The EVAL of a script in a file. Prints an error for a file that can not be read.
pub(crate) fn read_command(file: &[u8], words: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Failed> {
    let name = String::from_utf8_lossy(file).into_owned();
    match std::fs::read(&name) {
        Ok(script) => Ok(command(script, words)),
        Err(error) => {
            complain!("Can't open file '{name}': {}\n", describe(&error));
            Err(Failed)
        }
    }
}

fn command(script: Vec<u8>, words: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let comma = words.iter().position(|word| word == b",");
    let (keys, args) = match comma {
        Some(at) => (&words[..at], &words[at + 1..]),
        None => (words, &[][..]),
    };
    let mut command = vec![b"EVAL".to_vec(), script, keys.len().to_string().into_bytes()];
    command.extend_from_slice(keys);
    command.extend_from_slice(args);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_parts_keys_and_arguments() {
        let words = |line: &str| -> Vec<Vec<u8>> { line.split(' ').map(|w| w.into()).collect() };
        assert_eq!(command(b"s".to_vec(), &words("k1 k2 , a , b")), words("EVAL s 2 k1 k2 a , b"));
        assert_eq!(command(b"s".to_vec(), &words("k1")), words("EVAL s 1 k1"));
    }
}
