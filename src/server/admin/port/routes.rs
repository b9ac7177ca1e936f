//! What is where on the port, and who may ask for it.
//!
//! Everybody may ask whether the server lives and is ready. For the rest a user of the ACL signs in, as soon as the default user
//! has a password, and has to be allowed the command that tells the same.

use super::Port;
use super::api::{self, KeySample};
use crate::admin::figure::{Kind, Metric};
use crate::admin::http::{Request, Status};
use crate::admin::openmetrics::{Exposition, Format};
use crate::admin::page;
use crate::net::link::shown_addr;
use crate::resp::OwnedArgs;
use crate::server::Server;
use crate::structs::slots::{SLOT_COUNT, Slot};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

/// A response without its head.
pub(super) struct Response {
    pub(super) status: Status,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
    /// Makes the rest of the body.
    pub(super) task: Option<Task>,
    /// More lines of the head.
    pub(super) more: String,
}

const TEXT: &str = "text/plain; charset=utf-8";

impl Response {
    fn new(status: Status, content_type: &'static str, body: impl Into<Vec<u8>>) -> Response {
        Response { status, content_type, body: body.into(), task: None, more: String::new() }
    }

    pub(super) fn json(body: Vec<u8>) -> Response {
        Response::new(Status::Ok, "application/json", body)
    }

    fn text(status: Status, text: &str) -> Response {
        Response::new(status, TEXT, format!("{text}\n"))
    }

    /// One that asks who it is.
    fn unauthorized(text: &str) -> Response {
        let mut response = Response::text(Status::Unauthorized, text);
        response.more = "WWW-Authenticate: Basic realm=\"Hexad\", charset=\"UTF-8\"\r\n".into();
        response
    }

    /// One that tells only its status.
    pub(super) fn error(status: Status) -> Response {
        let mut response = Response::text(status, status.line().1);
        if status == Status::MethodNotAllowed {
            response.more = "Allow: GET, HEAD\r\n".into();
        }
        response
    }
}

/// A place on the port.
struct Place {
    path: &'static str,
    access: Access,
    answer: fn(&mut Server, &Request) -> Response,
}

/// Who may see a place.
#[derive(Clone, Copy)]
enum Access {
    Anybody,
    /// Whoever has signed in.
    Users,
    /// Users who are allowed this command.
    May(&'static [&'static str]),
    /// Users who are allowed this command and may read every key.
    ReadsAll(&'static [&'static str]),
}

const fn place(path: &'static str, access: Access, answer: fn(&mut Server, &Request) -> Response) -> Place {
    Place { path, access, answer }
}

const PLACES: &[Place] = &[
    place("/healthz", Access::Anybody, |_, _| Response::text(Status::Ok, "ok")),
    place("/readyz", Access::Anybody, readiness),
    place("/metrics", Access::May(&["INFO"]), metrics),
    place("/", Access::Users, |_, _| Response::new(Status::Ok, "text/html; charset=utf-8", page::HTML)),
    place("/page.css", Access::Users, |_, _| Response::new(Status::Ok, "text/css; charset=utf-8", page::CSS)),
    place("/page.js", Access::Users, |_, _| Response::new(Status::Ok, "text/javascript; charset=utf-8", page::JS)),
    place("/api/state", Access::May(&["INFO"]), api::state),
    place("/api/cluster", Access::May(&["CLUSTER", "NODES"]), api::cluster),
    place("/api/doctor", Access::May(&["DOCTOR"]), api::findings),
    place("/api/slowlog", Access::May(&["SLOWLOG", "GET"]), api::slow_log),
    place("/api/clients", Access::May(&["CLIENT", "LIST"]), api::clients),
    place("/api/keys", Access::ReadsAll(&["RANDOMKEY"]), api::keys),
];

fn readiness(srv: &mut Server, _: &Request) -> Response {
    match srv.reasons_not_ready() {
        reasons if reasons.is_empty() => Response::text(Status::Ok, "ready"),
        reasons => Response::text(Status::Unavailable, &format!("not ready: {}", reasons.join("; "))),
    }
}

fn metrics(srv: &mut Server, request: &Request) -> Response {
    let begun = Instant::now();
    let format = Format::accepted(&request.accept);
    let mut exposition = srv.metrics(format);
    srv.port.scrape_us = begun.elapsed().as_micros() as u64;
    let is_by_slot = request.parameter("slots") == Some("1") && srv.cluster().is_some();
    if !is_by_slot {
        return Response::new(Status::Ok, format.content_type(), exposition.finish());
    }
    exposition.begin(SLOT_KEYS);
    let body = exposition.take();
    let task = Some(Task::Slots(0, Box::new(exposition)));
    Response { task, ..Response::new(Status::Ok, format.content_type(), body) }
}

const SLOT_KEYS: Metric = Metric::new(Kind::Gauge, "hexad_slot_keys", "Keys by slot, of slots that have some.");

/// What makes a body piece by piece.
#[derive(Debug)]
pub(super) enum Task {
    /// Samples of slots, from this one on.
    Slots(Slot, Box<Exposition>),
    Keys(Box<KeySample>),
}

impl Task {
    /// The next piece, and whether it is the last.
    pub(super) fn go_on(&mut self, srv: &Server) -> (Vec<u8>, bool) {
        /// Slots looked at in one step.
        const AT_A_TIME: usize = 1024;
        match self {
            Task::Keys(sample) => sample.go_on(srv),
            Task::Slots(next, out) => {
                let end = SLOT_COUNT.min(usize::from(*next) + AT_A_TIME) as Slot;
                for slot in *next..end {
                    let keys = srv.ks.dbs[0].slot_len(slot);
                    if keys > 0 {
                        out.sample(&[("slot", itoa::Buffer::new().format(slot))], keys as f64);
                    }
                }
                *next = end;
                let is_last = usize::from(end) == SLOT_COUNT;
                (if is_last { out.finish() } else { out.take() }, is_last)
            }
        }
    }
}

impl Port {
    pub(super) fn count(&mut self, path: &'static str, status: Status) {
        *self.requests.entry((path, status.line().0)).or_default() += 1;
    }
}

impl Server {
    pub(super) fn answer_operator(&mut self, request: &Request, peer: Option<SocketAddr>) -> Response {
        let place = PLACES.iter().find(|place| place.path == request.path);
        let response = self.answer_from(place, request, peer);
        self.port.count(place.map_or("", |place| place.path), response.status);
        response
    }

    fn answer_from(&mut self, place: Option<&Place>, request: &Request, peer: Option<SocketAddr>) -> Response {
        let is_for_all = place.is_some_and(|place| matches!(place.access, Access::Anybody));
        if !is_for_all && let Err(refusal) = self.admit_operator(place, request, peer) {
            return refusal;
        }
        match place {
            Some(place) => (place.answer)(self, request),
            None => Response::error(Status::NotFound),
        }
    }

    fn admit_operator(
        &mut self,
        place: Option<&Place>,
        request: &Request,
        peer: Option<SocketAddr>,
    ) -> Result<(), Response> {
        let names = self.cfg.admin_hosts.iter().map(String::as_str);
        if !request.is_for_us(names.chain([&*self.cfg.cluster_announce_hostname].into_iter().filter(|n| !n.is_empty())))
        {
            let text = "This server does not go by that name: 'admin-hosts' lists the names it may be called by.";
            return Err(Response::text(Status::Misdirected, text));
        }
        if request.is_from_elsewhere() {
            return Err(Response::text(Status::Forbidden, "Pages of other sites get nothing here."));
        }
        let is_local = peer.is_none_or(|peer| peer.ip().is_loopback());
        if self.cfg.protected_mode && !self.auth_required && !is_local {
            let text = "Protected mode: without a password of the default user nobody is served from elsewhere.";
            return Err(Response::text(Status::Forbidden, text));
        }
        let user = self.sign_in(request, peer)?;
        let (command, reads_all) = match place.map(|place| place.access) {
            None | Some(Access::Anybody | Access::Users) => return Ok(()),
            Some(Access::May(command)) => (command, false),
            Some(Access::ReadsAll(command)) => (command, true),
        };
        let args = OwnedArgs::from_iter(command.iter().map(|word| word.as_bytes()));
        let args = args.as_args();
        let found = self.commands.resolve_whole(args);
        let is_allowed = found.is_some_and(|cmd| self.acl.check(&user, &self.commands, cmd, args).is_ok());
        if is_allowed && (!reads_all || self.acl.reads_all_keys(&user, &self.commands, args)) {
            return Ok(());
        }
        let name = command.join("|").to_ascii_lowercase();
        self.log_operator_refused("command", name.as_bytes(), &user, peer);
        Err(Response::text(Status::Forbidden, &format!("This user may not run {name}, which is what this shows.")))
    }

    /// The user that a request comes from.
    fn sign_in(&mut self, request: &Request, peer: Option<SocketAddr>) -> Result<Vec<u8>, Response> {
        let default = crate::acl::DEFAULT_USER.to_vec();
        let Some((name, password)) = request.credentials() else {
            if !self.auth_required {
                return Ok(default);
            }
            return Err(Response::unauthorized("A user and a password are needed."));
        };
        let (from, now_ms) = (peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.ip()), self.clock.mono_ms());
        if let Some(wait_ms) = self.port.logins.wait_ms(from, now_ms) {
            let mut response = Response::text(Status::TooManyRequests, "Too many wrong passwords: wait a minute.");
            response.more = format!("Retry-After: {}\r\n", (wait_ms + 999) / 1000);
            return Err(response);
        }
        let name = if name.is_empty() { default } else { name };
        if self.acl.user(&name).is_some_and(|user| user.enabled && user.accepts_password(&password)) {
            return Ok(name);
        }
        self.port.logins.failed(from, now_ms);
        self.log_operator_refused("auth", b"AUTH", &name, peer);
        Err(Response::unauthorized("Wrong user or password, or the user is disabled."))
    }

    fn log_operator_refused(&mut self, reason: &'static str, object: &[u8], user: &[u8], peer: Option<SocketAddr>) {
        let info = format!("addr={} (admin-port)", shown_addr(peer, None));
        self.log_refusal(reason, "toplevel", object.to_vec(), user, info);
    }
}
