//! The hook that checks the clock while Lua runs, and ends scripts that are to end.
#![allow(unsafe_code)]

use super::engine::{Bridge, push_error};
use super::sandbox;
use crate::resp::Args;
use mlua::ffi::{self, lua_Debug, lua_State};
use std::ffi::c_int;

/// Instructions between two checks of the clock.
pub(super) const INSTRUCTIONS: c_int = 100_000;

const KILLED: &[u8] = b"Script killed by user with SCRIPT KILL...";
const LOAD_TIMED_OUT: &[u8] = b"FUNCTION LOAD timeout";

/// Called by Lua every [`INSTRUCTIONS`], in coroutines as well: they inherit the hook of their creator.
pub(super) unsafe extern "C-unwind" fn on_instructions(state: *mut lua_State, _: *mut lua_Debug) {
    // SAFETY: the engine sets the hook. Commands of scripts run no instructions, so none is running. Nothing is left to
    // drop when the error is raised.
    unsafe {
        let bridge = sandbox::bridge(state);
        if !goes_on(bridge) {
            raise_end(state, bridge);
        }
    }
}

/// Checks the clock, and serves other clients if the script has run for long. False: it is to end.
///
/// # Safety
/// As [`Bridge::server`]: no command of the script is running.
pub(super) unsafe fn goes_on(bridge: &Bridge) -> bool {
    if bridge.ended.get().is_some() {
        return false;
    }
    // SAFETY: a library that loads, and the server, stay where they are while Lua runs.
    let end = unsafe {
        let command = bridge.command.get();
        if let Some(loading) = bridge.loading.get().as_ref() {
            match loading.timeout {
                Some(timeout) if loading.start.elapsed() > timeout => LOAD_TIMED_OUT,
                _ => return true,
            }
        } else {
            let Some(server) = bridge.server() else { return true };
            // The debugger has its own way to stop a script.
            let command = if command.is_null() { Args::new(&[], &[]) } else { *command };
            if server.scripting().debugger.is_active() || server.script_goes_on(command) {
                return true;
            }
            log::info!("Lua script killed by user with SCRIPT KILL.");
            KILLED
        }
    };
    bridge.ended.set(Some(end));
    false
}

/// Raises the error that ends a script which is not to go on.
///
/// # Safety
/// Called by Lua, with nothing to drop.
pub(super) unsafe fn raise_end(state: *mut lua_State, bridge: &Bridge) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        ffi::lua_checkstack(state, 6);
        push_error(state, bridge.ended.get().unwrap_or(KILLED));
        ffi::lua_error(state)
    }
}
