//! A collector in this process: takes spans by OTLP over gRPC and keeps them.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A span as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// `service.name` of its resource.
    pub service: String,
    /// The header `authorization` of the request.
    pub authorization: Option<String>,
    pub span: Span,
}

impl Received {
    /// The value of an attribute as a text; empty without it.
    pub fn get(&self, key: &str) -> String {
        text(&self.span.attributes, key)
    }

    /// Whether it ended well.
    pub fn is_ok(&self) -> bool {
        self.span
            .status
            .as_ref()
            .is_some_and(|status| status.code == 1)
    }

    /// Whether it is a part of `other`.
    pub fn is_child_of(&self, other: &Self) -> bool {
        self.span.trace_id == other.span.trace_id && self.span.parent_span_id == other.span.span_id
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    let value = found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref());
    match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

#[derive(Debug, Clone, Default)]
struct Kept {
    spans: Arc<Mutex<Vec<Received>>>,
    refuse: Option<tonic::Code>,
    hangs: Arc<AtomicBool>,
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if let Some(code) = self.refuse {
            return Err(Status::new(code, "not here"));
        }
        let authorization = request.metadata().get("authorization");
        let authorization = authorization.and_then(|value| value.to_str().ok());
        let authorization = authorization.map(str::to_owned);
        let mut kept = self.spans.lock().unwrap();
        for of in request.into_inner().resource_spans {
            let service = text(&of.resource.unwrap_or_default().attributes, "service.name");
            for span in of.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                kept.push(Received {
                    service: service.clone(),
                    authorization: authorization.clone(),
                    span,
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// The collector; it ends when it is dropped.
pub struct Receiver {
    pub address: SocketAddr,
    kept: Kept,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Listens at `address`; port 0 takes a free one.
    pub async fn start(address: &str) -> Self {
        Self::start_with(address, None).await
    }

    /// One that refuses all with this code.
    pub async fn refusing(code: tonic::Code) -> Self {
        Self::start_with("127.0.0.1:0", Some(code)).await
    }

    async fn start_with(address: &str, refuse: Option<tonic::Code>) -> Self {
        let listener = TcpListener::bind(address).await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let kept = Kept {
            refuse,
            ..Kept::default()
        };
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(kept.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move {
            server.await.expect("it serves");
        });
        Self {
            address,
            kept,
            task,
        }
    }

    /// It answers nobody any more.
    pub fn hang(&self) {
        self.kept.hangs.store(true, Ordering::Relaxed);
    }

    pub fn spans(&self) -> Vec<Received> {
        self.kept.spans.lock().unwrap().clone()
    }

    /// The spans as soon as `holds`.
    pub async fn until(&self, what: &str, holds: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let spans = self.spans();
            if holds(&spans) {
                return spans;
            }
            assert!(Instant::now() < end, "{what}: {spans:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}
