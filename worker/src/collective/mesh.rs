//! Connections between the workers of a generation.
//!
//! Every worker listens on one port for its whole life. A worker of rank i calls all ranks
//! below it ([`calls`](super::calls)) and sends the generation's key (16 random bytes from the coordinator) and its own rank;
//! all ranks above call it. The two are connected when the called worker's generation has claimed the call: the
//! caller may have received the generation, and fetched its data, long before. A call whose key no generation of this worker
//! has claimed is dropped after 120 s, and a caller that still waits calls again.
//!
//! With TLS the key alone is not enough: both ends know each other by their certificates, whose names must be those of the
//! members of the generation ([`greeting`](super::greeting)).
//!
//! A probe is a connection that belongs to no generation. It is answered at once, which shows that this
//! worker can be reached.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fovea_core::count::count;
use fovea_core::roster::{Member, Roster, UNREACHABLE_HINT};
use fovea_security::{Refusal, Tls};
use fovea_service::Repeated;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::calls::Calls;
use super::channel::Channel;
use super::greeting::{self, Caller, Greeting, GreetingError};
use super::waiting::{Waiting, Waits};
use super::{CollectiveError, MeshKey, Unreached};

/// A greeting must come within this.
const GREETING_DEADLINE: Duration = Duration::from_secs(5);
/// Connections whose greeting is awaited at a time. One more, and the oldest is given up: a peer takes milliseconds, so that
/// those that say nothing are hit.
const MOST_GREETINGS: usize = 256;
/// A connection that no generation claims is dropped after this, or a little later: its caller may be gone.
const UNCLAIMED: Duration = Duration::from_secs(120);
/// Of more unclaimed connections than this, the oldest are dropped.
const MOST_UNCLAIMED: usize = 512;
/// Longest time of one attempt to connect, so that a peer whose packets are lost does not delay the others.
const CALL: Duration = Duration::from_secs(1);
/// Time between two checks whether the generation was aborted.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// This worker's end of all connections with peers.
#[derive(Clone)]
pub struct Mesh {
    shared: Arc<(Mutex<Vec<Arrival>>, Condvar)>,
    address: SocketAddr,
    /// For new connections.
    tls: Option<Tls>,
    unclaimed: Duration,
    runtime: Handle,
}

/// A connection from a peer, waiting for its generation. They are kept in the order of arrival.
struct Arrival {
    caller: Caller,
    since: Instant,
}

impl Mesh {
    /// Starts to accept peers on `listener`, under TLS if there is a certificate; the task ends when `tasks` is dropped.
    /// Calls to peers run on the runtime that this is called on.
    pub fn start(
        listener: TcpListener,
        tls: Option<Tls>,
        tasks: &mut JoinSet<()>,
    ) -> io::Result<Self> {
        Self::start_dropping_after(UNCLAIMED, listener, tls, tasks)
    }

    fn start_dropping_after(
        unclaimed: Duration,
        listener: TcpListener,
        tls: Option<Tls>,
        tasks: &mut JoinSet<()>,
    ) -> io::Result<Self> {
        let mesh = Self {
            shared: Arc::default(),
            address: listener.local_addr()?,
            tls,
            unclaimed,
            runtime: Handle::current(),
        };
        let acceptor = mesh.clone();
        tasks.spawn(async move { acceptor.accept(listener).await });
        Ok(mesh)
    }

    /// Where peers reach this worker.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether connections with peers are under TLS.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Connects to the port for peers of `member` and waits for its answer. It shows that the worker can be reached from
    /// here, before a generation counts on it.
    ///
    /// # Errors
    /// If that fails within `deadline`.
    pub async fn probe(&self, member: &Member, deadline: Duration) -> Result<(), GreetingError> {
        let (address, worker) = (&member.address, member.worker.as_str());
        greeting::probe(self.tls.as_ref(), address, worker, deadline).await
    }

    /// When this worker's certificate has expired, if it has.
    fn expired(&self) -> Option<String> {
        let certificate = self.tls.as_ref()?.certificate();
        let is_over = certificate.until <= OffsetDateTime::now_utc();
        is_over.then(|| certificate.until_text())
    }

    async fn accept(self, listener: TcpListener) {
        let mut greetings = JoinSet::new();
        // The same, oldest first, and some that have ended.
        let mut order = VecDeque::new();
        let mut refusals = Repeated::default();
        // Dropping them must not depend on further arrivals: without a free file descriptor there are none.
        let mut sweep = tokio::time::interval(self.unclaimed / 4);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        make_room(&mut order);
                        let mesh = self.clone();
                        order.push_back(greetings.spawn(async move {
                            let answer = greeting::answer(mesh.tls.as_ref(), stream);
                            let answered = tokio::time::timeout(GREETING_DEADLINE, answer).await;
                            match answered.unwrap_or(Err(GreetingError::Slow(GREETING_DEADLINE))) {
                                Ok(Some(caller)) => mesh.arrived(caller),
                                Ok(None) => debug!(%from, "answered a probe"),
                                Err(error) => return Some((from, error)),
                            }
                            None
                        }));
                    }
                    Err(e) => {
                        // For example without a free file descriptor: do not spin.
                        warn!("peer.not_accepted: cannot accept a connection of a peer: {e}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(greeted) = greetings.join_next(), if !greetings.is_empty() => {
                    if let Ok(Some((from, error))) = greeted {
                        report(&mut refusals, from, &error);
                    }
                }
                _ = sweep.tick() => self.arrivals().retain(|a| a.since.elapsed() < self.unclaimed),
            }
        }
    }

    fn arrived(&self, caller: Caller) {
        let mut arrivals = self.arrivals();
        // The newest belong to the generation that is forming, the oldest to ended ones.
        let excess = (arrivals.len() + 1).saturating_sub(MOST_UNCLAIMED);
        arrivals.drain(..excess);
        let since = Instant::now();
        arrivals.push(Arrival { caller, since });
        self.shared.1.notify_all();
    }

    /// Wakes those that connect.
    pub(super) fn wake(&self) {
        // Whoever looks for news holds the lock until it waits, so that it misses none.
        let _arrivals = self.arrivals();
        self.shared.1.notify_all();
    }

    /// For new connections.
    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Where calls to peers run.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    fn arrivals(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.shared.0.lock().expect("no holder of this lock panics")
    }

    /// Takes those that have called for a generation with this key.
    fn claim(&self, arrivals: &mut Vec<Arrival>, key: MeshKey) -> Vec<Caller> {
        let claimed = arrivals.extract_if(.., |arrival| arrival.caller.greeting.key == key);
        claimed.map(|arrival| arrival.caller).collect()
    }

    /// Connects the worker of rank `rank` with all its peers, by rank; its own place stays empty. All of them have come to this
    /// generation then. A peer that answers is waited for as long as it takes, and one that does not for about `deadline`. Gives
    /// up as soon as `aborted` holds. `waiting` publishes one of the missing peers.
    pub fn connect(
        &self,
        roster: &Roster,
        key: MeshKey,
        rank: usize,
        deadline: Duration,
        aborted: &dyn Fn() -> bool,
        waiting: &Waiting,
    ) -> Result<Vec<Option<Channel>>, CollectiveError> {
        let mut end = Instant::now() + deadline;
        let mut channels: Vec<Option<Channel>> = roster.members.iter().map(|_| None).collect();
        let Some(anyone) = (0..channels.len()).find(|&r| r != rank) else {
            return Ok(channels);
        };
        // It would complain of its peers, and they of it: of two workers the other one would pass for the one that is cut off.
        if let Some(until) = self.expired() {
            return Err(CollectiveError::Expired { until });
        }
        let waits = waiting.begin(anyone);
        let greeting = Greeting {
            key,
            rank: rank as u32,
        };
        let mut calls = Calls::new(self, &roster.members, greeting);
        loop {
            waits.poll();
            let left = end.saturating_duration_since(Instant::now());
            let below = (0..rank).filter(|&r| channels[r].is_none());
            calls.begin(below, CALL.min(left).max(POLL_INTERVAL));

            let mut arrivals = self.arrivals();
            calls.take(&mut channels);
            for caller in self.claim(&mut arrivals, key) {
                let from = caller.greeting.rank as usize;
                if from <= rank || from >= channels.len() {
                    continue;
                }
                match is_other(&roster.members[from], &caller) {
                    // One that has hung up calls again.
                    None => channels[from] = caller.claim().ok(),
                    Some(other) => warn!("peer.refused: {other}"),
                }
            }
            // A peer may have disconnected while this worker waited for others.
            for channel in &mut channels {
                channel.take_if(|channel| !channel.is_open());
            }
            let missing: Vec<usize> = (0..channels.len())
                .filter(|&r| r != rank && channels[r].is_none())
                .collect();
            let Some(&first) = missing.first() else {
                return Ok(channels);
            };
            if aborted() {
                return Err(CollectiveError::Aborted);
            }
            waits.switch(first);
            let now = Instant::now();
            if now >= end {
                drop(arrivals);
                // A peer that answers but has not connected is busy with a long step or fetches its data, and not missing.
                let problems = calls.problems();
                let (mut silent, quiet) = (missing.into_iter())
                    .filter(|&peer| !calls.is_answered(peer))
                    .partition::<Vec<usize>, _>(|peer| problems.contains_key(peer));
                let probes = self.ask(&roster.members, quiet, |tls, member| async move {
                    let (address, worker) = (&member.address, member.worker.as_str());
                    greeting::probe(tls.as_ref(), address, worker, CALL).await
                });
                for (peer, probed) in polling(&waits, aborted, probes)? {
                    if let Err(problem) = probed {
                        debug!(peer, "no answer to a probe: {problem}");
                        silent.push(peer);
                    }
                }
                if silent.is_empty() {
                    end = Instant::now() + deadline;
                    continue;
                }
                silent.sort_unstable();
                return Err(incomplete(roster, &silent, problems, deadline));
            }
            // Woken by an arrival and by news of a call; in between `aborted` is checked and the others are tried again.
            let mut wait = POLL_INTERVAL.min(end - now);
            if let Some(next) = calls.due(missing.into_iter().filter(|&peer| peer < rank)) {
                wait = wait.min(next.saturating_duration_since(now));
            }
            let (guard, _) = (self.shared.1)
                .wait_timeout(arrivals, wait)
                .expect("no holder of this lock panics");
            drop(guard);
        }
    }

    /// Does `work` with each of `peers` at the same time, on the runtime: one that cannot be reached must not delay the
    /// others, and neither must a name server.
    fn ask<T, F>(
        &self,
        members: &[Member],
        peers: Vec<usize>,
        work: impl Fn(Option<Tls>, Member) -> F,
    ) -> Asked<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (done, answers) = mpsc::channel();
        let ask = |peer: usize| {
            let (done, work) = (done.clone(), work(self.tls.clone(), members[peer].clone()));
            AbortOnDropHandle::new(self.runtime.spawn(async move {
                // Without a receiver nobody waits any more.
                let _ = done.send((peer, work.await));
            }))
        };
        let tasks = peers.into_iter().map(ask).collect();
        Asked { answers, tasks }
    }
}

/// Work on the runtime, which ends when this is dropped. Answers come with the peer that they are about.
struct Asked<T> {
    answers: mpsc::Receiver<(usize, T)>,
    tasks: Vec<AbortOnDropHandle<()>>,
}

/// Waits for all answers and polls meanwhile: a peer, or a name server, may take long.
fn polling<T>(
    waits: &Waits,
    aborted: &dyn Fn() -> bool,
    asked: Asked<T>,
) -> Result<Vec<(usize, T)>, CollectiveError> {
    let Asked { answers, tasks } = asked;
    let mut all = Vec::with_capacity(tasks.len());
    loop {
        match answers.recv_timeout(POLL_INTERVAL) {
            Ok(answer) => all.push(answer),
            Err(RecvTimeoutError::Timeout) if aborted() => return Err(CollectiveError::Aborted),
            Err(RecvTimeoutError::Timeout) => waits.poll(),
            Err(RecvTimeoutError::Disconnected) => return Ok(all),
        }
    }
}

/// Gives up the oldest of too many greetings.
fn make_room(order: &mut VecDeque<AbortHandle>) {
    order.retain(|greeting| !greeting.is_finished());
    while order.len() >= MOST_GREETINGS {
        let oldest = order.pop_front();
        oldest.inspect(AbortHandle::abort);
    }
}

/// Why the caller is not the member that it says to be.
fn is_other(member: &Member, caller: &Caller) -> Option<String> {
    let identity = caller.identity.as_ref()?;
    let (worker, rank) = (&member.worker, caller.greeting.rank);
    (!identity.owns_worker(worker.as_str())).then(|| {
        format!(
            "{identity} called as rank {rank}, which is {worker}; it knows the run's key, so find out who uses that certificate"
        )
    })
}

/// Logs that somebody got no connection.
fn report(refusals: &mut Repeated, from: SocketAddr, error: &GreetingError) {
    // A caller that gives up is no event: it may have waited for another peer for too long.
    let is_event = match error {
        GreetingError::Refused(Refusal::Broken(_)) | GreetingError::Io(_) => false,
        GreetingError::Refused(_)
        | GreetingError::TlsOnly
        | GreetingError::NotAPeer
        | GreetingError::Slow(_) => true,
    };
    if !is_event {
        debug!(%from, "not a peer: {error}");
    } else if let Some(refused) = refusals.on_event(tokio::time::Instant::now()) {
        warn!(
            %from,
            count = refused,
            "peer.refused: refused {} on the port for workers, the last from {from}: {error}",
            count(refused, "connection", "connections")
        );
    }
}

fn incomplete(
    roster: &Roster,
    missing: &[usize],
    problems: &HashMap<usize, GreetingError>,
    waited: Duration,
) -> CollectiveError {
    for peer in missing {
        let member = &roster.members[*peer];
        let (worker, address) = (&member.worker, &member.address);
        let what = match problems.get(peer) {
            Some(problem) => format!("cannot connect to {worker} at {address}: {problem}"),
            None => format!(
                "{worker} at {address} has not connected, or has disconnected, and does not answer"
            ),
        };
        warn!(%worker, address, "peer.unreachable: {what}; {UNREACHABLE_HINT}");
    }
    let peer = |&rank: &usize| {
        let member = &roster.members[rank];
        Unreached {
            worker: member.worker.to_string(),
            address: member.address.clone(),
        }
    };
    CollectiveError::Incomplete {
        missing: missing.iter().map(peer).collect(),
        waited,
    }
}

#[cfg(test)]
#[path = "mesh_tests.rs"]
mod tests;
