//! The page for operators. It stands alone: nothing of it comes from elsewhere, and nothing has to be built.

pub(crate) const HTML: &str = include_str!("page.html");
pub(crate) const CSS: &str = include_str!("page.css");
pub(crate) const JS: &str = include_str!("page.js");
