//! One key and its value in one allocation.
//!
//! An [`Entry`] is an owned pointer to a block that holds, in this order and without padding but for a `B`'s:
//!
//! | part | bytes | when |
//! | --- | --- | --- |
//! | header | 4 | always: 24 bits of LRU/LFU clock, 8 bits of flags |
//! | expire | 8 | the key has one (absolute milliseconds) |
//! | key length | 1 or 8 | 1 up to 255 bytes |
//! | key | n | always |
//! | value | see below | always |
//!
//! and as value an integer (8), a short string (length of 1 or 2 bytes, then the bytes), a long or growing string
//! (pointer, length, capacity: 24), or a `B` at the next place that suits it.
//!
//! Invariant: the block is exactly as large as [`size_class`] of its contents, so its layout follows from its contents
//! alone, and a change that stays inside the class happens in place.
//!
//! The bytes of a long string can be lent (see [`super::lend`]): it is not changed or freed while they are.
//!
//! What `B` is, what the clock bits mean and when a key is expired are the keyspace's business.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use super::lend::{self, Lent};
use super::size_class;
use super::table::TableItem;

/// The longest string that OBJECT ENCODING calls `embstr`, bytes.
pub(crate) const EMBSTR_MAX_LEN: usize = 44;
/// The longest string kept inside the block, bytes. A longer one has an allocation of its own, so that rewriting the
/// key's expire or replacing the value does not copy it.
pub(crate) const INLINE_MAX_LEN: usize = 1024;

const HEADER_LEN: usize = 4;
const EXPIRE_LEN: usize = 8;
const HEAP_LEN: usize = 24;

const KIND_MASK: u8 = 0b11;
const KIND_INT: u8 = 0;
const KIND_INLINE: u8 = 1;
const KIND_HEAP: u8 = 2;
const KIND_OBJECT: u8 = 3;
const HAS_EXPIRE: u8 = 1 << 2;
const RAW: u8 = 1 << 3;
const LONG_KEY: u8 = 1 << 4;
const LONG_VALUE: u8 = 1 << 5;

/// A key with its value, expire time and access clock: 8 bytes, never null.
pub struct Entry<B> {
    block: NonNull<u8>,
    _owns: PhantomData<B>,
}

/// A value on its way into an entry.
#[derive(Debug)]
pub enum NewValue<'a, B> {
    Int(i64),
    /// `embstr` or `raw`, depending on its length.
    Str(&'a [u8]),
    /// `raw` whatever its length (what APPEND and SETRANGE leave).
    RawStr(&'a [u8]),
    /// As `Str`; a long one is taken over without a copy.
    OwnedStr(Vec<u8>),
    Object(B),
}

/// A value looked at in place.
#[derive(Debug)]
pub(crate) enum ValueRef<'a, B> {
    Int(i64),
    /// `raw`: OBJECT ENCODING shows `raw`, not `embstr`.
    Str {
        bytes: &'a [u8],
        raw: bool,
    },
    Object(&'a B),
}

impl<B> Clone for ValueRef<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for ValueRef<'_, B> {}

/// A value taken out of its entry.
#[derive(Debug)]
pub(crate) enum OwnedValue<B> {
    Int(i64),
    Str(Vec<u8>),
    Object(B),
}

/// Room for the decimal text of any `i64`.
#[derive(Default)]
pub(crate) struct IntBuf(itoa::Buffer);

impl IntBuf {
    pub(crate) fn new() -> IntBuf {
        IntBuf::default()
    }

    /// The decimal text of `value`.
    pub(crate) fn format(&mut self, value: i64) -> &[u8] {
        self.0.format(value).as_bytes()
    }
}

/// A value in the form the block stores.
enum Payload<'a, B> {
    Int(i64),
    Inline(&'a [u8]),
    Heap(Vec<u8>),
    Object(B),
}

impl<'a, B> Payload<'a, B> {
    /// Bytes that it takes after a key that ends at `value_at`.
    fn len(&self, value_at: usize) -> usize {
        match self {
            Payload::Int(_) => 8,
            Payload::Inline(bytes) => inline_len(bytes.len()),
            Payload::Heap(_) => HEAP_LEN,
            Payload::Object(_) => object_len::<B>(value_at),
        }
    }

    fn flags(&self) -> u8 {
        match self {
            Payload::Int(_) => KIND_INT,
            Payload::Inline(bytes) if bytes.len() > 255 => KIND_INLINE | LONG_VALUE,
            Payload::Inline(_) => KIND_INLINE,
            Payload::Heap(_) => KIND_HEAP,
            Payload::Object(_) => KIND_OBJECT,
        }
    }

    /// Writes the value's bytes, giving its memory to the block.
    ///
    /// # Safety
    /// `value_at` must lie in the block, with room for `self.len(value_at)` bytes from there.
    unsafe fn write(self, block: *mut u8, value_at: usize) {
        // SAFETY: the caller vouches for the room; every write is of the lengths `len` counts, and unaligned but for an
        // object's, which has its place.
        unsafe {
            let at = block.add(value_at);
            match self {
                Payload::Int(value) => at.cast::<i64>().write_unaligned(value),
                Payload::Inline(bytes) => {
                    let len = bytes.len();
                    if len > 255 {
                        at.cast::<u16>().write_unaligned(len as u16);
                        ptr::copy_nonoverlapping(bytes.as_ptr(), at.add(2), len);
                    } else {
                        at.write(len as u8);
                        ptr::copy_nonoverlapping(bytes.as_ptr(), at.add(1), len);
                    }
                }
                Payload::Heap(bytes) => write_heap(at, bytes),
                Payload::Object(object) => block.add(object_at::<B>(value_at)).cast::<B>().write(object),
            }
        }
    }
}

/// Where an object is placed after a key that ends at `value_at`.
const fn object_at<B>(value_at: usize) -> usize {
    const { assert!(mem::align_of::<B>() <= 8, "blocks are aligned to 8 bytes, and an expire moves the value by as many") };
    value_at.next_multiple_of(mem::align_of::<B>())
}

/// Bytes that an object takes there, with the padding before it.
const fn object_len<B>(value_at: usize) -> usize {
    object_at::<B>(value_at) - value_at + mem::size_of::<B>()
}

fn inline_len(len: usize) -> usize {
    len + if len > 255 { 2 } else { 1 }
}

/// # Safety
/// `at` must be good for 24 bytes of writing.
unsafe fn write_heap(at: *mut u8, bytes: Vec<u8>) {
    let mut bytes = ManuallyDrop::new(bytes);
    // SAFETY: 24 bytes of room are the caller's promise.
    unsafe {
        at.cast::<*mut u8>().write_unaligned(bytes.as_mut_ptr());
        at.add(8).cast::<usize>().write_unaligned(bytes.len());
        at.add(16).cast::<usize>().write_unaligned(bytes.capacity());
    }
}

/// # Safety
/// `at` must hold what `write_heap` wrote, and the caller must not use those parts twice.
unsafe fn read_heap(at: *const u8) -> Vec<u8> {
    // SAFETY: the three words are the parts of a vector that was forgotten when they were written.
    unsafe {
        Vec::from_raw_parts(
            at.cast::<*mut u8>().read_unaligned(),
            at.add(8).cast::<usize>().read_unaligned(),
            at.add(16).cast::<usize>().read_unaligned(),
        )
    }
}

impl<'a, B> NewValue<'a, B> {
    /// The stored form, and whether the string is marked `raw`.
    fn into_payload(self) -> (Payload<'a, B>, bool) {
        match self {
            NewValue::Int(value) => (Payload::Int(value), false),
            NewValue::Str(bytes) => (str_payload(bytes), false),
            NewValue::RawStr(bytes) => (str_payload(bytes), true),
            NewValue::OwnedStr(mut bytes) => {
                // Slack beyond a tenth is freed: a value that is set is seldom appended to.
                if bytes.capacity() - bytes.len() > bytes.len() / 10 {
                    bytes.shrink_to_fit();
                }
                (Payload::Heap(bytes), false)
            }
            NewValue::Object(object) => (Payload::Object(object), false),
        }
    }
}

fn str_payload<'a, B>(bytes: &'a [u8]) -> Payload<'a, B> {
    if bytes.len() <= INLINE_MAX_LEN { Payload::Inline(bytes) } else { Payload::Heap(bytes.to_vec()) }
}

impl<B> From<OwnedValue<B>> for NewValue<'static, B> {
    fn from(value: OwnedValue<B>) -> Self {
        match value {
            OwnedValue::Int(value) => NewValue::Int(value),
            OwnedValue::Str(bytes) => NewValue::OwnedStr(bytes),
            OwnedValue::Object(object) => NewValue::Object(object),
        }
    }
}

impl<B> Entry<B> {
    /// A new entry; its clock is 0.
    pub fn new(key: &[u8], value: NewValue<'_, B>, expire_ms: Option<i64>) -> Entry<B> {
        if let NewValue::OwnedStr(bytes) = &value
            && bytes.len() <= INLINE_MAX_LEN
        {
            return Entry::new(key, NewValue::Str(bytes), expire_ms);
        }
        let (payload, raw) = value.into_payload();
        Entry::build(key, expire_ms, 0, raw, payload)
    }

    fn build(key: &[u8], expire_ms: Option<i64>, lru: u32, raw: bool, payload: Payload<'_, B>) -> Entry<B> {
        let mut flags = payload.flags();
        if raw {
            flags |= RAW;
        }
        if expire_ms.is_some() {
            flags |= HAS_EXPIRE;
        }
        if key.len() > 255 {
            flags |= LONG_KEY;
        }
        let key_len_at = key_len_at(flags);
        let key_at = key_len_at + key_len_len(flags);
        let value_at = key_at + key.len();
        let block = allocate(value_at + payload.len(value_at));
        let at = block.as_ptr();
        // SAFETY: the block has room for every part at the offsets computed from the same flags.
        unsafe {
            at.cast::<u32>().write(lru << 8 | u32::from(flags));
            if let Some(expire_ms) = expire_ms {
                at.add(HEADER_LEN).cast::<i64>().write_unaligned(expire_ms);
            }
            if flags & LONG_KEY != 0 {
                at.add(key_len_at).cast::<usize>().write_unaligned(key.len());
            } else {
                at.add(key_len_at).write(key.len() as u8);
            }
            ptr::copy_nonoverlapping(key.as_ptr(), at.add(key_at), key.len());
            payload.write(at, value_at);
        }
        Entry { block, _owns: PhantomData }
    }

    fn header(&self) -> u32 {
        // SAFETY: a block starts with its aligned four-byte header.
        unsafe { self.block.as_ptr().cast::<u32>().read() }
    }

    fn set_flags(&mut self, flags: u8) {
        let header = self.header() & !0xff | u32::from(flags);
        // SAFETY: as in `header`; `&mut self` is the only path.
        unsafe { self.block.as_ptr().cast::<u32>().write(header) }
    }

    fn flags(&self) -> u8 {
        self.header() as u8
    }

    /// Where the key's bytes start and how many there are.
    fn key_span(&self, flags: u8) -> (usize, usize) {
        let at = key_len_at(flags);
        // SAFETY: the length stands where the flags say it does.
        unsafe {
            let from = self.block.as_ptr().add(at);
            if flags & LONG_KEY != 0 {
                (at + 8, from.cast::<usize>().read_unaligned())
            } else {
                (at + 1, usize::from(from.read()))
            }
        }
    }

    fn value_at(&self, flags: u8) -> usize {
        let (at, len) = self.key_span(flags);
        at + len
    }

    /// Where an inline string's bytes start within the value, and how many there are.
    ///
    /// # Safety
    /// The flags must be this entry's and say `KIND_INLINE`, `value_at` where its value starts.
    unsafe fn inline_span(&self, flags: u8, value_at: usize) -> (usize, usize) {
        // SAFETY: the value starts with its length.
        unsafe {
            let from = self.block.as_ptr().add(value_at);
            if flags & LONG_VALUE != 0 {
                (value_at + 2, usize::from(from.cast::<u16>().read_unaligned()))
            } else {
                (value_at + 1, usize::from(from.read()))
            }
        }
    }

    fn value_len(&self, flags: u8, value_at: usize) -> usize {
        match flags & KIND_MASK {
            KIND_INLINE => {
                // SAFETY: the kind was just checked.
                let (at, len) = unsafe { self.inline_span(flags, value_at) };
                at - value_at + len
            }
            KIND_HEAP => HEAP_LEN,
            KIND_OBJECT => object_len::<B>(value_at),
            _ => 8,
        }
    }

    /// The number of bytes of the block in use.
    fn used_len(&self) -> usize {
        let flags = self.flags();
        let value_at = self.value_at(flags);
        value_at + self.value_len(flags, value_at)
    }

    pub(crate) fn key(&self) -> &[u8] {
        let (at, len) = self.key_span(self.flags());
        // SAFETY: the key's bytes lie within the block and live as long as it.
        unsafe { std::slice::from_raw_parts(self.block.as_ptr().add(at), len) }
    }

    /// When the key expires, in milliseconds since the epoch.
    pub(crate) fn expire_ms(&self) -> Option<i64> {
        if self.flags() & HAS_EXPIRE == 0 {
            return None;
        }
        // SAFETY: the flag says that the expire follows the header.
        Some(unsafe { self.block.as_ptr().add(HEADER_LEN).cast::<i64>().read_unaligned() })
    }

    pub fn has_expire(&self) -> bool {
        self.flags() & HAS_EXPIRE != 0
    }

    /// Sets or clears the expire time. Moves the block only when it then needs another size class.
    pub(crate) fn set_expire(&mut self, expire_ms: Option<i64>) {
        let flags = self.flags();
        let had = flags & HAS_EXPIRE != 0;
        if had != expire_ms.is_some() {
            let old_len = self.used_len();
            let (new_len, from, to, new_flags) = if had {
                (old_len - EXPIRE_LEN, HEADER_LEN + EXPIRE_LEN, HEADER_LEN, flags & !HAS_EXPIRE)
            } else {
                (old_len + EXPIRE_LEN, HEADER_LEN, HEADER_LEN + EXPIRE_LEN, flags | HAS_EXPIRE)
            };
            let tail = old_len - from;
            let old = self.block.as_ptr();
            // SAFETY: the tail lies in the old block, and the new place has room for it: either the class is the same
            // or a fresh block of the new length was just made, and the old one is freed with its own layout.
            unsafe {
                if size_class(new_len) == size_class(old_len) {
                    ptr::copy(old.add(from), old.add(to), tail);
                } else {
                    let new = allocate(new_len);
                    ptr::copy_nonoverlapping(old, new.as_ptr(), HEADER_LEN);
                    ptr::copy_nonoverlapping(old.add(from), new.as_ptr().add(to), tail);
                    release(self.block, old_len);
                    self.block = new;
                }
            }
            self.set_flags(new_flags);
        }
        if let Some(expire_ms) = expire_ms {
            // SAFETY: the block now has an expire time after its header.
            unsafe {
                let at = self.block.as_ptr().add(HEADER_LEN);
                at.cast::<i64>().write_unaligned(expire_ms);
            }
        }
    }

    /// The 24 bits of access clock (LRU time, or LFU time and counter).
    pub(crate) fn lru(&self) -> u32 {
        self.header() >> 8
    }

    /// Sets the clock; bits above 24 are dropped. Takes `&self` so that a read can record the access.
    pub(crate) fn set_lru(&self, lru: u32) {
        let header = lru << 8 | self.header() & 0xff;
        // SAFETY: no reference ever covers the header, and an entry is not `Sync`, so nobody reads it meanwhile.
        unsafe { self.block.as_ptr().cast::<u32>().write(header) }
    }

    pub(crate) fn value(&self) -> ValueRef<'_, B> {
        let flags = self.flags();
        let value_at = self.value_at(flags);
        // SAFETY: the kind says what stands at the value's place; the bytes and the object live as long as the entry.
        unsafe {
            let at = self.block.as_ptr().add(value_at);
            match flags & KIND_MASK {
                KIND_INT => ValueRef::Int(at.cast::<i64>().read_unaligned()),
                KIND_OBJECT => ValueRef::Object(&*self.block.as_ptr().add(object_at::<B>(value_at)).cast::<B>()),
                kind => {
                    let bytes = if kind == KIND_INLINE {
                        let (at, len) = self.inline_span(flags, value_at);
                        std::slice::from_raw_parts(self.block.as_ptr().add(at), len)
                    } else {
                        std::slice::from_raw_parts(
                            at.cast::<*const u8>().read_unaligned(),
                            at.add(8).cast::<usize>().read_unaligned(),
                        )
                    };
                    ValueRef::Str { bytes, raw: flags & RAW != 0 || bytes.len() > EMBSTR_MAX_LEN }
                }
            }
        }
    }

    /// The bytes of a string value, an integer as its decimal text; `None` for an object.
    pub(crate) fn value_bytes<'a>(&'a self, int: &'a mut IntBuf) -> Option<&'a [u8]> {
        match self.value() {
            ValueRef::Int(value) => Some(int.format(value)),
            ValueRef::Str { bytes, .. } => Some(bytes),
            ValueRef::Object(_) => None,
        }
    }

    /// Lends the bytes of a long string, one that has an allocation of its own.
    pub(crate) fn lend(&self) -> Option<Lent> {
        match self.value() {
            // SAFETY: long strings are freed by `bury` and changed after `for_change` alone.
            ValueRef::Str { bytes, .. } if self.flags() & KIND_MASK == KIND_HEAP => Some(unsafe { Lent::new(bytes) }),
            _ => None,
        }
    }

    pub(crate) fn object(&self) -> Option<&B> {
        match self.value() {
            ValueRef::Object(object) => Some(object),
            _ => None,
        }
    }

    pub(crate) fn object_mut(&mut self) -> Option<&mut B> {
        let flags = self.flags();
        if flags & KIND_MASK != KIND_OBJECT {
            return None;
        }
        // SAFETY: the kind says that an object stands there; `&mut self` makes it the only path.
        unsafe {
            let at = self.block.as_ptr().add(object_at::<B>(self.value_at(flags)));
            Some(&mut *at.cast::<B>())
        }
    }

    /// The bytes of a stored string for change without growth (SETBIT, SETRANGE inside the value), which marks it
    /// `raw`. `None` for an integer or an object.
    pub(crate) fn str_bytes_mut(&mut self) -> Option<&mut [u8]> {
        let flags = self.flags();
        let value_at = self.value_at(flags);
        // SAFETY: as in `value`, by the only path.
        let (at, len) = unsafe {
            match flags & KIND_MASK {
                KIND_INLINE => {
                    let (at, len) = self.inline_span(flags, value_at);
                    (self.block.as_ptr().add(at), len)
                }
                KIND_HEAP => {
                    let at = self.block.as_ptr().add(value_at);
                    write_heap(at, lend::for_change(read_heap(at)));
                    (at.cast::<*mut u8>().read_unaligned(), at.add(8).cast::<usize>().read_unaligned())
                }
                _ => return None,
            }
        };
        self.set_flags(flags | RAW);
        // SAFETY: the span lies within memory that the entry owns.
        Some(unsafe { std::slice::from_raw_parts_mut(at, len) })
    }

    /// Replaces the value; key, expire and clock stay. In place when the block's size class allows.
    pub fn set_value(&mut self, value: NewValue<'_, B>) {
        if let NewValue::OwnedStr(bytes) = &value
            && bytes.len() <= INLINE_MAX_LEN
        {
            return self.set_value(NewValue::Str(bytes));
        }
        let (payload, raw) = value.into_payload();
        let old = self.detach_value(payload, raw);
        match old {
            Some(OwnedValue::Str(bytes)) => lend::bury(bytes),
            object => drop(object),
        }
    }

    /// Makes the value an integer, in place when the block's size class allows.
    pub(crate) fn set_int(&mut self, value: i64) {
        let flags = self.flags();
        if flags & KIND_MASK != KIND_INT {
            return self.set_value(NewValue::Int(value));
        }
        // SAFETY: an integer stands there, and another takes its place.
        unsafe { self.block.as_ptr().add(self.value_at(flags)).cast::<i64>().write_unaligned(value) }
    }

    /// Replaces the value. An old one outside the block, or an object, is returned, not freed, so that the entry is
    /// whole when `B`'s drop runs.
    fn detach_value(&mut self, new: Payload<'_, B>, raw: bool) -> Option<OwnedValue<B>> {
        let flags = self.flags();
        let value_at = self.value_at(flags);
        let old_len = value_at + self.value_len(flags, value_at);
        let new_len = value_at + new.len(value_at);
        let value_flags = new.flags() | if raw { RAW } else { 0 };
        let old = self.block.as_ptr();
        // SAFETY: an out-of-line value is read out exactly once, before its place is overwritten.
        let out = unsafe {
            match flags & KIND_MASK {
                KIND_HEAP => Some(OwnedValue::Str(read_heap(old.add(value_at)))),
                KIND_OBJECT => Some(OwnedValue::Object(old.add(object_at::<B>(value_at)).cast::<B>().read())),
                _ => None,
            }
        };
        if size_class(new_len) != size_class(old_len) {
            let block = allocate(new_len);
            // SAFETY: both blocks hold the part before the value; the old one goes back with its own layout.
            unsafe {
                ptr::copy_nonoverlapping(old, block.as_ptr(), value_at);
                release(self.block, old_len);
            }
            self.block = block;
        }
        // SAFETY: the block's class covers `new_len`.
        unsafe { new.write(self.block.as_ptr(), value_at) };
        self.set_flags(flags & (HAS_EXPIRE | LONG_KEY) | value_flags);
        out
    }

    /// The string value as a growable vector, marked `raw`; an integer becomes its decimal text first. The vector goes
    /// back into the entry when the guard is dropped. `None` for an object.
    pub(crate) fn make_raw_mut(&mut self) -> Option<StrMut<'_, B>> {
        let text = match self.value() {
            ValueRef::Object(_) => return None,
            ValueRef::Int(value) => itoa::Buffer::new().format(value).as_bytes().to_vec(),
            ValueRef::Str { .. } if self.flags() & KIND_MASK == KIND_HEAP => Vec::new(),
            ValueRef::Str { bytes, .. } => bytes.to_vec(),
        };
        // The entry holds an empty vector while the guard has the real one, so that a leaked guard only leaks memory.
        let old = self.detach_value(Payload::Heap(Vec::new()), true);
        let bytes = match old {
            Some(OwnedValue::Str(bytes)) => lend::for_change(bytes),
            _ => text,
        };
        Some(StrMut { entry: self, bytes })
    }

    /// Takes the value out and frees the key.
    pub(crate) fn take_value(mut self) -> OwnedValue<B> {
        match self.value() {
            ValueRef::Int(value) => return OwnedValue::Int(value),
            ValueRef::Str { bytes, .. } if self.flags() & KIND_MASK == KIND_INLINE => {
                return OwnedValue::Str(bytes.to_vec());
            }
            ValueRef::Str { .. } | ValueRef::Object(_) => {}
        }
        match self.detach_value(Payload::Int(0), false) {
            Some(OwnedValue::Str(bytes)) => OwnedValue::Str(lend::for_change(bytes)),
            Some(value) => value,
            None => unreachable!("an out-of-line value was there"),
        }
    }

    /// The same value, expire and clock under another key (RENAME).
    pub(crate) fn with_key(self, key: &[u8]) -> Entry<B> {
        let expire_ms = self.expire_ms();
        let lru = self.lru();
        let raw = self.flags() & RAW != 0;
        if let ValueRef::Str { bytes, .. } = self.value()
            && bytes.len() <= INLINE_MAX_LEN
            && self.flags() & KIND_MASK == KIND_INLINE
        {
            return Entry::build(key, expire_ms, lru, raw, Payload::Inline(bytes));
        }
        let payload = match self.take_value() {
            OwnedValue::Int(value) => Payload::Int(value),
            OwnedValue::Str(bytes) => Payload::Heap(bytes),
            OwnedValue::Object(object) => Payload::Object(object),
        };
        Entry::build(key, expire_ms, lru, raw, payload)
    }

    /// The bytes of memory the entry takes from the allocator, its out-of-line string included, but not what an object
    /// holds outside the block.
    pub(crate) fn alloc_size(&self) -> usize {
        let block = size_class(self.used_len());
        let flags = self.flags();
        match flags & KIND_MASK {
            KIND_HEAP => {
                // SAFETY: the kind says that the third word is the capacity.
                let capacity = unsafe {
                    let at = self.block.as_ptr().add(self.value_at(flags) + 16);
                    at.cast::<usize>().read_unaligned()
                };
                block + if capacity == 0 { 0 } else { size_class(capacity) }
            }
            _ => block,
        }
    }

    /// Asserts what the file's head promises.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        let flags = self.flags();
        assert_eq!(flags & 0b1100_0000, 0, "unknown flags");
        let (_, key_len) = self.key_span(flags);
        assert_eq!(flags & LONG_KEY != 0, key_len > 255);
        if flags & KIND_MASK == KIND_INLINE {
            // SAFETY: the kind was just checked.
            let (_, len) = unsafe { self.inline_span(flags, self.value_at(flags)) };
            assert!(len <= INLINE_MAX_LEN);
            assert_eq!(flags & LONG_VALUE != 0, len > 255);
        } else {
            assert_eq!(flags & LONG_VALUE, 0);
        }
        if matches!(flags & KIND_MASK, KIND_INT | KIND_OBJECT) {
            assert_eq!(flags & RAW, 0);
        }
    }
}

fn key_len_at(flags: u8) -> usize {
    // HAS_EXPIRE is bit 2: shifted by one it is the 8 bytes of the expire.
    HEADER_LEN + usize::from((flags & HAS_EXPIRE) << 1)
}

fn key_len_len(flags: u8) -> usize {
    if flags & LONG_KEY != 0 { 8 } else { 1 }
}

fn block_layout(len: usize) -> Layout {
    Layout::from_size_align(size_class(len), 8).expect("an entry smaller than the address space")
}

fn allocate(len: usize) -> NonNull<u8> {
    let layout = block_layout(len);
    // SAFETY: a size class is never zero.
    let at = unsafe { alloc(layout) };
    NonNull::new(at).unwrap_or_else(|| handle_alloc_error(layout))
}

/// # Safety
/// `block` must come from `allocate` with a length of the same class, and not be used afterwards.
unsafe fn release(block: NonNull<u8>, len: usize) {
    // SAFETY: the layout follows from the class alone.
    unsafe { dealloc(block.as_ptr(), block_layout(len)) }
}

impl<B> Drop for Entry<B> {
    fn drop(&mut self) {
        let flags = self.flags();
        let value_at = self.value_at(flags);
        let len = value_at + self.value_len(flags, value_at);
        // SAFETY: out-of-line memory is taken back once, then the block with its own layout.
        unsafe {
            let at = self.block.as_ptr().add(value_at);
            match flags & KIND_MASK {
                KIND_HEAP => lend::bury(read_heap(at)),
                KIND_OBJECT => ptr::drop_in_place(self.block.as_ptr().add(object_at::<B>(value_at)).cast::<B>()),
                _ => {}
            }
            release(self.block, len);
        }
    }
}

// SAFETY: an entry owns its block, its string and its `B`, and shares none of them.
unsafe impl<B: Send> Send for Entry<B> {}

impl<B> TableItem for Entry<B> {
    fn key(&self) -> &[u8] {
        Entry::key(self)
    }

    fn tagged(&self) -> bool {
        self.has_expire()
    }
}

impl<B: std::fmt::Debug> std::fmt::Debug for Entry<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key().escape_ascii().to_string())
            .field("expire_ms", &self.expire_ms())
            .field("lru", &self.lru())
            .field("value", &self.value())
            .finish()
    }
}

/// An entry's string while it is being changed.
pub(crate) struct StrMut<'a, B> {
    entry: &'a mut Entry<B>,
    bytes: Vec<u8>,
}

impl<B> StrMut<'_, B> {
    /// Most slack that growing leaves, bytes.
    const MAX_SLACK: usize = 1024 * 1024;

    /// Makes room for `additional` more bytes. If the string's block has it, no more is taken; else with slack for further
    /// growth: as much again as the new length, at most [`MAX_SLACK`].
    pub(crate) fn reserve_slack(&mut self, additional: usize) {
        let needed = self.bytes.len() + additional;
        if needed > self.bytes.capacity() {
            // The string's block may have room beyond its capacity: then nothing is moved.
            let block = size_class(self.bytes.capacity());
            let wanted = if needed <= block { block } else { size_class(needed + needed.min(Self::MAX_SLACK)) };
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
    }

    /// Adds bytes at the end.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.reserve_slack(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Grows to `len` bytes with zeros; never shrinks.
    pub(crate) fn grow_zeroed(&mut self, len: usize) {
        if len > self.bytes.len() {
            if self.bytes.is_empty() {
                // Fresh zeroed pages cost nothing until they are touched: SETBIT far out stays quick.
                self.bytes = vec![0; len];
            } else {
                self.reserve_slack(len - self.bytes.len());
                self.bytes.resize(len, 0);
            }
        }
    }
}

impl<B> Deref for StrMut<'_, B> {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl<B> DerefMut for StrMut<'_, B> {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl<B> Drop for StrMut<'_, B> {
    fn drop(&mut self) {
        let bytes = mem::take(&mut self.bytes);
        let at = self.entry.value_at(self.entry.flags());
        // SAFETY: `make_raw_mut` left an empty vector of 24 bytes at the value's place; it owns no memory, so writing
        // over it loses none.
        unsafe { write_heap(self.entry.block.as_ptr().add(at), bytes) }
    }
}

#[cfg(test)]
mod tests;
