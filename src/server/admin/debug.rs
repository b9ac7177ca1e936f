//! State that DEBUG sets and other rooms look at, and what DEBUG needs of the server beyond single commands.

use crate::server::Server;
use std::os::unix::process::CommandExt;
use std::time::Duration;

impl Server {
    /// Starts the program again in place of this process: gracefully means with configuration and data saved. Nothing
    /// happens, but for lines in the log, if that cannot work.
    pub(crate) fn restart(&mut self, delay: Duration, gracefully: bool) {
        use nix::unistd::{AccessFlags, access};
        if let Err(e) = access(self.executable.as_str(), AccessFlags::X_OK) {
            log::warn!("Can't restart: this process has no permissions to execute {}: {}", self.executable, e.desc());
            return;
        }
        self.admin.debug.restart = Some(delay);
        if !gracefully {
            self.exit = Some(0);
            return;
        }
        if let Some(Err(e)) = self.rewrite_config() {
            log::warn!("Can't restart: configuration rewrite process failed: {e}");
            self.admin.debug.restart = None;
            return;
        }
        self.begin_shutdown(crate::admin::shutdown::ShutdownFlags { now: true, ..Default::default() });
        if self.exit.is_none() {
            log::warn!("Can't restart: error preparing for shutdown");
            self.admin.debug.restart = None;
        }
    }

    /// After the loop: becomes the restarted server if a restart was asked for. Comes back otherwise.
    pub(crate) fn restart_if_asked(self) {
        let Some(delay) = self.admin.debug.restart else { return };
        let mut argv = self.admin.argv.clone().into_iter();
        let name = argv.next();
        let (executable, started_in) = (self.executable.clone(), self.admin.started_in.clone());
        // Sockets and files are closed by the program taking over; the pause is for whoever watches the crash.
        drop(self);
        std::thread::sleep(delay);
        let mut command = std::process::Command::new(&executable);
        if let Some(name) = name {
            command.arg0(name);
        }
        if let Some(dir) = started_in {
            command.current_dir(dir);
        }
        let error = command.args(argv).exec();
        log::warn!("Can't restart: {error}");
    }
}
