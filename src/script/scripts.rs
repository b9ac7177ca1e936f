//! The cache of EVAL scripts: compiled once, found by their text or its SHA1.

use super::api::sha1_text;
use super::engine::{Engine, FunctionRef};
use super::flags;
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::rc::Rc;

#[derive(Debug)]
pub(crate) struct Script {
    /// SHA1 of the text, 40 lower-case hexadecimal digits.
    pub(crate) sha: Rc<[u8]>,
    pub(crate) body: Vec<u8>,
    /// Flags, see `flags`.
    pub(crate) flags: u32,
    pub(super) code: FunctionRef,
}

impl Script {
    #[cfg(test)]
    pub(crate) fn name(&self) -> &str {
        std::str::from_utf8(&self.sha).expect("hexadecimal digits")
    }
}

/// A script, compared by its text.
#[derive(Debug)]
struct ByBody(Rc<Script>);

impl Borrow<[u8]> for ByBody {
    fn borrow(&self) -> &[u8] {
        &self.0.body
    }
}

impl PartialEq for ByBody {
    fn eq(&self, other: &ByBody) -> bool {
        self.0.body == other.0.body
    }
}

impl Eq for ByBody {}

impl Hash for ByBody {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.body[..].hash(state);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Cache {
    by_sha: HashMap<[u8; 40], Rc<Script>>,
    by_body: HashSet<ByBody>,
    bytes: usize,
}

impl Cache {
    pub(crate) fn len(&self) -> usize {
        self.by_sha.len()
    }

    /// Memory of the texts and their entries, bytes.
    pub(crate) fn memory(&self) -> usize {
        self.bytes
    }

    pub(crate) fn clear(&mut self) {
        *self = Cache::default();
    }

    pub(crate) fn by_body(&self, body: &[u8]) -> Option<&Rc<Script>> {
        self.by_body.get(body).map(|s| &s.0)
    }

    /// The script with this SHA1, in either case of digits.
    pub(crate) fn by_sha(&self, sha: &[u8]) -> Option<&Rc<Script>> {
        let mut sha: [u8; 40] = sha.try_into().ok()?;
        sha.make_ascii_lowercase();
        self.by_sha.get(&sha)
    }

    /// The script of this text, compiled now if it is new. `Err` is the text of the reply, without `ERR`.
    pub(crate) fn load(&mut self, engine: &mut Engine, body: &[u8]) -> Result<Rc<Script>, Vec<u8>> {
        if let Some(script) = self.by_body(body) {
            return Ok(script.clone());
        }
        let (flags, first_line) = flags::of_script(body)?;
        let code = engine.load(&body[first_line..], c"@user_script");
        let code = code.map_err(|message| [b"Error compiling script (new function): ", &message[..]].concat())?;
        let sha = sha1_text(body);
        let script = Rc::new(Script { sha: sha.into(), body: body.to_vec(), flags, code });
        self.bytes += size_of::<Script>() + script.body.capacity() + 2 * size_of::<([u8; 40], Rc<Script>)>();
        self.by_sha.insert(sha, script.clone());
        self.by_body.insert(ByBody(script.clone()));
        Ok(script)
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::Kind;
    use super::*;

    #[test]
    fn scripts_are_found_by_text_and_digest() {
        let mut engine = Engine::new(Kind::Eval);
        let mut cache = Cache::default();
        let script = cache.load(&mut engine, b"return 1").unwrap();
        assert_eq!(script.name(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        let upper = script.name().to_ascii_uppercase();
        assert!(Rc::ptr_eq(cache.by_sha(upper.as_bytes()).unwrap(), &script));
        assert!(Rc::ptr_eq(&cache.load(&mut engine, b"return 1").unwrap(), &script));
        assert_eq!(cache.len(), 1);
        let error = cache.load(&mut engine, b"\x1bLuaQ").unwrap_err();
        assert!(String::from_utf8_lossy(&error).contains("unexpected symbol near 'char(27)'"), "{error:?}");
        let error = cache.load(&mut engine, b"#!lua flags=x\n").unwrap_err();
        assert_eq!(error, b"Unexpected flag in script shebang: x");
        cache.clear();
        assert!(cache.by_sha(upper.as_bytes()).is_none());
    }
}
