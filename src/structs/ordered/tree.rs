//! The order of a large sorted set: a B+-tree of pointers to members, with the number of members below each branch.
//!
//! Invariants: all leaves are at the same depth; no node below the root is empty; a branch knows the first member of
//! each child, that member's score and the child's number of members. The caller keeps members alive while they are in
//! the tree.

#![allow(unsafe_code)]

use std::cmp::Ordering;

use super::member::Ptr;

/// Most members of a leaf: with their count 512 bytes.
const LEAF: usize = 63;
/// Most children of a branch.
const FAN: usize = 32;
/// A leaf with fewer members is merged with a neighbour, where both together have at most [`LEAF_MERGED`].
const LEAF_LOW: usize = 21;
const LEAF_MERGED: usize = 48;
/// The same for the children of a branch.
const FAN_LOW: usize = 8;
const FAN_MERGED: usize = 24;
/// A full leaf gives members to a neighbour that has at least so much room.
const WORTHWHILE: usize = 6;

struct Leaf {
    len: usize,
    items: [Ptr; LEAF],
}

impl Leaf {
    fn new(items: &[Ptr]) -> Box<Leaf> {
        let mut leaf = Box::new(Leaf { len: items.len(), items: [Ptr::NONE; LEAF] });
        leaf.items[..items.len()].copy_from_slice(items);
        leaf
    }

    fn items(&self) -> &[Ptr] {
        &self.items[..self.len]
    }

    fn insert(&mut self, at: usize, item: Ptr) {
        self.items.copy_within(at..self.len, at + 1);
        self.items[at] = item;
        self.len += 1;
    }

    fn remove(&mut self, from: usize, count: usize) {
        self.items.copy_within(from + count..self.len, from);
        self.len -= count;
    }

    fn push_all(&mut self, items: &[Ptr]) {
        self.items[self.len..self.len + items.len()].copy_from_slice(items);
        self.len += items.len();
    }

    fn push_all_front(&mut self, items: &[Ptr]) {
        self.items.copy_within(..self.len, items.len());
        self.items[..items.len()].copy_from_slice(items);
        self.len += items.len();
    }
}

enum Node {
    Leaf(Box<Leaf>),
    Branch(Vec<Kid>),
}

/// A child of a branch.
struct Kid {
    /// The score of `first`.
    score: f64,
    first: Ptr,
    /// Number of members below.
    count: usize,
    node: Node,
}

impl Kid {
    /// # Safety
    /// The node must not be empty and its members be alive.
    unsafe fn new(node: Node) -> Kid {
        let first = node.first();
        // SAFETY: the caller's promise.
        Kid { score: unsafe { first.score() }, first, count: node.count(), node }
    }

    /// Updates the first member and its score.
    ///
    /// # Safety
    /// As for `new`.
    unsafe fn refresh(&mut self) {
        self.first = self.node.first();
        // SAFETY: the caller's promise.
        self.score = unsafe { self.first.score() };
    }
}

impl Node {
    fn first(&self) -> Ptr {
        match self {
            Node::Leaf(leaf) => leaf.items()[0],
            Node::Branch(kids) => kids[0].first,
        }
    }

    fn count(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.len,
            Node::Branch(kids) => kids.iter().map(|k| k.count).sum(),
        }
    }

    fn is_full(&self) -> bool {
        match self {
            Node::Leaf(leaf) => leaf.len == LEAF,
            Node::Branch(kids) => kids.len() == FAN,
        }
    }
}

fn branch(kids: impl IntoIterator<Item = Kid>) -> Node {
    let mut all = Vec::with_capacity(FAN);
    all.extend(kids);
    Node::Branch(all)
}

/// A place in the order.
#[derive(Clone, Copy)]
struct Key<'a> {
    score: f64,
    name: &'a [u8],
}

impl Key<'_> {
    /// # Safety
    /// The member must be alive while the key is used.
    unsafe fn of<'a>(at: Ptr) -> Key<'a> {
        // SAFETY: the caller's promise.
        unsafe { Key { score: at.score(), name: at.name() } }
    }

    /// Whether the member `at` with this score comes at this place or before it.
    ///
    /// # Safety
    /// The member must be alive.
    unsafe fn is_from(&self, score: f64, at: Ptr) -> bool {
        match score.partial_cmp(&self.score) {
            Some(Ordering::Less) => true,
            // SAFETY: the caller's promise.
            Some(Ordering::Equal) => unsafe { at.name() <= self.name },
            _ => false,
        }
    }

    /// The index of the child in which the place is.
    ///
    /// # Safety
    /// All members must be alive.
    unsafe fn kid_of(&self, kids: &[Kid]) -> usize {
        // SAFETY: the caller's promise.
        kids[1..].partition_point(|k| unsafe { self.is_from(k.score, k.first) })
    }

    /// The number of members in a row up to this place, the one at it included.
    ///
    /// # Safety
    /// All members must be alive.
    unsafe fn index_in(&self, items: &[Ptr]) -> usize {
        // SAFETY: the caller's promise.
        items.partition_point(|at| unsafe { self.is_from(at.score(), *at) })
    }
}

/// See the file's head.
pub(super) struct Tree {
    root: Node,
}

impl Tree {
    pub(super) fn new() -> Tree {
        Tree { root: Node::Leaf(Leaf::new(&[])) }
    }

    /// Puts a member in its place.
    ///
    /// # Safety
    /// It must not be in the tree. It must stay alive, with the score and name it has, until it is removed.
    pub(super) unsafe fn insert(&mut self, at: Ptr) {
        if self.root.is_full() {
            let root = std::mem::replace(&mut self.root, Node::Branch(Vec::new()));
            // SAFETY: a full node has members, and members of the tree are alive.
            self.root = branch([unsafe { Kid::new(root) }]);
        }
        // SAFETY: the caller's promise.
        unsafe { insert(&mut self.root, Key::of(at), at, Edges { low: true, high: true }) }
    }

    /// Takes a member out.
    ///
    /// # Safety
    /// It must be in the tree.
    pub(super) unsafe fn remove(&mut self, at: Ptr) {
        // SAFETY: the caller's promise; members of the tree are alive.
        unsafe { remove(&mut self.root, Key::of(at), at) }
        self.lower();
    }

    /// Gives a member another score and moves it to its new place.
    ///
    /// # Safety
    /// The member must be in the tree.
    pub(super) unsafe fn change_score(&mut self, at: Ptr, score: f64) {
        // SAFETY: the caller's promise; a member that is out of the tree may change.
        unsafe {
            if move_within_leaf(&self.root, Key::of(at), at, score) {
                return;
            }
            self.remove(at);
            at.set_score(score);
            self.insert(at);
        }
    }

    /// Removes up to `count` members, at least one, from an existing rank on. Calls `f` with each, which need not be
    /// alive after that. Returns how many.
    pub(super) fn remove_run(&mut self, from: usize, count: usize, mut f: impl FnMut(Ptr)) -> usize {
        // SAFETY: members of the tree are alive.
        let removed = unsafe { remove_run(&mut self.root, from, count, &mut f) };
        self.lower();
        removed
    }

    /// Lowers the tree as far as possible after a removal.
    fn lower(&mut self) {
        while let Node::Branch(kids) = &mut self.root {
            match kids.len() {
                0 => self.root = Node::Leaf(Leaf::new(&[])),
                1 => self.root = kids.pop().expect("one child").node,
                _ => return,
            }
        }
    }

    /// The number of members for which `before` is true; they must be the first ones.
    pub(super) fn partition_point(&self, before: impl Fn(Ptr) -> bool) -> usize {
        let mut node = &self.root;
        let mut rank = 0;
        loop {
            match node {
                Node::Leaf(leaf) => return rank + leaf.items().partition_point(|at| before(*at)),
                Node::Branch(kids) => {
                    let index = kids[1..].partition_point(|k| before(k.first));
                    rank += kids[..index].iter().map(|k| k.count).sum::<usize>();
                    node = &kids[index].node;
                }
            }
        }
    }

    /// The leaf that holds a rank, and where in it.
    pub(super) fn leaf_of(&self, mut rank: usize) -> Option<(&[Ptr], usize)> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return (rank < leaf.len).then(|| (leaf.items(), rank)),
                Node::Branch(kids) => node = &kids[kid_of_rank(kids, &mut rank)?].node,
            }
        }
    }

    /// Bytes of memory below the root.
    pub(super) fn mem_bytes(&self) -> usize {
        fn of(node: &Node) -> usize {
            match node {
                Node::Leaf(_) => size_of::<Leaf>(),
                Node::Branch(kids) => {
                    // All children are of one kind: leaves or branches.
                    let below = match kids.first().map(|k| &k.node) {
                        Some(Node::Leaf(_)) => kids.len() * size_of::<Leaf>(),
                        _ => kids.iter().map(|k| of(&k.node)).sum(),
                    };
                    kids.capacity() * size_of::<Kid>() + below
                }
            }
        }
        of(&self.root)
    }

    /// Asserts the file head's invariants but for the order, and adds all members to `found`.
    #[cfg(test)]
    pub(super) fn check_invariants(&self, found: &mut Vec<Ptr>) {
        fn check(node: &Node, is_root: bool, depth: usize, leaves_at: &mut Option<usize>, found: &mut Vec<Ptr>) {
            match node {
                Node::Leaf(leaf) => {
                    assert!(is_root || leaf.len > 0, "an empty leaf");
                    assert_eq!(*leaves_at.get_or_insert(depth), depth, "leaves at different depths");
                    found.extend(leaf.items());
                }
                Node::Branch(kids) => {
                    assert!(!kids.is_empty() && kids.len() <= FAN);
                    assert!(!is_root || kids.len() > 1, "a root that could go");
                    for kid in kids {
                        let before = found.len();
                        check(&kid.node, false, depth + 1, leaves_at, found);
                        assert_eq!(found.len() - before, kid.count, "count of a branch");
                        assert_eq!(found[before], kid.first, "first member of a branch");
                        // SAFETY: members of the tree are alive.
                        assert_eq!(unsafe { kid.first.score() }, kid.score, "score of a branch");
                    }
                }
            }
        }
        check(&self.root, true, 0, &mut None, found);
    }
}

/// The index of the child that holds a rank; `rank` becomes the rank within it.
fn kid_of_rank(kids: &[Kid], rank: &mut usize) -> Option<usize> {
    for (index, kid) in kids.iter().enumerate() {
        if *rank < kid.count {
            return Some(index);
        }
        *rank -= kid.count;
    }
    None
}

/// Whether a node holds the lowest and the highest members of the tree.
#[derive(Clone, Copy)]
struct Edges {
    low: bool,
    high: bool,
}

/// # Safety
/// All members must be alive. `node` must not be full.
unsafe fn insert(node: &mut Node, key: Key<'_>, at: Ptr, edges: Edges) {
    match node {
        Node::Leaf(leaf) => {
            // SAFETY: all members are alive, by the caller's promise.
            let index = unsafe { key.index_in(leaf.items()) };
            leaf.insert(index, at);
        }
        // SAFETY: all members are alive, by the caller's promise, and a child has room before it is asked to take one.
        Node::Branch(kids) => unsafe {
            let mut index = key.kid_of(kids);
            if kids[index].node.is_full() {
                make_room(kids, index, key, edges);
                index = key.kid_of(kids);
            }
            let edges = Edges { low: edges.low && index == 0, high: edges.high && index + 1 == kids.len() };
            let kid = &mut kids[index];
            insert(&mut kid.node, key, at, edges);
            kid.count += 1;
            kid.refresh();
        },
    }
}

/// Makes room for a key in a full child: moves members to a neighbour, or adds a child.
///
/// # Safety
/// All members must be alive. `kids` must not be full.
unsafe fn make_room(kids: &mut Vec<Kid>, index: usize, key: Key<'_>, edges: Edges) {
    let last = kids.len() - 1;
    // SAFETY: the caller's promise; no node that is made or changed here is empty.
    unsafe {
        let leaf = match &mut kids[index].node {
            Node::Branch(below) => {
                let upper = Kid::new(branch(below.drain(FAN / 2..)));
                kids[index].count -= upper.count;
                kids.insert(index + 1, upper);
                return;
            }
            Node::Leaf(leaf) => leaf,
        };
        // Members that come in order leave full leaves.
        let before_all = !key.is_from(leaf.items()[0].score(), leaf.items()[0]);
        let after_all = key.is_from(leaf.items()[LEAF - 1].score(), leaf.items()[LEAF - 1]);
        if (edges.high && index == last && after_all) || (edges.low && index == 0 && before_all) {
            let (at, kept) = if after_all { (index + 1, LEAF - 1) } else { (index, 1) };
            let cut = if after_all { kept..LEAF } else { 0..kept };
            let alone = Leaf::new(&leaf.items()[cut.clone()]);
            leaf.remove(cut.start, cut.len());
            kids[index].count -= cut.len();
            kids[index].refresh();
            kids.insert(at, Kid::new(Node::Leaf(alone)));
            return;
        }
        if index > 0 && give(kids, index, index - 1) {
            return;
        }
        if index < last && give(kids, index, index + 1) {
            return;
        }
        if last == 0 {
            let Node::Leaf(leaf) = &mut kids[index].node else { unreachable!("checked above") };
            let upper = Leaf::new(&leaf.items()[LEAF / 2..]);
            leaf.len = LEAF / 2;
            kids[index].count = LEAF / 2;
            kids.insert(index + 1, Kid::new(Node::Leaf(upper)));
            return;
        }
        // Two leaves that are about full become three.
        let low = if index < last { index } else { index - 1 };
        let (Some(a), Some(b)) = (leaf_items(&kids[low].node), leaf_items(&kids[low + 1].node)) else {
            unreachable!("leaves have leaves beside them")
        };
        let all = [a, b].concat();
        let third = all.len() / 3;
        let thirds = [&all[..third], &all[third..2 * third], &all[2 * third..]];
        let [a, b, c] = thirds.map(|items| Kid::new(Node::Leaf(Leaf::new(items))));
        kids[low] = a;
        kids[low + 1] = b;
        kids.insert(low + 2, c);
    }
}

fn leaf_items(node: &Node) -> Option<&[Ptr]> {
    match node {
        Node::Leaf(leaf) => Some(leaf.items()),
        Node::Branch(_) => None,
    }
}

/// Evens out a full leaf with a neighbour, if that has enough room. Returns whether it had.
///
/// # Safety
/// All members must be alive.
unsafe fn give(kids: &mut [Kid], from: usize, to: usize) -> bool {
    let Ok([giver, taker]) = kids.get_disjoint_mut([from, to]) else { return false };
    let (Node::Leaf(full), Node::Leaf(other)) = (&mut giver.node, &mut taker.node) else { return false };
    if other.len + WORTHWHILE > LEAF {
        return false;
    }
    let count = (full.len - other.len).div_ceil(2);
    if to < from {
        other.push_all(&full.items()[..count]);
        full.remove(0, count);
    } else {
        other.push_all_front(&full.items()[full.len - count..]);
        full.len -= count;
    }
    for kid in [giver, taker] {
        kid.count = kid.node.count();
        // SAFETY: the caller's promise; neither leaf is empty.
        unsafe { kid.refresh() };
    }
    true
}

/// # Safety
/// All members must be alive, and `at` be one of them with this key.
unsafe fn remove(node: &mut Node, key: Key<'_>, at: Ptr) {
    match node {
        Node::Leaf(leaf) => {
            // SAFETY: all members are alive, by the caller's promise.
            let index = unsafe { key.index_in(leaf.items()) } - 1;
            assert!(leaf.items()[index] == at, "a member that is looked for is in its place");
            leaf.remove(index, 1);
        }
        // SAFETY: all members are alive, by the caller's promise, which holds for the child that has this key.
        Node::Branch(kids) => unsafe {
            let index = key.kid_of(kids);
            remove(&mut kids[index].node, key, at);
            after_removal(kids, index, 1);
        },
    }
}

/// # Safety
/// All members must be alive.
unsafe fn remove_run(node: &mut Node, mut from: usize, count: usize, f: &mut dyn FnMut(Ptr)) -> usize {
    match node {
        Node::Leaf(leaf) => {
            let count = count.min(leaf.len - from);
            leaf.items()[from..from + count].iter().for_each(|at| f(*at));
            leaf.remove(from, count);
            count
        }
        Node::Branch(kids) => {
            let index = kid_of_rank(kids, &mut from).expect("the rank is there");
            // SAFETY: the caller's promise; what was removed is not looked at again.
            unsafe {
                let removed = remove_run(&mut kids[index].node, from, count, f);
                after_removal(kids, index, removed);
                removed
            }
        }
    }
}

/// Brings a branch up to date after members were removed below one of its children.
///
/// # Safety
/// All members left must be alive.
unsafe fn after_removal(kids: &mut Vec<Kid>, index: usize, removed: usize) {
    let kid = &mut kids[index];
    kid.count -= removed;
    if kid.count == 0 {
        kids.remove(index);
        return;
    }
    // SAFETY: the caller's promise; the child is not empty.
    unsafe { kid.refresh() };
    let (is_low, most) = match &kid.node {
        Node::Leaf(leaf) => (leaf.len < LEAF_LOW, LEAF_MERGED),
        Node::Branch(below) => (below.len() < FAN_LOW, FAN_MERGED),
    };
    if !is_low {
        return;
    }
    let width = |node: &Node| match node {
        Node::Leaf(leaf) => leaf.len,
        Node::Branch(below) => below.len(),
    };
    let fits = |low: usize| kids.get(low + 1).is_some_and(|k| width(&kids[low].node) + width(&k.node) <= most);
    let low = if fits(index) {
        index
    } else if index > 0 && fits(index - 1) {
        index - 1
    } else {
        return;
    };
    let upper = kids.remove(low + 1);
    kids[low].count += upper.count;
    match (&mut kids[low].node, upper.node) {
        (Node::Leaf(leaf), Node::Leaf(more)) => leaf.push_all(more.items()),
        (Node::Branch(below), Node::Branch(more)) => below.extend(more),
        _ => unreachable!("neighbours are of one kind"),
    }
}

/// Changes the score of a member that stays between its neighbours in its leaf. False, with nothing done, if it does
/// not, or is at an end of the leaf.
///
/// # Safety
/// All members must be alive, and `at` be one of them with this key.
unsafe fn move_within_leaf(node: &Node, key: Key<'_>, at: Ptr, score: f64) -> bool {
    let mut node = node;
    loop {
        match node {
            // SAFETY: all members are alive, by the caller's promise.
            Node::Branch(kids) => node = &kids[unsafe { key.kid_of(kids) }].node,
            Node::Leaf(leaf) => {
                let items = leaf.items();
                // SAFETY: as above.
                let index = unsafe { key.index_in(items) } - 1;
                let (Some(before), Some(after)) = (index.checked_sub(1).map(|i| items[i]), items.get(index + 1)) else {
                    return false;
                };
                // SAFETY: as above, and nobody else has the tree.
                unsafe {
                    let to = (score, key.name);
                    let stays = (before.score(), before.name()) < to && to < (after.score(), after.name());
                    if stays {
                        at.set_score(score);
                    }
                    return stays;
                }
            }
        }
    }
}
