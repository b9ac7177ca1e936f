//! DEBUG subcommands that break the cluster bus and slots that move on purpose, for tests.

use super::debug::{DebugSub, debug_sub};
use super::prelude::*;
use super::{int_arg, slot_migration};
use crate::cluster::{Broken, Dropped};

pub(super) const SUBCOMMANDS: &[DebugSub] = &[
    debug_sub(
        "clusterlink",
        3..=3,
        &["CLUSTERLINK KILL <to|from|all> <node-id>", "    Close the bus connections to or from a node."],
        debug_clusterlink,
    ),
    debug_sub(
        "drop-cluster-packet-filter",
        1..=1,
        &["DROP-CLUSTER-PACKET-FILTER <packet-type>", "    Drop bus packets of this type; -1 drops none, -2 all."],
        debug_drop_filter,
    ),
    debug_sub(
        "close-cluster-link-on-packet-drop",
        1..=1,
        &["CLOSE-CLUSTER-LINK-ON-PACKET-DROP <0|1>", "    Close the link of a bus packet that is dropped."],
        |ctx, args| set_broken(ctx, args, |broken, is_on| broken.closes_links = is_on),
    ),
    debug_sub(
        "disable-cluster-random-ping",
        1..=1,
        &["DISABLE-CLUSTER-RANDOM-PING <0|1>", "    Ping no node of the cluster but where that is due."],
        |ctx, args| set_broken(ctx, args, |broken, is_on| broken.no_random_pings = is_on),
    ),
    debug_sub(
        "disable-cluster-reconnection",
        1..=1,
        &["DISABLE-CLUSTER-RECONNECTION <0|1>", "    Open no link to another node of the cluster again."],
        |ctx, args| set_broken(ctx, args, |broken, is_on| broken.no_reconnection = is_on),
    ),
    slot_migration::DEBUG,
];

fn debug_clusterlink(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if !args[2].eq_ignore_ascii_case(b"kill") {
        return Err(CmdError::of(
            "ERR unknown subcommand or wrong number of arguments for 'CLUSTERLINK'. Try DEBUG HELP.",
        ));
    }
    if ctx.srv.bus.is_none() {
        return Err(CmdError::of("ERR Debug option only available for cluster mode enabled setup!"));
    }
    let (to, from) = match args[3].to_ascii_lowercase().as_slice() {
        b"to" => (true, false),
        b"from" => (false, true),
        b"all" => (true, true),
        _ => {
            let direction = String::from_utf8_lossy(&args[3]).into_owned();
            return Err(CmdError::text(format!("ERR Unknown direction {direction}")));
        }
    };
    ctx.srv.kill_cluster_links(&args[4], to, from).map_err(|reason| CmdError::text(format!("ERR {reason}")))?;
    ctx.out.just_ok()
}

fn debug_drop_filter(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let number = int_arg(&args[2])?;
    if let Some(bus) = &mut ctx.srv.bus {
        bus.machine.broken_mut().dropped = match (number, u16::try_from(number)) {
            (-2, _) => Dropped::All,
            (_, Ok(packet_type)) => Dropped::Type(packet_type),
            _ => Dropped::None,
        };
    }
    ctx.out.just_ok()
}

fn set_broken(ctx: &mut Ctx<'_>, args: Args<'_>, set: fn(&mut Broken, bool)) -> CmdResult {
    let is_on = int_arg(&args[2])? != 0;
    if let Some(bus) = &mut ctx.srv.bus {
        set(bus.machine.broken_mut(), is_on);
    }
    ctx.out.just_ok()
}
