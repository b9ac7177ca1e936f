//! COMMAND.
use super::prelude::*;
pub const COMMANDS: &[Command] = &[];
