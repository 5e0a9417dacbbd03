//! A worker's calls to the peers of lower ranks, while a generation forms.
//!
//! A peer's port answers at once, and the peer's generation claims the call when it comes to that. A peer that fetches its data
//! for long may drop the call meanwhile, as its port keeps none for ever: then it is called again.
//!
//! ```text
//! call ──> Failed
//!   └────> Answered ──> Claimed
//!             └───────> Dropped
//! ```

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use fovea_core::roster::Member;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::channel::Channel;
use super::greeting::{self, Greeting, GreetingError};
use super::mesh::Mesh;

/// Time between the first two calls to a peer that cannot be reached; then twice as long each time ...
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// ... up to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The calls of one generation. They end when this is dropped.
pub(super) struct Calls<'a> {
    mesh: &'a Mesh,
    members: &'a [Member],
    greeting: Greeting,
    under_way: HashMap<usize, Call>,
    problems: HashMap<usize, GreetingError>,
    tell: Sender<(usize, News)>,
    news: Receiver<(usize, News)>,
    pause: Duration,
    next: Instant,
}

/// A call under way.
struct Call {
    is_answered: bool,
    _task: AbortOnDropHandle<()>,
}

/// What became of a call.
enum News {
    /// The peer cannot be reached.
    Failed(GreetingError),
    /// It can, and has not come to this generation yet.
    Answered,
    /// Its generation takes the call.
    Claimed(Channel),
    /// It hung up before that.
    Dropped,
}

impl<'a> Calls<'a> {
    /// Calls from `mesh` to `members` of a generation, who are told `greeting`.
    pub(super) fn new(mesh: &'a Mesh, members: &'a [Member], greeting: Greeting) -> Self {
        let (tell, news) = channel();
        Self {
            mesh,
            members,
            greeting,
            under_way: HashMap::new(),
            problems: HashMap::new(),
            tell,
            news,
            pause: FIRST_PAUSE,
            next: Instant::now(),
        }
    }

    /// Calls those of `peers` that are not being called, if it is time. Each must answer within `patience`. One that cannot be
    /// reached does not delay the others, and neither does a name server.
    pub(super) fn begin(&mut self, peers: impl Iterator<Item = usize>, patience: Duration) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let idle: Vec<usize> = peers
            .filter(|peer| !self.under_way.contains_key(peer))
            .collect();
        if idle.is_empty() {
            return;
        }
        for peer in idle {
            let call = Call {
                is_answered: false,
                _task: self.call(peer, patience),
            };
            self.under_way.insert(peer, call);
        }
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn call(&self, peer: usize, patience: Duration) -> AbortOnDropHandle<()> {
        let (mesh, member, greeting) =
            (self.mesh.clone(), self.members[peer].clone(), self.greeting);
        let tell = self.tell.clone();
        AbortOnDropHandle::new(self.mesh.runtime().spawn(async move {
            let tell = |news| {
                // Without a receiver nobody waits any more.
                let _ = tell.send((peer, news));
                mesh.wake();
            };
            let (address, worker) = (&member.address, member.worker.as_str());
            let called = greeting::call(mesh.tls(), address, worker, greeting, patience).await;
            let called = match called {
                Ok(called) => called,
                Err(problem) => return tell(News::Failed(problem)),
            };
            tell(News::Answered);
            match called.claimed().await {
                Ok(channel) => tell(News::Claimed(channel)),
                Err(problem) => {
                    debug!(peer, "the call was not claimed: {problem}");
                    tell(News::Dropped);
                }
            }
        }))
    }

    /// Puts the connections that were claimed into their places in `channels`.
    pub(super) fn take(&mut self, channels: &mut [Option<Channel>]) {
        for (peer, news) in self.news.try_iter() {
            match news {
                News::Answered => {
                    self.problems.remove(&peer);
                    if let Some(call) = self.under_way.get_mut(&peer) {
                        call.is_answered = true;
                    }
                    continue;
                }
                News::Failed(problem) => {
                    self.problems.insert(peer, problem);
                }
                News::Claimed(channel) => channels[peer] = Some(channel),
                News::Dropped => {}
            }
            self.under_way.remove(&peer);
        }
    }

    /// When one of `peers` is to be called; None while all of them are being called.
    pub(super) fn due(&self, mut peers: impl Iterator<Item = usize>) -> Option<Instant> {
        let idle = peers.any(|peer| !self.under_way.contains_key(&peer));
        idle.then_some(self.next)
    }

    /// Whether a peer has answered a call that it may still claim. Then it is there: if its process ended, so would the connection.
    pub(super) fn is_answered(&self, peer: usize) -> bool {
        let call = self.under_way.get(&peer);
        call.is_some_and(|call| call.is_answered)
    }

    /// Why peers could not be reached, as far as they have not answered since.
    pub(super) fn problems(&self) -> &HashMap<usize, GreetingError> {
        &self.problems
    }
}
