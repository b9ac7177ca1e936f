//! Which arguments of a command are still to be typed.

use super::help::{Argument, syntax_of_all};

/// The syntax that remains after the words typed so far.
pub(super) fn remaining(arguments: &[Argument], typed: &[String], _complete: bool) -> String {
    if typed.is_empty() {
        return syntax_of_all(arguments);
    }
    String::new()
}
