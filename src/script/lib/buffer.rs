//! The buffer that library functions write results to: at most as long as a script's string may be, with an error when
//! there is no memory for more.

use crate::script::memory::STRING_MAX;

/// No more bytes may be written, or there is no memory for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
}

/// Memory up to this is kept from call to call, bytes.
const KEPT: usize = 64 * 1024;
/// The smallest capacity, bytes.
const FIRST: usize = 256;

impl Buffer {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    pub(crate) fn push(&mut self, byte: u8) -> Result<(), Full> {
        if self.bytes.len() == self.bytes.capacity() {
            self.grow(1)?;
        }
        self.bytes.push(byte);
        Ok(())
    }

    #[inline]
    pub(crate) fn extend(&mut self, bytes: &[u8]) -> Result<(), Full> {
        if bytes.len() > self.bytes.capacity() - self.bytes.len() {
            self.grow(bytes.len())?;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends `len` zeros.
    pub(crate) fn pad(&mut self, len: usize) -> Result<(), Full> {
        if len > self.bytes.capacity() - self.bytes.len() {
            self.grow(len)?;
        }
        self.bytes.resize(self.bytes.len() + len, 0);
        Ok(())
    }

    /// Makes room for more bytes.
    #[cold]
    fn grow(&mut self, more: usize) -> Result<(), Full> {
        let len = self.bytes.len().checked_add(more).filter(|len| *len <= STRING_MAX).ok_or(Full)?;
        let wanted = len.max(2 * self.bytes.capacity()).clamp(FIRST, STRING_MAX);
        self.bytes.try_reserve_exact(wanted - self.bytes.len()).map_err(|_| Full)
    }

    /// Empties it, and frees the memory of an unusually large result.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
    }

    /// The bytes, emptied and with room for `len`, for results that cannot become longer.
    pub(crate) fn with_room(&mut self, len: usize) -> Result<&mut Vec<u8>, Full> {
        self.bytes.clear();
        if len > self.bytes.capacity() {
            self.grow(len)?;
        }
        Ok(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_full_at_the_length_of_the_longest_string() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.pad(STRING_MAX), Ok(()));
        assert_eq!((buffer.push(1), buffer.extend(b"x"), buffer.pad(1)), (Err(Full), Err(Full), Err(Full)));
        assert_eq!((buffer.extend(b""), buffer.len()), (Ok(()), STRING_MAX));
        assert_eq!(buffer.with_room(STRING_MAX + 1).err(), Some(Full));
        buffer.clear();
        assert_eq!((buffer.bytes.capacity(), buffer.push(1)), (0, Ok(())));
        assert_eq!(buffer.as_bytes(), [1]);
    }
}
