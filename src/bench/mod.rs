//! redis-benchmark: puts a load on a server and says how fast it answered.
//!
//! - `options`: the command line
//! - `workload`: the tests there are, and the requests they are made of
//! - `load`: the clients that send them, one reactor a thread
//! - `replies`: finds the ends of replies without building them
//! - `report`: the figures, as text or CSV
//! - `server`: questions asked of the server before a run

mod load;
mod options;
mod replies;
mod report;
mod server;
mod workload;

pub(crate) use options::{EXAMPLES, texts as option_texts};
use options::{MAX_THREADS, Options, Parsed};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use workload::Workload;

/// The whole program: takes the arguments after the program's name and returns the exit code.
pub fn main(args: Vec<OsString>) -> i32 {
    let args = args.into_iter().map(OsString::into_vec).collect();
    let options = match options::parse(args) {
        Parsed::Run(options) => *options,
        Parsed::Say(text) => {
            print!("{text}");
            return 0;
        }
        Parsed::Misspelt(text) => {
            print!("{text}");
            return 1;
        }
        Parsed::Wrong(text) => {
            eprintln!("{text}");
            return 1;
        }
    };
    warn(&options);
    match run(&options) {
        Ok(()) => 0,
        Err(message) => {
            eprintln!("{message}");
            1
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let nodes = server::targets(options)?;
    report::announce(options, &nodes);
    if options.idle {
        return load::hold_idle(options, &nodes);
    }
    loop {
        for workload in workloads(options) {
            let result = load::run(options, &nodes, &workload)?;
            report::print(options, &nodes, &workload, &result);
        }
        if options.command.is_empty() && !options.csv {
            println!();
        }
        if !options.endless {
            return Ok(());
        }
    }
}

fn warn(options: &Options) {
    if options.threads > MAX_THREADS {
        eprintln!("WARNING: Too many threads, limiting threads to {MAX_THREADS}.");
    }
    if options.show_errors {
        eprintln!("WARNING: -e option has no effect. We now immediately exit on error to avoid false results.");
    }
    if !options.keep_alive {
        eprintln!(
            "WARNING: Keepalive disabled. Every request opens a connection, so ports may run out: \
             net.ipv4.tcp_tw_reuse=1 lets the kernel use them again sooner."
        );
    }
}

fn workloads(options: &Options) -> Vec<Workload> {
    if options.command.is_empty() { workload::standard(options) } else { vec![Workload::of_command(options)] }
}
