//! Which page is shown, and its content for a visitor.

use form_urlencoded::parse;
use fovea_core::ids::{GroupId, RunId};
use fovea_dashboard::page::{
    MOST_COMPARED, compare, datasets, group, groups, overview, run, runs, workers,
};
use fovea_dashboard::{Here, Sheet};
use hyper::StatusCode;
use tonic::{Code, Status};

use super::Dashboard;
use super::visitor::Visitor;
use crate::clock::unix_ms;
use crate::error::ApiError;

/// A page that shows something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum View {
    Overview,
    Runs { before: Option<u64> },
    Run(RunId),
    Groups { before: Option<u64> },
    Group(GroupId),
    Workers { page: usize },
    Datasets { page: usize },
    Compare(Vec<String>),
}

/// Why a page is not shown, or a change not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub heading: &'static str,
    pub text: String,
}

impl View {
    /// The page at this path; None if there is none.
    pub(super) fn parse(path: &str, query: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let value = |name: &str| {
            let mut pairs = parse(query.as_bytes());
            pairs.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
        };
        let before = || value("before").and_then(|before| before.parse().ok());
        let page = || {
            value("page")
                .and_then(|page| page.parse().ok())
                .unwrap_or(1)
        };
        match *parts {
            [] => Some(Self::Overview),
            ["runs"] => Some(Self::Runs { before: before() }),
            ["runs", id] => RunId::new(id).ok().map(Self::Run),
            ["groups"] => Some(Self::Groups { before: before() }),
            ["groups", id] => GroupId::new(id).ok().map(Self::Group),
            ["workers"] => Some(Self::Workers { page: page() }),
            ["datasets"] => Some(Self::Datasets { page: page() }),
            ["compare"] => {
                let pairs = parse(query.as_bytes()).filter(|(key, _)| key == "run");
                let runs = pairs.map(|(_, run)| run.into_owned());
                // Some more than are compared, so that the page can say that they are too many.
                Some(Self::Compare(runs.take(MOST_COMPARED + 20).collect()))
            }
            _ => None,
        }
    }

    /// The entry of the menu that it belongs to.
    pub(super) fn here(&self) -> Here {
        match self {
            Self::Overview => Here::Overview,
            Self::Runs { .. } | Self::Run(_) | Self::Compare(_) => Here::Runs,
            Self::Groups { .. } | Self::Group(_) => Here::Groups,
            Self::Workers { .. } => Here::Workers,
            Self::Datasets { .. } => Here::Datasets,
        }
    }

    /// Whether it is kept up to date. In the others people choose or read what does not change.
    pub(super) fn is_live(&self) -> bool {
        match self {
            Self::Overview | Self::Run(_) | Self::Group(_) | Self::Workers { .. } => true,
            Self::Runs { .. } | Self::Groups { .. } | Self::Datasets { .. } | Self::Compare(_) => {
                false
            }
        }
    }

    /// The method of the API that shows the same, which the visitor must be allowed to call.
    fn method(&self) -> &'static str {
        match self {
            Self::Overview | Self::Runs { .. } => "/fovea.v1.Runs/List",
            Self::Run(_) | Self::Compare(_) => "/fovea.v1.Runs/Get",
            Self::Groups { .. } => "/fovea.v1.Groups/List",
            Self::Group(_) => "/fovea.v1.Groups/Get",
            Self::Workers { .. } => "/fovea.v1.Cluster/ListWorkers",
            Self::Datasets { .. } => "/fovea.v1.Datasets/List",
        }
    }
}

impl Dashboard {
    /// The content of a page for a visitor. Only so many are made at a time.
    pub(super) async fn sheet(&self, visitor: &Visitor, view: &View) -> Result<Sheet, Refusal> {
        self.admit(visitor, view.method())?;
        let _turn = self.0.turns.acquire().await;
        Ok(match view {
            View::Overview => overview(&self.overview(visitor).await?, unix_ms()),
            View::Runs { before } => runs(&self.runs(*before).await?, unix_ms()),
            View::Run(id) => run(&self.run(visitor, id).await?, &visitor.csrf, unix_ms()),
            View::Groups { before } => groups(&self.groups(*before).await?, unix_ms()),
            View::Group(id) => group(&self.group(visitor, id).await?, unix_ms()),
            View::Workers { page } => workers(&self.workers(visitor, *page).await?),
            View::Datasets { page } => datasets(&self.datasets(*page).await?),
            View::Compare(ids) => {
                let (compared, left_out) = self.compared(ids).await?;
                compare(&compared, &left_out)
            }
        })
    }
}

impl Dashboard {
    /// Refuses a page of a run or group that is not there.
    pub(super) async fn check_there(&self, view: &View) -> Result<(), Refusal> {
        let runs = &self.0.context.runs;
        match view {
            View::Run(id) => {
                runs.shown(id).await?;
            }
            View::Group(id) => {
                runs.group(id).await?;
            }
            View::Overview
            | View::Runs { .. }
            | View::Groups { .. }
            | View::Workers { .. }
            | View::Datasets { .. }
            | View::Compare(_) => {}
        }
        Ok(())
    }
}

impl Refusal {
    pub(super) fn new(status: StatusCode, heading: &'static str, text: impl Into<String>) -> Self {
        Self {
            status,
            heading,
            text: text.into(),
        }
    }

    pub(super) fn no_page() -> Self {
        let text = "There is no such page.";
        Self::new(StatusCode::NOT_FOUND, "Not found", text)
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let (code, heading) = match status.code() {
            Code::InvalidArgument => (StatusCode::BAD_REQUEST, "Not accepted"),
            Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "Log in"),
            Code::PermissionDenied => (StatusCode::FORBIDDEN, "Not allowed"),
            Code::NotFound => (StatusCode::NOT_FOUND, "Not found"),
            Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => {
                (StatusCode::CONFLICT, "Not possible now")
            }
            Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "Too much at once"),
            Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Not available now"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "It did not work"),
        };
        Self::new(code, heading, status.message())
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Status::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_pages() {
        let run = |id: &str| Some(View::Run(RunId::new(id).unwrap()));
        for (path, query, view) in [
            ("/", "", Some(View::Overview)),
            ("/runs", "before=12", Some(View::Runs { before: Some(12) })),
            ("/runs", "before=x", Some(View::Runs { before: None })),
            ("/runs/dr-1", "", run("dr-1")),
            ("/runs/<script>", "", None),
            ("/runs/dr-1/nothing", "", None),
            (
                "/groups",
                "before=7",
                Some(View::Groups { before: Some(7) }),
            ),
            (
                "/groups/lr-g7",
                "",
                Some(View::Group(GroupId::new("lr-g7").unwrap())),
            ),
            ("/groups/<script>", "", None),
            ("/workers", "page=3", Some(View::Workers { page: 3 })),
            (
                "/compare",
                "run=a-1&x=y&run=b%2D2",
                Some(View::Compare(vec!["a-1".into(), "b-2".into()])),
            ),
            ("/metrics", "", None),
        ] {
            assert_eq!(View::parse(path, query), view, "{path}?{query}");
        }
    }
}
