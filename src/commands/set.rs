//! Set commands.

use super::collection::{Found, choose, draw_many, elements_removed, scan_elements, store_result};
use super::prelude::*;
use super::scan::{SCAN_ARGS, cursor_arg};
use super::{bounded_arg, count_arg, random_count_arg, reply_item};
use crate::keyspace::effects::target;
use crate::keyspace::set::{Popped, Set, SetLimits};
use crate::keyspace::{Entry, Object};
use crate::resp::Reply;
use crate::structs::listpack::Item;
use std::collections::HashSet;

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::Set, "sadd", sadd)
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::INSERT, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("member").multiple()])
        .history(&["2.4.0"])
        .complexity("O(1) for each member.")
        .summary("Adds members to a set, which is created when it is not there."),
    command(Group::Set, "scard", scard)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .summary("Counts the members of a set."),
    command(Group::Set, "sdiff", |ctx, args| reply_joined(ctx, args, Join::Diff))
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, -1, 1)])
        .args(&[Arg::key("key", 0).multiple()])
        .complexity("O(N) where N is the number of members in all sets.")
        .summary("Gives the members of the first set that are in none of the others.")
        .tips(&["nondeterministic_output_order"]),
    command(Group::Set, "sdiffstore", |ctx, args| store_joined(ctx, args, Join::Diff, "sdiffstore"))
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::OW | key::UPDATE, 1, 0, 1), KeySpec::range(key::RO | key::ACCESS, 2, -1, 1)])
        .args(&[Arg::key("destination", 0), Arg::key("key", 1).multiple()])
        .complexity("O(N) where N is the number of members in all sets.")
        .summary("Stores the members of the first set that are in none of the others."),
    command(Group::Set, "sinter", |ctx, args| reply_joined(ctx, args, Join::Inter))
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, -1, 1)])
        .args(&[Arg::key("key", 0).multiple()])
        .complexity("O(N*M) at worst where N is the size of the smallest set and M the number of sets.")
        .summary("Gives the members that all sets have in common.")
        .tips(&["nondeterministic_output_order"]),
    command(Group::Set, "sintercard", sintercard)
        .flags(flag::READONLY)
        .keys(&[KeySpec::numbered(key::RO | key::ACCESS, 1)])
        .args(&[
            Arg::integer("numkeys"),
            Arg::key("key", 0).multiple(),
            Arg::integer("limit").token("LIMIT").optional(),
        ])
        .since("7.0.0")
        .complexity("O(N*M) at worst where N is the size of the smallest set and M the number of sets.")
        .summary("Counts the members that all sets have in common."),
    command(Group::Set, "sinterstore", |ctx, args| store_joined(ctx, args, Join::Inter, "sinterstore"))
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1), KeySpec::range(key::RO | key::ACCESS, 2, -1, 1)])
        .args(&[Arg::key("destination", 0), Arg::key("key", 1).multiple()])
        .complexity("O(N*M) at worst where N is the size of the smallest set and M the number of sets.")
        .summary("Stores the members that all sets have in common."),
    command(Group::Set, "sismember", sismember)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("member")])
        .summary("Tells whether a set has a member."),
    command(Group::Set, "smembers", smembers)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .complexity("O(N) where N is the number of members.")
        .summary("Gives all members of a set.")
        .tips(&["nondeterministic_output_order"]),
    command(Group::Set, "smismember", smismember)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("member").multiple()])
        .since("6.2.0")
        .complexity("O(N) where N is the number of members asked for.")
        .summary("Tells for several members whether a set has them."),
    command(Group::Set, "smove", smove)
        .flags(flag::FAST | flag::WRITE)
        .keys(&[
            KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, 0, 1),
            KeySpec::range(key::RW | key::INSERT, 2, 0, 1),
        ])
        .args(&[Arg::key("source", 0), Arg::key("destination", 1), Arg::string("member")])
        .summary("Moves a member from a set to another."),
    command(Group::Set, "spop", spop)
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("count").since("3.2.0").optional()])
        .history(&["3.2.0"])
        .complexity("O(N) where N is the number of members taken.")
        .summary("Takes members out of a set at random.")
        .tips(&["nondeterministic_output"]),
    command(Group::Set, "srandmember", srandmember)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("count").since("2.6.0").optional()])
        .history(&["2.6.0"])
        .complexity("O(N) where N is the number of members asked for.")
        .summary("Gives members of a set at random.")
        .tips(&["nondeterministic_output"]),
    command(Group::Set, "srem", srem)
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::DELETE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("member").multiple()])
        .history(&["2.4.0"])
        .complexity("O(N) where N is the number of members to remove.")
        .summary("Removes members from a set."),
    command(Group::Set, "sscan", sscan)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(SCAN_ARGS)
        .since("2.8.0")
        .complexity("O(1) a call; O(N) for a full pass, where N is the number of members.")
        .summary("Goes through the members of a set step by step.")
        .tips(&["nondeterministic_output"]),
    command(Group::Set, "sunion", |ctx, args| reply_joined(ctx, args, Join::Union))
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, -1, 1)])
        .args(&[Arg::key("key", 0).multiple()])
        .complexity("O(N) where N is the number of members in all sets.")
        .summary("Gives the members of all sets together.")
        .tips(&["nondeterministic_output_order"]),
    command(Group::Set, "sunionstore", |ctx, args| store_joined(ctx, args, Join::Union, "sunionstore"))
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::OW | key::UPDATE, 1, 0, 1), KeySpec::range(key::RO | key::ACCESS, 2, -1, 1)])
        .args(&[Arg::key("destination", 0), Arg::key("key", 1).multiple()])
        .complexity("O(N) where N is the number of members in all sets.")
        .summary("Stores the members of all sets together."),
];

fn set_of(entry: &Entry) -> Result<&Set, CmdError> {
    match entry.object() {
        Some(Object::Set(set)) => Ok(set),
        _ => Err(error::WRONG_TYPE),
    }
}

fn set_mut(entry: &mut Entry) -> Result<&mut Set, CmdError> {
    match entry.object_mut() {
        Some(Object::Set(set)) => Ok(set),
        _ => Err(error::WRONG_TYPE),
    }
}

fn limits(ctx: &Ctx<'_>) -> SetLimits {
    ctx.limits().set
}

fn sadd(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let limits = limits(ctx);
    let key = &args[1];
    let members = args.from(2);
    let add_to = |set: &mut Set| members.iter().filter(|m| set.add(m, &limits)).count();
    let added = if let Some(mut entry) = ctx.ks.write(ctx.db, key) {
        let set = set_mut(&mut entry)?;
        set.will_grow(members.len(), &limits);
        add_to(set)
    } else {
        let mut set = Set::for_members(members.at(0), members.len(), &limits);
        let added = add_to(&mut set);
        ctx.ks.insert(ctx.db, key, set.into(), None);
        added
    };
    if added > 0 {
        ctx.ks.signal_modified(ctx.db, key);
        ctx.ks.effects.notify(notify::SET, "sadd", key, ctx.db);
    }
    ctx.dirty(added as u64);
    ctx.out.just_int(added as i64)
}

fn members_removed(ctx: &mut Ctx<'_>, key: &[u8], event: &'static str, count: usize, is_empty: bool) {
    elements_removed(ctx, key, (notify::SET, event), count, is_empty);
}

fn srem(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let key = &args[1];
    let Some(mut entry) = ctx.ks.write(ctx.db, key) else { return ctx.out.just_int(0) };
    let set = set_mut(&mut entry)?;
    let removed = set.remove_several(args.from(2).iter());
    let is_empty = set.is_empty();
    drop(entry);
    if removed > 0 {
        members_removed(ctx, key, "srem", removed, is_empty);
    }
    ctx.out.just_int(removed as i64)
}

fn smove(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let limits = limits(ctx);
    let (source, target, member) = (&args[1], &args[2], &args[3]);
    let ks = &mut ctx.ks;
    let source_is = ks.write(ctx.db, source).map(|e| set_of(&e).map(|s| s.contains(member)));
    let target_is = ks.write(ctx.db, target).map(|e| set_of(&e).map(drop));
    let Some(has_member) = source_is else { return ctx.out.just_int(0) };
    let has_member = has_member?;
    let target_is_there = target_is.transpose()?.is_some();
    if source == target || !has_member {
        return ctx.out.just_int(has_member as i64);
    }
    let mut is_empty = false;
    if let Some(mut entry) = ks.dbs[ctx.db].get_mut(source) {
        let set = set_mut(&mut entry)?;
        set.remove(member);
        is_empty = set.is_empty();
    }
    members_removed(ctx, source, "srem", 1, is_empty);
    let ks = &mut ctx.ks;
    let added = if target_is_there && let Some(mut entry) = ks.dbs[ctx.db].get_mut(target) {
        set_mut(&mut entry)?.add(member, &limits)
    } else {
        let mut set = Set::for_members(member, 1, &limits);
        set.add(member, &limits);
        ks.insert(ctx.db, target, set.into(), None);
        true
    };
    if added {
        ks.signal_modified(ctx.db, target);
        ks.effects.notify(notify::SET, "sadd", target, ctx.db);
        ctx.dirty(1);
    }
    ctx.out.just_int(1)
}

fn scard(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let len = match ctx.ks.read(ctx.db, &args[1]) {
        Some(entry) => set_of(entry)?.len(),
        None => 0,
    };
    ctx.out.just_int(len as i64)
}

fn sismember(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let found = match ctx.ks.read(ctx.db, &args[1]) {
        Some(entry) => set_of(entry)?.contains(&args[2]),
        None => false,
    };
    ctx.out.just_int(found as i64)
}

fn smismember(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let set = entry.as_ref().map(|e| set_of(e)).transpose()?;
    let members = args.from(2);
    ctx.out.array(members.len());
    members.iter().for_each(|m| ctx.out.int(set.is_some_and(|s| s.contains(m)) as i64));
    Ok(())
}

fn smembers(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[1]);
    match entry.as_ref().map(|e| set_of(e)).transpose()? {
        Some(set) => reply_set(ctx.out, set),
        None => ctx.out.set(0),
    }
    Ok(())
}

fn reply_set(out: &mut Reply, set: &Set) {
    out.set(set.len());
    set.iter().for_each(|item| reply_item(out, item));
}

fn spop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    match args.len() {
        2 => pop_one(ctx, &args[1]),
        3 => {
            let count = count_arg(&args[2])?;
            pop_many(ctx, &args[1], count)
        }
        _ => Err(error::SYNTAX),
    }
}

fn pop_one(ctx: &mut Ctx<'_>, key: &[u8]) -> CmdResult {
    let Some(mut entry) = ctx.ks.write(ctx.db, key) else { return ctx.out.just_null() };
    let set = set_mut(&mut entry)?;
    let Some(member) = set.pop_random() else { return ctx.out.just_null() };
    let is_empty = set.is_empty();
    drop(entry);
    // A replica would choose another member at random.
    ctx.ks.effects.replace_with(&[b"SREM", key, &member]);
    ctx.out.bulk(&member);
    members_removed(ctx, key, "spop", 1, is_empty);
    Ok(())
}

fn pop_many(ctx: &mut Ctx<'_>, key: &[u8], count: usize) -> CmdResult {
    /// Members that one propagated command removes at most.
    const BATCH: usize = 1024;
    let limits = limits(ctx);
    let Some(mut entry) = ctx.ks.write(ctx.db, key) else {
        ctx.out.set(0);
        return Ok(());
    };
    let set = set_mut(&mut entry)?;
    if count == 0 {
        ctx.out.set(0);
        return Ok(());
    }
    let len = set.len();
    if count >= len {
        reply_set(ctx.out, set);
        drop(entry);
        let lazy = ctx.cfg.lazyfree_lazy_server_del;
        let ks = &mut ctx.ks;
        ks.effects.notify(notify::SET, "spop", key, ctx.db);
        ks.delete(ctx.db, key, lazy);
        ks.effects.notify(notify::GENERIC, "del", key, ctx.db);
        ks.effects.replace_with(&[if lazy { b"UNLINK" } else { b"DEL" }, key]);
        ctx.dirty(len as u64);
        return Ok(());
    }
    let popped = set.pop_several(count, &limits);
    let is_empty = set.is_empty();
    drop(entry);
    ctx.out.set(popped.count());
    popped.iter().for_each(|m| reply_item(ctx.out, m));
    if ctx.ks.effects.has_sinks {
        let members: Vec<Item<'_>> = popped.iter().collect();
        for batch in members.chunks(BATCH) {
            let mut ints: Vec<IntBuf> = batch.iter().map(|_| IntBuf::new()).collect();
            let mut command: Vec<&[u8]> = vec![b"SREM", key];
            command.extend(batch.iter().zip(&mut ints).map(|(member, int)| member.bytes(int)));
            ctx.ks.effects.propagate_now(ctx.db, &command);
        }
    }
    let count = popped.count();
    if let Popped::Set(set) = popped {
        let lazy = ctx.cfg.lazyfree_lazy_server_del;
        ctx.ks.effects.free(Entry::new(b"", set.into(), None), lazy);
    }
    ctx.ks.effects.prevented = target::ALL;
    members_removed(ctx, key, "spop", count, is_empty);
    Ok(())
}

fn srandmember(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let count = match args.len() {
        2 => None,
        3 => Some(random_count_arg(&args[2])?),
        _ => return Err(error::SYNTAX),
    };
    let room = ctx.session.reply_room();
    let mut entry = ctx.ks.read_mut(ctx.db, &args[1]);
    if let Some(entry) = &mut entry {
        set_mut(entry)?.move_on();
    }
    let set = entry.as_ref().map(|e| set_of(e)).transpose()?;
    let Some(count) = count else {
        match set.and_then(Set::random) {
            Some(item) => reply_item(ctx.out, item),
            None => ctx.out.null(),
        }
        return Ok(());
    };
    let Some(set) = set else { return ctx.out.just_empty() };
    let wanted = count.unsigned_abs() as usize;
    let wanted = if count < 0 { wanted } else { wanted.min(set.len()) };
    ctx.out.array(wanted);
    let reply = |item: Item<'_>| {
        reply_item(ctx.out, item);
        ctx.out.buf.len() <= room
    };
    let finished = if count < 0 {
        draw_many(wanted, (!matches!(set, Set::Table(_))).then(|| set.iter()), || set.random(), reply)
    } else {
        random_members(set, wanted).into_iter().all(reply)
    };
    drop(entry);
    if !finished {
        ctx.close_client();
    }
    Ok(())
}

/// `count` different members at random, no more than there are.
fn random_members(set: &Set, count: usize) -> Vec<Item<'_>> {
    let draw = || set.random().map(|item| (item, item));
    choose(count, set.len(), set.iter(), matches!(set, Set::Table(_)).then_some(draw))
}

fn sscan(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let cursor = cursor_arg(&args[2])?;
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let set = entry.as_ref().map(|e| set_of(e)).transpose()?;
    let step = set.map(|set| {
        move |cursor, found: &mut Found<'_>| {
            set.scan(cursor, found.wanted(), &mut |member| {
                found.look_at(member);
            })
        }
    });
    scan_elements(ctx.out, args, cursor, 1, step)
}

/// How sets are combined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Join {
    Inter,
    Union,
    /// The same, with each member once: the sets before are asked for it, which costs a look-up in each.
    UnionOfFew,
    Diff,
}

/// Looks all keys up first, as that may delete expired ones, then borrows the sets.
fn sets_of<'s>(ctx: &'s mut Ctx<'_>, keys: Args<'_>) -> Result<Vec<Option<&'s Set>>, CmdError> {
    let db = ctx.db;
    let mut there = Vec::with_capacity(keys.len());
    for key in keys.iter() {
        match ctx.ks.read(db, key) {
            Some(entry) => {
                set_of(entry)?;
                there.push(true);
            }
            None => there.push(false),
        }
    }
    let ks = &ctx.ks;
    let found =
        |(key, there): (&[u8], bool)| if there { ks.dbs[db].get(key).and_then(|e| set_of(e).ok()) } else { None };
    Ok(keys.iter().zip(there).map(found).collect())
}

/// Calls `emit` for the members of the result, until it returns false. For unions the same member may come twice.
fn join<'s>(how: Join, sets: &[Option<&'s Set>], mut emit: impl FnMut(Item<'s>) -> bool) {
    match how {
        Join::Inter => {
            let Some(mut sets) = sets.iter().copied().collect::<Option<Vec<&Set>>>() else { return };
            sets.sort_by_key(|s| s.len());
            let Some((smallest, others)) = sets.split_first() else { return };
            for item in smallest.iter() {
                let in_all = others.iter().all(|s| std::ptr::eq(*s, *smallest) || s.contains_item(item));
                if in_all && !emit(item) {
                    return;
                }
            }
        }
        Join::Diff => {
            let Some((Some(first), others)) = sets.split_first() else { return };
            let mut others: Vec<&Set> = others.iter().flatten().copied().collect();
            // The larger a set, the more likely it decides.
            others.sort_by_key(|s| std::cmp::Reverse(s.len()));
            if others.iter().any(|s| std::ptr::eq(*s, *first)) {
                return;
            }
            for item in first.iter() {
                if !others.iter().any(|s| s.contains_item(item)) && !emit(item) {
                    return;
                }
            }
        }
        Join::UnionOfFew => {
            let sets: Vec<&Set> = sets.iter().flatten().copied().collect();
            for (at, set) in sets.iter().enumerate() {
                let is_new = |item: &Item<'_>| !sets[..at].iter().any(|before| before.contains_item(*item));
                if !set.iter().filter(is_new).all(&mut emit) {
                    return;
                }
            }
        }
        Join::Union => {
            for item in sets.iter().flatten().flat_map(|s| s.iter()) {
                if !emit(item) {
                    return;
                }
            }
        }
    }
}

fn reply_joined(ctx: &mut Ctx<'_>, args: Args<'_>, how: Join) -> CmdResult {
    let mut found = Reply::default();
    let mut count = 0;
    let sets = sets_of(ctx, args.from(1))?;
    let how = if how == Join::Union && are_few_tables(&sets) { Join::UnionOfFew } else { how };
    let may_repeat = match how {
        Join::Inter | Join::UnionOfFew => false,
        Join::Union => sets.iter().flatten().count() > 1,
        // A packed set from an unchecked payload may hold a member twice.
        Join::Diff => matches!(sets.first(), Some(Some(Set::Packed(_)))),
    };
    let mut seen = HashSet::new();
    join(how, &sets, |item| {
        let is_new = !may_repeat
            || match item {
                // An integer may come as text from a table.
                Item::Str(bytes) => seen.insert(Item::of(bytes)),
                Item::Int(_) => seen.insert(item),
            };
        if is_new {
            reply_item(&mut found, item);
            count += 1;
        }
        true
    });
    ctx.out.set(count);
    ctx.out.raw(&found.buf);
    Ok(())
}

/// Whether it takes less to look a member up in the sets before than to remember all that was seen.
fn are_few_tables(sets: &[Option<&Set>]) -> bool {
    const FEW: usize = 3;
    sets.len() <= FEW && sets.iter().flatten().all(|set| matches!(set, Set::Table(_) | Set::Ints(_)))
}

fn sintercard(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let count = bounded_arg(&args[1], 1, "ERR numkeys should be greater than 0")? as usize;
    if count > args.len() - 2 {
        return Err(CmdError::of("ERR Number of keys can't be greater than number of args"));
    }
    let mut limit = 0;
    let mut i = 2 + count;
    while i < args.len() {
        match args.get(i + 1) {
            Some(value) if args[i].eq_ignore_ascii_case(b"LIMIT") => {
                limit = bounded_arg(value, 0, "ERR LIMIT can't be negative")? as usize;
            }
            _ => return Err(error::SYNTAX),
        }
        i += 2;
    }
    let mut found = 0;
    let sets = sets_of(ctx, args.between(2, 2 + count))?;
    join(Join::Inter, &sets, |_| {
        found += 1;
        limit == 0 || found < limit
    });
    ctx.out.just_int(found as i64)
}

fn store_joined(ctx: &mut Ctx<'_>, args: Args<'_>, how: Join, event: &'static str) -> CmdResult {
    let limits = limits(ctx);
    let key = &args[1];
    let mut joined = Set::new();
    let sets = sets_of(ctx, args.from(2))?;
    join(how, &sets, |item| {
        joined.add(item.bytes(&mut IntBuf::new()), &limits);
        true
    });
    let len = joined.len();
    store_result(ctx, key, (Object::Set(joined), len), (notify::SET, event), 1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;

    #[test]
    fn members_come_and_go() {
        let mut bare = Bare::new();
        assert_eq!((bare.run("sadd s 1 2 2"), bare.changes()), (":2".into(), 2));
        assert_eq!(bare.run("object encoding s"), "$6 intset");
        assert_eq!((bare.run("srem s 1 9"), bare.run("smembers s")), (":1".into(), "*1 $1 2".into()));
        assert_eq!((bare.run("spop s"), bare.run("exists s")), ("$1 2".into(), ":0".into()));
    }

    #[test]
    fn a_union_has_each_member_once() {
        let mut bare = Bare::new();
        bare.run("sadd ints 1 2 3");
        bare.run("sadd packed 2 x");
        let names: Vec<String> = (0..150).map(|i| format!("name{i}")).collect();
        // A number in a table is text there.
        bare.run(&format!("sadd table 2 x {}", names.join(" ")));
        assert_eq!(bare.run("object encoding table"), "$9 hashtable");
        let mut count = |keys: &str| bare.run(&format!("sunion {keys}")).split(' ').next().map(str::to_string);
        for (keys, members) in [
            ("ints table", 154),
            ("table ints", 154),
            ("table none table", 152),
            ("none ints none", 3),
            ("packed table ints", 154),
            ("table ints packed none none", 154),
            ("none none", 0),
        ] {
            assert_eq!(count(keys), Some(format!("*{members}")), "{keys}");
        }
    }

    #[test]
    fn a_reply_beyond_the_output_limit_ends_the_client() {
        let mut bare = Bare::new();
        bare.run("sadd s a b c");
        bare.caller.reply_room = 100;
        bare.run("srandmember s -1000000");
        assert_eq!(bare.want, Some(Want::Close));
    }
}
