//! Switches that DEBUG sets, for the rooms that look at them.

use std::time::Duration;

/// Steps at which this process stops itself, until somebody has it go on (DEBUG REPL-PAUSE).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stops {
    /// A child that writes a snapshot for replicas has been started.
    pub(crate) after_fork: bool,
    /// What gathered while slots came is about to be run.
    pub(crate) at_gathered_stream: bool,
}

#[derive(Debug)]
pub(crate) struct DebugState {
    /// Expired keys are searched for in the background.
    pub(crate) active_expire: bool,
    /// The cron does nothing.
    pub(crate) pause_cron: bool,
    /// The sizes of reply buffers follow what clients need.
    pub(crate) reply_buffer_resizing: bool,
    /// How long the largest fill of a reply buffer counts for its size, ms; negative: for ever.
    pub(crate) reply_buffer_peak_reset_ms: i64,
    /// Replies are kept as lists of chunks (`CLIENT-ENFORCE-REPLY-LIST`).
    pub(crate) enforce_reply_list: bool,
    /// Plain commands run without an admission check for each, where nothing can refuse them.
    pub(crate) plain_calls: bool,
    /// Tables may be resized.
    pub(crate) dict_resizing: bool,
    /// Where this process stops itself.
    pub(crate) stops: Stops,
    /// Restart in place of ending, after this time.
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
            stops: Stops::default(),
            restart: None,
        }
    }
}
