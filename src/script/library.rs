//! Function libraries: those that are loaded, and how sets of libraries are restored, joined and dumped.
//!
//! Invariant: `functions` holds exactly the functions of `libraries`. Names of functions are found in any case, those
//! of libraries are not. Errors are the texts of replies, without `ERR`.

use super::engine::{Engine, FunctionRef};
use super::flags;
use crate::persist::rdb;
use crate::structs::crc64;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: Rc<[u8]>,
    pub(crate) description: Option<Vec<u8>>,
    /// Flags, see `flags`.
    pub(crate) flags: u32,
    pub(super) code: FunctionRef,
}

#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) name: Vec<u8>,
    /// The whole source, with the first line.
    pub(crate) code: Vec<u8>,
    /// In the order of their names.
    pub(crate) functions: Vec<Rc<Function>>,
}

/// A library whose program runs: what it has registered so far.
pub(crate) struct Loading {
    pub(crate) functions: Vec<Function>,
    pub(super) names: HashSet<Rc<[u8]>>,
    pub(super) start: Instant,
    pub(super) timeout: Option<Duration>,
}

/// What happens to existing libraries when others are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestorePolicy {
    Flush,
    Append,
    Replace,
}

#[derive(Debug, Default)]
pub(crate) struct Libraries {
    libraries: BTreeMap<Vec<u8>, Library>,
    functions: HashMap<Vec<u8>, Rc<Function>>,
}

impl Libraries {
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Library> {
        self.libraries.values()
    }

    pub(crate) fn function_count(&self) -> usize {
        self.functions.len()
    }

    pub(crate) fn function(&self, name: &[u8]) -> Option<&Rc<Function>> {
        if name.iter().any(u8::is_ascii_uppercase) {
            return self.functions.get(&name.to_ascii_lowercase());
        }
        self.functions.get(name)
    }

    pub(crate) fn clear(&mut self) {
        *self = Libraries::default();
    }

    /// Compiles and adds a library, and returns its name. `timeout`: how long its program may run.
    pub(crate) fn load(
        &mut self,
        engine: &mut Engine,
        code: &[u8],
        replace: bool,
        timeout: Option<Duration>,
    ) -> Result<Vec<u8>, Vec<u8>> {
        let head = flags::of_library(code)?;
        if !flags::is_valid_name(&head.name) {
            return Err(BAD_NAME.into());
        }
        if !head.engine.eq_ignore_ascii_case(b"lua") {
            return Err([b"Engine '", &head.engine[..], b"' not found"].concat());
        }
        if !replace && self.libraries.contains_key(&head.name) {
            return Err([b"Library '", &head.name[..], b"' already exists"].concat());
        }
        let functions = engine.load_library(&code[head.len..], timeout)?;
        if functions.is_empty() {
            return Err(b"No functions registered".to_vec());
        }
        let mut functions: Vec<_> = functions.into_iter().map(Rc::new).collect();
        functions.sort_by(|a, b| a.name.cmp(&b.name));
        let library = Library { name: head.name.clone(), code: code.to_vec(), functions };
        let old = self.unlink(&head.name);
        if let Some(name) = self.first_collision(&library) {
            if let Some(old) = old {
                self.link(old);
            }
            return Err([b"Function ", &name[..], b" already exists"].concat());
        }
        self.link(library);
        Ok(head.name)
    }

    /// Removes a library; false if there is none of this name.
    pub(crate) fn delete(&mut self, name: &[u8]) -> bool {
        self.unlink(name).is_some()
    }

    fn link(&mut self, library: Library) {
        for function in &library.functions {
            self.functions.insert(function.name.to_ascii_lowercase(), function.clone());
        }
        self.libraries.insert(library.name.clone(), library);
    }

    fn unlink(&mut self, name: &[u8]) -> Option<Library> {
        let library = self.libraries.remove(name)?;
        for function in &library.functions {
            self.functions.remove(&function.name.to_ascii_lowercase());
        }
        Some(library)
    }

    fn first_collision(&self, library: &Library) -> Option<Rc<[u8]>> {
        library.functions.iter().map(|f| &f.name).find(|name| self.function(name).is_some()).cloned()
    }

    /// Adds all libraries of another set; on an error none.
    pub(crate) fn join(&mut self, other: Libraries, replace: bool) -> Result<(), Vec<u8>> {
        if !replace && let Some(name) = other.libraries.keys().find(|name| self.libraries.contains_key(*name)) {
            return Err([b"Library ", &name[..], b" already exists"].concat());
        }
        let old: Vec<_> = other.libraries.keys().filter_map(|name| self.unlink(name)).collect();
        let collision = other.libraries.values().find_map(|library| self.first_collision(library));
        if let Some(name) = collision {
            old.into_iter().for_each(|library| self.link(library));
            return Err([b"Function ", &name[..], b" already exists"].concat());
        }
        other.libraries.into_values().for_each(|library| self.link(library));
        Ok(())
    }

    /// All libraries as FUNCTION DUMP gives them: as in a snapshot, followed by version and checksum.
    pub(crate) fn dump(&self, compress: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for library in self.iter() {
            out.push(rdb::opcode::FUNCTION2);
            rdb::put_string(&mut out, &library.code, compress);
        }
        out.extend_from_slice(&(rdb::VERSION as u16).to_le_bytes());
        let crc = crc64::crc64(0, &out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads what `dump` gave.
    pub(crate) fn restore(engine: &mut Engine, payload: &[u8], skip_checksum: bool) -> Result<Libraries, Vec<u8>> {
        let refused = b"DUMP payload version or checksum are wrong";
        let body = rdb::check_dump_footer(payload, skip_checksum).map_err(|_| refused.to_vec())?;
        let sources = rdb::read_functions(body).map_err(<[u8]>::to_vec)?;
        let mut out = Libraries::default();
        for code in sources {
            out.load(engine, &code, false, None)?;
        }
        Ok(out)
    }

    /// Memory of names and sources, bytes.
    pub(crate) fn memory(&self) -> usize {
        let of_function = |f: &Rc<Function>| {
            size_of::<Function>() + 2 * f.name.len() + f.description.as_ref().map_or(0, Vec::capacity)
        };
        self.iter()
            .map(|l| {
                size_of::<Library>()
                    + l.code.capacity()
                    + l.name.capacity() * 2
                    + l.functions.iter().map(of_function).sum::<usize>()
            })
            .sum()
    }
}

pub(super) const BAD_NAME: &[u8] =
    b"Library names can only contain letters, numbers, or underscores(_) and must be at least one character long";
