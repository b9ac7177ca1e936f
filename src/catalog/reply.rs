//! Replies that are all a command has to say: they give the result of its function, too.

use super::CmdResult;
use crate::resp::Reply;

impl Reply {
    #[inline]
    pub(crate) fn just_ok(&mut self) -> CmdResult {
        self.ok();
        Ok(())
    }

    #[inline]
    pub(crate) fn just_int(&mut self, n: i64) -> CmdResult {
        self.int(n);
        Ok(())
    }

    #[inline]
    pub(crate) fn just_bulk(&mut self, bytes: &[u8]) -> CmdResult {
        self.bulk(bytes);
        Ok(())
    }

    #[inline]
    pub(crate) fn just_null(&mut self) -> CmdResult {
        self.null();
        Ok(())
    }

    pub(crate) fn just_null_array(&mut self) -> CmdResult {
        self.null_array();
        Ok(())
    }

    /// An array of nothing.
    pub(crate) fn just_empty(&mut self) -> CmdResult {
        self.array(0);
        Ok(())
    }

    pub(crate) fn just_simple(&mut self, text: &str) -> CmdResult {
        self.simple(text);
        Ok(())
    }

    pub(crate) fn just_verbatim(&mut self, format: &str, text: &[u8]) -> CmdResult {
        self.verbatim(format, text);
        Ok(())
    }
}
