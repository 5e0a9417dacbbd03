//! What every request passes before its service: the protocol's version, the framing of its body,
//! and the count of its connection's open streams.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use fovea_proto::{PROTOCOL, UserAgent};
use http::{HeaderMap, Request, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use prost::bytes::Bytes;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::connection::{ConnectionInfo, OpenStream};
use super::framing::CheckedBody;
use crate::access::Caller;

/// A request whose body is silent for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// Methods whose clients may be silent. A session has its own deadline, by heartbeats.
const MAY_BE_SILENT: [&str; 3] = [
    "/fovea.v1.Workers/Session",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Puts a [`Gate`] before a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GateLayer;

/// A service that is reached only by well-formed requests of clients that speak this protocol.
#[derive(Debug, Clone)]
pub(crate) struct Gate<S>(S);

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate(inner)
    }
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Err(refused) = check_protocol(request.headers()) {
            return Box::pin(async move { Ok(refused.into_http()) });
        }
        let info = request.extensions().get::<ConnectionInfo>().cloned();
        let stream = info.as_ref().map(ConnectionInfo::open_stream);
        if let Some(info) = info {
            // By this, services know who asks: `Request::remote_addr`.
            request.extensions_mut().insert(Caller {
                identity: info.peer,
                token: None,
                address: info.tcp.remote_addr,
            });
            request.extensions_mut().insert(info.tcp);
        }
        let silent = MAY_BE_SILENT.contains(&request.uri().path());
        let silence = (!silent).then_some(SILENCE);
        let request = request.map(|body| Body::new(CheckedBody::new(body, silence)));
        let answer = self.0.call(request);
        Box::pin(async move {
            let response = blame_the_client(answer.await?);
            Ok(response.map(|body| {
                Body::new(CountedBody {
                    body,
                    _open: stream,
                })
            }))
        })
    }
}

/// Refuses a client of Fovea that speaks another version of the protocol. Other programs (grpcurl,
/// health probes) name no version and pass.
fn check_protocol(headers: &HeaderMap) -> Result<(), Status> {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok());
    let Some(UserAgent { program, protocol }) = agent.and_then(UserAgent::parse) else {
        return Ok(());
    };
    if protocol == PROTOCOL {
        return Ok(());
    }
    let cure = if protocol > PROTOCOL {
        "upgrade the coordinator"
    } else {
        "upgrade the client or worker"
    };
    Err(Status::failed_precondition(format!(
        "this coordinator (fovea/{}) speaks protocol {PROTOCOL}, {program} speaks {protocol}: {cure}",
        env!("CARGO_PKG_VERSION")
    )))
}

/// tonic answers INTERNAL to a request without a message, which is the client's mistake.
fn blame_the_client(response: Response<Body>) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status)
            if status.code() == Code::Internal
                && status.message() == "Missing request message." =>
        {
            Status::invalid_argument("the request has no message").into_http()
        }
        _ => response,
    }
}

/// An answer's body; the stream counts as open until it is dropped.
struct CountedBody {
    body: Body,
    _open: Option<OpenStream>,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused_by_name_and_strangers_pass() {
        let check = |agent: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, agent.parse().unwrap());
            check_protocol(&headers)
        };
        assert!(check_protocol(&HeaderMap::new()).is_ok());
        for passes in [
            "grpcurl/1.9.1 grpc-go/1.61",
            "tonic/0.14.9",
            &fovea_proto::user_agent(),
        ] {
            assert!(check(passes).is_ok(), "{passes}");
        }
        let newer = check("fovea/0.9.0 protocol/3 tonic/0.14.9").unwrap_err();
        assert_eq!(newer.code(), Code::FailedPrecondition);
        let text = newer.message();
        assert!(
            text.contains("fovea/0.9.0 speaks 3: upgrade the coordinator"),
            "{text}"
        );
        let older = check("fovea/0.0.9 protocol/1 tonic/0.14.9").unwrap_err();
        assert!(older.message().contains("upgrade the client"), "{older}");
    }
}
