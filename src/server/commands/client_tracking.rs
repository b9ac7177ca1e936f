//! CLIENT TRACKING, CACHING and TRACKINGINFO: the subcommands of CLIENT about client-side caching. What tracking does is in
//! `tracking`.

use super::int_arg;
use super::prelude::*;
use crate::server::clients::ClientFlags;
use crate::tracking::{ClientTracking, Wish};

pub(crate) const CACHING: ServerCommand = command(Group::Connection, "client|caching", caching)
    .flags(flag::LOADING | flag::NOSCRIPT | flag::STALE)
    .args(&[Arg::one_of("mode").of(&[Arg::word("yes", "YES"), Arg::word("no", "NO")])])
    .since("6.0.0")
    .summary("Makes the next command the exception to how keys are tracked for the connection.");

pub(crate) const TRACKING: ServerCommand = command(Group::Connection, "client|tracking", tracking)
    .flags(flag::LOADING | flag::NOSCRIPT | flag::STALE)
    .args(&[
        Arg::one_of("status").of(&[Arg::word("on", "ON"), Arg::word("off", "OFF")]),
        Arg::integer("client-id").token("REDIRECT").optional(),
        Arg::string("prefix").token("PREFIX").optional().multiple().multiple_token(),
        Arg::word("bcast", "BCAST").optional(),
        Arg::word("optin", "OPTIN").optional(),
        Arg::word("optout", "OPTOUT").optional(),
        Arg::word("noloop", "NOLOOP").optional(),
    ])
    .since("6.0.0")
    .complexity("O(1), and with prefixes more for each of them.")
    .summary("Has the connection told when keys change that it may cache, or no longer.");

pub(crate) const TRACKING_INFO: ServerCommand = command(Group::Connection, "client|trackinginfo", tracking_info)
    .flags(flag::LOADING | flag::NOSCRIPT | flag::STALE)
    .since("6.2.0")
    .summary("Tells how keys are tracked for the connection.");

fn tracking(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let wish = wish(ctx, args)?;
    let switch = args.at(2);
    if switch.eq_ignore_ascii_case(b"on") {
        check(&wish, ctx.c().tracking.as_deref())?;
        ctx.srv.start_tracking(ctx.client, &wish);
    } else if switch.eq_ignore_ascii_case(b"off") {
        ctx.srv.stop_tracking(ctx.client);
    } else {
        return Err(error::SYNTAX);
    }
    ctx.out.just_ok()
}

fn wish<'a>(ctx: &Ctx<'_>, args: Args<'a>) -> Result<Wish<'a>, CmdError> {
    let mut wish = Wish::default();
    let mut next = 3;
    while let Some(option) = args.get(next) {
        let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
        let value = args.get(next + 1);
        next += 1;
        match value {
            Some(value) if is("redirect") => {
                if wish.redirect != 0 {
                    return Err(CmdError::of("ERR A client can only redirect to a single other client"));
                }
                wish.redirect = int_arg(value)? as u64;
                if ctx.srv.clients.by_number(wish.redirect).is_none() {
                    return Err(CmdError::of("ERR The client ID you want redirect to does not exist"));
                }
                next += 1;
            }
            Some(value) if is("prefix") => {
                wish.prefixes.push(value);
                next += 1;
            }
            _ if is("bcast") => wish.bcast = true,
            _ if is("optin") => wish.optin = true,
            _ if is("optout") => wish.optout = true,
            _ if is("noloop") => wish.noloop = true,
            _ => return Err(error::SYNTAX),
        }
    }
    Ok(wish)
}

/// Whether what is asked for fits together, and fits how the client's keys are tracked now.
fn check(wish: &Wish<'_>, now: Option<&ClientTracking>) -> Result<(), CmdError> {
    if !wish.bcast && !wish.prefixes.is_empty() {
        return Err(CmdError::of("ERR PREFIX option requires BCAST mode to be enabled"));
    }
    if now.is_some_and(|now| now.bcast != wish.bcast) {
        return Err(CmdError::of(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it \
             with a different mode.",
        ));
    }
    if wish.bcast && (wish.optin || wish.optout) {
        return Err(CmdError::of("ERR OPTIN and OPTOUT are not compatible with BCAST"));
    }
    if wish.optin && wish.optout {
        return Err(CmdError::of("ERR You can't specify both OPTIN mode and OPTOUT mode"));
    }
    if now.is_some_and(|now| (wish.optin && now.optout) || (wish.optout && now.optin)) {
        return Err(CmdError::of(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it \
             with a different mode.",
        ));
    }
    for (i, prefix) in wish.prefixes.iter().enumerate() {
        let mut existing = now.into_iter().flat_map(|now| &now.prefixes);
        if let Some(other) = existing.find(|other| overlap(prefix, other)) {
            return Err(overlap_error(prefix, "an existing prefix", other));
        }
        if let Some(other) = wish.prefixes[i + 1..].iter().find(|other| overlap(prefix, other)) {
            return Err(overlap_error(prefix, "another provided prefix", other));
        }
    }
    Ok(())
}

/// Some key begins with both.
fn overlap(a: &[u8], b: &[u8]) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

fn overlap_error(prefix: &[u8], which: &str, other: &[u8]) -> CmdError {
    CmdError::bytes(
        [
            b"ERR Prefix '",
            prefix,
            b"' overlaps with ",
            which.as_bytes(),
            b" '",
            other,
            b"'. Prefixes for a single client must not overlap.",
        ]
        .concat(),
    )
}

fn caching(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let Some(state) = ctx.c_mut().tracking.as_mut() else {
        return Err(CmdError::of(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        ));
    };
    let choice = args.at(2);
    if choice.eq_ignore_ascii_case(b"yes") {
        if !state.optin {
            return Err(CmdError::of("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode."));
        }
    } else if choice.eq_ignore_ascii_case(b"no") {
        if !state.optout {
            return Err(CmdError::of("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode."));
        }
    } else {
        return Err(error::SYNTAX);
    }
    state.caching = true;
    ctx.out.just_ok()
}

fn tracking_info(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let c = ctx.srv.clients.get(ctx.client).expect("the running client is in the slab");
    let off = ClientTracking::default();
    let is_on = c.is(ClientFlags::TRACKING);
    let state = c.tracking.as_deref().unwrap_or(&off);
    let flags = [
        (is_on, "on"),
        (!is_on, "off"),
        (state.bcast, "bcast"),
        (state.optin, "optin"),
        (state.optin && state.caching, "caching-yes"),
        (state.optout, "optout"),
        (state.optout && state.caching, "caching-no"),
        (state.noloop, "noloop"),
        (state.broken_redirect, "broken_redirect"),
    ];
    ctx.out.map(3);
    ctx.out.bulk(b"flags");
    ctx.out.set(flags.iter().filter(|(set, _)| *set).count());
    for (_, name) in flags.iter().filter(|(set, _)| *set) {
        ctx.out.bulk_str(name);
    }
    ctx.out.bulk(b"redirect");
    ctx.out.int(if is_on { state.redirect as i64 } else { -1 });
    ctx.out.bulk(b"prefixes");
    ctx.out.array(state.prefixes.len());
    state.prefixes.iter().for_each(|prefix| ctx.out.bulk(prefix));
    Ok(())
}
