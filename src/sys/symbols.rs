//! Names of functions for addresses, from the program's own symbol table.
//!
//! The standard library names only the functions of the calling thread's stack; this is for addresses noted in a signal
//! handler. Format of the file: System V ABI, chapters 4 and 5 (ELF, 64 bits, little-endian).

use std::fs;

/// Functions by address.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    /// The address at which the program was loaded.
    base: usize,
    /// Start, length and name as the linker knows it, by start.
    functions: Vec<(usize, usize, String)>,
}

impl Symbols {
    /// Reads the running program's file. Without a symbol table in it there are no names.
    pub(crate) fn of_this_program() -> Symbols {
        let Ok(file) = fs::read("/proc/self/exe") else { return Symbols::default() };
        let functions = functions(&file).unwrap_or_default();
        // A program that is not position-independent has absolute addresses in its table.
        let base = if u16_at(&file, 16) == Some(2) { 0 } else { load_address().unwrap_or(0) };
        Symbols { base, functions }
    }

    /// The function an address lies in, and how far into it.
    pub(crate) fn name(&self, address: usize) -> Option<(String, usize)> {
        let address = address.checked_sub(self.base)?;
        let after = self.functions.partition_point(|(start, ..)| *start <= address);
        let (start, len, name) = self.functions.get(after.checked_sub(1)?)?;
        (address < start + (*len).max(1)).then(|| (readable(name), address - start))
    }
}

/// The lowest address the program's file is mapped at.
fn load_address() -> Option<usize> {
    let program = fs::read_link("/proc/self/exe").ok()?;
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with(program.to_string_lossy().as_ref()))?;
    usize::from_str_radix(line.split('-').next()?, 16).ok()
}

fn functions(file: &[u8]) -> Option<Vec<(usize, usize, String)>> {
    const SYMBOL_TABLE: u32 = 2;
    const FUNCTION: u8 = 2;
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (sections, size, count) = (u64_at(file, 0x28)?, u16_at(file, 0x3a)? as usize, u16_at(file, 0x3c)? as usize);
    let section = |i: usize| -> Option<(u32, &[u8], usize)> {
        let at = sections + i * size;
        let (start, len) = (u64_at(file, at + 0x18)?, u64_at(file, at + 0x20)?);
        Some((u32_at(file, at + 4)?, file.get(start..start.checked_add(len)?)?, u32_at(file, at + 0x28)? as usize))
    };
    let (_, symbols, names) = (0..count).filter_map(section).find(|(kind, ..)| *kind == SYMBOL_TABLE)?;
    let (_, names, _) = section(names)?;
    let mut found: Vec<(usize, usize, String)> = symbols
        .chunks_exact(24)
        .filter(|s| s[4] & 0xf == FUNCTION)
        .filter_map(|s| {
            let name = names.get(u32_at(s, 0)? as usize..)?;
            let name = &name[..memchr::memchr(0, name)?];
            Some((u64_at(s, 8)?, u64_at(s, 16)?, String::from_utf8_lossy(name).into_owned()))
        })
        .collect();
    found.sort_unstable();
    Some(found)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?) as usize)
}

/// A name as it stands in the source, as far as that is easy: `_ZN` then each part of the path with its length.
fn readable(name: &str) -> String {
    let Some(mut rest) = name.strip_prefix("_ZN") else { return name.to_string() };
    let mut parts = Vec::new();
    while !rest.starts_with('E') {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let part = rest[..digits].parse().ok().and_then(|len: usize| rest[digits..].get(..len));
        let Some(part) = part else { return name.to_string() };
        rest = &rest[digits + part.len()..];
        parts.push(part);
    }
    // The last part is a hash that distinguishes versions of a function.
    if parts.len() > 1 && parts.last().is_some_and(|p| p.len() == 17 && p.starts_with('h')) {
        parts.pop();
    }
    parts.join("::")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn well_known() -> usize {
        well_known as *const () as usize
    }

    #[test]
    fn a_function_finds_its_own_name() {
        let symbols = Symbols::of_this_program();
        let (name, offset) = symbols.name(well_known() + 1).expect("test programs have symbols");
        assert!(name.contains("well_known"), "{name}");
        assert_eq!(offset, 1);
        assert!(symbols.name(1).is_none());
    }

    #[test]
    fn names_become_readable() {
        assert_eq!(readable("_ZN5hexad6server3run17h0123456789abcdefE"), "hexad::server::run");
        assert_eq!(readable("main"), "main");
        assert_eq!(readable("_ZN9"), "_ZN9");
    }
}
