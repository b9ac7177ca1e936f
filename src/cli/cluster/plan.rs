//! The decisions of the cluster manager, as functions of plain data: who gets which slots,
//! who replicates whom, which slots move where.

use std::collections::HashMap;

use super::slots::{SLOTS, SlotSet};

/// The roles and slots of the nodes of a new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Masters with the first and last slot of each.
    pub(crate) masters: Vec<(usize, (u16, u16))>,
    /// Replicas with the master of each, in the order in which they were assigned.
    pub(crate) replicas: Vec<(usize, usize)>,
    /// How many of `replicas` were asked for; the others are spare nodes put to use.
    pub(crate) regular: usize,
}

/// Takes nodes from every host in turn, so that neighbours stand on different hosts.
fn interleave(hosts: &[&str]) -> Vec<usize> {
    let mut by_host: Vec<(&str, Vec<usize>)> = Vec::new();
    for (node, host) in hosts.iter().enumerate() {
        match by_host.iter_mut().find(|(known, _)| known == host) {
            Some((_, nodes)) => nodes.push(node),
            None => by_host.push((host, vec![node])),
        }
    }
    let rounds = by_host.iter().map(|(_, nodes)| nodes.len()).max();
    (0..rounds.unwrap_or(0))
        .flat_map(|round| by_host.iter().filter_map(move |(_, nodes)| nodes.get(round)))
        .copied()
        .collect()
}

/// The slots of the `index`-th of `count` masters: equal shares, each end rounded.
fn share(index: usize, count: usize) -> (u16, u16) {
    let end = |masters: usize| {
        let slots = masters * usize::from(SLOTS);
        u16::try_from((2 * slots + count) / (2 * count)).unwrap_or(SLOTS)
    };
    (end(index), end(index + 1) - 1)
}

/// Lays out a cluster on nodes of which the hosts are known: masters on as many hosts as there are, replicas on other
/// hosts than their masters where that is easy.
pub(crate) fn layout(hosts: &[&str], replicas_each: usize) -> Layout {
    let order = interleave(hosts);
    let count = hosts.len() / (replicas_each + 1);
    let (masters, rest) = order.split_at(count);
    // The hosts of the first masters and of the nodes after the last master are often the same; shifting the nodes by
    // one gives a better start.
    let mut free: Vec<usize> = rest.to_vec();
    if !free.is_empty() {
        free.rotate_left(1);
    }
    let mut replicas = Vec::new();
    let mut assign = |master: usize, replicas: &mut Vec<(usize, usize)>| {
        if free.is_empty() {
            return;
        }
        let away = free.iter().position(|node| hosts[*node] != hosts[master]);
        replicas.push((free.remove(away.unwrap_or(0)), master));
    };
    for master in masters {
        for _ in 0..replicas_each {
            assign(*master, &mut replicas);
        }
    }
    let regular = replicas.len();
    let spare = rest.len() - regular;
    for master in masters.iter().cycle().take(spare) {
        assign(*master, &mut replicas);
    }
    let slots = (0..count).map(|index| share(index, count));
    Layout { masters: masters.iter().copied().zip(slots).collect(), replicas, regular }
}

/// Weight of a replica that stands on the host of its master: it outweighs any number of
/// replicas of one master that share a host.
pub(crate) const SAME_HOST_AS_MASTER: u64 = 10_000;

/// Swaps tried for every node.
const SWAPS_PER_NODE: usize = 2000;

/// Replicas counted by host, so that a swap costs the same in clusters of any size.
struct Placement {
    /// The host of every node, as a number.
    host: Vec<usize>,
    /// Replicas on a host (first) that belong to a master (second).
    together: HashMap<(usize, usize), u64>,
    score: u64,
}

impl Placement {
    fn new(hosts: &[&str], replicas: &[(usize, usize)]) -> Placement {
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut number = |host| {
            let next = numbers.len();
            *numbers.entry(host).or_insert(next)
        };
        let host = hosts.iter().map(|host| number(*host)).collect();
        let mut placement = Placement { host, together: HashMap::new(), score: 0 };
        for (replica, master) in replicas {
            placement.change(*replica, *master, true);
        }
        placement
    }

    fn is_with_master(&self, replica: usize, master: usize) -> bool {
        self.host[replica] == self.host[master]
    }

    /// Counts a replica as one of a master, or no longer (`put` false).
    fn change(&mut self, replica: usize, master: usize, put: bool) {
        let with_master = self.is_with_master(replica, master);
        let weight = |count: u64| match (with_master, count) {
            (true, count) => count * SAME_HOST_AS_MASTER,
            (false, 0 | 1) => 0,
            (false, count) => count,
        };
        let count = self.together.entry((self.host[replica], master)).or_insert(0);
        let before = weight(*count);
        *count = if put { *count + 1 } else { *count - 1 };
        self.score = self.score + weight(*count) - before;
    }

    fn offends(&self, replica: usize, master: usize) -> bool {
        self.is_with_master(replica, master) || self.together.get(&(self.host[replica], master)).is_some_and(|n| *n > 1)
    }

    fn swap(&mut self, replicas: &mut [(usize, usize)], first: usize, second: usize) {
        let ((a, master_a), (b, master_b)) = (replicas[first], replicas[second]);
        self.change(a, master_a, false);
        self.change(b, master_b, false);
        self.change(a, master_b, true);
        self.change(b, master_a, true);
        replicas[first].1 = master_b;
        replicas[second].1 = master_a;
    }
}

/// How badly replicas are placed; 0 is perfect.
pub(crate) fn affinity(hosts: &[&str], replicas: &[(usize, usize)]) -> u64 {
    Placement::new(hosts, replicas).score
}

/// Swaps masters of replicas until, if possible, no replica shares a host with its master or with another replica of
/// it. Returns the remaining score.
pub(crate) fn optimize_affinity(hosts: &[&str], replicas: &mut [(usize, usize)], rng: &mut fastrand::Rng) -> u64 {
    let mut placement = Placement::new(hosts, replicas);
    let single_host = hosts.windows(2).all(|pair| pair[0] == pair[1]);
    if single_host || replicas.len() < 2 {
        return placement.score;
    }
    let mut best = (placement.score, replicas.to_vec());
    for _ in 0..SWAPS_PER_NODE * hosts.len() {
        if placement.score == 0 {
            break;
        }
        let (first, second) = (rng.usize(..replicas.len()), rng.usize(..replicas.len()));
        let (replica, master) = replicas[first];
        if first == second || !placement.offends(replica, master) {
            continue;
        }
        let before = placement.score;
        placement.swap(replicas, first, second);
        if placement.score > before {
            placement.swap(replicas, first, second);
        } else if placement.score < best.0 {
            // Steps that change nothing are kept too: two of them may lead to a better place.
            best = (placement.score, replicas.to_vec());
        }
    }
    replicas.copy_from_slice(&best.1);
    best.0
}

/// Which slots leave which source, if `count` slots are to move: every source gives in
/// proportion to what it has, the largest rounding up.
pub(crate) fn reshard(sources: &[&SlotSet], count: usize) -> Vec<(usize, u16)> {
    let mut order: Vec<usize> = (0..sources.len()).collect();
    order.sort_by_key(|source| std::cmp::Reverse(sources[*source].len()));
    let total: usize = sources.iter().map(|slots| slots.len()).sum();
    let count = count.min(total);
    if count == 0 {
        return Vec::new();
    }
    let mut shares: Vec<usize> = order
        .iter()
        .enumerate()
        .map(|(rank, source)| {
            let exact = count as f64 * sources[*source].len() as f64 / total as f64;
            let rounded = if rank == 0 { exact.ceil() } else { exact.floor() };
            rounded as usize
        })
        .collect();
    // Rounding down may leave a few slots unassigned.
    let mut missing = count.saturating_sub(shares.iter().sum());
    while missing > 0 {
        for (share, source) in shares.iter_mut().zip(&order) {
            if missing > 0 && *share < sources[*source].len() {
                *share += 1;
                missing -= 1;
            }
        }
    }
    order
        .iter()
        .zip(shares)
        .flat_map(|(source, share)| sources[*source].iter().take(share).map(|slot| (*source, slot)))
        .take(count)
        .collect()
}

/// What a rebalance finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Balance {
    /// For every node, how many slots it has too many (positive) or too few. The sum is 0.
    pub(crate) surplus: Vec<i64>,
    /// Whether any node is out of balance by more than the threshold.
    pub(crate) over_threshold: bool,
}

/// Compares what nodes have with what their weights entitle them to.
pub(crate) fn balance(slots: &[u16], weights: &[f32], threshold_percent: f64) -> Balance {
    let total_weight: f32 = weights.iter().sum();
    let mut over_threshold = false;
    let mut surplus = Vec::with_capacity(slots.len());
    for (have, weight) in slots.iter().zip(weights) {
        let expected = (f32::from(SLOTS) / total_weight * weight) as i64;
        let have = i64::from(*have);
        surplus.push(have - expected);
        if threshold_percent > 0.0 {
            over_threshold |= if have > 0 {
                (100.0 - 100.0 * expected as f64 / have as f64).abs() > threshold_percent
            } else {
                expected > 1
            };
        }
    }
    // Shares were rounded down, so that the sum is above 0: nodes without a surplus take the rest.
    let mut left: i64 = surplus.iter().sum();
    while left > 0 {
        let mut took = false;
        for (surplus, weight) in surplus.iter_mut().zip(weights) {
            if left > 0 && *surplus <= 0 && *weight > 0.0 {
                *surplus -= 1;
                left -= 1;
                took = true;
            }
        }
        if !took {
            break;
        }
    }
    Balance { surplus, over_threshold }
}

/// One step of a rebalance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    /// Index of the node that gives.
    pub(crate) source: usize,
    /// Index of the node that takes.
    pub(crate) target: usize,
    /// Slots to move.
    pub(crate) count: usize,
}

/// The order of nodes from those that lack most to those that have most to give.
pub(crate) fn by_surplus(surplus: &[i64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..surplus.len()).collect();
    order.sort_by_key(|node| surplus[*node]);
    order
}

/// Pairs nodes that have too many slots with nodes that have too few.
pub(crate) fn moves(surplus: &[i64]) -> Vec<Move> {
    let mut left = surplus.to_vec();
    let order = by_surplus(surplus);
    let mut moves = Vec::new();
    let (mut low, mut high) = (0, order.len().saturating_sub(1));
    while low < high {
        let (target, source) = (order[low], order[high]);
        let count = left[target].min(0).abs().min(left[source].max(0));
        if count > 0 {
            moves.push(Move { source, target, count: usize::try_from(count).unwrap_or(0) });
        }
        left[target] += count;
        left[source] -= count;
        if left[target] >= 0 {
            low += 1;
        }
        if left[source] <= 0 {
            high -= 1;
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn six_nodes_on_one_host() {
        let layout = layout(&["h"; 6], 1);
        assert_eq!(layout.masters, [(0, (0, 5460)), (1, (5461, 10922)), (2, (10923, 16383))]);
        assert_eq!(layout.replicas, [(4, 0), (5, 1), (3, 2)]);
        assert_eq!(layout.regular, 3);
    }

    #[test]
    fn hosts_are_mixed() {
        let hosts = ["a", "a", "b", "b", "c", "c"];
        let layout = layout(&hosts, 1);
        let masters: Vec<&str> = layout.masters.iter().map(|(n, _)| hosts[*n]).collect();
        assert_eq!(masters, ["a", "b", "c"]);
        assert_eq!(affinity(&hosts, &layout.replicas), 0);
    }

    #[test]
    fn spare_nodes_become_replicas() {
        let layout = layout(&["h"; 8], 1);
        assert_eq!(layout.masters.len(), 4);
        let layout = super::layout(&["h"; 11], 2);
        assert_eq!((layout.masters.len(), layout.regular), (3, 6));
        assert_eq!(layout.replicas.len(), 8);
        let layout = super::layout(&["h"; 3], 0);
        assert!(layout.replicas.is_empty());
    }

    #[test]
    fn affinity_scores() {
        let hosts = ["a", "a", "b", "b"];
        assert_eq!(affinity(&hosts, &[(1, 0)]), SAME_HOST_AS_MASTER);
        assert_eq!(affinity(&hosts, &[(2, 0), (3, 0)]), 2);
        assert_eq!(affinity(&hosts, &[(2, 0), (1, 3)]), 0);
    }

    #[test]
    fn a_bad_layout_is_repaired() {
        let hosts = ["a", "b", "c", "a", "b", "c"];
        let mut replicas = vec![(3, 0), (4, 1), (5, 2)];
        let mut rng = fastrand::Rng::with_seed(7);
        assert_eq!(optimize_affinity(&hosts, &mut replicas, &mut rng), 0);
        assert_eq!(affinity(&hosts, &replicas), 0);
    }

    #[test]
    fn resharding_takes_in_proportion() {
        let a: SlotSet = (0..5461).collect();
        let b: SlotSet = (5461..10923).collect();
        let table = reshard(&[&a, &b], 1000);
        assert_eq!(table.len(), 1000);
        let of = |source| table.iter().filter(|(s, _)| *s == source).count();
        assert_eq!((of(0), of(1)), (499, 501));
        assert_eq!(table[0], (1, 5461));
        assert_eq!(reshard(&[&a], 6000).len(), 5461);
        assert!(reshard(&[&SlotSet::default()], 5).is_empty());
        assert!(reshard(&[], 5).is_empty());
    }

    #[test]
    fn balanced_clusters_stay() {
        let balance = balance(&[5461, 5462, 5461], &[1.0; 3], 2.0);
        assert!(!balance.over_threshold);
        assert_eq!(balance.surplus.iter().sum::<i64>(), 0);
    }

    #[test]
    fn an_empty_master_is_filled() {
        let balance = balance(&[5461, 5462, 5461, 0], &[1.0; 4], 2.0);
        assert!(balance.over_threshold);
        assert_eq!(balance.surplus, [1365, 1366, 1365, -4096]);
        let moves = moves(&balance.surplus);
        assert!(moves.iter().all(|m| m.target == 3));
        assert_eq!(moves.iter().map(|m| m.count).sum::<usize>(), 4096);
    }

    #[test]
    fn weights_of_zero_end() {
        balance(&[8192, 8192], &[0.0, 0.0], 2.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn shares_cover_all_slots(count in 1usize..2000) {
            let mut next = 0;
            for index in 0..count {
                let (first, last) = share(index, count);
                prop_assert_eq!(first, next);
                prop_assert!(last >= first);
                next = last + 1;
            }
            prop_assert_eq!(next, SLOTS);
        }

        #[test]
        fn every_node_has_a_role(hosts in prop::collection::vec(0u8..4, 3..40), replicas in 0usize..4) {
            let names: Vec<String> = hosts.iter().map(u8::to_string).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            prop_assume!(names.len() / (replicas + 1) >= 1);
            let mut layout = layout(&names, replicas);
            let mut seen: Vec<usize> = layout.masters.iter().map(|m| m.0)
                .chain(layout.replicas.iter().map(|r| r.0)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..names.len()).collect::<Vec<_>>());
            let before = affinity(&names, &layout.replicas);
            let mut rng = fastrand::Rng::with_seed(1);
            let after = optimize_affinity(&names, &mut layout.replicas, &mut rng);
            prop_assert!(after <= before);
            prop_assert_eq!(after, affinity(&names, &layout.replicas));
        }

        #[test]
        fn moves_settle_every_balance(have in prop::collection::vec(0u16..3000, 2..12), weights in prop::collection::vec(0.1f32..4.0, 12)) {
            let mut have = have;
            let given: u32 = have.iter().map(|n| u32::from(*n)).sum();
            prop_assume!(given <= u32::from(SLOTS));
            have[0] += SLOTS - given as u16;
            let balance = balance(&have, &weights[..have.len()], 2.0);
            let mut left = balance.surplus.clone();
            prop_assert_eq!(left.iter().sum::<i64>(), 0);
            for step in moves(&balance.surplus) {
                left[step.source] -= step.count as i64;
                left[step.target] += step.count as i64;
            }
            prop_assert!(left.iter().all(|n| *n == 0));
        }

        #[test]
        fn a_reshard_moves_what_was_asked(sizes in prop::collection::vec(0u16..500, 1..8), count in 0usize..3000) {
            let mut next = 0;
            let sets: Vec<SlotSet> = sizes.iter().map(|size| {
                let set = (next..next + size).collect();
                next += size;
                set
            }).collect();
            let sets: Vec<&SlotSet> = sets.iter().collect();
            let table = reshard(&sets, count);
            prop_assert_eq!(table.len(), count.min(usize::from(next)));
            for (source, slot) in &table {
                prop_assert!(sets[*source].contains(*slot));
            }
        }
    }
}
