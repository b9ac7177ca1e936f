//! CLUSTER SLOT-STATS: arguments and replies. What counts for which slot is in `server/cluster/slot_meter`.

use super::cluster::{slot_arg, view};
use super::int_arg;
use super::prelude::*;
use crate::cluster::slot_stats::SlotCounts;
use crate::config::SlotStatsKinds;
use crate::server::cluster::slot_memory::MemoryOfSlots;
use crate::structs::slots::{SLOT_COUNT, Slot};

pub(super) const ROW: ServerCommand = command(Group::Cluster, "cluster|slot-stats", slot_stats)
    .flags(flag::LOADING | flag::STALE)
    .args(&[Arg::one_of("filter").of(&[
        Arg::block("slotsrange").token("SLOTSRANGE").of(&[Arg::integer("start-slot"), Arg::integer("end-slot")]),
        Arg::block("orderby").token("ORDERBY").of(&[
            Arg::string("metric"),
            Arg::integer("limit").token("LIMIT").optional(),
            Arg::one_of("order").optional().of(&[Arg::word("asc", "ASC"), Arg::word("desc", "DESC")]),
        ]),
    ])])
    .since("8.2.0")
    .complexity(
        "O(N) where N is the number of slots named; O(N*log(N)) with ORDERBY; with memory-bytes O(K) for K \
         keys in them.",
    )
    .summary("Shows what is counted of the slots of this node.")
    .tips(&["nondeterministic_output", "request_policy:all_shards"]);

/// What is shown of a slot.
#[derive(Clone, Copy)]
struct Figures {
    slot: Slot,
    keys: usize,
    memory: u64,
    counts: SlotCounts,
}

/// What slots may be ordered by.
#[derive(Clone, Copy)]
enum Metric {
    Keys,
    Memory,
    Cpu,
    BytesIn,
    BytesOut,
}

impl Metric {
    fn parse(arg: &[u8], kinds: SlotStatsKinds) -> Option<Metric> {
        match &*arg.to_ascii_lowercase() {
            b"key-count" => Some(Metric::Keys),
            b"memory-bytes" if kinds.mem => Some(Metric::Memory),
            b"cpu-usec" if kinds.cpu => Some(Metric::Cpu),
            b"network-bytes-in" if kinds.net => Some(Metric::BytesIn),
            b"network-bytes-out" if kinds.net => Some(Metric::BytesOut),
            _ => None,
        }
    }

    fn of(self, figures: &Figures) -> u64 {
        match self {
            Metric::Keys => figures.keys as u64,
            Metric::Memory => figures.memory,
            Metric::Cpu => figures.counts.cpu_us,
            Metric::BytesIn => figures.counts.bytes_in,
            Metric::BytesOut => figures.counts.bytes_out,
        }
    }
}

/// What is asked for: slots from one to another, or those of the shard in an order.
enum Asked {
    Range(Slot, Slot),
    Order { by: Metric, is_ascending: bool, most: usize },
}

fn parse(args: Args<'_>, kinds: SlotStatsKinds) -> Result<Asked, CmdError> {
    match (&*args.at(2).to_ascii_lowercase(), args.len()) {
        (b"slotsrange", 5) => {
            let (first, last) = (slot_arg(args.at(3))?, slot_arg(args.at(4))?);
            if first > last {
                let text = format!("ERR Start slot number {first} is greater than end slot number {last}");
                return Err(CmdError::text(text));
            }
            Ok(Asked::Range(first, last))
        }
        (b"orderby", _) => {
            let by =
                Metric::parse(args.at(3), kinds).ok_or(CmdError::of("ERR Unrecognized sort metric for ORDERBY."))?;
            parse_order(args, by)
        }
        _ => Err(super::unknown_subcommand(args)),
    }
}

fn parse_order(args: Args<'_>, by: Metric) -> Result<Asked, CmdError> {
    const BAD_LIMIT: CmdError = CmdError::of("ERR Limit has to lie in between 1 and 16384 (maximum number of slots).");
    const TWICE: CmdError = CmdError::of("ERR Multiple filters of the same type are disallowed.");
    let (mut most, mut is_ascending) = (None, None);
    let mut at = 4;
    while let Some(word) = args.get(at) {
        let is_given = match (&*word.to_ascii_lowercase(), args.get(at + 1)) {
            (b"limit", Some(limit)) => {
                at += 1;
                let limit = usize::try_from(int_arg(limit)?).ok().filter(|limit| (1..=SLOT_COUNT).contains(limit));
                most.replace(limit.ok_or(BAD_LIMIT)?).is_some()
            }
            (b"asc", _) => is_ascending.replace(true).is_some(),
            (b"desc", _) => is_ascending.replace(false).is_some(),
            _ => return Err(error::SYNTAX),
        };
        if is_given {
            return Err(TWICE);
        }
        at += 1;
    }
    Ok(Asked::Order { by, is_ascending: is_ascending.unwrap_or(false), most: most.unwrap_or(SLOT_COUNT) })
}

fn slot_stats(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let of_shard = view(ctx)?.slots_of_shard();
    let kinds = ctx.srv.cfg.cluster_slot_stats_enabled;
    let asked = parse(args, kinds)?;
    let slots: Vec<Slot> = match asked {
        Asked::Range(first, last) => of_shard.iter().filter(|slot| (first..=last).contains(slot)).collect(),
        Asked::Order { .. } => of_shard.iter().collect(),
    };
    let memory = if kinds.mem {
        let Some(memory) = ctx.srv.memory_of_slots(ctx.client, args, &slots)? else { return Ok(()) };
        memory
    } else {
        MemoryOfSlots::new()
    };
    let stats = view(ctx)?.slot_stats();
    let figures = |slot: Slot| Figures {
        slot,
        keys: ctx.srv.ks.dbs[0].slot_len(slot),
        memory: memory.get(&slot).copied().unwrap_or(0),
        counts: stats.of(slot),
    };
    let mut all: Vec<Figures> = slots.into_iter().map(figures).collect();
    if let Asked::Order { by, is_ascending, most } = asked {
        // Slots that are alike come in their order.
        match is_ascending {
            true => all.sort_by_key(|figures| by.of(figures)),
            false => all.sort_by_key(|figures| std::cmp::Reverse(by.of(figures))),
        }
        all.truncate(most);
    }
    ctx.out.array(all.len());
    all.iter().for_each(|figures| write(ctx, figures, kinds));
    Ok(())
}

fn write(ctx: &mut Ctx<'_>, figures: &Figures, kinds: SlotStatsKinds) {
    let Figures { slot, keys, memory, counts } = *figures;
    let shown = [
        (true, "key-count", keys as u64),
        (kinds.mem, "memory-bytes", memory),
        (kinds.cpu, "cpu-usec", counts.cpu_us),
        (kinds.net, "network-bytes-in", counts.bytes_in),
        (kinds.net, "network-bytes-out", counts.bytes_out),
    ];
    ctx.out.array(2);
    ctx.out.int(i64::from(slot));
    ctx.out.map(shown.iter().filter(|(is_shown, ..)| *is_shown).count());
    for (_, name, number) in shown.iter().filter(|(is_shown, ..)| *is_shown) {
        ctx.out.bulk_str(name);
        ctx.out.int(*number as i64);
    }
}
