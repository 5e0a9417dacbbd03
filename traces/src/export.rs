//! Ended spans on their way to the collector: a bounded queue, and the task that empties it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tracing::{info, warn};

use crate::connect::channel;
use crate::settings::{Settings, TracesError};
use crate::span::{Traces, Value, attribute};

/// Spans that wait for the collector, at most. What comes on top is dropped.
pub const QUEUE: usize = 2048;
/// Spans of one request, at most.
const BATCH: usize = 512;
/// How long the first span of a request waits for others.
const LINGER: Duration = Duration::from_millis(500);
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first and the longest pause after a request that failed.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Who sends spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// `service.name`.
    pub service: &'static str,
    /// `service.version`.
    pub version: &'static str,
    /// `service.instance.id`.
    pub instance: String,
}

/// The way to the export task.
#[derive(Debug)]
pub(crate) struct Queue {
    spans: mpsc::Sender<Span>,
    dropped: AtomicU64,
    /// Since spans came through last, it was said that some are dropped.
    said: AtomicBool,
}

impl Queue {
    /// Takes a span. It never waits.
    pub(crate) fn add(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.drop_spans(1, "the collector does not take them as fast as they come");
        }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn drop_spans(&self, spans: usize, why: &str) {
        self.dropped.fetch_add(spans as u64, Ordering::Relaxed);
        if !self.said.swap(true, Ordering::Relaxed) {
            warn!(
                "traces.dropped: spans are dropped: {why}; /metrics counts them, and training does not wait for them"
            );
        }
    }
}

/// The task that sends spans.
#[derive(Debug)]
pub struct Exporter {
    task: JoinHandle<()>,
    closing: CancellationToken,
    queue: Arc<Queue>,
}

impl Traces {
    /// Starts to send spans.
    ///
    /// # Errors
    /// A file of the settings cannot be used. A collector that is away is no error.
    pub fn start(settings: Settings, resource: Resource) -> Result<(Self, Exporter), TracesError> {
        let client = TraceServiceClient::new(channel(&settings)?);
        // Read before each request; what is wrong with it should be known at the start.
        settings.metadata()?;
        let (spans, waiting) = mpsc::channel(QUEUE);
        let queue = Arc::new(Queue {
            spans,
            dropped: AtomicU64::new(0),
            said: AtomicBool::new(false),
        });
        let closing = CancellationToken::new();
        let sending = Sending {
            settings: Arc::new(settings),
            resource: described(resource),
            client,
            queue: Arc::clone(&queue),
            away: false,
        };
        let task = tokio::spawn(sending.run(waiting, closing.clone()));
        let exporter = Exporter {
            task,
            closing,
            queue: Arc::clone(&queue),
        };
        Ok((Self::new(queue), exporter))
    }
}

impl Exporter {
    /// Sends what waits, for at most `limit`. Spans that end later are dropped.
    pub async fn close(mut self, limit: Duration) {
        self.closing.cancel();
        if timeout(limit, &mut self.task).await.is_err() {
            self.task.abort();
            let waiting = QUEUE - self.queue.spans.capacity();
            if waiting > 0 {
                let why = format!("{waiting} were left when the program ended");
                self.queue.drop_spans(waiting, &why);
            }
        }
    }
}

fn described(resource: Resource) -> Vec<KeyValue> {
    let Resource {
        service,
        version,
        instance,
    } = resource;
    [
        ("service.name", service),
        ("service.version", version),
        ("service.instance.id", &instance),
    ]
    .map(|(key, value)| attribute(key, Value::from(value)))
    .to_vec()
}

struct Sending {
    settings: Arc<Settings>,
    resource: Vec<KeyValue>,
    client: TraceServiceClient<Channel>,
    queue: Arc<Queue>,
    /// The last request failed, and this was said.
    away: bool,
}

impl Sending {
    async fn run(mut self, mut waiting: mpsc::Receiver<Span>, closing: CancellationToken) {
        let mut batch = Vec::new();
        while !closing.is_cancelled() {
            tokio::select! {
                () = closing.cancelled() => break,
                taken = waiting.recv_many(&mut batch, BATCH) => if taken == 0 { return },
            }
            // Spans come seldom, and several at a time.
            tokio::select! {
                () = closing.cancelled() => break,
                () = sleep(LINGER) => {}
            }
            fill(&mut batch, &mut waiting);
            if self.send_again(&batch, &closing).await {
                batch.clear();
            }
        }
        waiting.close();
        loop {
            fill(&mut batch, &mut waiting);
            if batch.is_empty() {
                return;
            }
            if let Err(status) = self.send(&batch).await {
                self.queue.drop_spans(batch.len(), &reason(&status));
            }
            batch.clear();
        }
    }

    /// Sends a batch, again and again while the collector is away. False: the program ends before it was sent.
    async fn send_again(&mut self, batch: &[Span], closing: &CancellationToken) -> bool {
        let mut pause = PAUSES.0;
        loop {
            let sent = tokio::select! {
                () = closing.cancelled() => return false,
                sent = self.send(batch) => sent,
            };
            match sent {
                Ok(()) => {
                    self.queue.said.store(false, Ordering::Relaxed);
                    if std::mem::take(&mut self.away) {
                        let dropped = self.queue.dropped();
                        info!(
                            dropped,
                            "traces.sent: the collector at {} takes spans again",
                            self.settings.endpoint
                        );
                    }
                    return true;
                }
                Err(status) if !is_transient(status.code()) => {
                    let why = format!(
                        "the collector at {} refuses them: {}",
                        self.settings.endpoint,
                        reason(&status)
                    );
                    self.queue.drop_spans(batch.len(), &why);
                    return true;
                }
                Err(status) => {
                    if !std::mem::replace(&mut self.away, true) {
                        warn!(
                            "traces.unsent: spans cannot be sent to the collector at {} (otlp_endpoint): {}; {QUEUE} of them \
                             wait for it at most",
                            self.settings.endpoint,
                            reason(&status)
                        );
                    }
                }
            }
            tokio::select! {
                () = closing.cancelled() => return false,
                () = sleep(pause) => pause = (pause * 2).min(PAUSES.1),
            }
        }
    }

    async fn send(&mut self, batch: &[Span]) -> Result<(), Status> {
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(OtlpResource {
                    attributes: self.resource.clone(),
                    ..OtlpResource::default()
                }),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: "fovea".into(),
                        ..InstrumentationScope::default()
                    }),
                    spans: batch.to_vec(),
                    schema_url: String::new(),
                }],
                schema_url: String::new(),
            }],
        };
        let mut request = Request::new(request);
        if self.settings.has_headers() {
            let settings = Arc::clone(&self.settings);
            let read = tokio::task::spawn_blocking(move || settings.metadata()).await;
            // A file that is being exchanged may be there in a moment.
            let unusable = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
            *request.metadata_mut() = read.map_err(|e| unusable(&e))?.map_err(|e| unusable(&e))?;
        }
        let late = |_| Status::deadline_exceeded(format!("no answer within {PATIENCE:?}"));
        let sent = timeout(PATIENCE, self.client.export(request));
        let answer = sent.await.map_err(late)??.into_inner();
        if let Some(partial) = answer.partial_success
            && partial.rejected_spans > 0
        {
            let rejected = usize::try_from(partial.rejected_spans).unwrap_or_default();
            self.queue.drop_spans(rejected, &partial.error_message);
        }
        Ok(())
    }
}

/// More of what waits, without waiting.
fn fill(batch: &mut Vec<Span>, waiting: &mut mpsc::Receiver<Span>) {
    while batch.len() < BATCH
        && let Ok(span) = waiting.try_recv()
    {
        batch.push(span);
    }
}

/// As OTLP has it: what may be sent again.
fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            | Code::ResourceExhausted
            // As tonic reports a connection that broke.
            | Code::Unknown
    )
}

/// What went wrong, with its causes.
fn reason(status: &Status) -> String {
    let mut text = match status.message() {
        "" => status.code().to_string(),
        message => message.to_owned(),
    };
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
