//! The dashboard: pages for browsers, on a listener of its own.
//!
//! ```text
//! accept ──> connection ──> routes ──> visitor (host, session, role) ──> views ──> fovea_dashboard ──> HTML
//!  (limits,   (HTTP/1.1,       │                                           │
//!   TLS)       deadlines)      └── changes: POST with a CSRF token ──> api │ (caches: curves, scores, reports, patients, audits)
//!                                                                           └── live: the parts that changed
//! ```
//!
//! Whoever comes is let in by the same rules as callers of the API: a page asks [`crate::access`] for the method that it
//! shows, and every change is a request to the services themselves (`api`), through the layer that checks the role and writes
//! the audit log. So nothing can be done here that gRPC would refuse.
//!
//! - `serve`, `stalling`: connections and their deadlines
//! - `routes`, `reply`: from paths to answers
//! - `visitor`, `sessions`: who asks
//! - `api`: the services, called within the process
//! - `views`, `run_view`, `lists`, `groups`: what pages show
//! - `changing`: who may change what, and the pages that ask whether a change is meant
//! - `curves`, `scores`, `report`, `steps`, `background`: what is read, seen or computed once and kept
//! - `live`: server-sent events

mod api;
mod background;
mod changing;
mod curves;
mod groups;
mod lists;
mod live;
mod reply;
mod report;
mod routes;
mod run_view;
mod scores;
mod serve;
mod sessions;
mod stalling;
mod steps;
mod views;
mod visitor;

use std::sync::Arc;

use fovea_dashboard::model::Audited;
use fovea_security::Tls;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::access::AccessLayer;
use crate::services::Context;
use api::Api;
use background::Kept;
use curves::Curves;
use report::ReportKey;
use scores::ScoresKey;
use sessions::Sessions;
use steps::FullSteps;
use views::Refusal;

/// Pages that are made at the same time; more wait.
const PAGES: usize = 8;

/// What pages are made of. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Dashboard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    context: Context,
    access: AccessLayer,
    api: Api,
    sessions: Sessions,
    /// Secret of the CSRF tokens: that of this process.
    secret: [u8; 32],
    curves: Curves,
    scores: Kept<ScoresKey, scores::Outcome>,
    reports: Kept<ReportKey, report::Outcome>,
    /// Patients of the three splits by a dataset's digest.
    patients: Kept<String, Option<[u64; 3]>>,
    /// By run.
    audits: Kept<String, Result<Audited, Refusal>>,
    full_steps: FullSteps,
    turns: Semaphore,
    /// What is being computed. Nobody waits for it when the coordinator stops.
    computing: TaskTracker,
}

impl Dashboard {
    /// With the services behind `routes`.
    pub(crate) fn new(context: Context, access: AccessLayer, routes: Routes) -> Self {
        Self(Arc::new(Inner {
            api: Api::new(access.clone(), routes),
            access,
            sessions: Sessions::default(),
            secret: fovea_service::random_bytes(),
            curves: Curves::default(),
            scores: Kept::new(64),
            reports: Kept::new(16),
            patients: Kept::new(256),
            audits: Kept::new(256),
            full_steps: FullSteps::default(),
            turns: Semaphore::new(PAGES),
            computing: TaskTracker::new(),
            context,
        }))
    }

    fn tls(&self) -> Option<&Tls> {
        self.0.context.tls.as_ref()
    }
}
