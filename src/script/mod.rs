//! Scripts. What Lua itself does not bring is in `lib`.

pub mod lib;
