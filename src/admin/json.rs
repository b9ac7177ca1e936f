//! Writes JSON (RFC 8259), as the page for operators is fed with it.

/// Text in the making. Values are written one after the other; commas come by themselves.
#[derive(Debug, Default)]
pub(crate) struct Json {
    out: Vec<u8>,
    needs_comma: bool,
}

impl Json {
    /// One object.
    pub(crate) fn of(write: impl FnOnce(&mut Json)) -> Vec<u8> {
        let mut json = Json::default();
        json.object(write);
        json.out
    }

    fn separate(&mut self) {
        if std::mem::replace(&mut self.needs_comma, true) {
            self.out.push(b',');
        }
    }

    fn nested(&mut self, [open, close]: [u8; 2], write: impl FnOnce(&mut Json)) {
        self.separate();
        self.out.push(open);
        self.needs_comma = false;
        write(self);
        self.out.push(close);
        self.needs_comma = true;
    }

    pub(crate) fn object(&mut self, write: impl FnOnce(&mut Json)) {
        self.nested(*b"{}", write);
    }

    pub(crate) fn array(&mut self, write: impl FnOnce(&mut Json)) {
        self.nested(*b"[]", write);
    }

    /// The name of the value that follows.
    pub(crate) fn field(&mut self, name: &str) -> &mut Json {
        self.text(name.as_bytes());
        self.out.push(b':');
        self.needs_comma = false;
        self
    }

    /// A string; what is no UTF-8 is replaced.
    pub(crate) fn text(&mut self, bytes: &[u8]) {
        self.separate();
        self.out.push(b'"');
        for c in String::from_utf8_lossy(bytes).chars() {
            match c {
                '"' => self.out.extend_from_slice(b"\\\""),
                '\\' => self.out.extend_from_slice(b"\\\\"),
                c if c < ' ' => self.out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
                c => self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        self.out.push(b'"');
    }

    /// A number, with up to three decimals.
    pub(crate) fn number(&mut self, x: f64) {
        self.separate();
        if x.fract() == 0.0 && x.abs() < 1e15 {
            self.out.extend_from_slice(itoa::Buffer::new().format(x as i64).as_bytes());
        } else if x.is_finite() {
            self.out.extend_from_slice(format!("{x:.3}").as_bytes());
        } else {
            self.out.extend_from_slice(b"null");
        }
    }

    pub(crate) fn flag(&mut self, is_set: bool) {
        self.separate();
        self.out.extend_from_slice(if is_set { b"true" } else { b"false" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_separated_and_escaped() {
        let text = Json::of(|j| {
            j.field("a\"\\\n\u{1}é").number(-3.0);
            j.field("b").array(|j| {
                j.number(0.5);
                j.text(b"\xff<");
                j.object(|_| {});
                j.flag(true);
                j.number(f64::NAN);
            });
            j.field("c").flag(false);
        });
        let expected = "{\"a\\\"\\\\\\u000a\\u0001é\":-3,\"b\":[0.500,\"\u{fffd}<\",{},true,null],\"c\":false}";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
