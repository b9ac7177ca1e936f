//! Replaying the append-only log: commands run for a client without a connection.

use crate::catalog::table::Resolved;
use crate::net::ClientId;
use crate::persist::Logged;
use crate::persist::aof::load::{AofLoad, AofStep};
use crate::persist::aof::manifest::shown;
use crate::persist::snapshot::debug_delay;
use crate::resp::OwnedArgs;
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::server::dispatch::ahead::Ahead;
use crate::server::persist::load::{Origin, log_load_error};

impl Server {
    pub(crate) fn add_aof_client(&mut self) -> ClientId {
        let id = self.clients.add(None, self.clock.ms());
        if let Some(c) = self.clients.get_mut(id) {
            c.flags.add(ClientFlags::AOF.union(ClientFlags::DENY_BLOCKING).union(ClientFlags::AUTHENTICATED));
        }
        id
    }

    pub(crate) fn drop_aof_client(&mut self, id: ClientId) {
        self.discard_transaction(id);
        self.clients.remove(id);
    }

    /// Runs commands of the log until the slice is used up; or gives how it ended. `of_command`: a command has it loaded.
    pub(crate) fn replay_slice(
        &mut self,
        load: &mut AofLoad,
        client: ClientId,
        of_command: bool,
    ) -> Option<Result<(), Logged>> {
        let mut slice = self.load_slice(load.offset());
        let (mut args, mut ahead) = (OwnedArgs::default(), Ahead::default());
        let bad_snapshot = loop {
            while self.cfg.key_load_delay == 0 && !slice.is_over(load.offset()) {
                match self.run_plain_of_log(client, load.buffered(), &mut ahead) {
                    0 => break,
                    ran => load.ran(ran),
                }
            }
            match load.step(&mut self.load_env(None), &mut slice) {
                AofStep::Pause => return None,
                AofStep::Done => return Some(Ok(())),
                AofStep::Failed => return Some(Err(Logged)),
                AofStep::Command => {
                    args.clear();
                    load.args().for_each(|arg| args.push(arg));
                    if !self.replay_command(client, &args, load.file().0) {
                        return Some(Err(Logged));
                    }
                    load.command_done();
                    if self.cfg.key_load_delay != 0 {
                        debug_delay(self.cfg.key_load_delay);
                        slice.look();
                    }
                }
                AofStep::FileEnds(end) => {
                    let in_multi = self.clients.get(client).is_some_and(|c| c.is(ClientFlags::MULTI));
                    if !load.end_file(end, in_multi, self.cfg.aof_load_truncated) {
                        return Some(Err(Logged));
                    }
                    self.discard_transaction(client);
                    if let Some(c) = self.clients.get_mut(client) {
                        c.db = 0;
                    }
                    // The next one is counted from its beginning.
                    return None;
                }
                AofStep::Asks(asks) => {
                    if let Err(e) = self.answer_load(asks, false, load.offset()) {
                        break e;
                    }
                }
                AofStep::BadSnapshot(e) => break e,
            }
        };
        let origin = if of_command { Origin::FileOfCommand } else { Origin::File(load.file().1) };
        if log_load_error(&bad_snapshot, origin) {
            std::process::exit(1);
        }
        load.log_bad_snapshot();
        Some(Err(Logged))
    }

    /// Runs or queues one command of the log. False when there is no such command.
    fn replay_command(&mut self, client: ClientId, args: &OwnedArgs, file: &[u8]) -> bool {
        let args = args.as_args();
        let Resolved::Found(cmd) = self.commands.resolve(args.at(0), args.get(1)) else {
            log::warn!(
                "Unknown command '{}' reading the append only file {}",
                String::from_utf8_lossy(args.at(0)),
                shown(file)
            );
            return false;
        };
        self.run_of_log(client, cmd, args);
        true
    }
}
