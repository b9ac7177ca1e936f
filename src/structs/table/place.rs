//! The place of one key: guards through which an item is changed, replaced, added or taken out.

#![allow(unsafe_code)]

use std::mem;
use std::ops::{Deref, DerefMut};
use std::ptr;

use super::{Spot, Table, TableItem};

/// An item that may be changed; see [`Table::entry`].
pub struct ItemMut<'t, T: TableItem> {
    pub(super) table: &'t mut Table<T>,
    pub(super) spot: Spot<T>,
}

impl<T: TableItem> Deref for ItemMut<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the spot names an item, and the table is borrowed for as long as it does.
        unsafe { self.spot.bucket.item(self.spot.place) }
    }
}

impl<T: TableItem> DerefMut for ItemMut<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and exclusively.
        unsafe { self.spot.bucket.item_mut(self.spot.place) }
    }
}

impl<T: TableItem> Drop for ItemMut<'_, T> {
    fn drop(&mut self) {
        self.table.refresh_tag(self.spot);
    }
}

impl<'t, T: TableItem> ItemMut<'t, T> {
    /// The item, which was not changed, for as long as its table is borrowed.
    #[inline(always)]
    pub(crate) fn into_ref(self) -> &'t T {
        let this = mem::ManuallyDrop::new(self);
        // SAFETY: the spot names an item, and the table stays borrowed for as long as the reference lives.
        unsafe { this.spot.bucket.item(this.spot.place) }
    }

    /// Takes the item out of the table.
    pub(crate) fn remove(self) -> T {
        // The item is gone afterwards: its tag must not be read again.
        let this = mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped and not used again, so the reference is moved out once.
        let table = unsafe { ptr::read(&this.table) };
        table.refresh_tag(this.spot);
        let item = table.unlink(this.spot);
        table.shrink_if_sparse();
        item
    }
}

/// The place of a key in a table.
pub enum TableEntry<'t, T: TableItem> {
    Occupied(OccupiedEntry<'t, T>),
    Vacant(VacantEntry<'t, T>),
}

pub struct OccupiedEntry<'t, T: TableItem> {
    pub(super) item: ItemMut<'t, T>,
}

impl<'t, T: TableItem> OccupiedEntry<'t, T> {
    pub(crate) fn get(&self) -> &T {
        &self.item
    }

    pub fn get_mut(&mut self) -> &mut T {
        &mut self.item
    }

    /// The item for as long as the table is borrowed.
    pub(crate) fn into_mut(self) -> ItemMut<'t, T> {
        self.item
    }

    pub(crate) fn remove(self) -> T {
        self.item.remove()
    }
}

pub struct VacantEntry<'t, T: TableItem> {
    pub(super) table: &'t mut Table<T>,
    pub(super) hash: u64,
}

impl<'t, T: TableItem> VacantEntry<'t, T> {
    /// Adds the item, whose key must be the one that was looked for.
    pub(crate) fn insert(self, item: T) -> ItemMut<'t, T> {
        debug_assert_eq!(self.hash, self.table.hash(item.key()));
        let spot = self.table.place(self.hash, item);
        ItemMut { table: self.table, spot }
    }
}
