//! What the operator does to a running bus, by the socket in the data folder. It is served to nobody else: the socket's
//! mode is what keeps others out.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as FromState;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use firehose_log::Cursor;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

use crate::problem::Problem;
use crate::{router, service};

/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Carries out what the operator asks for. Every call may wait for the disk.
pub trait Operator: Send + Sync {
    /// Takes an event back, and tells everyone that an event was.
    ///
    /// # Errors
    /// [`OperatorError`].
    fn redact(&self, cursor: &Cursor, reason: &str) -> Result<Value, OperatorError>;

    /// How the bus is; `reads_all`: after a look at every event in the log.
    fn diagnose(&self, reads_all: bool) -> Value;

    /// Trusts the clock again, so that events are deleted for their age.
    ///
    /// # Errors
    /// [`OperatorError`].
    fn accept_clock(&self) -> Result<Value, OperatorError>;
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperatorError {
    /// What was asked makes no sense: 400.
    Malformed(String),
    /// There is nothing it could be done to: 404.
    NotThere(String),
    /// It did not work, and has to be tried again: 503.
    Failed(String),
}

impl From<OperatorError> for Problem {
    fn from(error: OperatorError) -> Problem {
        match error {
            OperatorError::Malformed(why) => Problem::bad_request(why),
            OperatorError::NotThere(why) => Problem::new(StatusCode::NOT_FOUND, why),
            OperatorError::Failed(why) => Problem::unavailable(why),
        }
    }
}

/// Accepts there until the service stops. Each connection holds `alive`.
pub(crate) async fn accept(
    listener: UnixListener,
    operator: Arc<dyn Operator>,
    mut stopping: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
) {
    let routes = Router::new()
        .route("/v1/redactions", post(redact))
        .route("/v1/doctor", get(diagnose))
        .route("/v1/doctor/read", get(diagnose_reading))
        .route("/v1/clock", post(accept_clock))
        .fallback(router::not_found)
        .method_not_allowed_fallback(router::method_not_allowed)
        .with_state(operator);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = service::until(&mut stopping) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes.clone()));
                let alive = alive.clone();
                tokio::spawn(async move {
                    let _alive = alive;
                    if let Err(error) = serving.await {
                        tracing::debug!(%error, "a connection to the operator's socket ended");
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to the operator's socket was not accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// The body of `POST /v1/redactions`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Redaction {
    cursor: String,
    reason: String,
}

async fn redact(FromState(operator): FromState<Arc<dyn Operator>>, body: Bytes) -> Response {
    let asked: Redaction = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return Problem::bad_request(format!("the body: {error}")).into_response(),
    };
    match Cursor::parse(&asked.cursor) {
        Ok(cursor) => answer(move || operator.redact(&cursor, &asked.reason)).await,
        Err(error) => Problem::bad_request(format!("the cursor: {error}")).into_response(),
    }
}

async fn diagnose(FromState(operator): FromState<Arc<dyn Operator>>) -> Response {
    answer(move || Ok(operator.diagnose(false))).await
}

async fn diagnose_reading(FromState(operator): FromState<Arc<dyn Operator>>) -> Response {
    answer(move || Ok(operator.diagnose(true))).await
}

async fn accept_clock(FromState(operator): FromState<Arc<dyn Operator>>) -> Response {
    answer(move || operator.accept_clock()).await
}

/// Has it done on a thread that may wait for the disk.
async fn answer(work: impl FnOnce() -> Result<Value, OperatorError> + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => ([(header::CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response(),
        Ok(Err(error)) => Problem::from(error).into_response(),
        Err(error) => Problem::unavailable(error.to_string()).into_response(),
    }
}
