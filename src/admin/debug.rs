//! What DEBUG has changed, for the rooms that look at it.

use std::time::Duration;

/// What DEBUG has changed.
#[derive(Debug)]
pub(crate) struct DebugState {
    /// Expired keys are looked for in the background.
    pub(crate) active_expire: bool,
    /// The cron does nothing.
    pub(crate) pause_cron: bool,
    /// Reply buffers follow what clients need.
    pub(crate) reply_buffer_resizing: bool,
    /// How long the largest fill of a reply buffer counts, ms; negative: for ever.
    pub(crate) reply_buffer_peak_reset_ms: i64,
    /// Client listings stay with each client that asks for them (`CLIENT-ENFORCE-REPLY-LIST`).
    pub(crate) enforce_reply_list: bool,
    /// Plain commands are run without asking for each what stands against it, where nothing can.
    pub(crate) plain_calls: bool,
    /// Tables may be resized.
    pub(crate) dict_resizing: bool,
    /// Start again in place of ending, after this time.
    pub(crate) restart: Option<Duration>,
}

/// How long the largest fill of a reply buffer counts when nothing else is set, ms.
pub(crate) const REPLY_BUFFER_PEAK_RESET_MS: i64 = 5000;

impl Default for DebugState {
    fn default() -> DebugState {
        DebugState {
            active_expire: true,
            pause_cron: false,
            reply_buffer_resizing: true,
            reply_buffer_peak_reset_ms: REPLY_BUFFER_PEAK_RESET_MS,
            enforce_reply_list: false,
            plain_calls: true,
            dict_resizing: true,
            restart: None,
        }
    }
}
