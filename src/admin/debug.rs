//! What DEBUG has changed, for the rooms that look at it.

use std::time::Duration;

/// What DEBUG has changed.
#[derive(Debug)]
pub struct DebugState {
    /// Expired keys are looked for in the background.
    pub active_expire: bool,
    /// The cron does nothing.
    pub pause_cron: bool,
    /// Reply buffers follow what clients need.
    pub reply_buffer_resizing: bool,
    /// How long the largest fill of a reply buffer counts, ms; negative: for ever.
    pub reply_buffer_peak_reset_ms: i64,
    /// Client listings stay with each client that asks for them (`CLIENT-ENFORCE-REPLY-LIST`).
    pub enforce_reply_list: bool,
    /// Plain commands are run without asking for each what stands against it, where nothing can.
    pub(crate) plain_calls: bool,
    /// Tables may be resized.
    pub dict_resizing: bool,
    /// Start again in place of ending, after this time.
    pub restart: Option<Duration>,
}

/// How long the largest fill of a reply buffer counts when nothing else is set, ms.
pub const REPLY_BUFFER_PEAK_RESET_MS: i64 = 5000;

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
