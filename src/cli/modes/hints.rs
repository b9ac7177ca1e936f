//! `--test_hint` and `--test_hint_file`: checks the prompt's hints without a terminal.
//!
//! A line of the file is an input and the hint it must get, both quoted.

use crate::cli::options::HintTest;
use crate::cli::quote::split_args;
use crate::cli::session::Session;
use crate::cli::term::{complain, say};

/// Shows one hint, or checks a file of them.
pub(crate) fn run(session: &mut Session, test: HintTest) -> i32 {
    let quiet = true;
    let _ = session.connect(quiet);
    match test {
        HintTest::Input(input) => {
            say!("{}\n", session.help().hint(&input).unwrap_or_default());
            0
        }
        HintTest::File(path) => check_file(session, &String::from_utf8_lossy(&path)),
    }
}

fn check_file(session: &mut Session, path: &str) -> i32 {
    let Ok(text) = std::fs::read(path) else {
        complain!("Can't open file '{path}'.\n");
        return 1;
    };
    let (mut passed, mut failed) = (0, 0);
    for line in text.split(|b| *b == b'\n') {
        if line.first().is_none_or(|b| *b == b'#' || b.is_ascii_whitespace()) {
            continue;
        }
        let args = split_args(line).unwrap_or_default();
        let [input, expected, ..] = args.as_slice() else {
            continue;
        };
        let got = session.help().hint(input).unwrap_or_default();
        if got.as_bytes() == expected {
            passed += 1;
        } else {
            failed += 1;
            say!(
                "Test case '{}' FAILED: expected '{}', got '{got}'\n",
                String::from_utf8_lossy(input),
                String::from_utf8_lossy(expected)
            );
        }
    }
    let verdict = if failed == 0 { "SUCCESS" } else { "FAILURE" };
    say!("{verdict}: {passed}/{} passed\n", passed + failed);
    i32::from(failed > 0)
}
